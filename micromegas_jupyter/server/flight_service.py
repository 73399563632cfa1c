"""The door of the Flight service: every method, known or not, gets its caller first, and every error its status.

What the methods do is in `flight_methods`. Messages are read as bytes after the caller is known, so bytes of
somebody unknown are never parsed; only the standard health service is answered to anybody.
"""

import asyncio
import re
from typing import TYPE_CHECKING, Final

import grpc

from micromegas_jupyter.access.audit import AccessEvent
from micromegas_jupyter.access.call_facts import CallFacts
from micromegas_jupyter.access.decision import Claimed
from micromegas_jupyter.core.protocols import AuthContext
from micromegas_jupyter.core.system import Randomness
from micromegas_jupyter.errors import PermissionDenied, ServerUnavailable
from micromegas_jupyter.executors.pool import ClientGone
from micromegas_jupyter.executors.scheduling import RunningLimit
from micromegas_jupyter.flightsql.refusals import refuse_method
from micromegas_jupyter.server.authentication import Authenticator
from micromegas_jupyter.server.calls import Call
from micromegas_jupyter.server.flight_methods import FlightMethods
from micromegas_jupyter.server.flight_settings import FlightServerSettings
from micromegas_jupyter.server.headers import Headers, find_client_address, group_headers
from micromegas_jupyter.server.health import FLIGHT_SERVICE, HealthService
from micromegas_jupyter.server.metrics import ServerMetrics
from micromegas_jupyter.server.running_queries import OpenCalls
from micromegas_jupyter.server.statuses import abort_call, ends_task, translate_error
from micromegas_jupyter.server.tickets import new_query_id
from micromegas_jupyter.server.tracing import CallSpan, Tracing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    _GenericRpcHandler = grpc.GenericRpcHandler[bytes, bytes]
else:
    _GenericRpcHandler = grpc.GenericRpcHandler  # generic only to the type checker

_GOODBYE_SECONDS: Final = 2.0  # a client that takes no data cannot be told; closing the connection ends its call
_CANCELLATION_SECONDS: Final = 5.0
_MAX_READERS: Final = 64
_MAX_READERS_PER_CALLER: Final = 16
_MAX_NOTICE_CHARACTERS: Final = 512

NOTICE_TRAILER: Final = "x-micromegas-notice"

