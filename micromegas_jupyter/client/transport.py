"""Calls to a Flight SQL server with the Flight library: address, headers, credential, connection, and failures.

The Flight library aborts the whole process for a key in upper case or a value that is not printable ASCII, and
swallows exceptions from a provider that fails inside it. Therefore headers are checked, and tokens fetched, before the
call.
"""

import logging
import os
import re
import sys
import threading
import uuid
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import flight

from micromegas_jupyter.core.protocols import AuthProvider
from micromegas_jupyter.core.system import Clock, HiddenText, Secret, jitter
from micromegas_jupyter.core.text import is_loopback
from micromegas_jupyter.errors import (
    AuthenticationError,
    DeadlineExceeded,
    InternalError,
    InvalidStatement,
    LoginRequired,
    MicromegasError,
    PermissionDenied,
    ProviderUnavailable,
    QueryCancelled,
    Rejected,
    ResourcesExhausted,
    ServerUnavailable,
    Unavailable,
    UnsupportedStatement,
    UsageError,
)
from micromegas_jupyter.flightsql.commands import (
    ERROR_DETAILS_KEY,
    MAX_DETAILS_BYTES,
    decode_error,
    is_query_id,
    parse_status_text,
    printable_text,
)

_SCHEMES: Final = {"grpc": "grpc", "grpc+tcp": "grpc", "http": "grpc", "grpc+tls": "grpc+tls", "https": "grpc+tls"}
_TLS_PORT: Final = 443
_EXAMPLE: Final = "Write it like grpc://localhost:50051 or grpc+tls://lake.example.com:50051."


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAddress:
    """A server's address: `location` in the Flight library's format, `name` (host and port) for messages."""

    location: str
    name: str
    is_encrypted: bool
    is_loopback: bool


def parse_address(uri: str) -> ServerAddress:
    """Parse a URI; `http` and `https` mean `grpc` and `grpc+tls`, as for upstream; TLS without a port means 443."""
    if not isinstance(uri, str):
        raise UsageError("The server's address is not a string.", remedy=_EXAMPLE)
    try:
        parts = urlsplit(uri.strip())
        port = parts.port  # reading the port validates it
    except ValueError:
        raise UsageError("The server's address is not a Flight SQL URI.", remedy=_EXAMPLE) from None
    scheme, host = _SCHEMES.get(parts.scheme), parts.hostname
    if scheme is None or not host or not _is_plain(host):
        raise UsageError("The server's address is not a Flight SQL URI.", remedy=_EXAMPLE)
    if parts.username is not None or parts.password is not None:
        raise UsageError("The server's address contains a user name.", remedy="Remove it and pass an auth_provider.")
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise UsageError("The server's address contains more than a host and port.", remedy=_EXAMPLE)
    is_encrypted = scheme == "grpc+tls"
    if port is None and not is_encrypted:
        raise UsageError(f"The address of {host} has no port.", remedy=_EXAMPLE)
    name = f"[{host}]:{port or _TLS_PORT}" if ":" in host else f"{host}:{port or _TLS_PORT}"
    return ServerAddress(
        location=f"{scheme}://{name}", name=name, is_encrypted=is_encrypted, is_loopback=is_loopback(host)
    )


def _is_plain(host: str) -> bool:
    return host.isascii() and not any(character in " %\\,;" or not character.isprintable() for character in host)


Header = tuple[bytes, bytes]
"""A lowercase key and a value of printable ASCII, as the Flight library requires."""

MAX_HEADER_VALUE_BYTES: Final = 16 * 1024
# gRPC over HTTP/2, "Header-Name"; names that start with grpc- are reserved for gRPC.
_KEY: Final = re.compile(r"(?!grpc-)[0-9a-z_.-]{1,128}")
_VALUE: Final = re.compile(r"[\x20-\x7e]*")
# Printable ASCII of at most 64 characters (COMPAT: `x-client-agent`).
_TAG: Final = re.compile(r"[\x20-\x7e]{1,64}")


def build_header(key: str | bytes, value: str | bytes) -> Header:
    """Return a checked header with a lowercase key. Errors never contain the value."""
    key_text, value_text = _as_text(key).lower(), _as_text(value)
    if _KEY.fullmatch(key_text) is None:
        raise UsageError("A header name cannot be sent.", remedy="Use letters, digits, '-', '_' and '.'.")
    if _VALUE.fullmatch(value_text) is None or len(value_text) > MAX_HEADER_VALUE_BYTES:
        raise UsageError(
            f"The value of the header {key_text} cannot be sent.",
            remedy="It must be printable ASCII without line breaks, at most 16 kB.",
        )
    return key_text.encode("ascii"), value_text.encode("ascii")


