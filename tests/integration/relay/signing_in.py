"""One sign-in by redirect, step by step, in a browser without a window."""

from urllib.parse import parse_qs, urljoin, urlsplit

from micromegas_jupyter.demo.provider import scripted_person
from tests.integration.relay.servers import TIMEOUT_SECONDS


class SignIn:
    """A sign-in that a kernel waits for."""

    def __init__(self, kernel, *, logs_out_first=True):
        self.kernel = kernel
        self.browser = kernel.server.browser()
        self.start_url = kernel.start_url(logs_out_first=logs_out_first)
        self.authorization_url = ""

    @property
    def state(self):
        return parse_qs(urlsplit(self.authorization_url).query)["state"][0]

    @property
    def redirect_uri(self):
        return parse_qs(urlsplit(self.authorization_url).query)["redirect_uri"][0]

    def start(self, **options):
        answer = self.get(self.start_url, **options)
        self.authorization_url = answer.headers.get("Location", "")
        return answer

    def answer(self, sign_in=scripted_person.sign_in, **options):
        """Sign in at the provider and return the address that it sends the browser back to."""
        self.start()
        return sign_in(self.authorization_url, visit_callback=False, **options)

    def get(self, url, **options):
        return self.browser.get(url, **{"allow_redirects": False, "timeout": TIMEOUT_SECONDS, **options})

    def come_back(self, callback):
        """Open the callback and what it leads to, and return the last page's text."""
        handed_over = self.get(callback)
        assert handed_over.status_code == 303, handed_over.text
        return self.get(urljoin(callback, handed_over.headers["Location"])).text

    def still_works(self):
        """Whether the sign-in, whatever was tried before, comes to a good end now."""
        return "Signed in as Alice Martin." in self.come_back(self.answer())
