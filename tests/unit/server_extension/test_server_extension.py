"""The Jupyter server's half: its settings, the addresses that follow, and requests to kernels."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from traitlets import TraitError
from traitlets.config import Config

import micromegas_jupyter
from micromegas_jupyter.auth.flows.jupyter import OutcomeRequest, Unknown, build_message
from micromegas_jupyter.server_extension import handlers
from micromegas_jupyter.server_extension.handlers import (
    MAX_REQUESTS,
    CallbackHandler,
    DoneHandler,
    KernelClient,
    MicromegasRelay,
    NoReply,
    StartHandler,
    _load_jupyter_server_extension,
    address_for_browsers,
    base_of_request,
    configured_base,
    load,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


VARIABLE = "KERNEL_MICROMEGAS_REDIRECT"


class App(SimpleNamespace):
    """What the extension uses of a server."""

    def __init__(self, config: dict[str, Any] | None = None) -> None:
        self.rules: list[Any] = []
        self.lines: list[str] = []
        super().__init__(
            config=Config({"MicromegasRelay": config or {}}),
            base_url="/x/",
            kernel_manager=object(),
            web_app=SimpleNamespace(add_handlers=lambda _host, rules: self.rules.extend(rules)),
            log=SimpleNamespace(info=lambda line, *_args: self.lines.append(line)),
        )


@pytest.fixture(autouse=True)
def _config_of_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers, "MicromegasRelay", lambda *, parent: MicromegasRelay(config=parent.config))


def test_jupyter_finds_the_extension_by_the_packages_name() -> None:
    points = micromegas_jupyter._jupyter_server_extension_points()

    assert points == [{"module": "micromegas_jupyter.server_extension.handlers"}]
    assert callable(_load_jupyter_server_extension)


def test_a_server_gets_the_addresses_and_its_kernels_are_told() -> None:
    app, environ = App(), {}

    load(app, environ)  # type: ignore[arg-type]

    assert [rule[1] for rule in app.rules[:3]] == [StartHandler, CallbackHandler, DoneHandler]
    assert all(rule[0].startswith("/x/micromegas") for rule in app.rules)
    assert environ == {VARIABLE: "/x/"}


def test_a_server_of_a_hub_offers_nothing() -> None:
    app, environ = App(), {"JUPYTERHUB_API_TOKEN": "t", VARIABLE: "/inherited/"}

    load(app, environ)  # type: ignore[arg-type]

    assert app.rules == []
    assert VARIABLE not in environ
    assert len(app.lines) == 1


def test_a_server_of_a_hub_whose_administrator_said_so_does() -> None:
    environ = {"JUPYTERHUB_API_TOKEN": "t", "JUPYTERHUB_PUBLIC_URL": "https://hub.example.com/user/alice"}
    app = App({"per_user_redirect": True})

    load(app, environ)  # type: ignore[arg-type]

    assert len(app.rules) == 4
    assert environ[VARIABLE] == "https://hub.example.com/user/alice/"


@pytest.mark.parametrize("url", ["lab.example.com", "https://lab.example.com/?a=b", "javascript:alert(1)"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(TraitError, match=r"MicromegasRelay\.public_url is not"):
        MicromegasRelay(public_url=url)


def test_what_was_configured_goes_before_what_the_hub_says() -> None:
    environ = {"JUPYTERHUB_PUBLIC_URL": "https://hub.example.com/user/alice"}

    assert configured_base("https://lab.example.com/", environ) == "https://lab.example.com/"
    assert configured_base("", environ) == "https://hub.example.com/user/alice/"
    assert configured_base("", {}) == ""


@pytest.mark.parametrize("value", ["", "hub.example.com", "javascript:alert(1)"])
def test_what_the_hub_does_not_say_usably_is_left_out(value: str) -> None:
    assert configured_base("", {"JUPYTERHUB_PUBLIC_URL": value}) == ""


def test_a_request_says_what_it_was_sent_to() -> None:
    base = base_of_request(protocol="http", host="127.0.0.1:8888", base_url="/x/")

    assert base == "http://127.0.0.1:8888/x/"


@pytest.mark.parametrize("host", ["", "a b", "evil.example/path", "a@b", "a,b", "a\\b", "läb", "a:1:2", "a?b"])
def test_a_malformed_host_is_nothing(host: str) -> None:
    assert base_of_request(protocol="http", host=host, base_url="/") is None


PATHS = {"http://127.0.0.1:9300": "demo/provider"}


def test_a_page_of_such_a_provider_is_below_the_servers_base_url_at_the_browsers_own_host() -> None:
    url = "http://127.0.0.1:9300/authorize?state=a.b&x=%2F"

    address = address_for_browsers(url, paths=PATHS, base_url="/user/alice/")

    assert address == "/user/alice/demo/provider/authorize?state=a.b&x=%2F"


@pytest.mark.parametrize(
    "url",
    [
        "https://id.example.com/authorize?state=a",
        "http://127.0.0.1:9301/authorize?state=a",
        "http://127.0.0.1:9300@evil.example/authorize?state=a",
        "https://127.0.0.1:9300/authorize?state=a",
        "http://127.0.0.1:93001/authorize?state=a",
    ],
)
def test_every_other_page_is_where_it_is(url: str) -> None:
    assert address_for_browsers(url, paths=PATHS, base_url="/") == url


def accepts(paths: dict[str, str]) -> bool:
    try:
        MicromegasRelay(provider_paths=paths)
    except TraitError:
        return False
    return True


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("http://127.0.0.1:9300", True),
        ("http://localhost:80", True),
        ("http://[::1]:9300", True),
        ("http://127.0.0.1:9300/", False),
        ("http://127.0.0.1", False),
        ("https://127.0.0.1:9300", False),
        ("http://id.example.com:9300", False),
        ("http://127.0.0.1:9300\n", False),
        ("http://127.0.0.1.example.com:9300", False),
    ],
)
def test_only_loopback_counts(text: str, is_one: bool) -> None:
    assert accepts({text: "provider"}) is is_one


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("provider", True),
        ("a/b-c_d", True),
        ("", False),
        ("/a", False),
        ("a/", False),
        ("..", False),
        ("a//b", False),
        ("a?b", False),
    ],
)
def test_a_path_leads_nowhere_else(text: str, is_one: bool) -> None:
    assert accepts({"http://127.0.0.1:9300": text}) is is_one


# Kernels


REQUEST = OutcomeRequest(state_digest="a" * 64)


class Kernels(dict[str, object]):
    """The kernels of a server, as far as they are asked for here."""

    def get_kernel(self, kernel_id: str) -> object:
        return self[kernel_id]


def ask(monkeypatch: pytest.MonkeyPatch, answer: Callable[[object, object], Awaitable[Any]]) -> object:
    monkeypatch.setattr(handlers, "request_by_control_channel", answer)
    calls = KernelClient(Kernels({"kernel-1": object()}))  # type: ignore[arg-type]
    return asyncio.run(calls.request("kernel-1", REQUEST))


def test_a_reply_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(_manager: object, _content: object) -> dict[str, object]:
        return build_message(Unknown())

    assert ask(monkeypatch, answer) == Unknown()


def test_what_is_no_reply_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(_manager: object, _content: object) -> dict[str, object]:
        return {"version": 7}

    assert ask(monkeypatch, answer) is NoReply.TIMEOUT


def test_a_kernel_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers, "REQUEST_TIMEOUT_SECONDS", 0.05)

    async def answer(_manager: object, _content: object) -> dict[str, object]:
        await asyncio.Event().wait()
        raise AssertionError

    assert ask(monkeypatch, answer) is NoReply.TIMEOUT


def test_a_defect_of_a_kernel_manager_is_silence_and_its_text_is_not_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(_manager: object, _content: object) -> dict[str, object]:
        raise RuntimeError("code=one-time")

    assert ask(monkeypatch, answer) is NoReply.TIMEOUT
    assert "RuntimeError" in caplog.text
    assert "one-time" not in caplog.text


def test_a_kernel_that_is_not_there_is_said_to_be_gone() -> None:
    calls = KernelClient(Kernels())  # type: ignore[arg-type]

    assert asyncio.run(calls.request("kernel-2", REQUEST)) is NoReply.NO_KERNEL


def test_no_more_than_so_many_are_asked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    release = asyncio.Event()

    async def answer(_manager: object, _content: object) -> dict[str, object]:
        await release.wait()
        return build_message(Unknown())

    monkeypatch.setattr(handlers, "request_by_control_channel", answer)

    async def ask_all() -> list[object]:
        calls = KernelClient(Kernels({"kernel-1": object()}))  # type: ignore[arg-type]
        waiting = [asyncio.create_task(calls.request("kernel-1", REQUEST)) for _ in range(MAX_REQUESTS)]
        await asyncio.sleep(0)
        one_more = await calls.request("kernel-1", REQUEST)
        release.set()
        return [one_more, *await asyncio.gather(*waiting), await calls.request("kernel-1", REQUEST)]

    replies = asyncio.run(ask_all())

    assert replies[0] is NoReply.BUSY
    assert replies[1:] == [Unknown()] * (MAX_REQUESTS + 1)
