"""A person without a browser: signs in over the demo provider's pages and follows the way back to the application.

For `micromegas demo --check` and for tests. It reads pages as they are served; what they mean is the provider's.
"""

from __future__ import annotations

import logging
import threading
from typing import Self
from urllib.parse import parse_qs, urljoin, urlsplit

import requests

from micromegas_jupyter.demo.provider.forms import HtmlForm, parse_forms
from micromegas_jupyter.demo.provider.people import PASSWORD
from micromegas_jupyter.errors import LoginFailed, LoginTimedOut
from micromegas_jupyter.seams import SYSTEM_CLOCK
from micromegas_jupyter.settings.urls import LOOPBACK_HOSTS

_MAX_STEPS = 20
_MAX_PAGE_BYTES = 256 * 1024
_ANSWER_TIMEOUT_SECONDS = 10.0
_TOTAL_TIMEOUT_SECONDS = 30.0
_CHUNK_BYTES = 8192
_BAD_REQUEST = 400


def sign_in(
    url: str, *, person: str = "alice", password: str = PASSWORD, allow: bool = True, visit_callback: bool = True
) -> str:
    """Follow `url` through sign-in and consent, and return the URL at which the application got its answer.

    Args:
        url: An authorization URL, a start page on loopback that leads to one, or a device page.
        person: The short name of who signs in.
        password: The password to type.
        allow: Whether to allow what the application asks for.
        visit_callback: Whether to fetch that last URL, and what it leads to, as a browser would.

    Raises:
        LoginFailed: A page was not what it should be, or an address was not on this machine.
        LoginTimedOut: It took longer than 30 seconds.
    """
    with _Walk(person=person, password=password, allow=allow) as walk:
        return walk.follow(url, visit_callback=visit_callback)


class ScriptedPerson:
    """Implements `seams.Browser`: each opened page is dealt with on a thread. A context manager that waits at exit.

    Args:
        person: The short name of who signs in.
        password: The password to type.
        allow: Whether to allow what the application asks for.
    """

    def __init__(self, *, person: str = "alice", password: str = PASSWORD, allow: bool = True) -> None:
        self._person = person
        self._password = password
        self._allow = allow
        self._threads: list[threading.Thread] = []
        self._failure: LoginFailed | None = None

    def open(self, url: str) -> bool:
        """Begin to follow `url` and return at once."""
        thread = threading.Thread(target=self._follow, args=(url,), name="scripted-person", daemon=True)
        self._threads.append(thread)
        thread.start()
        return True

    def wait(self) -> None:
        """Wait until all opened pages are dealt with.

        Raises:
            LoginFailed: One of them could not be.
        """
        while self._threads:
            self._threads.pop().join(_TOTAL_TIMEOUT_SECONDS + _ANSWER_TIMEOUT_SECONDS)
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        if kind is None:
            self.wait()

    def _follow(self, url: str) -> None:
        try:
            sign_in(url, person=self._person, password=self._password, allow=self._allow)
        except LoginFailed as failure:
            self._failure = failure


class _Walk:
    """One person's way, with a cookie jar of its own and an end to its patience."""

    def __init__(self, *, person: str, password: str, allow: bool) -> None:
        self._person = person
        self._password = password
        self._allow = allow
        self._deadline = SYSTEM_CLOCK.monotonic() + _TOTAL_TIMEOUT_SECONDS
        self._session = requests.Session()
        # No proxy and no password file of the environment: all of it stays on this machine.
        self._session.trust_env = False
        _keep_queries_out_of_the_log()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._session.close()

    def follow(self, url: str, *, visit_callback: bool) -> str:
        method, fields = "get", None
        has_answered = False
        answer_url: str | None = None
        for _step in range(_MAX_STEPS):
            if answer_url is None and _is_answer(url):
                answer_url = url
                if not visit_callback:
                    return answer_url
            page_url, html, next_url = self._fetch(url, method=method, fields=fields)
            if next_url is not None:
                url, method, fields = next_url, "get", None
                continue
            if answer_url is not None:
                return answer_url
            filled = self._fill_in(parse_forms(html, page_url=page_url))
            if filled is None:
                if has_answered:
                    return page_url
                raise LoginFailed("The scripted sign-in met a page that it does not know.")
            form, fields = filled
            has_answered = "decision" in fields
            url, method = form.action, form.method
        raise LoginFailed("The scripted sign-in was sent around in circles.")

    def _fill_in(self, forms: list[HtmlForm]) -> tuple[HtmlForm, dict[str, str]] | None:
        for form in forms:
            if self._person in form.values_of("person"):
                return form, {**form.fields, "password": self._password, "person": self._person}
            if "allow" in form.values_of("decision"):
                return form, {**form.fields, "decision": "allow" if self._allow else "deny"}
            if form.fields.get("user_code"):
                return form, form.fields
        return None

    def _fetch(self, url: str, *, method: str, fields: dict[str, str] | None) -> tuple[str, str, str | None]:
        if urlsplit(url).hostname not in LOOPBACK_HOSTS:
            raise LoginFailed("The scripted sign-in was sent away from this machine.")
        left = self._deadline - SYSTEM_CLOCK.monotonic()
        if left <= 0:
            raise LoginTimedOut("The scripted sign-in took longer than 30 seconds.")
        try:
            with self._session.request(
                method,
                url,
                data=fields,
                timeout=min(left, _ANSWER_TIMEOUT_SECONDS),
                allow_redirects=False,
                stream=True,
            ) as response:
                if response.is_redirect:
                    return url, "", urljoin(url, response.headers["Location"])
                text = self._read(response)
                status = response.status_code
        except requests.RequestException:
            raise LoginFailed("A page of the scripted sign-in did not answer.") from None
        if status >= _BAD_REQUEST:
            raise LoginFailed(f"A page of the scripted sign-in answered with status {status}.")
        return url, text, None

    def _read(self, response: requests.Response) -> str:
        found = b""
        for chunk in response.iter_content(_CHUNK_BYTES):
            found += chunk
            if len(found) > _MAX_PAGE_BYTES:
                raise LoginFailed("A page of the scripted sign-in is too large.")
            if SYSTEM_CLOCK.monotonic() > self._deadline:
                raise LoginTimedOut("The scripted sign-in took longer than 30 seconds.")
        return found.decode("utf-8", "replace")


def _is_answer(url: str) -> bool:
    # RFC 6749 sections 4.1.2 and 4.1.2.1.
    return bool({"code", "error"} & parse_qs(urlsplit(url).query).keys())


class _WithoutQueries(logging.Filter):
    """urllib3 logs, at DEBUG, the path of each request with its query, and so codes."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                argument.partition("?")[0] if isinstance(argument, str) else argument for argument in record.args
            )
        return True


_WITHOUT_QUERIES = _WithoutQueries()


def _keep_queries_out_of_the_log() -> None:
    logging.getLogger("urllib3.connectionpool").addFilter(_WITHOUT_QUERIES)