def _as_text(value: str | bytes) -> str:
    text = HiddenText(value.decode("latin-1")) if isinstance(value, bytes) else value  # so that checks see every byte
    if isinstance(text, str):
        return text
    raise UsageError("A header is neither a string nor bytes.")


def parse_static_headers(headers: Iterable[Any]) -> tuple[Header, ...]:
    """Parse the pairs that `hide_texts` creates from upstream's `headers` argument."""
    try:
        pairs = [(key, value) for key, value in headers]
    except (TypeError, ValueError):
        raise UsageError("headers is neither a mapping nor a list of pairs.") from None
    return tuple(build_header(key, value) for key, value in pairs)


def build_tag_headers(environ: Mapping[str, str], *, entrypoint: str | None = None) -> tuple[Header, ...]:
    """Return the metadata about this process for every call, as upstream's client sends it; only for the audit log."""
    if entrypoint and not _tag(entrypoint):
        raise UsageError("client_entrypoint cannot be sent.", remedy="Use at most 64 printable ASCII characters.")
    tags = {
        "x-client-type": "python",
        "x-client-agent": _tag(environ.get("MICROMEGAS_CLIENT_AGENT"))
        or ("claude-code" if environ.get("CLAUDECODE") else "none"),
        "x-client-entrypoint": entrypoint or _tag(environ.get("MICROMEGAS_CLIENT_ENTRYPOINT")) or _detect_entrypoint(),
        "x-client-session": _tag(environ.get("CLAUDE_CODE_SESSION_ID")) or str(uuid.uuid4()),
    }
    return tuple(build_header(key, value) for key, value in tags.items())


def _tag(text: str | None) -> str:
    return text if isinstance(text, str) and _TAG.fullmatch(text) else ""


def _detect_entrypoint() -> str:
    if "ipykernel" in sys.modules:
        return "jupyter"
    if sys.argv and sys.argv[0] == "-c":
        return "script"
    is_interactive = sys.flags.interactive or not hasattr(sys.modules.get("__main__"), "__file__")
    return "repl" if is_interactive else "script"


def build_option_headers(
    *, begin: str | None = None, end: str | None = None, limit: int | None = None, preserve_dictionary: bool = False
) -> tuple[Header, ...]:
    """Return the metadata of a query's options; `begin` and `end` are RFC 3339."""
    if limit is not None and (type(limit) is not int or not 0 <= limit < 2**63):
        raise UsageError("The limit must be an integer that is 0 or greater.", remedy="Correct it, or leave it out.")
    options = {
        "query_range_begin": begin,
        "query_range_end": end,
        "limit": None if limit is None else str(limit),
        "preserve_dictionary": "true" if preserve_dictionary else None,
    }
    return tuple(build_header(key, value) for key, value in options.items() if value is not None)


_AUTHORIZATION: Final = b"authorization"
_SCHEME: Final = "Bearer "
_SECRET_NAME: Final = re.compile(rb"auth|cookie|key|token|secret|password|credential|session")
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """The headers that identify a call's caller; may be empty."""

    headers: tuple[Header, ...] = field(default=(), repr=False)
    token: Secret | None = None
    clock_offset_seconds: float = 0.0  # how far the identity provider's clock is ahead, if measured


class CredentialSource:
    """The credential of each call: a token from the provider, or static headers if there is no provider."""

    def __init__(self, provider: AuthProvider | None, static_headers: tuple[Header, ...] = ()) -> None:
        if provider is not None and not isinstance(provider, AuthProvider):
            raise UsageError(
                "The auth_provider doesn't have a get_token method.",
                remedy="Pass a provider from micromegas_jupyter.auth.",
            )
        self._provider = provider
        self._static = Credential(headers=static_headers)

    def fetch(self) -> Credential:
        """Return the credential for the next call."""
        if self._provider is None:
            return self._static
        token = _fetch_token(self._provider)
        if token is None:
            raise UsageError(
                "The auth provider returned a value that is not a bearer token.",
                remedy="A token must be printable ASCII without spaces, at most 16 kB.",
            )
        offset = getattr(self._provider, "clock_offset_seconds", 0.0)
        return Credential(
            headers=(build_header(_AUTHORIZATION, _SCHEME + token.reveal()),),
            token=token,
            clock_offset_seconds=offset if isinstance(offset, float) else 0.0,
        )

    def renew(self, refused: Credential) -> Credential | None:
        """Return a fresh credential after the server rejected one, or None if there is no other credential."""
        invalidate: Callable[[str], object] | None = getattr(self._provider, "invalidate", None)
        token = refused.token
        if token is None or invalidate is None:
            return None
        _call_provider(lambda: invalidate(token.reveal()))
        renewed = self.fetch()
        return None if renewed.token == token else renewed

    def check_plaintext(self, address: ServerAddress) -> None:
        """Reject sending a credential, or a header whose name looks like one, to another machine in plain text."""
        has_secret = self._provider is not None or any(_SECRET_NAME.search(key) for key, _ in self._static.headers)
        if has_secret and not (address.is_encrypted or address.is_loopback):
            raise UsageError(
                f"The connection to {address.name} is not encrypted: anyone on the network could read the token.",
                remedy="Use grpc+tls://. In Python, allow_plaintext=True permits it, on a network that you trust.",
            )


