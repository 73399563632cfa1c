"""Handles every call: identifies the caller first and maps every error to a gRPC status.

Bytes of unknown callers are never parsed; only the standard health service (grpc.health.v1) is open to everyone.
"""

import asyncio
import logging
import math
import re
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, TypeVar

import grpc

from micromegas_jupyter.access.audit import CallFacts
from micromegas_jupyter.core.log_writer import LogWriter
from micromegas_jupyter.core.protocols import AuthContext, AuthType
from micromegas_jupyter.errors import (
    DeadlineExceeded,
    InternalError,
    MicromegasError,
    PermissionDenied,
    QueryCancelled,
    ResourcesExhausted,
    ServerUnavailable,
    UsageError,
)
from micromegas_jupyter.executors.pool import ClientGone
from micromegas_jupyter.executors.scheduling import CallerKey, RunningLimit, is_left
from micromegas_jupyter.flightsql.commands import (
    ERROR_DETAILS_KEY,
    FLIGHT_SERVICE,
    encode_error,
    messages,
    parse_message,
    refuse,
    status_text,
)
from micromegas_jupyter.flightsql.framing import ParameterLimits
from micromegas_jupyter.server.authentication import (
    UNKNOWN_ADDRESS,
    Authenticator,
    CallAudit,
    CallOrigin,
    Headers,
    build_origin,
    find_client_address,
    group_headers,
    parse_read_only,
)
from micromegas_jupyter.server.monitoring import CallSpan, ReadinessProbe, ServerMetrics, Tracing
from micromegas_jupyter.server.settings import FlightServerSettings

_Context = grpc.aio.ServicerContext
_Result = TypeVar("_Result")

NOTICE_TRAILER: Final = "x-micromegas-notice"
QUERY_ID_HEADER: Final = "x-micromegas-query-id"
RETRY_PUSHBACK_TRAILER: Final = "grpc-retry-pushback-ms"
_RETRY_INFO_TRAILER: Final = "google.rpc.retryinfo-bin"
_LOG: Final = logging.getLogger("micromegas_jupyter.server")
_HANDSHAKE: Final = f"/{FLIGHT_SERVICE}/Handshake"
_HEALTH_SERVICE: Final = "/grpc.health.v1.Health"
_GOODBYE_SECONDS: Final = 2.0  # a client that doesn't read gets no status; closing the connection stops its call
_CANCELLATION_SECONDS: Final = 5.0
_STOPPING_RETRY_MILLISECONDS: Final = 1000
_NOT_ANSWERED: Final = (GeneratorExit, KeyboardInterrupt, SystemExit, grpc.aio.AbortError)
_MAX_MESSAGE_BYTES: Final = 1024 * 1024
_DRAIN_SECONDS: Final = 5.0
_MAX_DRAINED_BYTES: Final = 16 * 1024 * 1024
_MAX_READERS: Final = 64
_MAX_READERS_PER_CALLER: Final = 16
_SILENT_SECONDS: Final = 5.0  # while others wait
_SILENT: Final = 0.0  # the loop time to which silent callers' timeouts are moved
_LOOK_SECONDS: Final = 0.5
_MAX_NOTICE_CHARACTERS: Final = 512
_NOT_PRINTABLE: Final = re.compile(r"[^ -~]")
# Health calls are anonymous, so they must not use up other callers' capacity or memory; waiting for a message allocates
# memory. A real probe's message arrives with its call.
_MAX_WATCHERS: Final = 64
_MAX_PROBES: Final = 8
_PROBE_SECONDS: Final = 1.0
_WATCH_SECONDS: Final = 2.0


