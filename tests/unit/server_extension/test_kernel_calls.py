from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from micromegas_jupyter.auth.flows.messages import OutcomeRequest, Unknown, build_reply
from micromegas_jupyter.server_extension import kernel_client
from micromegas_jupyter.server_extension.kernel_client import MAX_REQUESTS, KernelClient, NoReply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

REQUEST = OutcomeRequest(state_digest="a" * 64)


class Kernels(dict[str, object]):
    """The kernels of a server, as far as they are asked for here."""

    def get_kernel(self, kernel_id: str) -> object:
        return self[kernel_id]


def ask(monkeypatch: pytest.MonkeyPatch, answer: Callable[[object, object], Awaitable[Any]]) -> object:
    monkeypatch.setattr(kernel_client, "request_by_control_channel", answer)
    calls = KernelClient(Kernels({"kernel-1": object()}))  # type: ignore[arg-type]
    return asyncio.run(calls.request("kernel-1", REQUEST))


def test_a_reply_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(_manager: object, _content: object) -> dict[str, object]:
        return build_reply(Unknown())

    assert ask(monkeypatch, answer) == Unknown()


def test_what_is_no_reply_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(_manager: object, _content: object) -> dict[str, object]:
        return {"version": 7}

    assert ask(monkeypatch, answer) is NoReply.TIMEOUT


def test_a_kernel_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_client, "REQUEST_TIMEOUT_SECONDS", 0.05)

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
        return build_reply(Unknown())

    monkeypatch.setattr(kernel_client, "request_by_control_channel", answer)

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


@pytest.mark.parametrize("silence", NoReply)
def test_every_silence_says_what_happened_and_what_to_do(silence: NoReply) -> None:
    assert silence.value.endswith(".")
    assert silence.remedy.endswith(".")
