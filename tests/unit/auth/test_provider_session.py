from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth.logout import LogoutReport, RevocationCalls, build_end_session_url
from micromegas_jupyter.auth.provider_connection import ProviderConnection

if TYPE_CHECKING:
    from tests.fakes.clock import FakeClock
    from tests.fakes.scripted_provider import DirectCalls, ScriptedProvider


REPORT = LogoutReport(issuer="https://id.example.com", was_signed_in=True)


class Browser:
    """Implements `seams.Browser`: notes what it is to open."""

    def __init__(self, *, is_there: bool = True) -> None:
        self.opened: list[str] = []
        self._is_there = is_there

    def open(self, url: str) -> bool:
        self.opened.append(url)
        return self._is_there


@pytest.fixture
def connection(idp: ScriptedProvider, calls: DirectCalls, clock: FakeClock) -> ProviderConnection:
    idp.metadata_changes["end_session_endpoint"] = f"{idp.base}/end"
    return ProviderConnection(idp.issuer, "notebook", None, http=calls, clock=clock)


def test_the_providers_page_is_opened(connection: ProviderConnection, idp: ScriptedProvider, clock: FakeClock) -> None:
    browser = Browser()

    end = RevocationCalls(clock).end_session(REPORT, connection, browser)

    assert end == replace(REPORT, end_session_url=f"{idp.base}/end?client_id=notebook", end_session_opened=True)
    assert browser.opened == [end.end_session_url]


def test_without_a_browser_the_address_is_given(connection: ProviderConnection, clock: FakeClock) -> None:
    end = RevocationCalls(clock).end_session(REPORT, connection, Browser(is_there=False))

    assert end.end_session_url is not None
    assert not end.end_session_opened


def test_a_provider_without_such_a_page_is_said_so(
    connection: ProviderConnection, idp: ScriptedProvider, clock: FakeClock
) -> None:
    idp.metadata_changes["end_session_endpoint"] = None
    browser = Browser()

    end = RevocationCalls(clock).end_session(REPORT, connection, browser)

    assert end == replace(REPORT, end_session_problem="The identity provider has no page that ends a session.")
    assert browser.opened == []


def test_a_provider_that_is_down_is_said_so(
    connection: ProviderConnection, idp: ScriptedProvider, clock: FakeClock
) -> None:
    idp.is_down = True
    browser = Browser()

    end = RevocationCalls(clock).end_session(REPORT, connection, browser)

    assert end.end_session_problem is not None
    assert browser.opened == []


def test_the_address_keeps_the_parameters_of_the_provider_and_encodes_the_application() -> None:
    url = build_end_session_url("https://id.example.com/end?tenant=1", client_id="a b&c")

    assert url == "https://id.example.com/end?tenant=1&client_id=a+b%26c"
