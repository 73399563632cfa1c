"""The device, loopback, paste and Jupyter flows: what starts them, what they take, and how they end."""

import socket
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import pytest

from micromegas_jupyter.auth.flows.base import LoginRequest
from micromegas_jupyter.auth.flows.device import DeviceFlow
from micromegas_jupyter.auth.flows.jupyter import (
    MAX_LOGINS,
    Accepted,
    CallbackRequest,
    RedirectLogins,
    Started,
    StartRequest,
    Unknown,
    build_message,
    parse_reply,
)
from micromegas_jupyter.auth.flows.loopback import parse_loopback_address
from micromegas_jupyter.auth.flows.paste import MAX_PASTED_CHARACTERS, MAX_TRIES
from micromegas_jupyter.auth.provider import start_flow
from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import LoginFailed, ProviderMisbehaved, UsageError
from tests.fakes.pause import FakePause
from tests.fakes.ports import free_port
from tests.fakes.scripted_provider import Reply, Seen

KERNEL_ID = "4f72b256-c23a-4a31-bdf9-f9fbbb6ed380"


@pytest.fixture
def context(idp, calls, clock):
    connection = ProviderConnection(idp.issuer, "notebook", None, http=calls, clock=clock)
    return lambda **options: LoginRequest(connection=connection, **options)


def sign_in(idp, url):
    """Return the address that the person's browser ends at."""
    asked = dict(parse_qsl(urlsplit(url or "").query))
    return idp.handle(Seen(method="GET", path="/authorize", query=asked, form={}, headers={})).headers["Location"]


# Starting


def test_a_flow_without_its_server_or_off_loopback_is_refused_before_the_provider_is_asked(context, idp):
    for flow in (Flow.REDIRECT, Flow.HUB):
        with pytest.raises(UsageError, match=flow.value):
            start_flow(flow, context())
    for flow in (Flow.BROWSER, Flow.PASTE):
        with pytest.raises(UsageError):
            start_flow(flow, context(redirect_uri="https://lake.example.com/callback"))
    assert idp.requests == []


def test_a_request_that_cannot_be_built_leaves_no_port_taken(context, idp):
    idp.metadata_changes["code_challenge_methods_supported"] = ["plain"]
    port = free_port()

    with pytest.raises(ProviderMisbehaved):
        start_flow(Flow.BROWSER, context(redirect_uri=f"http://127.0.0.1:{port}/callback"))

    with socket.create_server(("127.0.0.1", port)) as again:
        assert again.getsockname()[1] == port


@pytest.mark.parametrize(
    ("uri", "registered", "bind_host"),
    [
        (None, "http://127.0.0.1:48080/callback", "127.0.0.1"),
        ("http://localhost:9999/oauth/callback", "http://localhost:9999/oauth/callback", "127.0.0.1"),
        ("http://localhost/callback", "http://localhost:48080/callback", "127.0.0.1"),
        ("http://127.0.0.1:8765", "http://127.0.0.1:8765/", "127.0.0.1"),
        ("http://[::1]:7000/callback", "http://[::1]:7000/callback", "::1"),
    ],
)
def test_a_fixed_uri_on_loopback_is_used_as_registered(uri, registered, bind_host, context):
    login = start_flow(Flow.PASTE, context(redirect_uri=uri, resource="https://lake.example.com"))

    asked = dict(parse_qsl(urlsplit(login.prompt.start_url or "").query))
    assert (asked["redirect_uri"], asked["resource"]) == (registered, "https://lake.example.com")
    assert parse_loopback_address(uri).bind_host == bind_host


@pytest.mark.parametrize(
    "uri",
    [
        "http://example.com:48080/callback",
        "http://0.0.0.0:48080/callback",
        "http://127.0.0.2:48080/callback",
        "http://127.0.0.1.example.com:1/callback",
        "https://127.0.0.1:48080/callback",
        "http://127.0.0.1@example.com:1/",
        "http://alice@127.0.0.1:1/callback",
        "http://127.0.0.1:1/callback?a=1",
        "http://127.0.0.1:1/callback#a",
        "http://127.0.0.1:99999/callback",
        "http://127.0.0.1:1/done",
        "http://127.0.0.1:1/start/x",
        "http://[::1",
        "urn:ietf:wg:oauth:2.0:oob",
        "",
    ],
)
def test_every_other_redirect_uri_is_a_usage_error(uri):
    with pytest.raises(UsageError):
        parse_loopback_address(uri)