def _call_provider(work: Callable[[], _T]) -> _T:
    try:
        return work()
    except MicromegasError:
        raise
    except OSError as error:  # raised by requests, sockets, and files
        raise ProviderUnavailable("The auth provider could not reach a service that it depends on.") from error
    except Exception as error:
        raise LoginRequired(f"The auth provider didn't return a token ({type(error).__name__}).") from error


def _fetch_token(provider: AuthProvider) -> Secret | None:
    """Return the provider's token, or None if it cannot be sent; raising frames never have it as plain text."""
    token: object = _call_provider(provider.get_token)
    if isinstance(token, str) and len(token) <= MAX_HEADER_VALUE_BYTES - len(_SCHEME) and _TOKEN.fullmatch(token):
        return Secret(token)
    return None


QUERY_ID_KEY, TAIL_KEY, _COUNTS_KEY = "x-micromegas-query-id", "x-micromegas-tail", "x-micromegas-counts"
_PUSHBACK_KEY: Final = "grpc-retry-pushback-ms"
_PUSHBACK: Final = re.compile(r"[0-9]{1,9}", re.ASCII)


class CallRecord:
    """The metadata of a call's response; written by the calling thread, readable from any thread."""

    def __init__(self) -> None:
        self.query_id: str | None = None
        self.error_details: bytes | None = None
        self.connection = 0  # the number of the client's connection that the call used
        self.counts: str | None = None  # JSON: file counts, at the end of a query
        self.cursor: str | None = None  # the next cursor of a follow
        self.pushback_ms: int | None = None  # delay before a failed call may be retried; -1 for never
        self.credential: Credential | None = None  # from the last RPC

    def note(self, headers: Mapping[str, Sequence[str | bytes]]) -> None:
        """Store the known fields of a call's initial or trailing metadata; the sender is not trusted."""
        texts = {key: values[0] for key, values in headers.items() if values and isinstance(values[0], str)}
        if is_query_id(query_id := texts.get(QUERY_ID_KEY)):
            self.query_id = query_id
        details = headers.get(ERROR_DETAILS_KEY, ())
        if details and isinstance(details[0], bytes) and len(details[0]) <= MAX_DETAILS_BYTES:
            self.error_details = details[0]
        self.counts = texts.get(_COUNTS_KEY, self.counts)
        self.cursor = texts.get(TAIL_KEY, self.cursor)
        if pushback := headers.get(_PUSHBACK_KEY, ()):
            self.pushback_ms = int(pushback[0]) if _PUSHBACK.fullmatch(str(pushback[0])) else -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call to `server` (host and port, for messages); without `timeout_seconds` it has no timeout."""

    server: str
    is_encrypted: bool = False
    has_certificate: bool = False
    credential: Credential
    credentials: CredentialSource | None = None  # for a call that may need several RPCs
    headers: tuple[Header, ...] = ()
    timeout_seconds: float | None = None
    started_at: datetime
    record: CallRecord = field(default_factory=CallRecord)


_TRY_AGAIN: Final = "If it is only starting or stopping, try again."
_HUNG_UP: Final = re.compile(r"Socket closed|Connection reset|Broken pipe|recvmsg|sendmsg", re.IGNORECASE)
_UNREACHABLE: Final = re.compile(
    rf"{_HUNG_UP.pattern}|failed to connect to all addresses|errors resolving|DNS resolution failed|Endpoint closing|"
    r"keepalive watchdog timeout|Stream removed|GOAWAY|Transport closed|connection attempt timed out|"
    r"Connection refused|handshake|empty address list",
    re.IGNORECASE,
)

_TLS_TROUBLE: Final = re.compile(r"handshake|certificate|ssl|SETTINGS frame", re.IGNORECASE)

# gRPC's error message for a failed connection, its meaning, and the remedy. The library has two builds, with OpenSSL
# and with BoringSSL.
_CAUSES: Final = (
    (
        r"HTTP proxy returned response code 4",
        "A proxy refused the connection to {server}.",
        "Ask for direct access to that port, and add its host to no_proxy. grpc_proxy or https_proxy sets the proxy.",
    ),
    (
        r"wrong.version.number|http.request",
        "{server} does not speak TLS, but the URI asks for it.",
        "Check host and port. If the server is meant to use plain text, write grpc:// instead of grpc+tls://.",
    ),
    (
        r"certificate has expired|CERTIFICATE_EXPIRED",
        "The certificate of {server} has expired.",
        "Ask its administrator to renew it; check the clock of this machine.",
    ),
    (
        r"certificate.verify.failed",
        "The certificate of {server} was not issued by an authority that is trusted here.",
        "Specify the PEM file of its authority with MICROMEGAS_CA_BUNDLE, or ca_bundle in the profile.",
    ),
    (
        r"is not in peer certificate|hostname verification",
        "The certificate of {server} is for another name.",
        "Use the name in the certificate as the host in the URI.",
    ),
    (
        r"Failed parsing HTTP/2|selected ALPN",
        "{server} is not a Flight SQL server.",
        "Check the port: health and metrics over HTTP have a separate port.",
    ),
)


def _explain_unreachable(text: str, call: Call) -> ServerUnavailable:
    if "failed to connect" not in text:
        if "resol" in text:
            return ServerUnavailable(f"{call.server} does not respond.")
        return ServerUnavailable(f"The connection to {call.server} was lost.", remedy="Run the query again.")
    for pattern, what, remedy in _CAUSES:
        if re.search(pattern, text, re.IGNORECASE):
            return _permanent(what.format(server=call.server), remedy)
    if _HUNG_UP.search(text):
        return _explain_hang_up(call)
    if _TLS_TROUBLE.search(text):
        return _permanent(
            f"No secure connection to {call.server} could be made.",
            "Check that the server uses TLS exactly when the URI says grpc+tls://, and that ca_bundle names the "
            "authority of its certificate.",
        )
    return ServerUnavailable(f"{call.server} does not respond.")


def _permanent(what: str, remedy: str) -> ServerUnavailable:
    """Return an error that a retry would not fix."""
    return ServerUnavailable(what, remedy=remedy, retryable=False)


def _explain_hang_up(call: Call) -> ServerUnavailable:
    """The server closed the connection before gRPC started."""
    if not call.is_encrypted:
        return ServerUnavailable(
            f"{call.server} closed the connection immediately; it probably requires TLS, but the URI does not use it.",
            remedy=f"Write grpc+tls:// instead of grpc://. {_TRY_AGAIN}",
        )
    if call.has_certificate:
        return ServerUnavailable(
            f"{call.server} ended the TLS handshake; it probably does not accept the client certificate.",
            remedy="Use one that has not expired, of an authority that the server's --tls-client-ca names: "
            f"MICROMEGAS_CLIENT_CERTIFICATE_FILE and MICROMEGAS_CLIENT_KEY_FILE. {_TRY_AGAIN}",
        )
    return ServerUnavailable(
        f"{call.server} ended the TLS handshake; it probably requires a client certificate, but none is configured.",
        remedy=f"Set MICROMEGAS_CLIENT_CERTIFICATE_FILE and MICROMEGAS_CLIENT_KEY_FILE. {_TRY_AGAIN}",
    )


_MAX_TEXT_CHARACTERS: Final = 1000
_MAX_RAW_CHARACTERS: Final = 64 * 1024
# How the library words a status: "Flight returned not found error, with message: …", "Flight cancelled call, …".
_PREFIX: Final = re.compile(
    r"\A(?:\w+: )?(?P<status>(?:Flight|gRPC) (?:returned [a-z -]{1,40} error|cancelled call|RPC failed)),?"
    r" with message: "
)
# What the library, or a server built on it, appends to the server's message.
_SUFFIX: Final = re.compile(
    r"[.:]? ?(?:gRPC client debug context: |Client context: |Traceback \(most recent call last\)|"
    r"Detail: (?:Python exception|Internal|Unauthenticated|Unauthorized|Unavailable|TimedOut|Cancelled|Failed))"
)
_QUERY_ID: Final = re.compile(r"\s*\(query_id=([A-Za-z0-9._-]{1,64})\)")
_POSITION: Final = re.compile(r"\bline:? (\d{1,9}),? column:? (\d{1,9})", re.IGNORECASE)

_DOTS_OF_A_JWT: Final = 2
_KEY_REMEDY: Final = (
    "If it is an API key, check the file in api_key_file, or ask the server's administrator for a different key or a "
    "service account. Otherwise, sign in again."
)
_CLOCK_REMEDY: Final = "Set this machine's clock (NTP), then sign in again."
_REASON_REMEDY: Final = (
    "Sign in again. If the server still rejects the token, give its administrator the query ID: the reason is in the "
    "server's log."
)


class _Status(NamedTuple):
    """The library's parsed message: the server's text, the library's text for the status, and the source."""

    text: str
    status: str
    is_from_server: bool


