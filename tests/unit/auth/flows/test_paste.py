"""The paste flow takes what people paste, refuses what does not belong to the sign-in, and shows nothing of it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import pytest

from micromegas_jupyter.auth.flows.base import LoginContext
from micromegas_jupyter.auth.flows.paste import MAX_PASTED_CHARACTERS, MAX_TRIES, PasteFlow
from micromegas_jupyter.auth.provider import start_flow
from micromegas_jupyter.auth.provider_connection import LoginRequest, ProviderConnection
from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.core.system import SYSTEM_RANDOMNESS
from micromegas_jupyter.errors import (
    LoginFailed,
    LoginRefused,
    MicromegasError,
    ProviderMisbehaved,
    ProviderUnavailable,
    UsageError,
)
from tests.fakes.scripted_provider import DirectCalls, ScriptedProvider, Seen

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fakes.clock import FakeClock


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A sign-in that waits for an address, and the provider that makes one."""

    idp: ScriptedProvider
    login: PasteFlow

    def asked(self) -> dict[str, str]:
        start_url = self.login.prompt.start_url
        assert start_url is not None
        return dict(parse_qsl(urlsplit(start_url).query))

    def address(self) -> str:
        """Return where the person's browser ends."""
        seen = Seen(method="GET", path="/authorize", query=self.asked(), form={}, headers={})
        return self.idp.handle(seen).headers["Location"]


def start(idp: ScriptedProvider, clock: FakeClock, *, redirect_uri: str | None = None) -> Started:
    connection = ProviderConnection(idp.issuer, "notebook", None, http=DirectCalls(idp), clock=clock)
    request = LoginRequest(redirect_uri=redirect_uri, timeout_seconds=20.0)
    login = start_flow(
        Flow.PASTE, LoginContext(request=request, connection=connection, clock=clock, randomness=SYSTEM_RANDOMNESS)
    )
    assert isinstance(login, PasteFlow)
    return Started(idp=idp, login=login)


@pytest.fixture
def started(idp: ScriptedProvider, clock: FakeClock) -> Started:
    return start(idp, clock)


@pytest.mark.parametrize(
    ("redirect_uri", "expected"),
    [
        ("http://localhost:9999/oauth/callback", "http://localhost:9999/oauth/callback"),
        ("http://localhost/callback", "http://localhost:48080/callback"),
        ("http://[::1]:7000/callback", "http://[::1]:7000/callback"),
    ],
)
def test_a_configured_address_is_used_as_registered(
    redirect_uri: str, expected: str, idp: ScriptedProvider, clock: FakeClock
) -> None:
    assert start(idp, clock, redirect_uri=redirect_uri).asked()["redirect_uri"] == expected


def test_the_whole_address_signs_in(started: Started, idp: ScriptedProvider) -> None:
    started.login.submit(started.address())

    tokens = started.login.tokens()
    assert tokens is not None
    assert tokens.id_token is not None
    assert "code_verifier" in idp.seen("/token")[0].form


MARKED = {
    "query only": lambda address: address.partition("?")[2],
    "with its question mark": lambda address: "?" + address.partition("?")[2],
    "path and query": lambda address: "/callback?" + address.partition("?")[2],
    "without a scheme": lambda address: address.removeprefix("http://"),
    "white space around": lambda address: f"  {address}\r\n",
    "broken lines": lambda address: f"{address[:40]}\n  {address[40:]}",
    "double quotes": lambda address: f'"{address}"',
    "single quotes": lambda address: f"'{address}'",
    "angle brackets": lambda address: f"<{address}>",
    "typographic quotes": lambda address: f"\u201c{address}\u201d",
    "fragment": lambda address: f"{address}#top",
    "a question mark in a value": lambda address: address + "&session_state=a?b",
    "the same in a query only": lambda address: address.partition("?")[2] + "&session_state=a?b",
}


@pytest.mark.parametrize("mark", MARKED.values(), ids=MARKED.keys())
def test_an_address_is_taken_as_people_paste_it(mark: Callable[[str], str], started: Started) -> None:
    started.login.submit(mark(started.address()))

    assert started.login.tokens() is not None


