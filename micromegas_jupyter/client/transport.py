"""The Flight library behind a small interface: bytes and batches in and out, bounded connecting, translated errors.

A failed call becomes one of this package's errors, with the class that the server raised where it says so: first the
details in the trailer, then the code in the status text, then the library's exception type. The library's own context
never reaches a person. Why no connection was made, or why it broke, is read from gRPC's own sentence: no server chose
it, so it distinguishes a dead server from one that expects a different kind of connection.
"""

import os
import re
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import certifi
import pyarrow as pa
from pyarrow import flight

from micromegas_jupyter.client.calls import (
    Call,
    CallRecord,
    Notices,
    ServerAddress,
    describe_token,
    has_ended,
)
from micromegas_jupyter.core.protocols import HiddenBytes
from micromegas_jupyter.errors import (
    AuthenticationError,
    DeadlineExceeded,
    InternalError,
    InvalidStatement,
    MicromegasError,
    PermissionDenied,
    QueryCancelled,
    Rejected,
    ResourcesExhausted,
    ServerUnavailable,
    Unavailable,
    UnsupportedStatement,
    UsageError,
)
from micromegas_jupyter.flightsql.error_details import decode_error, parse_status_text, printable_text

_UNREACHABLE: Final = re.compile(
    r"failed to connect to all addresses|errors resolving|DNS resolution failed|Socket closed|Connection reset|"
    r"Endpoint closing|keepalive watchdog timeout|Broken pipe|Stream removed|GOAWAY|Transport closed|"
    r"connection attempt timed out|recvmsg|sendmsg|Connection refused|handshake|empty address list",
    re.IGNORECASE,
)
_PASSING: Final = "If it is only starting or stopping, try again."


class _Cause(NamedTuple):
    """Why a connection could not be made; `words` are gRPC's for it, and `{server}` in `what` is the server."""

    words: re.Pattern[str]
    what: str
    remedy: str


# In the order in which they are looked for, before what the words say less clearly. The library has two builds, over
# OpenSSL and over BoringSSL.
_CAUSES: Final = (
    _Cause(
        re.compile(r"wrong.version.number|http.request", re.IGNORECASE),
        "{server} does not speak TLS, which the URI asks for.",
        "Check host and port. If the server is meant to speak plain text, write grpc:// in place of grpc+tls://.",
    ),
    _Cause(
        re.compile(r"certificate has expired|CERTIFICATE_EXPIRED", re.IGNORECASE),
        "The certificate of {server} has ended.",
        "Its administrator has to renew it; check the clock here.",
    ),
    _Cause(
        re.compile(r"certificate.verify.failed", re.IGNORECASE),
        "The certificate of {server} is of no authority that is trusted here.",
        "Name the PEM file of its authority: MICROMEGAS_CA_BUNDLE, or ca_bundle in the profile.",
    ),
    _Cause(
        re.compile(r"is not in peer certificate|hostname verification", re.IGNORECASE),
        "The certificate of {server} is for another name.",
        "Write the name in the URI that the certificate is for.",
    ),
    _Cause(
        re.compile(r"Failed parsing HTTP/2|selected ALPN", re.IGNORECASE),
        "What answers at {server} is no Flight SQL server.",
        "Check the port: health and metrics over HTTP have one of their own.",
    ),
)
_HUNG_UP: Final = re.compile(r"Socket closed|Connection reset|Broken pipe|recvmsg|sendmsg", re.IGNORECASE)
_TLS_TROUBLE: Final = re.compile(r"handshake|certificate|ssl|SETTINGS frame", re.IGNORECASE)


def is_unreachable(text: str) -> bool:
    """Whether the words are gRPC's for a connection that could not be made, or broke."""
    return _UNREACHABLE.search(text) is not None


def explain_unreachable(text: str, call: Call) -> ServerUnavailable:
    """Return what became of the connection."""
    if "failed to connect" in text:
        return _explain_failed(text, call)
    if "resol" in text:
        return ServerUnavailable(f"{call.server} does not answer.")
    return ServerUnavailable(f"The connection to {call.server} was lost.", remedy="Run the query again.")


