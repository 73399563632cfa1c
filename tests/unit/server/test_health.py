"""A health check is answered although the event loop is busy."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from micromegas_jupyter.flightsql import messages
from micromegas_jupyter.server import flight_service

if TYPE_CHECKING:
    import pytest


class Context:
    """A call whose messages are taken and sent in later turns of the loop, as gRPC does."""

    def __init__(self, *, is_slow: bool = False) -> None:
        self.is_slow = is_slow
        self.sent: list[bytes] = []

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    async def read(self) -> bytes:
        for _ in range(2):
            await asyncio.sleep(0)
        message: bytes = messages.HealthCheckRequest().SerializeToString()
        return message

    async def write(self, message: bytes) -> None:
        if self.is_slow:
            asyncio.get_running_loop().call_soon(time.sleep, 0.1)
        for _ in range(3):
            await asyncio.sleep(0)
        self.sent.append(message)


def test_a_check_that_comes_while_the_loop_is_busy_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flight_service, "_SHORT_SECONDS", 0.01)
    monkeypatch.setattr(flight_service, "_FEW", 0)

    async def scenario() -> list[bytes]:
        context: Any = Context()
        asking = asyncio.create_task(flight_service.HealthService().check(context))
        asyncio.get_running_loop().call_soon(time.sleep, 0.1)
        await asking
        sent: list[bytes] = context.sent
        return sent

    (reply,) = asyncio.run(scenario())

    assert messages.HealthCheckResponse.FromString(reply).status == messages.HealthCheckResponse.SERVING


def test_an_answer_that_is_sent_while_the_loop_is_busy_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flight_service, "_REQUEST_SECONDS", 0.01)
    context: Any = Context(is_slow=True)

    asyncio.run(flight_service.HealthService().check(context))

    assert len(context.sent) == 1