def other_query(address: str, **changes: str | None) -> str:
    values = {**dict(parse_qsl(urlsplit(address).query)), **changes}
    return address.partition("?")[0] + "?" + urlencode({name: value for name, value in values.items() if value})


MISFITS = {
    "nothing": lambda started: "",
    "white space": lambda started: " \n ",
    "a sentence": lambda started: "it says that the site cannot be reached",
    "a bare address": lambda started: "http://127.0.0.1:48080/callback",
    "the code alone": lambda started: parse_qs(urlsplit(started.address()).query)["code"][0],
    "without a state": lambda started: other_query(started.address(), state=None),
    "another state": lambda started: other_query(started.address(), state="guess"),
    "the state twice": lambda started: started.address() + "&state=" + started.asked()["state"],
    "the page where it began": lambda started: started.login.prompt.start_url,
    "neither code nor error": lambda started: other_query(started.address(), code=None),
    "too long": lambda started: started.address() + "&x=" + "y" * MAX_PASTED_CHARACTERS,
    "too many parameters": lambda started: started.address() + "&x=y" * 1000,
    "half a character": lambda started: started.address().replace("state=", "state=\ud800"),
}


@pytest.mark.parametrize("make", MISFITS.values(), ids=MISFITS.keys())
def test_a_text_that_is_not_this_sign_ins_address_may_be_tried_again(
    make: Callable[[Started], str], started: Started, idp: ScriptedProvider
) -> None:
    with pytest.raises(UsageError) as caught:
        started.login.submit(make(started))
    started.login.submit(started.address())

    assert "paste the whole address" in caught.value.remedy
    assert started.login.tokens() is not None
    assert len(idp.seen("/token")) == 1


@pytest.mark.parametrize("change", [{"iss": "https://evil.example"}, {"iss": None}])
def test_an_answer_of_another_provider_may_be_tried_again(change: dict[str, str | None], started: Started) -> None:
    with pytest.raises(ProviderMisbehaved):
        started.login.submit(other_query(started.address(), **change))
    started.login.submit(started.address())

    assert started.login.tokens() is not None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ("access_denied", LoginRefused),
        ("invalid_scope", LoginRefused),
        ("temporarily_unavailable", ProviderUnavailable),
    ],
)
def test_a_refusal_ends_the_sign_in_as_in_a_browser(
    error: str, expected: type[MicromegasError], started: Started, idp: ScriptedProvider
) -> None:
    idp.callback_changes.update(code=None, error=error)
    started.login.submit(started.address())

    with pytest.raises(expected) as caught:
        started.login.tokens()
    assert type(caught.value) is expected
    assert idp.seen("/token") == []


def test_a_fitting_address_is_taken_once(started: Started, idp: ScriptedProvider) -> None:
    address = started.address()
    started.login.submit(address)

    with pytest.raises(UsageError):
        started.login.submit(address)
    started.login.tokens()
    with pytest.raises(UsageError):
        started.login.submit(address)
    assert len(idp.seen("/token")) == 1


def test_too_many_wrong_addresses_end_it(started: Started) -> None:
    for _ in range(MAX_TRIES):
        with pytest.raises(UsageError):
            started.login.submit("wrong")

    with pytest.raises(UsageError):
        started.login.submit(started.address())
    with pytest.raises(LoginFailed):
        started.login.tokens()


def test_nothing_of_a_pasted_text_is_shown_or_logged(started: Started, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    foreign = other_query(started.address(), iss="https://evil.example", code="s3cret-code")

    with pytest.raises(UsageError) as unfit:
        started.login.submit("http://127.0.0.1:48080/callback?code=s3cret-code&state=s3cret-state")
    with pytest.raises(ProviderMisbehaved) as misbehaved:
        started.login.submit(foreign)

    login = started.login
    shown = [str(unfit.value), str(misbehaved.value), repr(login), repr(login.prompt), repr(vars(login)), caplog.text]
    assert not [text for text in shown if "s3cret" in text or started.asked()["state"] in text]
