"""Every call passes here: the caller is identified first, and every error gets its gRPC status.

Messages are read as bytes after the caller is known, so bytes of an unknown caller are never parsed; only the standard
health service (gRPC Health Checking Protocol, grpc.health.v1) answers anyone.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import grpc

from micromegas_jupyter.access.audit import AccessEvent, CallFacts, Claimed
from micromegas_jupyter.core.protocols import AuthContext
from micromegas_jupyter.core.system import Randomness
from micromegas_jupyter.errors import (
    DeadlineExceeded,
    PermissionDenied,
    ResourcesExhausted,
    ServerUnavailable,
    UsageError,
)
from micromegas_jupyter.executors.pool import ClientGone
from micromegas_jupyter.executors.scheduling import RunningLimit
from micromegas_jupyter.flightsql.commands import FLIGHT_SERVICE, messages, parse_message, refuse_method
from micromegas_jupyter.server.authentication import Authenticator, find_client_address, group_headers
from micromegas_jupyter.server.calls import Call, OpenCalls, abort_call, ends_task, translate_error
from micromegas_jupyter.server.monitoring import CallSpan, ServerMetrics, Tracing
from micromegas_jupyter.server.settings import FlightServerSettings
from micromegas_jupyter.server.tickets import new_query_id

_Context = grpc.aio.ServicerContext
if TYPE_CHECKING:
    _GenericRpcHandler = grpc.GenericRpcHandler[bytes, bytes]
else:
    _GenericRpcHandler = grpc.GenericRpcHandler  # generic only to the type checker

NOTICE_TRAILER: Final = "x-micromegas-notice"
_HANDSHAKE: Final = f"/{FLIGHT_SERVICE}/Handshake"
_HEALTH_SERVICE: Final = "/grpc.health.v1.Health"
_GOODBYE_SECONDS: Final = 2.0  # a client that takes no data gets no status; closing the connection ends its call
_CANCELLATION_SECONDS: Final = 5.0
_MAX_READERS: Final = 64
_MAX_READERS_PER_CALLER: Final = 16
_MAX_NOTICE_CHARACTERS: Final = 512
_NOT_PRINTABLE: Final = re.compile(r"[^ -~]")
# Health calls are anonymous, so they must not use up what others may call.
_MAX_WATCHERS: Final = 64
_MAX_READING: Final = 64
_REQUEST_SECONDS: Final = 1.0
# A message takes memory from when it is awaited, and may announce as much as any other before it is known: few calls
# get the whole time. The message of a real probe arrives with its call.
_FEW: Final = 8
_SHORT_SECONDS: Final = 0.1
_LATE_SECONDS: Final = 0.05


class HealthService:
    """Says whether the server accepts calls. Belongs to one event loop."""

    def __init__(self) -> None:
        self._is_draining = asyncio.Event()
        self._watcher_count = 0
        # The reads of messages, in the order of their calls, each with the client's address.
        self._reading: dict[asyncio.Task[object], str] = {}
        self.methods = {f"{_HEALTH_SERVICE}/Check": self.check, f"{_HEALTH_SERVICE}/Watch": self.watch}

    def stop_serving(self) -> None:
        """Say from now on that the server accepts no calls."""
        self._is_draining.set()

    async def check(self, context: "_Context[bytes, bytes]") -> None:
        """Answer once."""
        if not await self._is_known_service(context):
            await context.abort(grpc.StatusCode.NOT_FOUND, "This service is not served here.")
        await _send_health(context, self._status())

    async def watch(self, context: "_Context[bytes, bytes]") -> None:
        """Answer now and when the server begins to stop, which ends the call."""
        if self._watcher_count >= _MAX_WATCHERS:
            raise ResourcesExhausted(
                f"{_MAX_WATCHERS} clients watch the health already.", remedy="Ask with Check instead of Watch."
            )
        self._watcher_count += 1
        try:
            is_known = await self._is_known_service(context)
            sent = self._status()
            await _send_health(context, sent if is_known else messages.HealthCheckResponse.SERVICE_UNKNOWN)
            await self._is_draining.wait()
            if is_known and sent != self._status():  # it may have begun to stop before
                await _send_health(context, self._status())
        finally:
            self._watcher_count -= 1
        raise _stopping()

    def _status(self) -> int:
        response = messages.HealthCheckResponse
        return int(response.NOT_SERVING if self._is_draining.is_set() else response.SERVING)

    async def _is_known_service(self, context: "_Context[bytes, bytes]") -> bool:
        if len(self._reading) >= _MAX_READING:
            self._cancel_one()
        seconds = _REQUEST_SECONDS if len(self._reading) < _FEW else _SHORT_SECONDS
        reading: asyncio.Task[object] = asyncio.ensure_future(context.read())
        self._reading[reading] = find_client_address(context.peer(), {}, frozenset())
        try:
            if not await _finishes(reading, seconds):
                raise DeadlineExceeded("The health check's message did not arrive in time.")
        finally:
            self._reading.pop(reading, None)
        if reading.cancelled():
            raise ResourcesExhausted(f"{_MAX_READING} clients are checking the health already.", remedy="Ask again.")
        message = reading.result()
        if not isinstance(message, bytes):
            raise UsageError("The health check carries no message.")
        return parse_message(messages.HealthCheckRequest, message).service in {"", FLIGHT_SERVICE}

    def _cancel_one(self) -> None:
        """End the wait of the call that has been silent longest, at the address with the most of them."""
        ((busiest, _),) = Counter(self._reading.values()).most_common(1)
        longest = next(reading for reading, address in self._reading.items() if address == busiest)
        del self._reading[longest]
        longest.cancel()


async def _send_health(context: "_Context[bytes, bytes]", status: int) -> None:
    answer: bytes = messages.HealthCheckResponse(status=status).SerializeToString()
    sending: asyncio.Task[object] = asyncio.ensure_future(context.write(answer))
    if not await _finishes(sending, _REQUEST_SECONDS):
        raise DeadlineExceeded("The client does not read the answer.")
    sending.result()


async def _finishes(task: "asyncio.Task[object]", seconds: float) -> bool:
    """Wait for a task, and once more when the loop was busy meanwhile; cancel it and return False when it is late."""
    loop = asyncio.get_running_loop()
    due_at = loop.time() + seconds
    try:
        await asyncio.wait({task}, timeout=seconds)
        if not task.done() and loop.time() - due_at > _LATE_SECONDS:
            await asyncio.wait({task}, timeout=seconds)
        return task.done()
    finally:
        if not task.done():
            task.cancel()


class FlightService(_GenericRpcHandler):
    """Serves every call that reaches the server.

    All methods are registered as streams of bytes in both directions, of which a call with one message is a case on the
    wire: so no message is read before the caller is known.

    Args:
        methods: What the methods do, by their names.
        authenticator: Identifies callers.
        randomness: Makes query ids.
        settings: Limits, and whose forwarding headers count.
        metrics: Counts calls and how they end.
        tracing: Makes spans of calls; None for none.
    """

    def __init__(  # noqa: PLR0913 - the parts of a service
        self,
        *,
        methods: dict[str, Callable[[Call], Awaitable[None]]],
        authenticator: Authenticator,
        settings: FlightServerSettings,
        randomness: Randomness,
        metrics: ServerMetrics,
        tracing: Tracing | None = None,
    ) -> None:
        self._methods = {f"/{FLIGHT_SERVICE}/{name}": method for name, method in methods.items()}
        self._health = HealthService()
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
        self._reason = ""

    async def drain(self, grace_seconds: float, *, reason: str = "") -> None:
        """Refuse new calls, let running ones end for `grace_seconds`, then end them with a status that says why."""
        self._is_serving = False
        self._reason = reason
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

        async def serve(_messages: object, context: _Context[bytes, bytes]) -> None:
            query_id = new_query_id(self._randomness)
            with self._tracing.call(method, query_id, handler_call_details.invocation_metadata or ()) as span:
                await self._serve(method, context, query_id, span)

        return grpc.stream_stream_rpc_method_handler(serve)

    async def _serve(self, method: str, context: "_Context[bytes, bytes]", query_id: str, span: CallSpan) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._running.add(task)
            task.add_done_callback(self._running.discard)

        def note_end(status: str, code: str | None = None) -> None:
            self._metrics.count_call(method, status)
            span.note_end(status, code)

        self._metrics.calls_open.inc()
        try:
            await self._answer(method, context, query_id, span)
        except ClientGone:
            note_end("CANCELLED")
            # gRPC is about to cancel this task; to answer would be an error.
            await asyncio.sleep(_CANCELLATION_SECONDS)
        except BaseException as raised:  # the one place where whatever went wrong becomes a status
            is_goodbye = isinstance(raised, asyncio.CancelledError) and not self._is_serving
            if ends_task(raised) and not is_goodbye:
                note_end("CANCELLED")
                raise
            error = translate_error(_stopping(self._reason) if is_goodbye else raised, query_id)
            self._metrics.count_error(error)
            note_end(error.grpc_code, error.code)
            await abort_call(context, error)
        else:
            note_end("OK")
        finally:
            self._metrics.calls_open.dec()

    async def _answer(self, method: str, context: "_Context[bytes, bytes]", query_id: str, span: CallSpan) -> None:
        answer_health = self._health.methods.get(method)
        if answer_health is not None:
            await answer_health(context)
            return
        if not self._is_serving:
            raise _stopping(self._reason)
        headers = group_headers(context.invocation_metadata())

        def describe() -> CallFacts:
            address = find_client_address(context.peer(), headers, self._settings.trusted_proxies)
            return CallFacts(method=method, client_address=address, call_id=query_id)

        if method == _HANDSHAKE:
            # The answer is the bearer token for later calls, in the header that Flight clients look at.
            caller, token = await self._authenticator.exchange(headers, describe)
            span.begin()
            _add_notice(context, caller)
            await context.send_initial_metadata((("authorization", f"Bearer {token.reveal()}"),))
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
            with self._open_calls.counted(call.source):
                await answer(call)
        except PermissionDenied as error:
            who = Claimed(issuer=caller.issuer, subject=caller.subject)
            event = AccessEvent(outcome="forbidden", reason=error.reason, code=error.code, who=who)
            self._authenticator.record(event, describe())
            raise


def _stopping(reason: str = "") -> ServerUnavailable:
    if reason:
        return ServerUnavailable(reason, remedy="Try again; another process of the server answers.")
    return ServerUnavailable("The server is stopping.", remedy="Try again when it runs again.")


def _add_notice(context: "_Context[bytes, bytes]", caller: AuthContext) -> None:
    """Let the answer carry what the caller should know about their credential, however the call ends."""
    if caller.notice is not None:
        # Metadata is printable ASCII; gRPC would end the call over anything else.
        shown = _NOT_PRINTABLE.sub("?", caller.notice[:_MAX_NOTICE_CHARACTERS])
        context.set_trailing_metadata(((NOTICE_TRAILER, shown),))