def translate_failure(error: BaseException, call: Call) -> MicromegasError:
    """Translate a failed call into an error for users."""
    if isinstance(error, MicromegasError):
        return error
    raw = str(error.args[0] if isinstance(error, KeyError) and error.args else error)[:_MAX_RAW_CHARACTERS]
    status = _parse_status(raw)
    sent = decode_error(call.record.error_details) if call.record.error_details is not None else None
    sent = sent or parse_status_text(status.text)
    if sent is not None:
        sent.query_id = sent.query_id or call.record.query_id
        return _explain_refusal(sent, call) if isinstance(sent, AuthenticationError) else sent
    query_id, text = call.record.query_id, status.text
    if found := _QUERY_ID.search(text):
        query_id, text = found[1], text[: found.start()] + text[found.end() :]
    text = printable_text(text)[:_MAX_TEXT_CHARACTERS].strip()
    translated = _by_type(error, status._replace(text=text), call)
    translated.query_id = query_id
    return translated


def _parse_status(raw: str) -> _Status:
    prefix = _PREFIX.match(raw)
    text = raw[prefix.end() :] if prefix else raw
    suffix = _SUFFIX.search(text)
    return _Status(
        text=(text[: suffix.start()] if suffix else text).strip(),
        status=prefix["status"] if prefix else "",
        is_from_server=prefix is not None or suffix is not None,
    )


