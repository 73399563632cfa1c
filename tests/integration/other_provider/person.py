"""A person without a browser at the other provider: its development pages, followed over HTTP."""

from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs, urljoin, urlsplit

import requests

from micromegas_jupyter.demo.provider.scripted_person import parse_forms

_MAX_STEPS = 30
_TIMEOUT_SECONDS = 60
_LOOPBACK = {"127.0.0.1", "localhost"}


class PersonStuck(RuntimeError):
    """The walk through the pages did not come to an end."""


def sign_in_other(url, *, person="alice", allow=True, visit_callback=True, user_code=None):
    """Follow `url` through the other provider's pages and return the URL at which the application got its answer.

    For a device page, which answers nobody, it is the URL of the last page; there the person types `user_code`. With
    `allow=False` the person presses Cancel where consent is asked.
    """
    answer = None
    has_cancelled = False
    method, fields = "GET", None
    with requests.Session() as session:
        session.trust_env = False
        for _step in range(_MAX_STEPS):
            if answer is None and {"code", "error"} & parse_qs(urlsplit(url).query).keys():
                answer = url
                if not visit_callback:
                    return answer
            assert urlsplit(url).hostname in _LOOPBACK
            page = session.request(method, url, data=fields, timeout=_TIMEOUT_SECONDS, allow_redirects=False)
            method, fields = "GET", None
            if page.is_redirect:
                url = urljoin(url, page.headers["Location"])
                continue
            page.raise_for_status()
            forms = parse_forms(page.text, page_url=url)
            if answer is not None or has_cancelled or not forms:
                return answer or url
            method, url, fields = _fill_in(forms[0], person=person, allow=allow, user_code=user_code)
            has_cancelled = url.endswith("/abort")
    raise PersonStuck(url)


def _fill_in(form, *, person, allow, user_code):
    if user_code is not None and form.fields.get("user_code") == "":
        return "POST", form.action, {**form.fields, "user_code": user_code}
    if form.fields.get("prompt") == "login":
        return "POST", form.action, {**form.fields, "login": person, "password": "any"}
    if form.fields.get("prompt") == "consent" and not allow:
        return "GET", f"{form.action}/abort", None
    return "POST", form.action, form.fields


class OtherScriptedPerson:
    """Implements `seams.Browser`; each opened page is dealt with on a thread. A context manager that waits at exit."""

    def __init__(self, *, person="alice", allow=True):
        self._manners = {"person": person, "allow": allow}
        self._threads = ThreadPoolExecutor()
        self._walks = []

    def open(self, url):
        self._walks.append(self._threads.submit(sign_in_other, url, **self._manners))
        return True

    def __enter__(self):
        return self

    def __exit__(self, kind, *_rest):
        self._threads.shutdown()
        if kind is None:
            for walk in self._walks:
                walk.result()
