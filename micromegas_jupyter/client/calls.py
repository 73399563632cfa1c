"""One call as it is about to be made, and what came back beside its data: query id, error details, when to retry."""

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from pyarrow import flight

from micromegas_jupyter.client.credentials import Credential
from micromegas_jupyter.client.headers import Header, Notices
from micromegas_jupyter.flightsql.error_details import ERROR_DETAILS_KEY, MAX_DETAILS_BYTES, is_query_id

QUERY_ID_KEY: Final = "x-micromegas-query-id"
_PUSHBACK_KEY: Final = "grpc-retry-pushback-ms"
_PUSHBACK: Final = re.compile(r"[0-9]{1,9}", re.ASCII)


class CallRecord:
    """Collects the metadata of one call; written by the thread that makes it, read by any.

    Attributes:
        query_id: The server's id of the query.
        error_details: What the server says about a failure.
        connection: Which of its client's connections it was made over, by number.
        pushback_ms: When a failed call may be made again; -1 for never, None when the server does not say.
    """

    def __init__(self) -> None:
        self.query_id: str | None = None
        self.error_details: bytes | None = None
        self.connection = 0
        self.pushback_ms: int | None = None

    def note(self, headers: Mapping[str, Sequence[str | bytes]]) -> None:
        """Keep what is known in a call's initial or trailing metadata; the sender is not trusted."""
        query_ids = headers.get(QUERY_ID_KEY, ())
        if query_ids and is_query_id(query_ids[0]):
            self.query_id = str(query_ids[0])
        details = headers.get(ERROR_DETAILS_KEY, ())
        if details and isinstance(details[0], bytes) and len(details[0]) <= MAX_DETAILS_BYTES:
            self.error_details = details[0]
        if pushback := headers.get(_PUSHBACK_KEY, ()):
            self.pushback_ms = int(pushback[0]) if _PUSHBACK.fullmatch(str(pushback[0])) else -1


class CallRecorder(flight.ClientMiddlewareFactory):  # type: ignore[misc] # pyarrow ships no types
    """Gives every call of a client the record that its thread has put forward.

    Attributes:
        notices: What the server says in any call.
    """

    def __init__(self) -> None:
        super().__init__()
        self.notices = Notices()
        self._local = threading.local()

    @contextmanager
    def recording(self, record: CallRecord) -> Iterator[None]:
        """Let the calls that this thread starts inside write to `record`, for as long as they last."""
        self._local.record = record
        try:
            yield
        finally:
            del self._local.record

    def start_call(self, _info: Any) -> flight.ClientMiddleware:
        """Return the middleware of a call; the library calls this on the thread that makes the call."""
        return _Recording(getattr(self._local, "record", None) or CallRecord(), self.notices)


class _Recording(flight.ClientMiddleware):  # type: ignore[misc] # pyarrow ships no types
    def __init__(self, record: CallRecord, notices: Notices) -> None:
        super().__init__()
        self._record = record
        self._notices = notices

    def sending_headers(self) -> dict[str, str]:
        return {}

    def received_headers(self, headers: Mapping[str, Sequence[str | bytes]]) -> None:
        # An exception would be lost in the library; neither raises one.
        self._record.note(headers)
        self._notices.note(headers)

    def call_completed(self, _error: BaseException | None) -> None:
        """Do nothing: the caller gets the error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call to a server.

    Attributes:
        server: Host and port, for messages.
        is_encrypted: Whether the connection uses TLS.
        shows_certificate: Whether a certificate is shown to a server that asks for one.
        credential: Who makes it.
        headers: What it asks for besides its payload; without the credential.
        timeout_seconds: How long it may last, None for as long as it takes.
        started_at: When it is made (aware UTC).
        record: What comes back beside the data.
    """

    server: str
    is_encrypted: bool = False
    shows_certificate: bool = False
    credential: Credential
    headers: tuple[Header, ...] = ()
    timeout_seconds: float | None = None
    started_at: datetime
    record: CallRecord = field(default_factory=CallRecord)