def _by_type(  # noqa: C901, PLR0911 - one line for each type
    error: BaseException, status: _Status, call: Call
) -> MicromegasError:
    text = status.text
    match error:
        case flight.FlightUnauthenticatedError():
            return _refusal(call)
        case flight.FlightUnauthorizedError():
            return PermissionDenied(text or "The server doesn't allow this.")
        case flight.FlightUnavailableError() if _UNREACHABLE.search(text):
            return _explain_unreachable(text, call)
        case flight.FlightUnavailableError():
            return Unavailable(f"{call.server} is unavailable{f': {text}' if text else '.'}")
        case flight.FlightTimedOutError():
            limit = "" if call.timeout_seconds is None else f" within {call.timeout_seconds:g} s"
            return DeadlineExceeded(f"{call.server} didn't finish{limit}.")
        case flight.FlightCancelledError() | pa.ArrowCancelled():
            return QueryCancelled("The query was canceled.")
        case pa.ArrowNotImplementedError():
            what = text or "The server does not offer this."
            return UnsupportedStatement(what, remedy="The server doesn't support this; rewrite the query.")
        case flight.FlightError() if text:
            return InternalError(text)
        case pa.ArrowException() if status.is_from_server and "resource exhausted" in status.status:
            return ResourcesExhausted(text or "The server rejected the statement.")
        case pa.ArrowException() if status.is_from_server:
            position = _POSITION.search(text)
            line, column = (int(position[1]), int(position[2])) if position else (None, None)
            return InvalidStatement(text or "The server rejected the statement.", line=line, column=column)
        case _:
            return InternalError(f"The response of {call.server} cannot be used: {text or type(error).__name__}")


def _refusal(call: Call) -> MicromegasError:
    if _AUTHORIZATION not in dict(call.credential.headers):
        return Rejected(
            f"You are not signed in to {call.server}.",
            reason="missing",
            remedy="Run %micromegas_login, or set MICROMEGAS_OIDC_CLIENT_SECRET for a service account.",
        )
    return _explain_refusal(Rejected(f"{call.server} does not accept this credential."), call)


def _explain_refusal(error: MicromegasError, call: Call) -> MicromegasError:
    """Add what the client knows about the token; the server's response is the same for all causes."""
    token = call.credential.token
    if token is None:
        return error
    if token.reveal().count(".") != _DOTS_OF_A_JWT:
        error.remedy = _KEY_REMEDY
        return error
    from micromegas_jupyter.client.token_claims import describe_token

    found = describe_token(token, now=call.started_at, clock_offset_seconds=call.credential.clock_offset_seconds)
    error.what = " ".join(filter(None, (error.what, found.origin, found.times)))
    if found.is_clock_wrong:
        error.remedy = _CLOCK_REMEDY
    elif not found.has_expired:
        error.remedy = _REASON_REMEDY
    return error


NOTICE_KEY: Final = "x-micromegas-notice"
_MAX_NOTICE_CHARACTERS: Final = 256
_MAX_NOTICES: Final = 4
_LOG: Final = logging.getLogger("micromegas_jupyter.client")