class Readers:
    """Slots for awaited messages, because each message may take up to the maximum size in memory.

    While all slots are taken and others wait, reads that have been silent for some seconds are stopped, starting with
    the caller who has the most. Belongs to one event loop.
    """

    def __init__(self, *, timeout_seconds: float) -> None:
        self._limit = RunningLimit(
            max_running=_MAX_READERS,
            max_per_caller=_MAX_READERS_PER_CALLER,
            queue_timeout_seconds=timeout_seconds,
        )
        self._awaited: dict[asyncio.Timeout, tuple[CallerKey, float]] = {}  # the caller, and the start of the wait
        self._looking: asyncio.TimerHandle | None = None

    async def read(
        self, source: CallerKey, context: "_Context[bytes, bytes]", *, timeout_seconds: float | None = None
    ) -> object:
        """Return a call's next message; raise TimeoutError if it does not arrive in time."""
        self._look_soon()
        waiting = asyncio.timeout(timeout_seconds)
        try:
            async with waiting:
                await self._limit.acquire(source)
                try:
                    self._awaited[waiting] = source, asyncio.get_running_loop().time()
                    return await context.read()
                finally:
                    del self._awaited[waiting]
                    self._limit.release(source)
        except TimeoutError:
            if waiting.when() != _SILENT:
                raise
            raise DeadlineExceeded(
                "Nothing was sent for several seconds while other callers were waiting to send.",
                remedy="Send without pausing, or try again later.",
                limit="silent_client",
            ) from None

    def _look_soon(self) -> None:
        if self._looking is None and self._limit.running_count >= _MAX_READERS:
            self._looking = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._end_silent)

    def _end_silent(self) -> None:
        """Stop a silent caller's read, and repeat this while others are waiting."""
        self._looking = None
        if not self._limit.waiting_count:
            return
        latest = asyncio.get_running_loop().time() - _SILENT_SECONDS
        counts = Counter(source for source, _ in self._awaited.values())
        silent = (one for one, (_, since) in self._awaited.items() if since <= latest and not one.expired())
        found = max(silent, key=lambda one: counts[self._awaited[one][0]], default=None)  # the first of these
        if found is not None:
            with suppress(RuntimeError):  # its message has just arrived
                found.reschedule(_SILENT)
        self._look_soon()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Call:
    """An authenticated call; messages are received and sent as bytes.

    `source` is the key for limits: the caller, or the connection if authentication is off. If `is_read_only`, the call
    must not make changes (`check_may_change_state`). `describe` returns its facts for audit events. Methods that write
    raise `ClientGone` if the client has disconnected.
    """

    context: grpc.aio.ServicerContext[bytes, bytes] = field(repr=False)
    headers: Headers = field(repr=False)
    caller: AuthContext
    source: CallerKey
    query_id: str
    describe: Callable[[], CallFacts] = field(repr=False)
    readers: Readers = field(repr=False)
    is_read_only: bool = False
    audit_log: LogWriter | None = field(default=None, repr=False)
    read_timeout_seconds: float = 60.0
    write_timeout_seconds: float = 300.0

    @property
    def caller_key(self) -> CallerKey:
        """The caller's key for stores and limits: issuer and subject."""
        return self.caller.issuer, self.caller.subject

    def check_audit(self) -> None:
        """Raise ServerUnavailable if this call cannot be audited right now."""
        if self.audit_log is not None:
            self.audit_log.check()

    def require_scope(self, scope: str) -> None:
        """Check that the caller's credential has this scope."""
        if scope not in self.caller.scopes:
            raise PermissionDenied(
                f"This credential does not have the scope {scope}, which the call needs.",
                reason="scope_missing",
                remedy=f"Use an API key with the scope {scope}.",
            )

    async def read(self) -> bytes | None:
        """Return the client's next message, or None after the last one."""
        message = await self.readers.read(self.source, self.context)
        return message if isinstance(message, bytes) else None  # otherwise grpc.aio.EOF

    async def read_only_message(self) -> bytes:
        """Return the only message of a call that has exactly one."""
        try:
            message = await self.readers.read(self.source, self.context, timeout_seconds=self.read_timeout_seconds)
        except TimeoutError:
            raise _late_message() from None
        if not isinstance(message, bytes):
            raise UsageError("The call doesn't contain a message.", remedy="Use a Flight SQL client.")
        if len(message) > _MAX_MESSAGE_BYTES:
            raise ResourcesExhausted(
                "The call's message is larger than 1 MiB.", remedy="Send rows and values in separate messages."
            )
        return message

    async def read_values(self, first: bytes, limits: ParameterLimits) -> tuple[bytes, ...]:
        """Return the messages of a stream of values that begins with `first`, within `limits`."""
        frames, size = [first], len(first)
        try:
            async with asyncio.timeout(self.read_timeout_seconds):
                while (frame := await self.read()) is not None:
                    frames.append(frame)
                    size += len(frame)
                    if size > limits.max_bytes or len(frames) > limits.max_messages:
                        raise ResourcesExhausted(
                            "The parameters are larger than this server accepts.", remedy="Bind fewer values."
                        )
        except TimeoutError:
            raise _late_message() from None
        return tuple(frames)

    async def drain(self) -> None:
        """Discard remaining messages, for up to 16 MiB and 5 seconds."""
        size = 0
        with suppress(TimeoutError, DeadlineExceeded):
            async with asyncio.timeout(_DRAIN_SECONDS):
                while size <= _MAX_DRAINED_BYTES and (message := await self.read()) is not None:
                    size += len(message)

    async def write(self, message: bytes) -> None:
        """Send a message, and wait while the client isn't reading."""
        try:
            await self.context.write(message)
        except grpc.aio.BaseError:
            raise ClientGone from None  # gRPC is about to cancel this task

    async def answer(self, message: bytes) -> None:
        """Send a message that doesn't need an executor, within the write timeout."""
        try:
            async with asyncio.timeout(self.write_timeout_seconds):
                await self.write(message)
        except TimeoutError:
            raise DeadlineExceeded("The client did not read the result in time.", limit="stalled_client") from None

    def add_trailer(self, name: str, text: str) -> None:
        """Add a trailer of printable ASCII to the response."""
        self.context.set_trailing_metadata((*(self.context.trailing_metadata() or ()), (name, text)))

    async def announce_query_id(self) -> None:
        """Send the call's query ID to the client before anything else."""
        await self.context.send_initial_metadata(((QUERY_ID_HEADER, self.query_id),))


