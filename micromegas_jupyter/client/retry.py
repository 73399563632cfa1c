"""When a call is made again: once with a renewed credential, and for a while when the server is unavailable.

Only reads are, and a query only until its first batch is here.
"""

import re
import threading
from collections.abc import Callable
from typing import Final, Protocol

from micromegas_jupyter.client.call_record import CallRecord
from micromegas_jupyter.client.credentials import Credential, CredentialSource
from micromegas_jupyter.errors import AuthenticationError, MicromegasError, Unavailable
from micromegas_jupyter.seams import Clock, jitter

RETRY_SECONDS: Final = 20.0
"""How long after the first failure a read is tried again, unless its own deadline is earlier."""

# A wrong address should not take that long to be found out: a server that never answered this client gets less.
_FIRST_CONTACT_SECONDS: Final = 2.0
_MAX_ATTEMPTS: Final = 12

# Source: gRPC A6, "Exponential Backoff": the pause is drawn from 0.8 to 1.2 times the nominal one.
_FIRST_PAUSE_SECONDS: Final = 0.1
_MAX_PAUSE_SECONDS: Final = 4.0
_LEAST_PART: Final = 0.8
_DRAWN_PART: Final = 0.4

_WRITES: Final = re.compile(
    r"""
      \b (?: insert \s+ (?:into|overwrite) | delete \s+ from | merge \s+ into | replace \s+ into ) \b
    | \b update \s+ \S+ \s+ set \b
    | (?: \A | [;)] ) \s* (?: create | drop | alter | truncate | copy | grant | revoke | call | set | update | insert
                            | delete | replace | vacuum | refresh | execute | do | begin | start ) \b
    | \b (?: retire_partition\w* | materialize_partitions | regenerate_partitions | deny_queries
           | remove_query_denial\w* | delete_\w+ ) "? \s* \(
    """,
    re.VERBOSE | re.IGNORECASE,
)
# A string that holds the signs of a comment loses its repetition at most.
_COMMENTS: Final = re.compile(r"--[^\n]*+ | /\*.*?(?:\*/ | \Z)", re.VERBOSE | re.DOTALL)


def is_read(sql: str) -> bool:
    """Whether a statement only reads, as far as its text tells; a doubt counts as no.

    Upstream changes partitions through functions that stand in a SELECT, so those count as writes too.
    """
    return _WRITES.search(sql) is None and _WRITES.search(_COMMENTS.sub(" ", sql)) is None


class StopSignal(Protocol):
    """A flag that can be waited for, as `threading.Event` is one."""

    def set(self) -> None:
        """Raise the flag and end every wait."""
        ...

    def is_set(self) -> bool:
        """Whether it was raised."""
        ...

    def wait(self, timeout: float) -> bool:
        """Wait until it is raised, for `timeout` seconds at most; whether it is."""
        ...


class Server(Protocol):
    """What is known of the server that is called, and the way to it; `transport.Transport` is one."""

    has_answered: bool

    def reconnect(self, failed: CallRecord) -> None:
        """Make calls over another connection than that of a failed one from now on."""
        ...


class Attempts:
    """The attempts of one call: whether there is another one, when, and with which credential.

    Args:
        credentials: Who calls.
        clock: Measures.
        may_repeat: Whether the call only reads. A write is made once.
        timeout_seconds: How long all attempts together may last; None for as long as it takes.
        server: What is called; None when nothing is known of it, and no call is repeated.
        stopped: Ends the pauses, and with them the attempts.
        jitter: Draws a number from 0 to 1.
    """

    def __init__(  # noqa: PLR0913 - the call, and what attempts are measured with
        self,
        credentials: CredentialSource,
        *,
        clock: Clock,
        may_repeat: bool,
        timeout_seconds: float | None = None,
        server: Server | None = None,
        stopped: StopSignal | None = None,
        jitter: Callable[[], float] = jitter,
    ) -> None:
        self._credentials = credentials
        self._clock = clock
        self._may_repeat = may_repeat
        self._may_renew = may_repeat
        self._timeout_seconds = timeout_seconds
        self._server = server
        self._stopped: StopSignal = threading.Event() if stopped is None else stopped
        self._jitter = jitter
        self._started_at = clock.monotonic()
        self._retry_until: float | None = None
        self._failures = 0

    @property
    def is_stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """Have no further attempt made; from any thread."""
        self._stopped.set()

    def first_credential(self) -> Credential:
        """Return the credential of the first attempt.

        Raises:
            MicromegasError: The provider has none to give.
        """
        return self._credentials.fetch()

    def remaining_seconds(self) -> float | None:
        """Return how long the next attempt may last, None for as long as it takes."""
        if self._timeout_seconds is None or not self._failures:
            return self._timeout_seconds
        remaining_seconds = self._timeout_seconds - (self._clock.monotonic() - self._started_at)
        return max(round(remaining_seconds, 1), 0.1)  # the Flight library takes a negative one for no limit

    def next_credential(self, error: BaseException, credential: Credential, record: CallRecord) -> Credential | None:
        """Wait until the next attempt is due and return its credential; None when there is none.

        Args:
            error: What the last attempt failed with. It learns how often the call was made, if that was its end.
            credential: What that attempt was made with.
            record: What the server said beside.

        Raises:
            MicromegasError: The provider has no credential to give any more.
        """
        match error:
            case AuthenticationError() if self._may_renew:
                self._may_renew = False
                return self._credentials.renew(credential)
            case Unavailable() if self._server is not None and self._may_repeat and error.retryable:
                self._failures += 1
                pause_seconds = self._pause_seconds(record, self._server)
                if pause_seconds is None:
                    self._describe_in(error)
                elif not self._stopped.wait(pause_seconds):
                    self._server.reconnect(record)
                    return self._credentials.fetch()
        return None

    def _pause_seconds(self, record: CallRecord, server: Server) -> float | None:
        """Return how long to wait for the next attempt, None when there is none."""
        now = self._clock.monotonic()
        if self._retry_until is None:
            self._retry_until = now + (RETRY_SECONDS if server.has_answered else _FIRST_CONTACT_SECONDS)
            if self._timeout_seconds is not None:
                self._retry_until = min(self._retry_until, self._started_at + self._timeout_seconds)
        nominal_seconds = min(_FIRST_PAUSE_SECONDS * 2 ** (self._failures - 1), _MAX_PAUSE_SECONDS)
        pause_seconds = nominal_seconds * (_LEAST_PART + _DRAWN_PART * self._jitter())
        if record.pushback_ms is not None:
            # Source: gRPC A6, "Pushback": a negative one asks for no further attempt.
            pause_seconds = max(pause_seconds, record.pushback_ms / 1000) if record.pushback_ms >= 0 else RETRY_SECONDS
        is_over = self._failures >= _MAX_ATTEMPTS or now + pause_seconds >= self._retry_until
        return None if is_over else pause_seconds

    def _describe_in(self, error: MicromegasError) -> None:
        if self._failures > 1:
            seconds = self._clock.monotonic() - self._started_at
            shown = f"{seconds:.0f}" if seconds >= 1 else f"{seconds:.1f}"
            error.remedy = f"{error.remedy} Tried {self._failures} times in {shown} s.".lstrip()
