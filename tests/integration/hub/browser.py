"""A person's browser without a window: follows redirects and fills in the certified provider's pages."""

from urllib.parse import urljoin, urlsplit

import requests

from micromegas_jupyter.demo.provider.scripted_person import parse_forms

TIMEOUT_SECONDS = 60
_MAX_STEPS = 40
_LOOPBACK = "127.0.0.1"


class HubBrowser:
    """One browser, with cookies of its own."""

    def __init__(self, hub_url, issuer):
        self.hub_url = hub_url
        self.visited = []
        self.session = requests.Session()
        self.session.trust_env = False
        self._issuer = issuer

    def visit(self, url, *, person):
        """Open an address, sign in wherever the provider asks, and return the page at the end."""
        method, fields = "GET", None
        for _step in range(_MAX_STEPS):
            assert urlsplit(url).hostname == _LOOPBACK
            self.visited.append(url)
            page = self.session.request(method, url, data=fields, timeout=TIMEOUT_SECONDS, allow_redirects=False)
            method, fields = "GET", None
            if page.is_redirect:
                url = urljoin(url, page.headers["Location"])
                continue
            forms = parse_forms(page.text, page_url=url) if url.startswith(self._issuer) else []
            if not forms:
                return page
            method, url, fields = "POST", forms[0].action, _filled_in(forms[0], person)
        raise AssertionError(f"no end: {self.visited[-3:]}")

    def open(self, url):
        """Open one address as a page in a tab and follow nothing."""
        return self.session.get(
            url, timeout=TIMEOUT_SECONDS, allow_redirects=False, headers={"Sec-Fetch-Dest": "document"}
        )

    def sign_in(self, person):
        page = self.visit(f"{self.hub_url}hub/home", person=person)
        assert page.status_code == requests.codes.ok, (self.visited, page.status_code)
        return page

    def sign_out(self):
        """Sign out of the Hub, as the link on its pages does; the provider is told nothing."""
        self.session.get(f"{self.hub_url}hub/logout", timeout=TIMEOUT_SECONDS, allow_redirects=False)


def _filled_in(form, person):
    if form.fields.get("prompt") == "login":
        return {**form.fields, "login": person, "password": "any"}
    return form.fields