class CallRecorder(flight.ClientMiddlewareFactory):  # type: ignore[misc] # pyarrow ships no types
    """Assigns each call the record that its thread has set, and reports each new server notice to `on_notice`."""

    def __init__(self) -> None:
        super().__init__()
        self.on_notice: Callable[[str], None] = lambda text: _LOG.warning("The server says: %s", text)
        self._local = threading.local()
        self._lock = threading.Lock()
        self._known: set[str] = set()

    @contextmanager
    def recording(self, record: CallRecord) -> Iterator[None]:
        """Make the calls that this thread starts inside the block write to `record`, for their whole duration."""
        self._local.record = record
        try:
            yield
        finally:
            del self._local.record

    def start_call(self, _info: Any) -> flight.ClientMiddleware:
        """Return a call's middleware; the library calls this on the thread that makes the call."""
        return _Recording(getattr(self._local, "record", None) or CallRecord(), self)

    def note(self, headers: Mapping[str, Sequence[str | bytes]]) -> None:
        """Report the notice in a call's metadata, unless already reported; the sender is not trusted."""
        texts = headers.get(NOTICE_KEY, ())
        if not texts or not isinstance(texts[0], str):
            return
        text = " ".join(printable_text(texts[0][:_MAX_NOTICE_CHARACTERS]).split())
        with self._lock:
            if not text or text in self._known or len(self._known) >= _MAX_NOTICES:
                return
            self._known.add(text)
        with suppress(Exception):  # a failing listener must not affect the call
            self.on_notice(text)


class _Recording(flight.ClientMiddleware):  # type: ignore[misc] # pyarrow ships no types
    def __init__(self, record: CallRecord, recorder: CallRecorder) -> None:
        super().__init__()
        self._listeners = record, recorder

    def received_headers(self, headers: Mapping[str, Sequence[str | bytes]]) -> None:
        for listener in self._listeners:  # the library would swallow exceptions; neither listener raises any
            listener.note(headers)


_MAX_MESSAGE_BYTES: Final = 256 * 1024 * 1024
_MAX_RESULTS: Final = 64
_MAX_RESULT_BYTES: Final = 16 * 1024 * 1024

_OPTIONS: Final = [
    # Servers allow one ping every five minutes (gRPC's default). Pinging slightly less often still detects a dead
    # connection while a long query is silent.
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.min_reconnect_backoff_ms", 10_000),
    # Above gRPC's default of 8 kB, beyond which it drops responses at random.
    ("grpc.max_metadata_size", 64 * 1024),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    # By default, gRPC accepts 64 kB without flow control, in frames of 16 kB; rows arrive in far larger messages.
    ("grpc.http2.lookahead_bytes", 4 * 1024 * 1024),
    ("grpc.http2.max_frame_size", 4 * 1024 * 1024),
]
# gRPC lets channels with the same options share a connection and its reconnection backoff, so a custom option keeps
# them apart.
_CONNECTION_NUMBER: Final = "micromegas.connection"
_VERBOSITY: Final = "GRPC_VERBOSITY"


class Uses:
    """Counts the uses of a connection; `close` closes it immediately or after the last use."""

    def __init__(self, on_unused: Callable[[], None]) -> None:
        self._on_unused = on_unused
        self._lock = threading.RLock()  # the garbage collector may finish a use on a thread that holds it
        self._count = 0
        self.is_closed = False

    @property
    def is_used(self) -> bool:
        """Whether the connection is in use."""
        return self._count > 0

    def begin(self) -> None:
        """Count a use; raises UsageError after `close`, unless it is part of a counted use."""
        with self._lock:
            if self.is_closed and not self._count:
                raise UsageError("The client is closed.", remedy="Create a new one.")
            self._count += 1

    def finish(self) -> None:
        """Stop counting a use."""
        with self._lock:
            self._count -= 1
        self._close_if_unused()

    def share(self, user: object) -> Callable[[], None]:
        """Count another use while one is counted, until the result is called or `user` is garbage-collected."""
        with self._lock:
            self._count += 1
        finalizer = weakref.finalize(user, self.finish)
        finalizer.atexit = False
        return finalizer

    def close(self) -> None:
        """Reject new uses; repeated calls do nothing."""
        with self._lock:
            self.is_closed = True
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        with self._lock:
            is_unused = self.is_closed and not self._count
        if is_unused:
            self._on_unused()


