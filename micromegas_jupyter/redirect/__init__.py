"""What the parts of a redirect login share: names, messages, addresses, the last pages and their security headers.

Receiving the redirect is left to the receivers: the loopback listener and the Jupyter server extension.
"""

from micromegas_jupyter.redirect.pages import SECURITY_HEADERS, Ending, Page, failure_page, notice_page, success_page

__all__ = ["SECURITY_HEADERS", "Ending", "Page", "failure_page", "notice_page", "success_page"]
