"""One call from a client: its raw messages, its headers and who makes it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import grpc

from micromegas_jupyter.access.call_facts import CallFacts
from micromegas_jupyter.core.protocols import AuthContext, AuthType
from micromegas_jupyter.errors import DeadlineExceeded, PermissionDenied, ResourcesExhausted, UsageError
from micromegas_jupyter.executors.pool import ClientGone
from micromegas_jupyter.executors.scheduling import CallerKey, RunningLimit
from micromegas_jupyter.flightsql.framing import ParameterLimits
from micromegas_jupyter.server.headers import Headers

QUERY_ID_HEADER: Final = "x-micromegas-query-id"
_MAX_MESSAGE_BYTES: Final = 1024 * 1024
_REST_SECONDS: Final = 5.0
_MAX_REST_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """An authenticated call; messages go in and out as bytes.

    `describe` gathers what audit events tell of it; `readers` bounds the messages that are waited for at once, each of
    which may take up to the largest size in memory.
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
        """Who is held to have sent the call: the caller, or its connection where nobody says who calls."""
        if self.caller.auth_type is AuthType.NONE:
            return self.caller.issuer, self.context.peer()
        return self.caller_key

    def require_scope(self, scope: str) -> None:
        """Check that the caller's credential is for this kind of call.

        Raises:
            PermissionDenied: It is not.
        """
        if scope not in self.caller.scopes:
            raise PermissionDenied(
                f"This credential is not for calls that need the scope {scope}.",
                reason="scope_missing",
                remedy=f"Use an API key with the scope {scope}.",
            )

    async def read(self) -> bytes | None:
        """Return the client's next message, None after its last.

        Raises:
            ResourcesExhausted: Too many others are waited for.
        """
        source = self.source
        await self.readers.acquire(source)
        try:
            message: object = await self.context.read()
        finally:
            self.readers.release(source)
        return message if isinstance(message, bytes) else None  # otherwise grpc.aio.EOF

    async def read_only_message(self) -> bytes:
        """Return the message of a call that has one.

        Raises:
            UsageError: The client sent none.
            DeadlineExceeded: It did not come in time.
            ResourcesExhausted: It is too large.
        """
        try:
            async with asyncio.timeout(self.read_timeout_seconds):
                message = await self.read()
        except TimeoutError:
            raise _too_late() from None
        if message is None:
            raise UsageError("The call carries no message.", remedy="Use a Flight SQL client.")
        if len(message) > _MAX_MESSAGE_BYTES:
            raise ResourcesExhausted(
                "The call's message is larger than 1 MiB.", remedy="Send rows and values in messages of their own."
            )
        return message

    async def read_values(self, first: bytes, limits: ParameterLimits) -> tuple[bytes, ...]:
        """Return the messages of a stream of values, of which `first` is here, no further than `limits` say.

        Raises:
            DeadlineExceeded: They did not come in time.
            ResourcesExhausted: They are too large.
        """
        frames, size = [first], len(first)
        try:
            async with asyncio.timeout(self.read_timeout_seconds):
                while (frame := await self.read()) is not None:
                    frames.append(frame)
                    size += len(frame)
                    if size > limits.max_bytes or len(frames) > limits.max_messages:
                        raise ResourcesExhausted(
                            "The parameters are larger than this server takes.", remedy="Bind fewer values."
                        )
        except TimeoutError:
            raise _too_late() from None
        return tuple(frames)

    async def pass_over_the_rest(self) -> None:
        """Throw away what else the client sends, up to 16 MiB and 5 seconds."""
        size = 0
        try:
            async with asyncio.timeout(_REST_SECONDS):
                while size <= _MAX_REST_BYTES and (message := await self.read()) is not None:
                    size += len(message)
        except TimeoutError:
            return

    async def write(self, message: bytes) -> None:
        """Send a message; waits while the client takes none.

        Raises:
            ClientGone: The client has left, and gRPC is about to cancel this task.
        """
        try:
            await self.context.write(message)
        except grpc.aio.BaseError:
            raise ClientGone from None

    async def answer(self, message: bytes) -> None:
        """Send a message that needs no executor.

        Raises:
            ClientGone: The client has left.
            DeadlineExceeded: The client took none for too long.
        """
        try:
            async with asyncio.timeout(self.write_timeout_seconds):
                await self.write(message)
        except TimeoutError:
            raise DeadlineExceeded("The client did not read the result in time.", limit="stalled_client") from None

    async def announce_query_id(self) -> None:
        """Tell the client the call's query id before anything else."""
        await self.context.send_initial_metadata(((QUERY_ID_HEADER, self.query_id),))


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded(
        "The call's message did not come in time.", remedy="Call again over a better connection.", limit="silent_client"
    )