# Device


@pytest.fixture
def pause(clock):
    return FakePause(clock)


@pytest.fixture
def device(context, pause):
    """A device sign-in whose pauses move the clock."""
    return DeviceFlow(context(), stopped=pause)


def pending_reply(error="authorization_pending"):
    return Reply(status=400, body={"error": error})


DOWN = Reply(status=503, body={})


@pytest.mark.parametrize(
    ("replies", "waited"),
    [
        (
            [pending_reply("slow_down"), pending_reply(), pending_reply("slow_down"), pending_reply()],
            [5, 10, 10, 10, 15, 15],
        ),
        ([DOWN] * 4, [5, 10, 20, 40, 60, 60]),
        ([DOWN, pending_reply()], [5, 10, 20, 5]),
    ],
    ids=["slow down", "down", "down for a while"],
)
def test_the_pace_follows_the_provider(replies, waited, device, pause, idp):
    for reply in replies:
        idp.reply_once("/token", reply)
    idp.reply_once("/keys", DOWN)  # tokens are not fetched before there are keys to check them with
    idp.device.decide(device.prompt.user_code)

    assert device.tokens() is not None
    assert pause.waited == waited
    assert len(idp.seen("/token")) == len(replies) + 1


def test_nobody_typing_the_code_ends_with_it_or_when_the_caller_says(device, pause, idp, context, clock):
    assert device.tokens() is None
    assert sum(pause.waited) == 600
    assert len(idp.seen("/token")) == 119  # the last pause ends with the code, and nothing is asked after that

    shorter = FakePause(clock)
    assert DeviceFlow(context(timeout_seconds=12.0), stopped=shorter).tokens() is None
    assert shorter.waited == [5, 5, 2]


# Paste


@pytest.fixture
def paste(context):
    return start_flow(Flow.PASTE, context(timeout_seconds=20.0))


MARKED = {
    "whole": lambda address: address,
    "with its question mark": lambda address: "?" + address.partition("?")[2],
    "without a scheme": lambda address: address.removeprefix("http://"),
    "angle brackets": lambda address: f"<{address}>",
    "fragment": lambda address: f"{address}#top",
    "a question mark in a value": lambda address: address.partition("?")[2] + "&session_state=a?b",
}


@pytest.mark.parametrize("mark", MARKED.values(), ids=MARKED.keys())
def test_an_address_is_taken_as_people_paste_it(mark, paste, idp):
    paste.submit(mark(sign_in(idp, paste.prompt.start_url)))

    assert paste.tokens() is not None
    assert "code_verifier" in idp.seen("/token")[0].form


def other_query(address, **changes):
    values = {**dict(parse_qsl(urlsplit(address).query)), **changes}
    return address.partition("?")[0] + "?" + urlencode({name: value for name, value in values.items() if value})


MISFITS = {
    "nothing": lambda address: "",
    "a bare address": lambda address: address.partition("?")[0],
    "the code alone": lambda address: parse_qs(urlsplit(address).query)["code"][0],
    "without a state": lambda address: other_query(address, state=None),
    "another state": lambda address: other_query(address, state="guess"),
    "the state twice": lambda address: address + "&state=" + parse_qs(urlsplit(address).query)["state"][0],
    "neither code nor error": lambda address: other_query(address, code=None),
    "too long": lambda address: address + "&x=" + "y" * MAX_PASTED_CHARACTERS,
    "too many parameters": lambda address: address + "&x=y" * 1000,
    "half a character": lambda address: address.replace("state=", "state=\ud800"),
    "another issuer": lambda address: other_query(address, iss="https://evil.example"),
    "no issuer": lambda address: other_query(address, iss=None),
}