def _explain_failed(text: str, call: Call) -> ServerUnavailable:
    for cause in _CAUSES:
        if cause.words.search(text):
            return _lasting(ServerUnavailable(cause.what.format(server=call.server), remedy=cause.remedy))
    if _HUNG_UP.search(text):
        return _explain_hang_up(call)
    if _TLS_TROUBLE.search(text):
        return _lasting(
            ServerUnavailable(
                f"No secure connection to {call.server} could be made.",
                remedy="Check that the server speaks TLS exactly when the URI says grpc+tls://, and that ca_bundle "
                "names the authority of its certificate.",
            )
        )
    return ServerUnavailable(f"{call.server} does not answer.")


def _lasting(error: ServerUnavailable) -> ServerUnavailable:
    """Mark an error that another attempt would meet again."""
    error.retryable = False
    return error


def _explain_hang_up(call: Call) -> ServerUnavailable:
    """Something listens there and ended the connection before a word of gRPC was said."""
    server = call.server
    if not call.is_encrypted:
        return ServerUnavailable(
            f"{server} ended the connection at once; it probably speaks TLS, which the URI does not ask for.",
            remedy=f"Write grpc+tls:// in place of grpc://. {_PASSING}",
        )
    if call.shows_certificate:
        return ServerUnavailable(
            f"{server} ended the TLS handshake; it probably does not accept the certificate that was shown.",
            remedy="Show one that has not ended, of an authority that the server's --tls-client-ca names: "
            f"MICROMEGAS_CLIENT_CERTIFICATE_FILE and MICROMEGAS_CLIENT_KEY_FILE. {_PASSING}",
        )
    return ServerUnavailable(
        f"{server} ended the TLS handshake; it probably asks for a client's certificate, and none was shown.",
        remedy=f"Set MICROMEGAS_CLIENT_CERTIFICATE_FILE and MICROMEGAS_CLIENT_KEY_FILE. {_PASSING}",
    )


_MAX_TEXT_CHARACTERS: Final = 1000
_MAX_RAW_CHARACTERS: Final = 64 * 1024

# The library's words for a status: "Flight returned not found error, with message: …", "Flight cancelled call, …".
_PREFIX: Final = re.compile(
    r"\A(?:\w+: )?(?P<status>(?:Flight|gRPC) (?:returned [a-z -]{1,40} error|cancelled call|RPC failed)),?"
    r" with message: "
)
# What the library, or a server built on it, appends to the server's own words.
_SUFFIX: Final = re.compile(
    r"[.:]? ?(?:gRPC client debug context: |Client context: |Traceback \(most recent call last\)|"
    r"Detail: (?:Python exception|Internal|Unauthenticated|Unauthorized|Unavailable|TimedOut|Cancelled|Failed))"
)
_QUERY_ID: Final = re.compile(r"\s*\(query_id=([A-Za-z0-9._-]{1,64})\)")
_PLACE: Final = re.compile(r"\bline:? (\d{1,9}),? column:? (\d{1,9})", re.IGNORECASE)

_DOTS_OF_A_JWT: Final = 2
_KEY_REMEDY: Final = (
    "If it is an API key, check the file that api_key_file names or ask the server's administrator; else sign in again."
)
_AUDIENCE_REMEDY: Final = (
    "If the server expects another audience, ask for a token with --audience NAME; its administrator knows the name. "
    "Else sign in again."
)


class _Words(NamedTuple):
    """What the library said, taken apart: the server's own words, the library's for the status, and who spoke."""

    text: str
    status: str
    are_from_server: bool


def translate_failure(error: BaseException, call: Call) -> MicromegasError:
    """Return what a person should learn about a failed call."""
    if isinstance(error, MicromegasError):
        return error
    raw = str(error.args[0] if isinstance(error, KeyError) and error.args else error)[:_MAX_RAW_CHARACTERS]
    words = _server_words(raw)
    told = decode_error(call.record.error_details) if call.record.error_details is not None else None
    told = told or parse_status_text(words.text)
    if told is not None:
        told.query_id = told.query_id or call.record.query_id
        return _explain_refusal(told, call) if isinstance(told, AuthenticationError) else told
    query_id = call.record.query_id
    text = words.text
    if found := _QUERY_ID.search(text):
        query_id, text = found[1], text[: found.start()] + text[found.end() :]
    text = printable_text(text)[:_MAX_TEXT_CHARACTERS].strip()
    translated = _by_type(error, words._replace(text=text), call)
    translated.query_id = query_id
    return translated