def _late_message() -> DeadlineExceeded:
    return DeadlineExceeded(
        "The call's message did not arrive in time.",
        remedy="Try again over a faster connection.",
        limit="silent_client",
    )


def ends_task(error: BaseException) -> bool:
    """Whether an error ends the task or process; a function that merely raises `CancelledError` has failed."""
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is None or task.cancelling() > 0
    return isinstance(error, _NOT_ANSWERED)


def translate_error(error: BaseException, query_id: str) -> MicromegasError:
    """Return the error that the client may see; unknown errors are logged and become internal errors.

    Raises errors that end the task or the process. Rust panics are not `Exception`s, hence `BaseException`.
    """
    if ends_task(error):
        raise error
    if not isinstance(error, MicromegasError):
        _LOG.error("a call failed unexpectedly, query_id=%s", query_id, exc_info=error)
        return InternalError("The server failed to respond.", query_id=query_id)
    if error.query_id is None:
        error.query_id = query_id
    return error


async def abort_call(
    context: grpc.aio.ServicerContext[bytes, bytes], error: MicromegasError, *, has_retry_info: bool = False
) -> None:
    """End a call with the error's status and the trailers that were already set.

    With `has_retry_info`, the status also has the wait time in the form that OTLP exporters read.
    """
    trailers = [*(context.trailing_metadata() or ()), (ERROR_DETAILS_KEY, encode_error(error))]
    milliseconds: int | None = None
    if isinstance(error, ResourcesExhausted) and error.retry_after_seconds is not None:
        milliseconds = math.ceil(error.retry_after_seconds * 1000)
    elif isinstance(error, ServerUnavailable):
        milliseconds = _STOPPING_RETRY_MILLISECONDS
    if milliseconds is not None:
        # Source: gRPC A6, "Pushback".
        trailers.append((RETRY_PUSHBACK_TRAILER, str(milliseconds)))
        if has_retry_info:
            trailers += _retry_info(error, milliseconds)
    await context.abort(grpc.StatusCode[error.grpc_code], details=status_text(error), trailing_metadata=tuple(trailers))


def _retry_info(error: MicromegasError, milliseconds: int) -> list[tuple[str, bytes]]:
    """Return a status's details, both in the form that the Collector reads and in the form that SDKs read.

    Source: https://opentelemetry.io/docs/specs/otlp/, "OTLP/gRPC Throttling".
    """
    seconds, rest = divmod(milliseconds, 1000)
    info: Any = messages.RetryInfo()
    info.retry_delay.seconds, info.retry_delay.nanos = seconds, rest * 1_000_000
    status: Any = messages.Status(code=grpc.StatusCode[error.grpc_code].value[0], message=status_text(error))
    status.details.add(type_url=f"type.googleapis.com/{info.DESCRIPTOR.full_name}", value=info.SerializeToString())
    return [("grpc-status-details-bin", status.SerializeToString()), (_RETRY_INFO_TRAILER, info.SerializeToString())]