_NOT_SHOWN: Final = re.compile(r"[^ -~]")

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
        tracing: Makes spans of calls; None for none.
        metrics: Counts calls and how they end.
    """

    def __init__(  # noqa: PLR0913 - the parts that a service is made of
        self,
        *,
        methods: FlightMethods,
        authenticator: Authenticator,
        settings: FlightServerSettings,
        randomness: Randomness,
        metrics: ServerMetrics,
        tracing: Tracing | None = None,
    ) -> None:
        self._methods: dict[str, Callable[[Call], Awaitable[None]]] = {
            f"/{FLIGHT_SERVICE}/{name}": method for name, method in methods.by_name().items()
        }
        self._health = HealthService()
        self._health_methods = self._health.methods
        self._authenticator = authenticator
        self._randomness = randomness
        self._settings = settings
        self._metrics = metrics
        self._tracing = tracing or Tracing()
        self._open_calls = OpenCalls(settings.max_calls_per_caller)
        self._readers = RunningLimit(
            max_running=_MAX_READERS,
            max_per_caller=_MAX_READERS_PER_CALLER,
            queue_timeout_seconds=settings.read_timeout_seconds,
        )
        self._running: set[asyncio.Task[object]] = set()
        self._is_serving = True
        self._why = ""

    async def drain(self, grace_seconds: float, *, why: str = "") -> None:
        """Refuse new calls, let running ones end for `grace_seconds`, then end them with a status that says why."""
        self._is_serving = False
        self._why = why
        self._health.stop_serving()
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
            query_id = new_query_id(self._randomness)
            with self._tracing.call(method, query_id, handler_call_details.invocation_metadata or ()) as span:
                await self._serve(method, context, query_id, span)

        return grpc.stream_stream_rpc_method_handler(serve)

    async def _serve(
        self, method: str, context: grpc.aio.ServicerContext[bytes, bytes], query_id: str, span: CallSpan
    ) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        self._metrics.calls_open.inc()
        try:
            await self._answer(method, context, query_id, span)
        except ClientGone:
            self._metrics.count_call(method, "CANCELLED")
            span.note_end("CANCELLED")
            # gRPC is about to cancel this task; to answer would be an error.
            await asyncio.sleep(_CANCELLATION_SECONDS)
        except BaseException as raised:  # the one place where whatever went wrong becomes a status
            is_goodbye = isinstance(raised, asyncio.CancelledError) and not self._is_serving
            if ends_task(raised) and not is_goodbye:
                self._metrics.count_call(method, "CANCELLED")
                span.note_end("CANCELLED")
                raise
            error = translate_error(self._goodbye() if is_goodbye else raised, query_id)
            self._metrics.count_error(error)
            self._metrics.count_call(method, error.grpc_code)
            span.note_end(error.grpc_code, error.code)
            await abort_call(context, error)
        else:
            self._metrics.count_call(method, "OK")
            span.note_end("OK")
        finally:
            self._metrics.calls_open.dec()

    async def _answer(
        self, method: str, context: grpc.aio.ServicerContext[bytes, bytes], query_id: str, span: CallSpan
    ) -> None:
        tell_health = self._health_methods.get(method)
        if tell_health is not None:
            await tell_health(context)
            return
        if not self._is_serving:
            raise self._goodbye()
        headers = group_headers(context.invocation_metadata())

        def describe() -> CallFacts:
            address = find_client_address(context.peer(), headers, self._settings.trusted_proxies)
            return CallFacts(method=method, client_address=address, call_id=query_id)

        if method == _HANDSHAKE:
            await self._shake_hands(headers, context, describe, span)
            return
        caller = await self._authenticator.authenticate(headers, describe)
        span.begin()
        _add_notice(context, caller)
        answer = self._methods.get(method)
        if answer is None:
            raise refuse_method(method)
        call = Call(
            context=context,
            headers=headers,
            caller=caller,
            query_id=query_id,
            describe=describe,
            readers=self._readers,
            read_timeout_seconds=self._settings.read_timeout_seconds,
            write_timeout_seconds=self._settings.write_timeout_seconds,
        )
        try:
            with self._open_calls.one_of(call.source):
                await answer(call)
        except PermissionDenied as error:
            who = Claimed(issuer=caller.issuer, subject=caller.subject)
            event = AccessEvent(outcome="forbidden", reason=error.reason, code=error.code, who=who)
            self._authenticator.record(event, describe())
            raise

    def _goodbye(self) -> ServerUnavailable:
        if self._why:
            return ServerUnavailable(self._why, remedy="Try again; another process of the server answers.")
        return ServerUnavailable("The server is stopping.", remedy="Try again when it runs again.")

    async def _shake_hands(
        self,
        headers: Headers,
        context: grpc.aio.ServicerContext[bytes, bytes],
        describe: "Callable[[], CallFacts]",
        span: CallSpan,
    ) -> None:
        """Answer a Handshake with the bearer token for later calls, in the header that Flight clients look at."""
        caller, token = await self._authenticator.exchange(headers, describe)
        span.begin()
        _add_notice(context, caller)
        await context.send_initial_metadata((("authorization", f"Bearer {token.reveal()}"),))


def _add_notice(context: grpc.aio.ServicerContext[bytes, bytes], caller: AuthContext) -> None:
    """Let the answer carry what the caller should know about their credential, however the call ends."""
    if caller.notice is not None:
        # Metadata is printable ASCII; gRPC would end the call over anything else.
        shown = _NOT_SHOWN.sub("?", caller.notice[:_MAX_NOTICE_CHARACTERS])
        context.set_trailing_metadata(((NOTICE_TRAILER, shown),))