def _by_type(  # noqa: PLR0911 - one line for each type
    error: BaseException, words: _Words, call: Call
) -> MicromegasError:
    match error:
        case flight.FlightUnauthenticatedError():
            return _refusal(call)
        case flight.FlightUnauthorizedError():
            return PermissionDenied(words.text or "The server does not allow this.")
        case flight.FlightUnavailableError():
            return _unavailable(words.text, call)
        case flight.FlightTimedOutError():
            return _timed_out(call)
        case flight.FlightCancelledError() | pa.ArrowCancelled():
            return QueryCancelled("The query was cancelled.")
        case pa.ArrowNotImplementedError():
            return UnsupportedStatement(
                words.text or "The server does not offer this.", remedy="This server cannot do it; ask another way."
            )
        case flight.FlightError() if words.text:
            return InternalError(words.text)
        case pa.ArrowException() if words.are_from_server:
            return _by_status(words)
        case _:
            return InternalError(f"The answer of {call.server} cannot be used: {words.text or type(error).__name__}")


def _by_status(words: _Words) -> MicromegasError:
    """Tell apart the codes that the library raises as one type."""
    text = words.text or "The server refused the statement."
    if "resource exhausted" in words.status:
        return ResourcesExhausted(text)
    place = _PLACE.search(text)
    line, column = (int(place[1]), int(place[2])) if place else (None, None)
    return InvalidStatement(text, line=line, column=column)


def _unavailable(text: str, call: Call) -> MicromegasError:
    if is_unreachable(text):
        return explain_unreachable(text, call)
    return Unavailable(f"{call.server} cannot answer now: {text}" if text else f"{call.server} cannot answer now.")


def _timed_out(call: Call) -> MicromegasError:
    limit = "" if call.timeout_seconds is None else f" within {call.timeout_seconds:g} s"
    return DeadlineExceeded(f"{call.server} did not finish{limit}.")


def _refusal(call: Call) -> MicromegasError:
    if not call.credential.is_given:
        return Rejected(
            f"You are not signed in to {call.server}.",
            reason="missing",
            remedy="Run %micromegas_login, or set MICROMEGAS_OIDC_CLIENT_SECRET for a service account.",
        )
    return _explain_refusal(Rejected(f"{call.server} does not accept this credential."), call)


def _explain_refusal(error: MicromegasError, call: Call) -> MicromegasError:
    """Add what the token says about itself; the server's answer stays generic on purpose."""
    if call.credential.token is not None and call.credential.token.reveal().count(".") != _DOTS_OF_A_JWT:
        error.remedy = _KEY_REMEDY
    if call.credential.token is not None and (facts := describe_token(call.credential.token, now=call.started_at)):
        error.what = f"{error.what} {facts}"
        if not has_ended(call.credential.token, now=call.started_at):
            error.remedy = _AUDIENCE_REMEDY
    return error


def _server_words(raw: str) -> _Words:
    prefix = _PREFIX.match(raw)
    text = raw[prefix.end() :] if prefix else raw
    suffix = _SUFFIX.search(text)
    return _Words(
        text=(text[: suffix.start()] if suffix else text).strip(),
        status=prefix["status"] if prefix else "",
        are_from_server=prefix is not None or suffix is not None,
    )


_MAX_CERTIFICATE_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificate:
    """A certificate with what leads to its authority, and its key, both in PEM."""

    chain: bytes = field(repr=False)
    key: HiddenBytes = field(repr=False)


def read_client_certificate(
    certificate_file: str | Path | None, key_file: str | Path | None
) -> ClientCertificate | None:
    """Read a certificate and its key; None when neither is given."""
    if certificate_file is None and key_file is None:
        return None
    if certificate_file is None or key_file is None:
        raise UsageError(
            "Only one of client_certificate_file and client_key_file is given.", remedy="Give both, or neither."
        )
    files = Path(certificate_file).expanduser(), Path(key_file).expanduser()
    try:
        # Without a password OpenSSL would ask for one on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(*files, password="")
        chain, key = (_read(file) for file in files)
    except (OSError, ssl.SSLError):  # the second is what a damaged file gives
        raise UsageError(
            "The client's certificate and its key cannot be read, or do not fit.",
            remedy="Name PEM files: the chain with the client's own certificate first, and its key without a password.",
        ) from None
    return ClientCertificate(chain=chain, key=HiddenBytes(key))


