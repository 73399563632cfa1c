from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import requests

from micromegas_jupyter.auth.flows.base import LoginContext
from micromegas_jupyter.auth.flows.loopback import LoopbackFlow
from micromegas_jupyter.auth.flows.pages import LoginOutcome
from micromegas_jupyter.auth.flows.pending import start_flow
from micromegas_jupyter.auth.login_request import LoginRequest
from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.config.client import Bearer, Flow
from micromegas_jupyter.core.system import SYSTEM_CLOCK, SYSTEM_RANDOMNESS
from micromegas_jupyter.errors import LoginRefused, ProviderMisbehaved, UsageError
from tests.fakes.scripted_browser import ScriptedBrowser
from tests.fakes.scripted_provider import Reply, ScriptedProvider

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def idp() -> Iterator[ScriptedProvider]:
    """A provider on a socket: a browser has to reach it."""
    with ScriptedProvider() as running:
        yield running


class Starter:
    """Starts sign-ins, and the browsers that come back to them."""

    def __init__(self, idp: ScriptedProvider) -> None:
        self._idp = idp
        self._logins: list[LoopbackFlow] = []
        self._browsers: list[ScriptedBrowser] = []

    def start(self, **options: object) -> LoopbackFlow:
        connection = ProviderConnection(self._idp.issuer, "notebook", None, http=None, clock=SYSTEM_CLOCK)
        request = LoginRequest(**{"timeout_seconds": 10.0, **options})  # type: ignore[arg-type]
        login = start_flow(
            Flow.BROWSER,
            LoginContext(request=request, connection=connection, clock=SYSTEM_CLOCK, randomness=SYSTEM_RANDOMNESS),
        )
        assert isinstance(login, LoopbackFlow)
        self._logins.append(login)
        return login

    def come_back(self, login: LoopbackFlow) -> ScriptedBrowser:
        browser = ScriptedBrowser()
        browser.open(login.prompt.start_url or "")
        self._browsers.append(browser)
        return browser

    def close(self) -> None:
        for login in self._logins:
            login.show(LoginOutcome(is_signed_in=True))
        for browser in self._browsers:
            browser.wait()
        for login in self._logins:
            login.close()


@pytest.fixture
def starter(idp: ScriptedProvider) -> Iterator[Starter]:
    starter = Starter(idp)
    yield starter
    starter.close()


def test_a_browser_that_comes_back_brings_tokens_and_sees_the_last_page(starter: Starter) -> None:
    login = starter.start()
    browser = starter.come_back(login)

    tokens = login.tokens()
    login.show(LoginOutcome(is_signed_in=True, who="Alice Example"))

    assert tokens is not None
    assert tokens.id_token is not None
    assert "Signed in as Alice Example." in browser.wait().last_page


def test_nobody_coming_back_is_no_token(starter: Starter, idp: ScriptedProvider) -> None:
    assert starter.start(timeout_seconds=0.05).tokens() is None
    assert idp.seen("/token") == []


def test_a_wait_that_was_stopped_is_no_token(starter: Starter, idp: ScriptedProvider) -> None:
    login = starter.start()
    login.stop()

    assert login.tokens() is None
    assert idp.seen("/token") == []


def test_a_refusal_ends_it(starter: Starter, idp: ScriptedProvider) -> None:
    idp.callback_changes.update(code=None, error="access_denied")
    login = starter.start()
    starter.come_back(login)

    with pytest.raises(LoginRefused):
        login.tokens()


def without_id_token(idp: ScriptedProvider) -> Reply:
    answer = idp.issue()
    del answer["id_token"]
    return Reply(body=answer)


def test_tokens_without_an_id_token_are_refused(starter: Starter, idp: ScriptedProvider) -> None:
    idp.reply_once("/token", without_id_token(idp))
    login = starter.start()
    starter.come_back(login)

    with pytest.raises(ProviderMisbehaved):
        login.tokens()


def test_where_the_access_token_is_wanted_none_is_needed(starter: Starter, idp: ScriptedProvider) -> None:
    idp.reply_once("/token", without_id_token(idp))
    login = starter.start(bearer=Bearer.ACCESS_TOKEN)
    starter.come_back(login)

    tokens = login.tokens()

    assert tokens is not None
    assert tokens.id_token is None


def test_where_the_access_token_is_wanted_an_id_token_is_still_checked(starter: Starter, idp: ScriptedProvider) -> None:
    idp.id_token_changes["nonce"] = "other"
    login = starter.start(bearer=Bearer.ACCESS_TOKEN)
    starter.come_back(login)

    with pytest.raises(ProviderMisbehaved):
        login.tokens()


def test_nothing_can_be_pasted(starter: Starter) -> None:
    with pytest.raises(UsageError):
        starter.start().submit("http://127.0.0.1/callback?code=c&state=s")


def test_closing_ends_the_listener_and_may_be_done_twice(starter: Starter) -> None:
    login = starter.start()

    login.close(linger_seconds=60)  # nobody came, so there is nobody to linger for
    login.close()

    with pytest.raises(requests.ConnectionError):
        requests.get(login.prompt.start_url or "", timeout=30)
