"""One call from a client: its raw messages, how many are open, and the gRPC status that an error becomes."""

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

import grpc

from micromegas_jupyter.access.audit import CallFacts
from micromegas_jupyter.core.protocols import AuthContext, AuthType
from micromegas_jupyter.errors import (
    DeadlineExceeded,
    InternalError,
    MicromegasError,
    PermissionDenied,
    ResourcesExhausted,
    ServerUnavailable,
    UsageError,
)
from micromegas_jupyter.executors.pool import ClientGone
from micromegas_jupyter.executors.scheduling import CallerKey, RunningLimit
from micromegas_jupyter.flightsql.commands import ERROR_DETAILS_KEY, encode_error, status_text
from micromegas_jupyter.flightsql.framing import ParameterLimits
from micromegas_jupyter.server.authentication import Headers

QUERY_ID_HEADER: Final = "x-micromegas-query-id"
RETRY_PUSHBACK_TRAILER: Final = "grpc-retry-pushback-ms"
_LOG: Final = logging.getLogger("micromegas_jupyter.server")
_STOPPING_RETRY_MILLISECONDS: Final = 1000
_NOT_ANSWERED: Final = (GeneratorExit, KeyboardInterrupt, SystemExit, grpc.aio.AbortError)
_MAX_MESSAGE_BYTES: Final = 1024 * 1024
_DRAIN_SECONDS: Final = 5.0
_MAX_DRAINED_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """An authenticated call; messages go in and out as bytes.

    `describe` gathers its facts for audit events; `readers` bounds the messages that are awaited at once, each of which
    may take up to the largest size in memory. Methods that write raise `ClientGone` when the client has left.
    """

    context: grpc.aio.ServicerContext[bytes, bytes] = field(repr=False)
    headers: Headers = field(repr=False)
    caller: AuthContext
    query_id: str
    describe: Callable[[], CallFacts] = field(repr=False)
    readers: RunningLimit = field(repr=False)
    read_timeout_seconds: float = 60.0
    write_timeout_seconds: float = 300.0

    @property
    def caller_key(self) -> CallerKey:
        """Who the caller is to stores and limits: issuer and subject."""
        return self.caller.issuer, self.caller.subject

    @property
    def source(self) -> CallerKey:
        """Whom the call counts for: the caller, or without authentication its connection."""
        if self.caller.auth_type is AuthType.NONE:
            return self.caller.issuer, self.context.peer()
        return self.caller_key

    def require_scope(self, scope: str) -> None:
        """Check that the caller's credential is for this kind of call."""
        if scope not in self.caller.scopes:
            raise PermissionDenied(
                f"This credential does not have the scope {scope}, which the call needs.",
                reason="scope_missing",
                remedy=f"Use an API key with the scope {scope}.",
            )

    async def read(self) -> bytes | None:
        """Return the client's next message, None after its last."""
        source = self.source
        await self.readers.acquire(source)
        try:
            message: object = await self.context.read()
        finally:
            self.readers.release(source)
        return message if isinstance(message, bytes) else None  # otherwise grpc.aio.EOF

    async def read_only_message(self) -> bytes:
        """Return the message of a call that has one."""
        with _as_late_message():
            async with asyncio.timeout(self.read_timeout_seconds):
                message = await self.read()
        if message is None:
            raise UsageError("The call carries no message.", remedy="Use a Flight SQL client.")
        if len(message) > _MAX_MESSAGE_BYTES:
            raise ResourcesExhausted(
                "The call's message is larger than 1 MiB.", remedy="Send rows and values in messages of their own."
            )
        return message

    async def read_values(self, first: bytes, limits: ParameterLimits) -> tuple[bytes, ...]:
        """Return the messages of a stream of values, which begins with `first`, within `limits`."""
        frames, size = [first], len(first)
        with _as_late_message():
            async with asyncio.timeout(self.read_timeout_seconds):
                while (frame := await self.read()) is not None:
                    frames.append(frame)
                    size += len(frame)
                    if size > limits.max_bytes or len(frames) > limits.max_messages:
                        raise ResourcesExhausted(
                            "The parameters are larger than this server accepts.", remedy="Bind fewer values."
                        )
        return tuple(frames)

    async def drain(self) -> None:
        """Discard what else the client sends, up to 16 MiB and 5 seconds."""
        size = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                while size <= _MAX_DRAINED_BYTES and (message := await self.read()) is not None:
                    size += len(message)

    async def write(self, message: bytes) -> None:
        """Send a message, and wait while the client takes none."""
        try:
            await self.context.write(message)
        except grpc.aio.BaseError:
            raise ClientGone from None  # gRPC is about to cancel this task

    async def answer(self, message: bytes) -> None:
        """Send a message that needs no executor, within the write timeout."""
        try:
            async with asyncio.timeout(self.write_timeout_seconds):
                await self.write(message)
        except TimeoutError:
            raise DeadlineExceeded("The client did not read the result in time.", limit="stalled_client") from None

    async def announce_query_id(self) -> None:
        """Send the client the call's query id before anything else."""
        await self.context.send_initial_metadata(((QUERY_ID_HEADER, self.query_id),))