def _read(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(_MAX_CERTIFICATE_BYTES)


_MAX_CA_BUNDLE_BYTES: Final = 8 * 1024 * 1024
_MAX_MESSAGE_BYTES: Final = 256 * 1024 * 1024
_MAX_RESULTS: Final = 64
_MAX_RESULT_BYTES: Final = 16 * 1024 * 1024

# Servers answer more than one ping in five minutes with a refusal (gRPC's default); a little less often finds a dead
# connection while a long query says nothing.
_KEEPALIVE_MILLISECONDS: Final = 310_000
_KEEPALIVE_TIMEOUT_MILLISECONDS: Final = 20_000
_CONNECT_TIMEOUT_MILLISECONDS: Final = 10_000
# Above gRPC's default of 8 kB, at which it drops answers at random.
_MAX_METADATA_BYTES: Final = 64 * 1024

# gRPC begins with 64 kB that a server may send unasked, in frames of 16 kB; rows come in messages far above that.
_WINDOW_BYTES: Final = 4 * 1024 * 1024
_MAX_FRAME_BYTES: Final = 4 * 1024 * 1024

# gRPC lets channels with the same options share a connection and the pauses between attempts to make one, so an option
# of our own keeps them apart.
_CONNECTION_NUMBER: Final = "micromegas.connection"

_OPTIONS: Final = [
    ("grpc.keepalive_time_ms", _KEEPALIVE_MILLISECONDS),
    ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MILLISECONDS),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.min_reconnect_backoff_ms", _CONNECT_TIMEOUT_MILLISECONDS),
    ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.http2.lookahead_bytes", _WINDOW_BYTES),
    ("grpc.http2.max_frame_size", _MAX_FRAME_BYTES),
]


def _channel_options(address: ServerAddress) -> list[tuple[str, int]]:
    # A proxy would read what is not encrypted, token included, and cannot reach this machine's own loopback.
    may_use_proxy = address.is_encrypted and not address.is_loopback
    return [*_OPTIONS, ("grpc.enable_http_proxy", int(may_use_proxy))]


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


class FlightStream:
    """The answer of one `DoGet`. `cancel` may be called from any thread, the rest from one.

    `close` calls `on_close`, which lets go of what the answer holds on the server.
    """

    def __init__(self, reader: flight.FlightStreamReader, call: Call, on_close: Callable[[], None]) -> None:
        self._reader = reader
        self._call = call
        self.close = on_close

    @property
    def schema(self) -> pa.Schema:
        """The schema of every batch."""
        return self._reader.schema

    def read_batch(self) -> pa.RecordBatch | None:
        """Return the next batch, None at the end."""
        while True:
            try:
                chunk = self._reader.read_chunk()
            except StopIteration:
                return None
            except Exception as error:
                raise translate_failure(error, self._call) from error
            if chunk.data is not None:
                return chunk.data

    def cancel(self) -> None:
        """Tell the server to stop; safe at any time."""
        self._reader.cancel()


