"""One call from a client: its raw messages, its headers and who makes it.

What a call asks for is `flight_service`'s job; how it ends badly, that of `statuses`.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import grpc

from micromegas_jupyter.access.call_facts import CallFacts
from micromegas_jupyter.contracts import AuthContext
from micromegas_jupyter.errors import DeadlineExceeded, PermissionDenied, UsageError
from micromegas_jupyter.server.admission import CallerKey
from micromegas_jupyter.server.headers import Headers

_CANCELLATION_SECONDS: Final = 5.0
_MESSAGE_SECONDS: Final = 20.0

QUERY_ID_HEADER: Final = "x-micromegas-query-id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """An authenticated call; messages go in and out as bytes. `describe` gathers what audit events tell of it."""

    context: grpc.aio.ServicerContext[bytes, bytes] = field(repr=False)
    headers: Headers = field(repr=False)
    caller: AuthContext
    query_id: str
    stalled_write_seconds: float
    describe: Callable[[], CallFacts] = field(repr=False)

    @property
    def caller_key(self) -> CallerKey:
        """Who the caller is to stores and limits: issuer and subject."""
        return self.caller.issuer, self.caller.subject

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
        """Return the client's next message, None after its last."""
        message: object = await self.context.read()
        return message if isinstance(message, bytes) else None  # otherwise grpc.aio.EOF

    async def read_in_time(self) -> bytes | None:
        """Return the client's next message, None after its last; a client that sends none must not hold a call.

        Raises:
            DeadlineExceeded: It did not come in time.
        """
        try:
            async with asyncio.timeout(_MESSAGE_SECONDS):
                return await self.read()
        except TimeoutError:
            raise DeadlineExceeded(
                "The call's message did not come in time.", remedy="Call again over a better connection."
            ) from None

    async def read_only_message(self) -> bytes:
        """Return the message of a call that has one.

        Raises:
            UsageError: The client sent none.
            DeadlineExceeded: It did not come in time.
        """
        message = await self.read_in_time()
        if message is None:
            raise UsageError("The call carries no message.", remedy="Use a Flight SQL client.")
        return message

    async def write(self, message: bytes) -> None:
        """Send a message; waits while the client takes none.

        Raises:
            DeadlineExceeded: The client took none for too long.
        """
        try:
            async with asyncio.timeout(self.stalled_write_seconds):
                await self.context.write(message)
        except TimeoutError:
            raise DeadlineExceeded("The client did not take the result in time.", limit="stalled_client") from None
        except grpc.aio.BaseError:
            # The client is gone, and gRPC is about to cancel this task; to go on or to answer would be an error.
            await asyncio.sleep(_CANCELLATION_SECONDS)
            raise

    async def announce_query_id(self) -> None:
        """Tell the client the call's query id before anything else."""
        await self.context.send_initial_metadata(((QUERY_ID_HEADER, self.query_id),))
