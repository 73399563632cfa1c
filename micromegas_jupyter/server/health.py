"""The standard health service, which is answered to anybody: one answer, or one whenever it changes.

Source: gRPC Health Checking Protocol, grpc.health.v1.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import grpc

from micromegas_jupyter.errors import DeadlineExceeded, ResourcesExhausted, ServerUnavailable, UsageError
from micromegas_jupyter.flightsql import messages
from micromegas_jupyter.flightsql.commands import parse_message
from micromegas_jupyter.server.headers import find_client_address

FLIGHT_SERVICE: Final = "arrow.flight.protocol.FlightService"
_HEALTH_SERVICE: Final = "/grpc.health.v1.Health"
_SERVICES: Final = frozenset({"", FLIGHT_SERVICE})
# Nobody has to say who they are here, so these calls must not use up what others may call.
_MAX_WATCHERS: Final = 64
_REQUEST_SECONDS: Final = 1.0
# A message takes memory from when it is waited for, and may announce as much as any other before it is known: few are
# waited for so long. The message of a real probe comes with its call.
_FEW: Final = 8
_SHORT_SECONDS: Final = 0.1
_LATE_SECONDS: Final = 0.05
_MAX_READING: Final = 64

HealthMethod = Callable[[grpc.aio.ServicerContext[bytes, bytes]], Awaitable[None]]


class HealthService:
    """Tells whether the server takes calls. Belongs to one event loop."""

    def __init__(self) -> None:
        self._is_draining = asyncio.Event()
        self._watcher_count = 0
        # Whose message is waited for, in the order of their calls, each with the client's address.
        self._reading: dict[asyncio.Task[object], str] = {}

    @property
    def methods(self) -> Mapping[str, HealthMethod]:
        """What answers each method, by its full name."""
        return {f"{_HEALTH_SERVICE}/Check": self.check, f"{_HEALTH_SERVICE}/Watch": self.watch}

    def stop_serving(self) -> None:
        """Tell from now on that the server takes no calls."""
        self._is_draining.set()

    async def check(self, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        """Answer once."""
        if await self._asked_service(context) not in _SERVICES:
            await context.abort(grpc.StatusCode.NOT_FOUND, "This service is not served here.")
        await _send(context, self._status())

    async def watch(self, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        """Answer now and when the server begins to stop, which ends the call."""
        if self._watcher_count >= _MAX_WATCHERS:
            raise ResourcesExhausted(
                f"{_MAX_WATCHERS} clients watch the health already.", remedy="Ask with Check instead of Watch."
            )
        self._watcher_count += 1
        try:
            is_known = await self._asked_service(context) in _SERVICES
            told = self._status()
            await _send(context, told if is_known else messages.HealthCheckResponse.SERVICE_UNKNOWN)
            # It may have begun to stop since.
            await self._is_draining.wait()
            if is_known and told != self._status():
                await _send(context, self._status())
        finally:
            self._watcher_count -= 1
        raise ServerUnavailable("The server is stopping.", remedy="Try again when it runs again.")

    def _status(self) -> int:
        response = messages.HealthCheckResponse
        return int(response.NOT_SERVING if self._is_draining.is_set() else response.SERVING)

    async def _asked_service(self, context: grpc.aio.ServicerContext[bytes, bytes]) -> str:
        if len(self._reading) >= _MAX_READING:
            self._end_one()
        seconds = _REQUEST_SECONDS if len(self._reading) < _FEW else _SHORT_SECONDS
        reading: asyncio.Task[object] = asyncio.ensure_future(context.read())
        self._reading[reading] = find_client_address(context.peer(), {}, frozenset())
        try:
            await _wait_for(reading, seconds)
        finally:
            self._reading.pop(reading, None)
            if not reading.done():
                reading.cancel()
        if not reading.done():
            raise DeadlineExceeded("The health check's message did not come in time.")
        if reading.cancelled():
            raise ResourcesExhausted(f"{_MAX_READING} clients ask for the health already.", remedy="Ask again.")
        message = reading.result()
        if not isinstance(message, bytes):
            raise UsageError("The health check carries no message.")
        return str(parse_message(messages.HealthCheckRequest, message).service)

    def _end_one(self) -> None:
        """End the wait for whoever is silent longest at the address with the most of them."""
        ((busiest, _),) = Counter(self._reading.values()).most_common(1)
        longest = next(reading for reading, address in self._reading.items() if address == busiest)
        del self._reading[longest]
        longest.cancel()


async def _wait_for(task: "asyncio.Task[object]", seconds: float) -> None:
    """Wait so long, and once more where the loop was busy meanwhile: it may not have come to what it was told."""
    loop = asyncio.get_running_loop()
    due_at = loop.time() + seconds
    await asyncio.wait({task}, timeout=seconds)
    if not task.done() and loop.time() - due_at > _LATE_SECONDS:
        await asyncio.wait({task}, timeout=seconds)


async def _send(context: grpc.aio.ServicerContext[bytes, bytes], status: int) -> None:
    answer: bytes = messages.HealthCheckResponse(status=status).SerializeToString()
    sending: asyncio.Task[object] = asyncio.ensure_future(context.write(answer))
    try:
        await _wait_for(sending, _REQUEST_SECONDS)
    finally:
        if not sending.done():
            sending.cancel()
    if not sending.done():
        raise DeadlineExceeded("The client does not take the answer.")
    sending.result()