class HealthService:
    """Reports whether the server currently accepts calls. Belongs to one event loop."""

    def __init__(self, readiness: ReadinessProbe) -> None:
        self._readiness = readiness
        self._is_draining = asyncio.Event()
        self._watcher_count = 0
        self._probes: list[asyncio.Timeout] = []  # with an awaited message, oldest first
        self.methods = {f"{_HEALTH_SERVICE}/Check": self.check, f"{_HEALTH_SERVICE}/Watch": self.watch}

    def stop_serving(self) -> None:
        """Report from now on that the server isn't accepting calls."""
        self._is_draining.set()

    async def check(self, context: "_Context[bytes, bytes]") -> None:
        """Respond once."""
        if not await self._is_known_service(context):
            await context.abort(grpc.StatusCode.NOT_FOUND, "This service is not served here.")
        await _send_health(context, await self._status())

    async def watch(self, context: "_Context[bytes, bytes]") -> None:
        """Respond immediately and after each change; the call ends when the server starts to shut down."""
        if self._watcher_count >= _MAX_WATCHERS:
            raise ResourcesExhausted(
                f"{_MAX_WATCHERS} clients are already watching the server's health.",
                remedy="Call Check instead of Watch.",
            )
        self._watcher_count += 1
        try:
            is_known = await self._is_known_service(context)
            sent = await self._status() if is_known else messages.HealthCheckResponse.SERVICE_UNKNOWN
            await _send_health(context, sent)
            while not self._is_draining.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._is_draining.wait(), _WATCH_SECONDS)
                if is_known and (found := await self._status()) != sent:
                    sent = found
                    await _send_health(context, sent)
        finally:
            self._watcher_count -= 1
        raise _stopping()

    async def _status(self) -> int:
        response = messages.HealthCheckResponse
        is_ready = not self._is_draining.is_set() and await self._readiness.check() is None
        return int(response.SERVING if is_ready and not self._is_draining.is_set() else response.NOT_SERVING)

    async def _is_known_service(self, context: "_Context[bytes, bytes]") -> bool:
        if len(self._probes) >= _MAX_PROBES:
            with suppress(RuntimeError):  # it is just finishing
                self._probes.pop(0).reschedule(0)
        waiting = asyncio.timeout(_PROBE_SECONDS)
        self._probes.append(waiting)
        try:
            async with waiting:
                message: object = await context.read()
        except TimeoutError:
            if waiting in self._probes:
                raise DeadlineExceeded("The health check's message did not arrive in time.") from None
            raise ResourcesExhausted(
                "Too many clients are checking the server's health.", remedy="Ask again."
            ) from None
        finally:
            with suppress(ValueError):
                self._probes.remove(waiting)
        if not isinstance(message, bytes):
            raise UsageError("The health check doesn't contain a message.")
        return parse_message(messages.HealthCheckRequest, message).service in {"", FLIGHT_SERVICE}


async def _send_health(context: "_Context[bytes, bytes]", status: int) -> None:
    answer: bytes = messages.HealthCheckResponse(status=status).SerializeToString()
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            await context.write(answer)
    except TimeoutError:
        raise DeadlineExceeded("The client is not reading the response.") from None