class FlightStream:
    """The response to one `DoGet`. Any thread may call `cancel`, one thread the rest."""

    def __init__(
        self, reader: flight.FlightStreamReader, call: Call, *, uses: Uses, on_close: Callable[[], None]
    ) -> None:
        self._reader = reader
        self._call = call
        self._on_close = on_close
        self._finish = uses.share(self)

    def close(self) -> None:
        """Release the stream's resources."""
        self._on_close()
        self._finish()

    @property
    def schema(self) -> pa.Schema:
        """The schema of every batch."""
        return self._reader.schema

    def read_batch(self) -> pa.RecordBatch | None:
        """Return the next batch, or None at the end."""
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
        """Stop the server's processing; safe at any time."""
        self._reader.cancel()


@cache
def _start_grpc_quietly() -> None:
    """Keep the Flight library's gRPC from logging lost connections and proxies to standard error.

    It reads `GRPC_VERBOSITY` once, when the first client is created. A user's own value takes precedence. Our value
    exists only at that moment, in the C environment: `os.environ`, later child processes, and other copies of gRPC
    don't see it.
    """
    if _VERBOSITY in os.environ:
        return
    os.putenv(_VERBOSITY, "NONE")
    try:
        flight.connect("grpc://127.0.0.1:1").close()  # connects only when a call is made
    finally:
        os.unsetenv(_VERBOSITY)


class Transport:
    """A connection to one server, opened on the first call and reopened when lost; thread-safe.

    `uses` counts running calls and open streams; its `close` closes the connection.
    """

    def __init__(
        self,
        address: ServerAddress,
        *,
        ca_bundle: str | Path | None = None,
        extra_ca_bundle: str | Path | None = None,
        certificate_file: str | Path | None = None,
        key_file: str | Path | None = None,
    ) -> None:
        if (certificate_file is None) != (key_file is None):
            raise UsageError(
                "client_certificate_file and client_key_file must be set together.", remedy="Pass both, or neither."
            )
        _start_grpc_quietly()
        self.recorder = CallRecorder()
        self.has_certificate = address.is_encrypted and certificate_file is not None
        self.has_answered = False
        # A proxy could read unencrypted data, including the token, and cannot reach this machine's loopback.
        may_use_proxy = address.is_encrypted and not address.is_loopback
        tls: dict[str, bytes] = {}
        if address.is_encrypted or certificate_file is not None:
            from micromegas_jupyter.client.certificates import read_tls_options  # a command starts faster without it

            options = read_tls_options(ca_bundle, extra_ca_bundle, certificate_file, key_file)
            tls = options if address.is_encrypted else {}

        def connect(number: int) -> flight.FlightClient:
            options = [*_OPTIONS, ("grpc.enable_http_proxy", int(may_use_proxy)), (_CONNECTION_NUMBER, number)]
            return flight.connect(address.location, middleware=[self.recorder], generic_options=options, **tls)

        self._connect = connect
        self._connection = (0, connect(0))
        # The Flight library crashes the process if a connection is closed while a call starts on another thread.
        self.uses = Uses(self._close_connection)

    def _close_connection(self) -> None:
        self._connection[1].close()

    def reconnect(self, failed: CallRecord) -> None:
        """Use a different connection than the failed call's from now on; open calls keep theirs."""
        number, _ = self._connection
        if number == failed.connection:
            self._connection = (number + 1, self._connect(number + 1))

    def do_get(self, ticket: bytes, call: Call, *, on_close: Callable[[], None] = lambda: None) -> FlightStream:
        """Start reading a ticket's data; returns when the schema has arrived."""
        with self._calling(call) as client:
            reader = client.do_get(flight.Ticket(ticket), _options(call))
            return FlightStream(reader, call, uses=self.uses, on_close=on_close)

    def do_action(self, action_type: str, body: bytes, call: Call) -> list[bytes]:
        """Run an action and return its results."""
        with self._calling(call) as client:
            results: list[bytes] = []
            for result in client.do_action(flight.Action(action_type, body), _options(call)):
                results.append(result.body.to_pybytes())
                if len(results) > _MAX_RESULTS or sum(map(len, results)) > _MAX_RESULT_BYTES:
                    raise InternalError("The server's response is too large.")
            return results

    def describe(self, command: bytes, call: Call, *, as_schema: bool = False) -> Any:
        """Request a command's `flight.FlightInfo` or `flight.SchemaResult`."""
        with self._calling(call) as client:
            descriptor = flight.FlightDescriptor.for_command(command)
            return (client.get_schema if as_schema else client.get_flight_info)(descriptor, _options(call))

    def do_put(self, command: bytes, schema: pa.Schema, batches: Iterable[pa.RecordBatch], call: Call) -> bytes | None:
        """Send batches and return the metadata of the server's response, or None."""
        with self._calling(call) as client:
            descriptor = flight.FlightDescriptor.for_command(command)
            writer, reader = client.do_put(descriptor, schema, _options(call))
            with writer:
                for batch in batches:
                    writer.write_batch(batch)
                writer.done_writing()
                answer = reader.read()
            return None if answer is None else answer.to_pybytes()

    @contextmanager
    def _calling(self, call: Call) -> Iterator[flight.FlightClient]:
        self.uses.begin()
        call.record.connection, client = self._connection
        call.record.credential = call.credential
        try:
            with self.recorder.recording(call.record):
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
            self.uses.finish()


