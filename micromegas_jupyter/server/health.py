"""The standard health service, which is answered to anybody: one answer, or one whenever it changes.

Source: gRPC Health Checking Protocol, grpc.health.v1.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import grpc

from micromegas_jupyter.errors import DeadlineExceeded, ResourcesExhausted, ServerUnavailable, UsageError
from micromegas_jupyter.flightsql import messages
from micromegas_jupyter.flightsql.commands import parse_message

FLIGHT_SERVICE: Final = "arrow.flight.protocol.FlightService"
_HEALTH_SERVICE: Final = "/grpc.health.v1.Health"
_SERVICES: Final = frozenset({"", FLIGHT_SERVICE})
# Nobody has to say who they are here, so these calls must not use up what others may call.
_MAX_WATCHERS: Final = 64
_MAX_CHECKS: Final = 64
# A message takes memory from when it is waited for, and may announce as much as any other before it is known.
_MAX_READING: Final = 8
_REQUEST_SECONDS: Final = 1.0

HealthMethod = Callable[[grpc.aio.ServicerContext[bytes, bytes]], Awaitable[None]]


class HealthService:
    """Tells whether the server takes calls. Belongs to one event loop."""

    def __init__(self) -> None:
        self._is_draining = asyncio.Event()
        self._watcher_count = 0
        self._check_count = 0
        self._reading = asyncio.Semaphore(_MAX_READING)

    @property
    def methods(self) -> Mapping[str, HealthMethod]:
        """What answers each method, by its full name."""
        return {f"{_HEALTH_SERVICE}/Check": self.check, f"{_HEALTH_SERVICE}/Watch": self.watch}

    def stop_serving(self) -> None:
        """Tell from now on that the server takes no calls."""
        self._is_draining.set()

    async def check(self, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        """Answer once.

        Raises:
            UsageError: The request cannot be read.
            ResourcesExhausted: Too many ask at once.
            grpc.aio.AbortError: It asks about a service that is not here (NOT_FOUND, as the protocol says).
        """
        if self._check_count >= _MAX_CHECKS:
            raise ResourcesExhausted(f"{_MAX_CHECKS} clients ask for the health already.", remedy="Ask again.")
        self._check_count += 1
        try:
            if await self._asked_service(context) not in _SERVICES:
                await context.abort(grpc.StatusCode.NOT_FOUND, "This service is not served here.")
            await context.write(_answer(self._status()))
        finally:
            self._check_count -= 1

    async def watch(self, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        """Answer now and when the server begins to stop, which ends the call.

        Raises:
            UsageError: The request cannot be read.
            ResourcesExhausted: Too many watch already.
            ServerUnavailable: The server is stopping.
        """
        if self._watcher_count >= _MAX_WATCHERS:
            raise ResourcesExhausted(
                f"{_MAX_WATCHERS} clients watch the health already.", remedy="Ask with Check instead of Watch."
            )
        self._watcher_count += 1
        try:
            is_known = await self._asked_service(context) in _SERVICES
            unknown = messages.HealthCheckResponse.SERVICE_UNKNOWN
            await context.write(_answer(self._status() if is_known else unknown))
            if not self._is_draining.is_set():
                await self._is_draining.wait()
                if is_known:
                    await context.write(_answer(self._status()))
        finally:
            self._watcher_count -= 1
        raise ServerUnavailable("The server is stopping.", remedy="Try again when it runs again.")

    def _status(self) -> int:
        response = messages.HealthCheckResponse
        return int(response.NOT_SERVING if self._is_draining.is_set() else response.SERVING)

    async def _asked_service(self, context: grpc.aio.ServicerContext[bytes, bytes]) -> str:
        async with self._reading:
            try:
                async with asyncio.timeout(_REQUEST_SECONDS):
                    message = await context.read()
            except TimeoutError:
                raise DeadlineExceeded("The health check's message did not come in time.") from None
        if not isinstance(message, bytes):
            raise UsageError("The health check carries no message.")
        return str(parse_message(messages.HealthCheckRequest, message).service)


def _answer(status: int) -> bytes:
    data: bytes = messages.HealthCheckResponse(status=status).SerializeToString()
    return data