@pytest.mark.parametrize(("name", "change"), MISFITS.items())
def test_a_text_that_is_not_this_sign_ins_address_may_be_tried_again(name, change, paste, idp):
    address = sign_in(idp, paste.prompt.start_url)
    with pytest.raises(ProviderMisbehaved if "issuer" in name else UsageError):
        paste.submit(change(address))
    paste.submit(address)

    with pytest.raises(UsageError):
        paste.submit(address)  # a fitting one is taken once
    assert paste.tokens() is not None
    assert len(idp.seen("/token")) == 1


def test_a_pasted_text_has_16_kibibytes_at_most(paste, idp):
    address = sign_in(idp, paste.prompt.start_url)
    with pytest.raises(UsageError, match="too long"):
        paste.submit(address.ljust(16 * 1024 + 1))
    paste.submit(address.ljust(16 * 1024))

    assert paste.tokens() is not None


def test_too_many_wrong_addresses_end_it(paste, idp):
    for text in ["wrong"] * MAX_TRIES + [sign_in(idp, paste.prompt.start_url)]:
        with pytest.raises(UsageError):
            paste.submit(text)

    with pytest.raises(LoginFailed):
        paste.tokens()


# Jupyter


class Notebook:
    """A kernel with one sign-in by redirect, asked as a server asks it."""

    def __init__(self, context):
        self.context = context
        self.redirects = RedirectLogins(kernel_id=KERNEL_ID, base_address="/x/")
        self.login = self.begin()

    def begin(self, **options):
        return start_flow(Flow.REDIRECT, self.context(timeout_seconds=10.0, **options), redirects=self.redirects)

    def ask(self, request):
        return parse_reply(self.redirects.reply_to(build_message(request)))

    def start(self, redirect_uri="https://lab.example.com/x/micromegas/callback", login=None):
        name = (login or self.login).prompt.start_url.removeprefix("/x/micromegas/start/")
        return self.ask(StartRequest(name=name, redirect_uri=redirect_uri))

    def answer(self, query):
        return self.ask(CallbackRequest(query=Secret(query)))


def state_of(started):
    return parse_qs(urlsplit(started.authorization_url.reveal()).query)["state"][0]


@pytest.fixture
def notebook(context):
    return Notebook(context)


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
def test_another_state_is_unknown_and_uses_nothing_up(notebook, change):
    state = state_of(notebook.start())

    assert notebook.answer(change(state)) == Unknown()
    assert notebook.answer(f"code=c&state={state}") == Accepted()


def test_the_start_address_can_be_opened_again_until_there_is_an_answer(notebook):
    first, second = notebook.start(), notebook.start()
    elsewhere = notebook.start("http://127.0.0.1:8888/micromegas/callback")

    assert first == second
    assert notebook.answer(f"code=c&state={state_of(first)}") == Unknown()
    assert notebook.answer(f"code=c&state={state_of(elsewhere)}") == Accepted()
    assert notebook.start() == Unknown()


@pytest.mark.parametrize("redirect_uri", ["https://evil.example/elsewhere", "javascript:/micromegas/callback"])
def test_nothing_but_a_servers_callback_is_a_redirect_uri(notebook, redirect_uri):
    assert notebook.start(redirect_uri) == Unknown()


def test_a_malformed_request_is_said_before_anything_is_shown_and_nothing_comes_after_the_end(notebook):
    state = state_of(notebook.start())
    assert state.startswith(f"{KERNEL_ID}.")
    assert state not in (notebook.login.prompt.start_url or "")
    notebook.login.stop()

    assert notebook.login.tokens() is None
    assert (notebook.start(), notebook.answer(f"code=c&state={state}")) == (Unknown(), Unknown())
    with pytest.raises(UsageError, match="cannot be set"):
        notebook.begin(authorize_params={"redirect_uri": "https://evil.example"})


def test_the_oldest_of_too_many_is_forgotten_and_ended(notebook):
    logins = [notebook.begin() for _ in range(MAX_LOGINS - 1)]
    assert isinstance(notebook.start(), Started)
    logins.append(notebook.begin())

    assert notebook.login.tokens() is None
    assert notebook.start() == Unknown()
    assert isinstance(notebook.start(login=logins[-1]), Started)
