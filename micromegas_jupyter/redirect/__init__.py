"""What the parts of a redirect login share: names, messages, addresses, the last pages and their security headers.

Receiving the redirect is left to the receivers: the loopback listener and the Jupyter server extension.
"""

from micromegas_jupyter.redirect.ending import Ending
from micromegas_jupyter.redirect.pages import Page, failure_page, notice_page, success_page
from micromegas_jupyter.redirect.security_headers import SECURITY_HEADERS

__all__ = ["SECURITY_HEADERS", "Ending", "Page", "failure_page", "notice_page", "success_page"]