@contextmanager
def _as_late_message() -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise DeadlineExceeded(
            "The call's message did not arrive in time.",
            remedy="Call again over a better connection.",
            limit="silent_client",
        ) from None


class OpenCalls:
    """Counts the open calls of each caller. Belongs to one event loop."""

    def __init__(self, max_per_caller: int) -> None:
        self._max_per_caller = max_per_caller
        self._open: Counter[CallerKey] = Counter()

    @contextmanager
    def counted(self, caller: CallerKey) -> Iterator[None]:
        """Count the body as a call of this caller, or refuse it."""
        if self._open[caller] >= self._max_per_caller:
            raise ResourcesExhausted(
                f"You have {self._max_per_caller} calls open, the maximum for one caller.",
                remedy="Wait for some to end, read results to their end, or cancel them.",
                limit="calls",
            )
        self._open[caller] += 1
        try:
            yield
        finally:
            self._open[caller] -= 1
            if not self._open[caller]:
                del self._open[caller]


def ends_task(error: BaseException) -> bool:
    """Whether an error ends the task or the process instead of being an answer to a call.

    A function that merely raises `CancelledError` has failed: only a task that somebody cancelled is cancelled.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is None or task.cancelling() > 0
    return isinstance(error, _NOT_ANSWERED)


def translate_error(error: BaseException, query_id: str) -> MicromegasError:
    """Return the error that the client may see; what is not the package's own is logged and becomes a defect.

    Engines written in Rust raise panics that are not an `Exception`, hence `BaseException`.

    Raises:
        BaseException: `error` itself when it ends the task or the process.
    """
    if ends_task(error):
        raise error
    if not isinstance(error, MicromegasError):
        _LOG.error("a call failed unexpectedly, query_id=%s", query_id, exc_info=error)
        return InternalError("The server failed to answer.", query_id=query_id)
    if error.query_id is None:
        error.query_id = query_id
    return error


async def abort_call(context: grpc.aio.ServicerContext[bytes, bytes], error: MicromegasError) -> None:
    """End a call with the error's status, and with the trailers that were set before."""
    trailers = [*(context.trailing_metadata() or ()), (ERROR_DETAILS_KEY, encode_error(error))]
    # Source: gRPC A6, "Pushback".
    if isinstance(error, ResourcesExhausted) and error.retry_after_seconds is not None:
        trailers.append((RETRY_PUSHBACK_TRAILER, str(math.ceil(error.retry_after_seconds * 1000))))
    elif isinstance(error, ServerUnavailable):
        trailers.append((RETRY_PUSHBACK_TRAILER, str(_STOPPING_RETRY_MILLISECONDS)))
    await context.abort(grpc.StatusCode[error.grpc_code], details=status_text(error), trailing_metadata=tuple(trailers))
