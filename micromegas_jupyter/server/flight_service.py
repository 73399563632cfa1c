"""The door of the Flight service: every method, known or not, gets its caller first, and every error its status.

What the methods do is in `flight_methods`. Messages are read as bytes after the caller is known, so bytes of
somebody unknown are never parsed; only the standard health check is answered to anybody.
"""

import asyncio
from typing import TYPE_CHECKING, Final

import grpc

from micromegas_jupyter.errors import PermissionDenied, Rejected, ServerUnavailable, UnsupportedRequest
from micromegas_jupyter.flightsql.commands import printable_name
from micromegas_jupyter.seams import Clock, Randomness
from micromegas_jupyter.server.audit import Refusal, write_refusal
from micromegas_jupyter.server.authentication import Authenticator
from micromegas_jupyter.server.calls import Call
from micromegas_jupyter.server.flight_methods import FlightMethods
from micromegas_jupyter.server.flight_settings import FlightServerSettings
from micromegas_jupyter.server.headers import Headers, find_client_address, group_headers
from micromegas_jupyter.server.health import FLIGHT_SERVICE, HEALTH_CHECK_METHOD, answer_health_check
from micromegas_jupyter.server.identifiers import new_query_id
from micromegas_jupyter.server.statuses import abort_call, translate_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    _GenericRpcHandler = grpc.GenericRpcHandler[bytes, bytes]
else:
    _GenericRpcHandler = grpc.GenericRpcHandler  # generic only to the type checker

_GOODBYE_SECONDS: Final = 2.0  # a client that takes no data cannot be told; closing the connection ends its call
_HANDSHAKE: Final = f"/{FLIGHT_SERVICE}/Handshake"


class FlightService(_GenericRpcHandler):
    """Serves every call that reaches the server.

    All methods are registered as streams of bytes in both directions, which on the wire a call with one message is
    a case of: so that no message is read before the caller is known.

    Args:
        methods: What the methods do.
        authenticator: Tells who calls.
        randomness: Makes query ids.
        settings: Limits, and whose forwarding headers count.
        clock: Dates refusals.
    """

    def __init__(
        self,
        *,
        methods: FlightMethods,
        authenticator: Authenticator,
        settings: FlightServerSettings,
        clock: Clock,
        randomness: Randomness,
    ) -> None:
        self._methods: dict[str, Callable[[Call], Awaitable[None]]] = {
            f"/{FLIGHT_SERVICE}/{name}": method for name, method in methods.by_name().items()
        }
        self._authenticator = authenticator
        self._randomness = randomness
        self._settings = settings
        self._clock = clock
        self._running: set[asyncio.Task[object]] = set()
        self._is_serving = True

    async def drain(self, grace_seconds: float) -> None:
        """Refuse new calls, let running ones end for `grace_seconds`, then end them with a status that says why."""
        self._is_serving = False
        if self._running:
            await asyncio.wait(self._running, timeout=grace_seconds)
        for task in (ended := set(self._running)):
            task.cancel()
        if ended:
            await asyncio.wait(ended, timeout=_GOODBYE_SECONDS)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
        """Return the handler of a method; gRPC calls this for each call."""
        method = handler_call_details.method

        async def serve(_messages: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
            await self._serve(method, context)

        return grpc.stream_stream_rpc_method_handler(serve)

    async def _serve(self, method: str, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        query_id = new_query_id(self._randomness)
        task = asyncio.current_task()
        if task is not None:
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        try:
            await self._answer(method, context, query_id)
        except BaseException as raised:  # noqa: BLE001 - the one place where whatever went wrong becomes a status
            is_goodbye = isinstance(raised, asyncio.CancelledError) and not self._is_serving
            error = translate_error(_stopping() if is_goodbye else raised, query_id)
            if isinstance(error, Rejected | PermissionDenied):
                self._note_refusal(error, method, context)
            await abort_call(context, error)

    async def _answer(self, method: str, context: grpc.aio.ServicerContext[bytes, bytes], query_id: str) -> None:
        if method == HEALTH_CHECK_METHOD:
            await answer_health_check(context, is_serving=self._is_serving)
            return
        if not self._is_serving:
            raise _stopping()
        headers = group_headers(context.invocation_metadata())
        if method == _HANDSHAKE:
            await self._shake_hands(headers, context)
            return
        caller = await self._authenticator.authenticate(headers)
        answer = self._methods.get(method)
        if answer is None:
            raise UnsupportedRequest(f"This server does not offer {printable_name(method)}.")
        await answer(
            Call(
                context=context,
                headers=headers,
                caller=caller,
                query_id=query_id,
                stalled_write_seconds=self._settings.stalled_write_seconds,
            )
        )

    def _note_refusal(
        self, error: Rejected | PermissionDenied, method: str, context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> None:
        headers = group_headers(context.invocation_metadata())
        refusal = Refusal(
            query_id=error.query_id or "",
            method=method,
            client_address=find_client_address(context.peer(), headers, self._settings.trusted_proxies),
            code=error.code,
            reason=error.reason if isinstance(error, Rejected) else "impersonation",
        )
        write_refusal(refusal, now=self._clock.now())

    async def _shake_hands(self, headers: Headers, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        """Answer a Handshake with the bearer token for later calls, in the header that Flight clients look at."""
        _caller, token = await self._authenticator.exchange(headers)
        await context.send_initial_metadata((("authorization", f"Bearer {token.reveal()}"),))


def _stopping() -> ServerUnavailable:
    return ServerUnavailable("The server is stopping.", remedy="Try again when it runs again.")
