"""The Jupyter server's half: its settings, the addresses that follow, and requests to kernels."""

import asyncio
from unittest.mock import AsyncMock

import pytest
from traitlets import TraitError

from micromegas_jupyter.auth.flows.jupyter import OutcomeRequest, Unknown, build_message
from micromegas_jupyter.server_extension import handlers
from micromegas_jupyter.server_extension.handlers import MAX_REQUESTS, KernelClient, MicromegasRelay, NoReply

REQUEST = OutcomeRequest(state_digest="a" * 64)


@pytest.mark.parametrize("url", ["lab.example.com", "https://lab.example.com/?a=b", "javascript:alert(1)"])
def test_a_configured_address_that_is_none_is_refused_and_the_hubs_left_out(url):
    with pytest.raises(TraitError, match=r"MicromegasRelay\.public_url must be"):
        MicromegasRelay(public_url=url)
    assert handlers.configured_base("", {"JUPYTERHUB_PUBLIC_URL": url}) == ""


@pytest.mark.parametrize("host", ["", "a b", "evil.example/path", "a@b", "a,b", "a\\b", "läb", "a:1:2", "a?b"])
def test_a_malformed_host_is_nothing(host):
    good = handlers.base_of_request(protocol="http", host="127.0.0.1:8888", base_url="/x/")
    assert good == "http://127.0.0.1:8888/x/"
    assert handlers.base_of_request(protocol="http", host=host, base_url="/") is None


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:9300/authorize?state=a.b&x=%2F", "/user/alice/demo/provider/authorize?state=a.b&x=%2F"),
        *((url, url) for url in (
            "https://id.example.com/authorize?state=a", "http://127.0.0.1:9301/authorize?state=a",
            "http://127.0.0.1:9300@evil.example/authorize?state=a", "https://127.0.0.1:9300/authorize?state=a",
            "http://127.0.0.1:93001/authorize?state=a")),
    ],
)  # fmt: skip
def test_the_pages_of_such_a_provider_alone_are_below_the_servers_base_url(url, address):
    paths = {"http://127.0.0.1:9300": "demo/provider"}

    assert handlers.address_for_browsers(url, paths=paths, base_url="/user/alice/") == address


@pytest.mark.parametrize(
    ("origin", "path"),
    [
        *((origin, "provider") for origin in (
            "http://127.0.0.1:9300/", "http://127.0.0.1", "https://127.0.0.1:9300", "http://id.example.com:9300",
            "http://127.0.0.1:9300\n", "http://127.0.0.1.example.com:9300")),
        *(("http://127.0.0.1:9300", path) for path in ("", "/a", "a/", "..", "a//b", "a?b")),
    ],
)  # fmt: skip
def test_a_providers_path_is_of_loopback_and_leads_nowhere_else(origin, path):
    good = {"http://127.0.0.1:9300": "provider", "http://localhost:80": "a/b-c_d", "http://[::1]:9300": "provider"}

    assert MicromegasRelay(provider_paths=good).provider_paths == good
    with pytest.raises(TraitError):
        MicromegasRelay(provider_paths={origin: path})


class Kernels(dict[str, object]):
    """The kernels of a server, as far as they are asked for here."""

    get_kernel = dict.__getitem__


def ask(monkeypatch, answer):
    monkeypatch.setattr(handlers, "request_by_control_channel", answer)
    monkeypatch.setattr(handlers, "REQUEST_TIMEOUT_SECONDS", 0.2)
    calls = KernelClient(Kernels({"kernel-1": object()}))
    assert asyncio.run(calls.request("kernel-2", REQUEST)) is NoReply.NO_KERNEL
    return asyncio.run(calls.request("kernel-1", REQUEST))


def test_a_reply_is_read_and_anything_else_is_silence_whose_text_is_not_logged(monkeypatch, caplog):
    async def silence(_manager, _content):
        await asyncio.Event().wait()

    answer, no_reply = AsyncMock(return_value=build_message(Unknown())), AsyncMock(return_value={"version": 7})
    fail = AsyncMock(side_effect=RuntimeError("code=one-time"))

    assert ask(monkeypatch, answer) == Unknown()
    assert [ask(monkeypatch, each) for each in (no_reply, silence, fail)] == [NoReply.TIMEOUT] * 3
    assert "RuntimeError" in caplog.text
    assert "one-time" not in caplog.text


def test_no_more_than_so_many_are_asked_at_once(monkeypatch):
    release = asyncio.Event()

    async def answer(_manager, _content):
        await release.wait()
        return build_message(Unknown())

    monkeypatch.setattr(handlers, "request_by_control_channel", answer)

    async def ask_all():
        calls = KernelClient(Kernels({"kernel-1": object()}))
        waiting = [asyncio.create_task(calls.request("kernel-1", REQUEST)) for _ in range(MAX_REQUESTS)]
        await asyncio.sleep(0)
        one_more = await calls.request("kernel-1", REQUEST)
        release.set()
        return [one_more, *await asyncio.gather(*waiting), await calls.request("kernel-1", REQUEST)]

    replies = asyncio.run(ask_all())

    assert replies[0] is NoReply.BUSY
    assert replies[1:] == [Unknown()] * (MAX_REQUESTS + 1)
