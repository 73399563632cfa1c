"""What every way of ending a redirect login shares: the pages and their security headers.

Receiving the redirect is left to the receivers: the loopback listener and the Jupyter server extension.
"""

from micromegas_jupyter.redirect.pages import Page, failure_page, notice_page, success_page
from micromegas_jupyter.redirect.security_headers import SECURITY_HEADERS

__all__ = ["SECURITY_HEADERS", "Page", "failure_page", "notice_page", "success_page"]
