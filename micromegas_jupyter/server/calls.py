"""One call from a client: its raw messages, its headers and who makes it.

What a call asks for is `flight_service`'s job; how it ends badly, that of `statuses`.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import grpc

from micromegas_jupyter.access.call_facts import CallFacts
from micromegas_jupyter.contracts import AuthContext, AuthType
from micromegas_jupyter.errors import DeadlineExceeded, PermissionDenied, UsageError
from micromegas_jupyter.flightsql.framing import ParameterLimits
from micromegas_jupyter.server.admission import CallerKey
from micromegas_jupyter.server.equal_timers import Deadline, EqualTimers
from micromegas_jupyter.server.headers import Headers
from micromegas_jupyter.server.message_waits import MessageWaits

_CANCELLATION_SECONDS: Final = 5.0

QUERY_ID_HEADER: Final = "x-micromegas-query-id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """An authenticated call; messages go in and out as bytes.

    `describe` gathers what audit events tell of it; `stalls` says how long a client may take no message.
    """

    context: grpc.aio.ServicerContext[bytes, bytes] = field(repr=False)
    headers: Headers = field(repr=False)
    caller: AuthContext
    query_id: str
    stalls: EqualTimers = field(repr=False)
    describe: Callable[[], CallFacts] = field(repr=False)
    waits: MessageWaits = field(default_factory=MessageWaits, repr=False)

    @property
    def caller_key(self) -> CallerKey:
        """Who the caller is to stores and limits: issuer and subject."""
        return self.caller.issuer, self.caller.subject

    @property
    def source(self) -> CallerKey:
        """Who is held to have sent the call: the caller, or its connection where nobody says who calls."""
        return find_source(self.caller, self.context)

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

    async def read_only_message(self) -> bytes:
        """Return the message of a call that has one; a client that sends none must not hold a call.

        Raises:
            UsageError: The client sent none.
            DeadlineExceeded: It did not come in time.
            ResourcesExhausted: It is too large, or too many others are waited for.
        """
        message = await self.waits.message(self.read, self.source)
        if message is None:
            raise UsageError("The call carries no message.", remedy="Use a Flight SQL client.")
        return message

    async def read_values(self, first: bytes, limits: ParameterLimits) -> list[bytes]:
        """Return the messages of a stream of values, of which `first` is here, no further than `limits` say.

        Raises:
            DeadlineExceeded: One did not come in time, or all of them.
            ResourcesExhausted: They are too large, or too many others are waited for.
        """
        return await self.waits.values(first, self.read, self.source, limits=limits)

    async def pass_over_the_rest(self) -> None:
        """Throw away what else the client sends, as much and for as long as is bearable."""
        await self.waits.rest(self.read, self.source)

    async def write(self, message: bytes) -> None:
        """Send a message; waits while the client takes none.

        Raises:
            DeadlineExceeded: The client took none for too long.
        """
        try:
            with Deadline(self.stalls, _stalled):
                await self.context.write(message)
        except grpc.aio.BaseError:
            # The client is gone, and gRPC is about to cancel this task; to go on or to answer would be an error.
            await asyncio.sleep(_CANCELLATION_SECONDS)
            raise

    async def announce_query_id(self) -> None:
        """Tell the client the call's query id before anything else."""
        await self.context.send_initial_metadata(((QUERY_ID_HEADER, self.query_id),))


def _stalled() -> DeadlineExceeded:
    return DeadlineExceeded("The client did not take the result in time.", limit="stalled_client")


def find_source(caller: AuthContext, context: grpc.aio.ServicerContext[bytes, bytes]) -> CallerKey:
    """Return who is held to have sent a call: the caller, or the call's connection where nobody says who calls."""
    if caller.auth_type is AuthType.NONE:
        return caller.issuer, context.peer()
    return caller.issuer, caller.subject