class Transport:
    """A connection to one server, made at the first call and made again when it is lost.

    Calls block the calling thread; they may be made from several threads. Whoever makes a transport closes it.

    Args:
        address: The server.
        ca_bundle: A PEM file of authorities in place of certifi's.
        extra_ca_bundle: A PEM file of authorities to trust besides those.
        certificate: What is shown to a server that asks for a certificate.

    Attributes:
        shows_certificate: Whether there is one to be shown.
        has_answered: Whether the server has ever answered a call.

    Raises:
        UsageError: A file of authorities cannot be used.
    """

    def __init__(
        self,
        address: ServerAddress,
        *,
        ca_bundle: str | Path | None = None,
        extra_ca_bundle: str | Path | None = None,
        certificate: ClientCertificate | None = None,
    ) -> None:
        self._recorder = CallRecorder()
        # Without it, gRPC writes its own log of lost connections to standard error.
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
        roots = _read_all_roots(ca_bundle, extra_ca_bundle) if address.is_encrypted else None
        shows = certificate if address.is_encrypted else None
        self.shows_certificate = shows is not None
        self.has_answered = False

        def connect(number: int) -> flight.FlightClient:
            return flight.connect(
                address.location,
                tls_root_certs=roots,
                cert_chain=None if shows is None else shows.chain,
                private_key=None if shows is None else shows.key,
                middleware=[self._recorder],
                generic_options=[*_channel_options(address), (_CONNECTION_NUMBER, number)],
            )

        self._connect = connect
        self._connection = (0, connect(0))
        self._lock = threading.Lock()
        self._calls_under_way = 0
        self._is_closed = False

    def reconnect(self, failed: CallRecord) -> None:
        """Make calls over another connection than that of a failed one from now on; those under way keep theirs."""
        number, _ = self._connection
        if number == failed.connection:
            self._connection = (number + 1, self._connect(number + 1))

    def tell_notices(self, tell: Callable[[str], None]) -> None:
        """Have `tell` called with what the server says about the credential, in place of a warning in the log."""
        self._recorder.notices.tell_to(tell)

    def do_get(self, ticket: bytes, call: Call, *, on_close: Callable[[], None] = lambda: None) -> FlightStream:
        """Start reading what a ticket stands for; returns when the schema is here."""
        with self._making(call) as client:
            return FlightStream(client.do_get(flight.Ticket(ticket), _options(call)), call, on_close)

    def do_action(self, action_type: str, body: bytes, call: Call) -> list[bytes]:
        """Run an action and return its results."""
        with self._making(call) as client:
            results = client.do_action(flight.Action(action_type, body), _options(call))
            return _bounded(result.body.to_pybytes() for result in results)

    def get_flight_info(self, command: bytes, call: Call) -> flight.FlightInfo:
        """Ask how to run a command."""
        with self._making(call) as client:
            return client.get_flight_info(flight.FlightDescriptor.for_command(command), _options(call))

    def do_put(self, command: bytes, schema: pa.Schema, batches: Iterable[pa.RecordBatch], call: Call) -> bytes | None:
        """Send batches and return the metadata of the server's answer, None when there is none."""
        with self._making(call) as client:
            descriptor = flight.FlightDescriptor.for_command(command)
            writer, reader = client.do_put(descriptor, schema, _options(call))
            with writer:
                for batch in batches:
                    writer.write_batch(batch)
                writer.done_writing()
                answer = reader.read()
            return None if answer is None else answer.to_pybytes()

    def close(self) -> None:
        """Give up the connection, once the calls that are being started have started."""
        with self._lock:
            self._is_closed = True
        self._close_when_unused()

    def _close_when_unused(self) -> None:
        # The Flight library crashes the process when a connection is closed while a call starts on another thread.
        with self._lock:
            is_unused = self._is_closed and not self._calls_under_way
        if is_unused:
            self._connection[1].close()

    @contextmanager
    def _making(self, call: Call) -> Iterator[flight.FlightClient]:
        with self._lock:
            if self._is_closed:
                raise UsageError("The client is closed.", remedy="Make a new one.")
            self._calls_under_way += 1
        call.record.connection, client = self._connection
        try:
            with self._recorder.recording(call.record):
                yield client
            self.has_answered = True
        except Exception as error:
            translated = translate_failure(error, call)
            if call.record.error_details is not None or not isinstance(translated, ServerUnavailable):
                self.has_answered = True
            if translated is error:
                raise
            raise translated from error
        finally:
            with self._lock:
                self._calls_under_way -= 1
            self._close_when_unused()


def _options(call: Call) -> flight.FlightCallOptions:
    return flight.FlightCallOptions(timeout=call.timeout_seconds, headers=[*call.credential.headers, *call.headers])


def _bounded(results: Iterable[bytes]) -> list[bytes]:
    kept: list[bytes] = []
    for result in results:
        kept.append(result)
        if len(kept) > _MAX_RESULTS or sum(map(len, kept)) > _MAX_RESULT_BYTES:
            raise InternalError("The server's answer is larger than it may be.")
    return kept


def _read_all_roots(ca_bundle: str | Path | None, extra_ca_bundle: str | Path | None) -> bytes:
    roots = _read_roots(certifi.where() if ca_bundle is None else ca_bundle, name="ca_bundle")
    return roots if extra_ca_bundle is None else roots + b"\n" + _read_roots(extra_ca_bundle, name="extra_ca_bundle")


def _read_roots(bundle: str | Path, *, name: str) -> bytes:
    try:
        with Path(bundle).expanduser().open("rb") as file:
            pem = file.read(_MAX_CA_BUNDLE_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"The {name} cannot be read: {error.strerror}.", remedy="Name a PEM file of certificates."
        ) from error
    if len(pem) > _MAX_CA_BUNDLE_BYTES or b"-----BEGIN CERTIFICATE-----" not in pem:
        raise UsageError(f"The {name} holds no certificates.", remedy="Name a PEM file of certificates.")
    return pem
