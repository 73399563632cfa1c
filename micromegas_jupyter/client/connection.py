"""How a client's calls are made: with a fresh credential, on another thread, again where that may help."""

import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from micromegas_jupyter.client.address import ServerAddress
from micromegas_jupyter.client.calls import Call
from micromegas_jupyter.client.credentials import Credential, CredentialSource
from micromegas_jupyter.client.headers import Header
from micromegas_jupyter.client.pump import BatchStream
from micromegas_jupyter.client.query_reader import QueryReader, QueryStart
from micromegas_jupyter.client.retry import Attempts, StopSignal
from micromegas_jupyter.client.threads import run_interruptibly
from micromegas_jupyter.client.transport import Transport
from micromegas_jupyter.errors import MicromegasError, UsageError
from micromegas_jupyter.seams import Clock

_LONGEST_TIMEOUT_SECONDS: Final = 30 * 24 * 3600

T = TypeVar("T")


class Connection:
    """Makes calls to one server until it is closed. Safe to use from several threads; owns its transport.

    Args:
        transport: The wire.
        address: The server, for messages.
        credentials: Who calls.
        clock: Dates calls and measures queries.
    """

    def __init__(
        self, transport: Transport, *, address: ServerAddress, credentials: CredentialSource, clock: Clock
    ) -> None:
        self.transport = transport
        self._address = address
        self._credentials = credentials
        self._clock = clock
        self._readers: weakref.WeakSet[QueryReader] = weakref.WeakSet()
        self._closed = threading.Event()

    def run(
        self,
        work: Callable[[Call], T],
        *,
        headers: tuple[Header, ...],
        timeout_seconds: float,
        may_repeat: bool = True,
    ) -> T:
        """Make a call that ends by its deadline; Ctrl-C leaves it.

        Args:
            work: Makes the call.
            headers: What it asks for besides its payload.
            timeout_seconds: How long it may last, all attempts together.
            may_repeat: Whether it is made again when its credential was renewed or the server is unavailable: never
                for a write.

        Raises:
            MicromegasError: The call failed.
            UsageError: The client is closed.
        """
        self.check_open()
        attempts = self._attempts(timeout_seconds, may_repeat=may_repeat, stopped=self._closed)
        credential = attempts.first_credential()
        while True:
            call = self._build_call(credential, headers=headers, timeout_seconds=attempts.remaining_seconds())
            try:
                return run_interruptibly(partial(work, call))
            except MicromegasError as error:
                renewed = attempts.next_credential(error, credential, call.record)
                if renewed is None:
                    raise
                credential = renewed

    def open_reader(
        self,
        open_stream: Callable[[Call], BatchStream],
        *,
        headers: tuple[Header, ...],
        timeout_seconds: float | None,
        may_repeat: bool = True,
    ) -> QueryReader:
        """Start a query; Ctrl-C leaves and cancels it. Arguments as for `run`.

        Raises:
            MicromegasError: The query could not be started.
            UsageError: The client is closed, or the timeout is not a number of seconds.
        """
        self.check_open()
        attempts = self._attempts(timeout_seconds, may_repeat=may_repeat)
        start = QueryStart(
            attempts=attempts,
            build_call=lambda credential: self._build_call(
                credential, headers=headers, timeout_seconds=attempts.remaining_seconds()
            ),
            open_stream=open_stream,
        )
        reader = QueryReader(start, clock=self._clock)
        self._readers.add(reader)
        return reader

    def close(self) -> None:
        """Stop what still runs and give up the connection; calling again does nothing."""
        if self._closed.is_set():
            return
        self._closed.set()
        for reader in list(self._readers):
            reader.close()
        self.transport.close()

    def check_open(self) -> None:
        """Raise `UsageError` when the client is closed."""
        if self._closed.is_set():
            raise UsageError("The client is closed.", remedy="Make a new one.")

    def _attempts(
        self, timeout_seconds: float | None, *, may_repeat: bool, stopped: StopSignal | None = None
    ) -> Attempts:
        return Attempts(
            self._credentials,
            clock=self._clock,
            may_repeat=may_repeat,
            timeout_seconds=check_timeout(timeout_seconds),
            server=self.transport,
            stopped=stopped,
        )

    def _build_call(
        self, credential: Credential, *, headers: tuple[Header, ...], timeout_seconds: float | None
    ) -> Call:
        return Call(
            server=self._address.name,
            is_encrypted=self._address.is_encrypted,
            shows_certificate=self.transport.shows_certificate,
            credential=credential,
            headers=headers,
            timeout_seconds=timeout_seconds,
            started_at=self._clock.now(),
        )


def check_timeout(timeout_seconds: float | None) -> float | None:
    """Return a timeout that a deadline can be made of.

    Raises:
        UsageError: It is not a positive number of seconds, or longer than 30 days.
    """
    if timeout_seconds is None:
        return None
    if isinstance(timeout_seconds, bool) or not isinstance(timeout_seconds, (int, float)):
        raise UsageError("timeout_seconds is not a number.")
    if not 0 < timeout_seconds <= _LONGEST_TIMEOUT_SECONDS:
        raise UsageError("timeout_seconds is not between 0 and 30 days.", remedy="Leave it out for no limit.")
    return float(timeout_seconds)