class FlightService(grpc.GenericRpcHandler):  # type: ignore[type-arg] # generic only to the type checker
    """Serves every call that reaches the server.

    All methods are registered as byte streams in both directions, so no message is read before the caller is known.
    `methods` are Flight's by name, `other_methods` those of other services by path.
    """

    def __init__(  # noqa: PLR0913 - the parts of a service
        self,
        *,
        methods: dict[str, Callable[[Call], Awaitable[None]]],
        authenticator: Authenticator,
        settings: FlightServerSettings,
        metrics: ServerMetrics,
        readiness: ReadinessProbe,
        tracing: Tracing | None = None,
        other_methods: Mapping[str, Callable[[Call], Awaitable[None]]] = MappingProxyType({}),
        audit_log: LogWriter | None = None,
    ) -> None:
        self._methods = {f"/{FLIGHT_SERVICE}/{name}": method for name, method in methods.items()} | {**other_methods}
        self._others = frozenset(other_methods)
        self._health = HealthService(readiness)
        self._authenticator = authenticator
        self._settings = settings
        self._metrics = metrics
        self._tracing = tracing or Tracing()
        self._audit_log = audit_log
        self._open_calls: Counter[CallerKey] = Counter()
        self._readers = Readers(timeout_seconds=settings.read_timeout_seconds)
        self._running: set[asyncio.Task[object]] = set()
        self._serving_count = 0
        metrics.calls_open.set_function(lambda: self._serving_count)
        self._calls: dict[Call, asyncio.Task[object]] = {}  # authenticated callers only
        self._ended: dict[asyncio.Task[object], MicromegasError] = {}  # the reason
        self._is_serving = True
        self._reason = ""
        served = (*self._methods, *self._health.methods, _HANDSHAKE)
        self._handlers = {method: self._build_handler(method) for method in served}

    async def drain(self, grace_seconds: float, *, reason: str = "") -> None:
        """Reject new calls, let running ones finish for `grace_seconds`, and then fail them with `reason`."""
        self._is_serving = False
        self._reason = reason
        self._health.stop_serving()
        if self._running:
            await asyncio.wait(self._running, timeout=grace_seconds)
        for task in (ended := set(self._running)):
            task.cancel()
        if ended:
            await asyncio.wait(ended, timeout=_GOODBYE_SECONDS)

    def open_calls(self) -> list[Call]:
        """Return the calls that are open."""
        return list(self._calls)

    def end_call(self, call: Call, error: MicromegasError) -> None:
        """End an open call with an error, in any state."""
        task = self._calls.get(call)
        if task is not None and task not in self._ended:
            self._ended[task] = error
            task.cancel()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
        """Return the handler of a method; gRPC calls this for each call."""
        method = handler_call_details.method
        return self._handlers.get(method) or self._build_handler(method)

    def _build_handler(self, method: str) -> "grpc.RpcMethodHandler[bytes, bytes]":
        async def serve(_messages: object, context: _Context[bytes, bytes]) -> None:
            await self._serve(method, context)

        return grpc.stream_stream_rpc_method_handler(serve)

    async def _serve(self, method: str, context: "_Context[bytes, bytes]") -> None:
        query_id = str(uuid.uuid4())
        task = asyncio.current_task()
        if task is not None:
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        self._serving_count += 1
        with self._tracing.call(method, query_id, context) as span:
            try:
                await self._answer(method, context, query_id, span)
            except ClientGone:
                self._end_span(method, span, "CANCELLED")
                # gRPC is about to cancel this task; responding would be an error.
                await asyncio.sleep(_CANCELLATION_SECONDS)
            except BaseException as raised:  # the only place where all errors become a status
                error = self._find_error(raised, query_id)
                if error is None:
                    self._end_span(method, span, "CANCELLED")
                    raise
                self._end_span(method, span, error.grpc_code, error.code)
                await abort_call(context, error, has_retry_info=method in self._others)
            else:
                self._end_span(method, span, "OK")
            finally:
                self._serving_count -= 1
                if task is not None:
                    self._ended.pop(task, None)

    def _check_serving(self) -> None:
        if not self._is_serving:
            raise _stopping(self._reason)

    def _find_error(self, raised: BaseException, query_id: str) -> MicromegasError | None:
        """Return the error that ends a call, and count it; None if its client has disconnected."""
        task = asyncio.current_task()
        ended = None if task is None else self._ended.get(task)
        is_goodbye = isinstance(raised, asyncio.CancelledError) and (ended is not None or not self._is_serving)
        if ends_task(raised) and not is_goodbye:
            return None
        error = translate_error((ended or _stopping(self._reason)) if is_goodbye else raised, query_id)
        self._metrics.count_error(error)
        return error

    async def serve_request(self, call: Call, work: Callable[[Call], Awaitable[_Result]]) -> _Result:
        """Return the result of an HTTP request from a known caller, within the limits of all calls.

        Raises:
            MicromegasError: The request failed.
        """
        task = asyncio.current_task()
        if task is not None:
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        self._serving_count += 1
        try:
            self._check_serving()
            return await self._run(call, work)
        except BaseException as raised:
            error = self._find_error(raised, call.query_id)
            if error is None:
                raise
            raise error from raised
        finally:
            self._serving_count -= 1
            if task is not None:
                self._ended.pop(task, None)

    def build_call(self, context: Any, headers: Headers, caller: AuthContext, **facts: Any) -> Call:
        """Return a known caller's call; `context` needs only the parts of gRPC's context that the call uses."""
        return Call(
            context=context,
            headers=headers,
            caller=caller,
            readers=self._readers,
            audit_log=self._audit_log,
            read_timeout_seconds=self._settings.read_timeout_seconds,
            write_timeout_seconds=self._settings.write_timeout_seconds,
            **facts,
        )

    def _end_span(self, method: str, span: CallSpan, status: str, code: str | None = None) -> None:
        self._metrics.count_call(method, status)
        span.set_status(status, code)

    async def _answer(self, method: str, context: "_Context[bytes, bytes]", query_id: str, span: CallSpan) -> None:
        answer_health = self._health.methods.get(method)
        if answer_health is not None:
            await answer_health(context)
            return
        self._check_serving()
        headers = group_headers(context.invocation_metadata())

        def describe() -> CallFacts:
            address = find_client_address(context.peer(), headers, self._settings.trusted_proxies)
            return CallFacts(method=method, client_address=address, call_id=query_id)

        if method == _HANDSHAKE:
            # The response is the bearer token for later calls, sent in the header that Flight clients read.
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
            raise refuse(method)
        call = self.build_call(
            context,
            headers,
            caller,
            source=(caller.issuer, context.peer() if caller.auth_type is AuthType.NONE else caller.subject),
            query_id=query_id,
            is_read_only=parse_read_only(headers),
            describe=describe,
        )
        await self._run(call, answer)

    async def _run(self, call: Call, work: Callable[[Call], Awaitable[_Result]]) -> _Result:
        self._admit(call)
        try:
            return await work(call)
        except PermissionDenied as error:
            self._authenticator.record(
                call.describe(), "forbidden", reason=error.reason, code=error.code, caller=call.caller
            )
            raise
        finally:
            self._calls.pop(call, None)
            self._open_calls[call.source] -= 1
            if not self._open_calls[call.source]:
                del self._open_calls[call.source]

    def _admit(self, call: Call) -> None:
        """Count an open call for its caller, or reject it."""
        caller, task = call.source, asyncio.current_task()
        limit = self._settings.max_calls_per_caller
        own = self._open_calls[caller]
        is_last = not is_left(self._settings.max_concurrent_calls, taken=len(self._calls), own=own)
        if own >= limit or is_last:
            raise ResourcesExhausted(
                f"You have {own} calls open, and the server cannot accept more from you right now."
                if is_last
                else f"You have {limit} calls open, the maximum for one caller.",
                remedy="Wait for some to finish, read results to the end, or cancel some calls.",
                limit="calls",
            )
        self._open_calls[caller] += 1
        if task is not None:
            self._calls[call] = task