def _options(call: Call) -> flight.FlightCallOptions:
    return flight.FlightCallOptions(timeout=call.timeout_seconds, headers=[*call.credential.headers, *call.headers])


RETRY_SECONDS: Final = 20.0
"""How long after the first failure a read is retried, unless its own deadline is earlier."""

# A wrong address should be reported sooner, so a server that has never responded to this client gets less time.
_FIRST_CONTACT_SECONDS: Final = 2.0
_MAX_ATTEMPTS: Final = 12

# Source: gRPC A6, "Exponential Backoff": the pause is drawn from 0.8 to 1.2 times the nominal one.
_FIRST_PAUSE_SECONDS: Final = 0.1
_MAX_PAUSE_SECONDS: Final = 4.0
_MIN_FACTOR: Final = 0.8
_JITTER_FACTOR: Final = 0.4


class Attempts:
    """The attempts of one call, with `timeout_seconds` in total: whether, when, and how to retry."""

    def __init__(  # noqa: PLR0913 - the call and its dependencies
        self,
        credentials: CredentialSource,
        *,
        clock: Clock,
        may_repeat: bool,
        timeout_seconds: float | None = None,
        server: Transport | None = None,
        stopped: threading.Event | None = None,
        jitter: Callable[[], float] = jitter,
    ) -> None:
        self.credentials = credentials
        self._clock = clock
        self._may_repeat = may_repeat
        self._may_renew = may_repeat
        self._timeout_seconds = timeout_seconds
        self._server = server
        self.stopped = threading.Event() if stopped is None else stopped  # when set, there are no further attempts
        self._jitter = jitter
        self._started_at = clock.monotonic()
        self._retry_until: float | None = None
        self._failures = 0

    def remaining_seconds(self) -> float | None:
        """Return the timeout of the next attempt, or None."""
        if self._timeout_seconds is None or not self._failures:
            return self._timeout_seconds
        remaining_seconds = self._timeout_seconds - (self._clock.monotonic() - self._started_at)
        return max(round(remaining_seconds, 1), 0.1)  # the Flight library treats a negative timeout as no limit

    def next_credential(self, error: BaseException, credential: Credential, record: CallRecord) -> Credential | None:
        """Wait until the next attempt is due and return its credential, or None with the number of attempts."""
        if self._server is not None and self._server.uses.is_closed:
            return None
        match error:
            case AuthenticationError() if self._may_renew:
                self._may_renew = False
                return self.credentials.renew(record.credential or credential)
            case Unavailable() if self._server is not None and self._may_repeat and error.retryable:
                self._failures += 1
                pause_seconds = self._pause_seconds(record, self._server)
                if pause_seconds is None and self._failures > 1:
                    seconds = self._clock.monotonic() - self._started_at
                    shown = f"{seconds:.0f}" if seconds >= 1 else f"{seconds:.1f}"
                    error.remedy = f"{error.remedy} Tried {self._failures} times in {shown} s.".lstrip()
                elif pause_seconds is not None and not self.stopped.wait(pause_seconds):
                    self._server.reconnect(record)
                    return self.credentials.fetch()
        return None

    def _pause_seconds(self, record: CallRecord, server: Transport) -> float | None:
        """Return the pause before the next attempt, or None if there is no further attempt."""
        now = self._clock.monotonic()
        if self._retry_until is None:
            self._retry_until = now + (RETRY_SECONDS if server.has_answered else _FIRST_CONTACT_SECONDS)
            if self._timeout_seconds is not None:
                self._retry_until = min(self._retry_until, self._started_at + self._timeout_seconds)
        nominal_seconds = min(_FIRST_PAUSE_SECONDS * 2 ** (self._failures - 1), _MAX_PAUSE_SECONDS)
        pause_seconds = nominal_seconds * (_MIN_FACTOR + _JITTER_FACTOR * self._jitter())
        if record.pushback_ms is not None:
            # Source: gRPC A6, "Pushback": a negative value means no further attempts.
            pause_seconds = max(pause_seconds, record.pushback_ms / 1000) if record.pushback_ms >= 0 else RETRY_SECONDS
        is_over = self._failures >= _MAX_ATTEMPTS or now + pause_seconds >= self._retry_until
        return None if is_over else pause_seconds
