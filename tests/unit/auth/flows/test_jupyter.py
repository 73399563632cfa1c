"""The Jupyter redirect flow in the kernel: which callbacks it takes, and what it answers the server."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import requests

from micromegas_jupyter.auth.flows.base import LoginContext, LoginOutcome
from micromegas_jupyter.auth.flows.jupyter import (
    MAX_LOGINS,
    Accepted,
    CallbackRequest,
    Ended,
    OutcomeRequest,
    RedirectFlow,
    RedirectLogins,
    Reply,
    Request,
    Started,
    StartRequest,
    StillWorking,
    Unknown,
    build_message,
    digest_of,
    parse_reply,
)
from micromegas_jupyter.auth.provider import start_flow
from micromegas_jupyter.auth.provider_connection import LoginRequest, ProviderConnection
from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.core.secrets import Secret
from micromegas_jupyter.core.system import SYSTEM_CLOCK, SYSTEM_RANDOMNESS
from micromegas_jupyter.errors import LoginRefused, UsageError
from tests.fakes.scripted_provider import ScriptedProvider

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


KERNEL_ID = "4f72b256-c23a-4a31-bdf9-f9fbbb6ed380"
CALLBACK = "https://lab.example.com/x/micromegas/callback"
DEADLINE_SECONDS = 60


class Notebook:
    """A kernel with its redirects, asked as a server asks it."""

    def __init__(self, idp: ScriptedProvider) -> None:
        self.redirects = RedirectLogins(kernel_id=KERNEL_ID, base_address="/x/")
        self._idp = idp

    def begin(self, **options: object) -> RedirectFlow:
        connection = ProviderConnection(self._idp.issuer, "notebook", None, http=None, clock=SYSTEM_CLOCK)
        request = LoginRequest(**{"timeout_seconds": 10.0, **options})  # type: ignore[arg-type]
        login = start_flow(
            Flow.REDIRECT,
            LoginContext(request=request, connection=connection, clock=SYSTEM_CLOCK, randomness=SYSTEM_RANDOMNESS),
            redirects=self.redirects,
        )
        assert isinstance(login, RedirectFlow)
        return login

    def ask(self, request: Request) -> Reply | None:
        return parse_reply(self.redirects.reply_to(build_message(request)))

    def start(self, login: RedirectFlow, redirect_uri: str = CALLBACK) -> Started:
        reply = self.ask(StartRequest(name=name_of(login), redirect_uri=redirect_uri))
        assert isinstance(reply, Started)
        return reply

    def answer(self, query: str) -> Reply | None:
        return self.ask(CallbackRequest(query=Secret(query)))


def name_of(login: RedirectFlow) -> str:
    return (login.prompt.start_url or "").removeprefix("/x/micromegas/start/")


def state_of(started: Started) -> str:
    return parse_qs(urlsplit(started.authorization_url.reveal()).query)["state"][0]


def sign_in(started: Started) -> str:
    """Return the query that the provider sends the browser back with."""
    with requests.Session() as browser:
        browser.trust_env = False
        answer = browser.get(started.authorization_url.reveal(), allow_redirects=False, timeout=DEADLINE_SECONDS)
    assert answer.headers["Location"].startswith(CALLBACK)
    return urlsplit(answer.headers["Location"]).query


@pytest.fixture
def idp() -> Iterator[ScriptedProvider]:
    with ScriptedProvider() as running:
        yield running


@pytest.fixture
def notebook(idp: ScriptedProvider) -> Notebook:
    return Notebook(idp)


def test_the_start_address_names_the_kernel_and_nothing_of_the_request(notebook: Notebook) -> None:
    login = notebook.begin()

    started = notebook.start(login)

    assert name_of(login).startswith(f"{KERNEL_ID}.")
    assert state_of(started).startswith(f"{KERNEL_ID}.")
    assert state_of(started) not in (login.prompt.start_url or "")
    assert started.state_digest == digest_of(state_of(started))
    assert parse_qs(urlsplit(started.authorization_url.reveal()).query)["redirect_uri"] == [CALLBACK]


def test_an_answer_brings_tokens(notebook: Notebook) -> None:
    login = notebook.begin()
    query = sign_in(notebook.start(login))

    accepted = notebook.answer(query)
    tokens = login.tokens()

    assert accepted == Accepted()
    assert tokens is not None
    assert tokens.id_token is not None


def test_one_of_many_threads_hands_the_answer_over(notebook: Notebook) -> None:
    login = notebook.begin()
    query = f"code=c&state={state_of(notebook.start(login))}"
    barrier = threading.Barrier(8)
    replies: list[Reply | None] = []

    def hand_over() -> None:
        barrier.wait(DEADLINE_SECONDS)
        replies.append(notebook.answer(query))

    threads = [threading.Thread(target=hand_over) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_SECONDS)

    assert replies.count(Accepted()) == 1
    assert replies.count(Unknown()) == 7


@pytest.mark.parametrize(
    "change",
    [
        lambda state: "code=c",
        lambda state: "code=c&state=",
        lambda state: f"code=c&state={state}x",
        lambda state: f"code=c&state={state.swapcase()}",
        lambda state: f"code=c&state={state}&state={state}",
        lambda state: f"code=c&state={KERNEL_ID}.{'A' * 43}",
    ],
    ids=["missing", "empty", "longer", "case", "twice", "another"],
)
def test_another_state_is_unknown_and_uses_nothing_up(notebook: Notebook, change: Callable[[str], str]) -> None:
    login = notebook.begin()
    state = state_of(notebook.start(login))

    assert notebook.answer(change(state)) == Unknown()
    assert notebook.answer(f"code=c&state={state}") == Accepted()


def test_a_refusal_of_the_person_ends_the_sign_in(notebook: Notebook, idp: ScriptedProvider) -> None:
    login = notebook.begin()
    state = state_of(notebook.start(login))

    notebook.answer(urlencode({"error": "access_denied", "state": state, "iss": idp.issuer}))

    with pytest.raises(LoginRefused):
        login.tokens()


def test_the_start_address_can_be_opened_again_until_there_is_an_answer(notebook: Notebook) -> None:
    login = notebook.begin()
    first, second = notebook.start(login), notebook.start(login)
    notebook.answer(f"code=c&state={state_of(first)}")

    late = notebook.ask(StartRequest(name=name_of(login), redirect_uri=CALLBACK))

    assert first == second
    assert late == Unknown()


def test_another_address_of_the_server_begins_anew(notebook: Notebook) -> None:
    login = notebook.begin()
    first = notebook.start(login)

    second = notebook.start(login, "http://127.0.0.1:8888/micromegas/callback")

    assert state_of(first) != state_of(second)
    assert notebook.answer(f"code=c&state={state_of(first)}") == Unknown()
    assert notebook.answer(f"code=c&state={state_of(second)}") == Accepted()


@pytest.mark.parametrize("redirect_uri", ["https://evil.example/elsewhere", "javascript:/micromegas/callback"])
def test_nothing_but_a_servers_callback_is_a_redirect_uri(notebook: Notebook, redirect_uri: str) -> None:
    login = notebook.begin()

    assert notebook.ask(StartRequest(name=name_of(login), redirect_uri=redirect_uri)) == Unknown()


def test_how_it_ended_is_told_to_who_knows_the_state(notebook: Notebook) -> None:
    login = notebook.begin()
    started = notebook.start(login)
    notebook.answer(f"code=c&state={state_of(started)}")

    before = notebook.ask(OutcomeRequest(state_digest=started.state_digest))
    login.show(LoginOutcome(is_signed_in=True, who="Alice"))
    after = notebook.ask(OutcomeRequest(state_digest=started.state_digest))

    assert (before, after) == (StillWorking(), Ended(is_signed_in=True, who="Alice"))
    assert notebook.ask(OutcomeRequest(state_digest="0" * 64)) == Unknown()


def test_nobody_coming_in_time_is_no_token(notebook: Notebook) -> None:
    login = notebook.begin(timeout_seconds=0.05)
    state = state_of(notebook.start(login))

    assert login.tokens() is None
    assert notebook.answer(f"code=c&state={state}") == Unknown()


def test_the_oldest_of_too_many_is_forgotten_and_ended(notebook: Notebook) -> None:
    logins = [notebook.begin() for _ in range(MAX_LOGINS + 1)]

    assert logins[0].tokens() is None
    assert notebook.ask(StartRequest(name=name_of(logins[0]), redirect_uri=CALLBACK)) == Unknown()
    assert isinstance(notebook.start(logins[-1]), Started)


def test_what_is_wrong_with_the_request_is_said_before_anything_is_shown(notebook: Notebook) -> None:
    with pytest.raises(UsageError, match="cannot be set"):
        notebook.begin(authorize_params={"redirect_uri": "https://evil.example"})