def _stopping(reason: str = "") -> ServerUnavailable:
    if reason:
        return ServerUnavailable(reason, remedy="Try again; another server process will respond.")
    return ServerUnavailable("The server is stopping.", remedy="Try again after it restarts.")


def _add_notice(context: "_Context[bytes, bytes]", caller: AuthContext) -> None:
    """Add the caller's notice about their credential to the response, whatever its status."""
    if caller.notice is not None:
        # Metadata must be printable ASCII; gRPC would fail the call for anything else.
        shown = _NOT_PRINTABLE.sub("?", caller.notice[:_MAX_NOTICE_CHARACTERS])
        context.set_trailing_metadata(((NOTICE_TRAILER, shown),))


def find_origin(call: Call) -> CallOrigin:
    """Return the origin of a call; fail if the audit is unavailable or headers are invalid."""
    call.check_audit()
    address = call.describe().client_address or UNKNOWN_ADDRESS
    return build_origin(call.query_id, address, call.caller, call.headers, is_read_only=call.is_read_only)


class recorded:  # noqa: N801 - used like a function
    """Write the audit line and count the call, whatever its outcome: `ok`, `error`, or `incomplete`.

    The call's status is sent after the line was delivered. `incomplete` means that the client disconnected.
    """

    def __init__(self, audit: CallAudit, call: Call, count: Callable[[str, MicromegasError | None], None]) -> None:
        self._audit = audit
        self._call = call
        self._count = count

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, _kind: object, raised: BaseException | None, _traceback: object) -> None:
        audit, context = self._audit, self._call.context
        if raised is None:
            audit.write("ok")
            self._count("ok", None)
        elif ends_task(raised) or isinstance(raised, ClientGone | QueryCancelled) or context.done():
            audit.write("incomplete")
            self._count("incomplete", None)
            # A status follows unless the client has disconnected.
            is_ended_here = isinstance(raised, asyncio.CancelledError) and not context.done()
            if not is_ended_here and not isinstance(raised, QueryCancelled):
                return
        else:
            error = translate_error(raised, self._call.query_id)
            audit.write("error", error)
            self._count("error", error)
            await audit.deliver()
            raise error from raised
        await audit.deliver()
