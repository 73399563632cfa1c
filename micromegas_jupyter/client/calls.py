"""One call to a Flight SQL server: where to, who makes it, its headers, and what came back beside its data.

The checks of headers are not a courtesy: the Flight library ends the whole process over a key in upper case or a value
that is not printable ASCII. The credential is fetched before the call: a provider that failed inside the Flight library
would have its exception swallowed, and the call would go out without a credential.
"""

import base64
import ipaddress
import logging
import re
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypeVar
from urllib.parse import urlsplit

from micromegas_jupyter.core.json import JsonError, decode_strict_json
from micromegas_jupyter.core.protocols import AuthProvider
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import InternalError, LoginRequired, MicromegasError, ProviderUnavailable, UsageError
from micromegas_jupyter.flightsql.error_details import (
    ERROR_DETAILS_KEY,
    MAX_DETAILS_BYTES,
    is_query_id,
    printable_text,
)

_SCHEMES: Final = {"grpc": "grpc", "grpc+tcp": "grpc", "http": "grpc", "grpc+tls": "grpc+tls", "https": "grpc+tls"}
_TLS_PORT: Final = 443
_EXAMPLE: Final = "Write it like grpc://localhost:50051 or grpc+tls://lake.example.com:50051."


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAddress:
    """A server's address: `location` as the Flight library takes it, `name` (host and port) for messages."""

    location: str
    name: str
    is_encrypted: bool
    is_loopback: bool


def parse_address(uri: str) -> ServerAddress:
    """Read a URI; `http` and `https` mean `grpc` and `grpc+tls`, as upstream has it.

    Without a port, TLS means 443; plain text needs one.
    """
    if not isinstance(uri, str):
        raise UsageError("The server's address is not text.", remedy=_EXAMPLE)
    try:
        parts = urlsplit(uri.strip())
        port = parts.port  # checked when it is read
    except ValueError:
        raise UsageError("The server's address is not a Flight SQL URI.", remedy=_EXAMPLE) from None
    scheme, host = _SCHEMES.get(parts.scheme), parts.hostname
    if scheme is None or not host or not _is_plain(host):
        raise UsageError("The server's address is not a Flight SQL URI.", remedy=_EXAMPLE)
    if parts.username is not None or parts.password is not None:
        raise UsageError("The server's address contains a user name.", remedy="Remove it and pass an auth_provider.")
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise UsageError("The server's address contains more than host and port.", remedy=_EXAMPLE)
    is_encrypted = scheme == "grpc+tls"
    if port is None and not is_encrypted:
        raise UsageError(f"The address of {host} has no port.", remedy=_EXAMPLE)
    name = f"[{host}]:{port or _TLS_PORT}" if ":" in host else f"{host}:{port or _TLS_PORT}"
    return ServerAddress(
        location=f"{scheme}://{name}", name=name, is_encrypted=is_encrypted, is_loopback=_is_loopback(host)
    )


def _is_plain(host: str) -> bool:
    return host.isascii() and not any(character in " %\\,;" or not character.isprintable() for character in host)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


Header = tuple[bytes, bytes]
"""A key in lower case and a value of printable ASCII, as the Flight library takes them."""

MAX_HEADER_VALUE_BYTES: Final = 16 * 1024
# gRPC over HTTP/2, "Header-Name"; names that begin with grpc- are gRPC's own.
_KEY: Final = re.compile(r"(?!grpc-)[0-9a-z_.-]{1,128}")
_VALUE: Final = re.compile(r"[\x20-\x7e]*")
# Printable ASCII of at most 64 characters (COMPAT: `x-client-agent`).
_TAG: Final = re.compile(r"[\x20-\x7e]{1,64}")


def build_header(key: str | bytes, value: str | bytes) -> Header:
    """Return a checked header; the key becomes lower case. An error never contains the value."""
    key_text, value_text = _as_text(key).lower(), _as_text(value)
    if _KEY.fullmatch(key_text) is None:
        raise UsageError("The name of a header cannot be sent.", remedy="Use letters, digits, '-', '_' and '.'.")
    if _VALUE.fullmatch(value_text) is None or len(value_text) > MAX_HEADER_VALUE_BYTES:
        raise UsageError(
            f"The value of the header {key_text} cannot be sent.",
            remedy="It must be printable ASCII without line breaks, of at most 16 kB.",
        )
    return key_text.encode("ascii"), value_text.encode("ascii")


def _as_text(value: str | bytes) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")  # every byte becomes a character, so that the checks see it
    if isinstance(value, str):
        return value
    raise UsageError("A header is neither text nor bytes.")


def parse_static_headers(
    headers: Mapping[str | bytes, str | bytes] | Iterable[tuple[str | bytes, str | bytes]],
) -> tuple[Header, ...]:
    """Read upstream's `headers` argument: a mapping, or pairs."""
    try:
        pairs = [(key, value) for key, value in (headers.items() if isinstance(headers, Mapping) else headers)]
    except (TypeError, ValueError):
        raise UsageError("headers is neither a mapping nor a list of pairs.") from None
    return tuple(build_header(key, value) for key, value in pairs)


def build_tag_headers(environ: Mapping[str, str], *, entrypoint: str | None = None) -> tuple[Header, ...]:
    """Return what this process says about itself with every call, as upstream's client does; for the audit only."""
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
    """Return the metadata of what a query asks for besides its SQL; `begin` and `end` are RFC 3339."""
    if limit is not None and (type(limit) is not int or not 0 <= limit < 2**63):
        raise UsageError("The limit is not a whole number of rows.", remedy="Give 0 or more, or leave it out.")
    options = {
        "query_range_begin": begin,
        "query_range_end": end,
        "limit": None if limit is None else str(limit),
        "preserve_dictionary": "true" if preserve_dictionary else None,
    }
    return tuple(build_header(key, value) for key, value in options.items() if value is not None)


NOTICE_KEY: Final = "x-micromegas-notice"
_MAX_NOTICE_CHARACTERS: Final = 256
_MAX_NOTICES: Final = 4
_LOG: Final = logging.getLogger("micromegas_jupyter.client")


class Notices:
    """What a server says about the credential; each new text is reported once, as a warning in the log or by `on_new`.

    One lock guards which texts are known; it is free while one is reported.
    """

    def __init__(self, on_new: Callable[[str], None] | None = None) -> None:
        self.on_new = on_new or (lambda text: _LOG.warning("The server says: %s", text))
        self._lock = threading.Lock()
        self._known: set[str] = set()

    def note(self, headers: Mapping[str, Sequence[str | bytes]]) -> None:
        """Report the notice in a call's metadata, unless it is known; the sender is not trusted."""
        texts = headers.get(NOTICE_KEY, ())
        if not texts or not isinstance(texts[0], str):
            return
        text = " ".join(printable_text(texts[0][:_MAX_NOTICE_CHARACTERS]).split())
        with self._lock:
            if not text or text in self._known or len(self._known) >= _MAX_NOTICES:
                return
            self._known.add(text)
        with suppress(Exception):  # whoever shows it decides nothing about the call
            self.on_new(text)


_AUTHORIZATION: Final = b"authorization"
_SCHEME: Final = "Bearer "
_SECRET_NAME: Final = re.compile(rb"auth|cookie|key|token|secret|password|credential|session")
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What one call carries to say who makes it; empty when there is nothing to say."""

    headers: tuple[Header, ...] = field(default=(), repr=False)
    token: Secret | None = None

    @property
    def has_authorization(self) -> bool:
        """Whether the call carries an `authorization` header."""
        return any(key == _AUTHORIZATION for key, _ in self.headers)


class CredentialSource:
    """The credential of each call: a token of the provider, or static headers where there is no provider."""

    def __init__(self, provider: AuthProvider | None, static_headers: tuple[Header, ...] = ()) -> None:
        if provider is not None and not isinstance(provider, AuthProvider):
            raise UsageError(
                "The auth_provider has no get_token method.", remedy="Pass a provider of micromegas_jupyter.auth."
            )
        self._provider = provider
        self._static = Credential(headers=static_headers)

    def fetch(self) -> Credential:
        """Return the credential of the call that is about to be made."""
        if self._provider is None:
            return self._static
        token = _check_token(_call_provider(self._provider.get_token))
        return Credential(headers=(build_header(_AUTHORIZATION, _SCHEME + token),), token=Secret(token))

    def renew(self, refused: Credential) -> Credential | None:
        """Return a fresh credential in place of one that a server refused, or None when there is no other."""
        invalidate: Callable[[str], object] | None = getattr(self._provider, "invalidate", None)
        token = refused.token
        if token is None or invalidate is None:
            return None
        _call_provider(lambda: invalidate(token.reveal()))
        renewed = self.fetch()
        return None if renewed.token == token else renewed

    def check_plaintext(self, address: ServerAddress) -> None:
        """Refuse to send a credential, or a header whose name says that it may be one, in plain text to a machine."""
        has_secret = self._provider is not None or any(_SECRET_NAME.search(key) for key, _ in self._static.headers)
        if has_secret and not (address.is_encrypted or address.is_loopback):
            raise UsageError(
                f"The connection to {address.name} is not encrypted: anyone on the network could read the token.",
                remedy="Use grpc+tls://, or pass allow_plaintext=True on a network that you trust.",
            )


def _call_provider(work: Callable[[], _T]) -> _T:
    try:
        return work()
    except MicromegasError:
        raise
    except OSError as error:  # what requests, sockets and files raise
        raise ProviderUnavailable("The auth provider could not reach what it needs.") from error
    except Exception as error:
        raise LoginRequired(f"The auth provider gave no token ({type(error).__name__}).") from error


def _check_token(token: object) -> str:
    if isinstance(token, str) and len(token) <= MAX_HEADER_VALUE_BYTES - len(_SCHEME) and _TOKEN.fullmatch(token):
        return token
    raise UsageError(
        "The auth provider returned something that is not a bearer token.",
        remedy="A token is printable ASCII without spaces, of at most 16 kB.",
    )


_MAX_FIELD_CHARACTERS: Final = 200
_JWT_SEGMENTS: Final = 3


def read_claims(token: str) -> Mapping[str, object] | None:
    """Return what a JWT says about itself, for the person who has it: nothing is verified. None when it is no JWT.

    The header is not read: a token of a kind that no server accepts is what a person wants to know about.
    """
    segments = token.split(".")
    if len(segments) != _JWT_SEGMENTS:
        return None
    try:
        payload = base64.urlsafe_b64decode(segments[1] + "=" * (-len(segments[1]) % 4))
        claims = decode_strict_json(payload.decode("utf-8"))
    except (ValueError, JsonError):  # the first is what base64 and UTF-8 raise, too
        return None
    return claims if isinstance(claims, dict) else None


def claimed_end(claims: Mapping[str, object] | None) -> datetime | None:
    """Return when a token says that it expires (aware UTC); None when it does not say."""
    from micromegas_jupyter.oidc.claims import expiry_of
    from micromegas_jupyter.oidc.jws import TokenProblem

    try:
        return None if claims is None else expiry_of(claims)
    except TokenProblem:
        return None


def describe_token(token: Secret, *, now: datetime) -> tuple[str, bool]:
    """Return sentences on a JWT's audience, issuer and expiry, empty when it is no JWT; and whether it has expired."""
    claims = read_claims(token.reveal()) or {}
    audience, issuer, expires_at = claims.get("aud"), claims.get("iss"), claimed_end(claims)
    if isinstance(audience, list):
        audience = ", ".join(str(entry) for entry in audience)
    facts = []
    if isinstance(audience, str) and isinstance(issuer, str):
        audience, issuer = (printable_text(text)[:_MAX_FIELD_CHARACTERS] for text in (audience, issuer))
        facts.append(f'The token is for audience "{audience}", from {issuer}.')
    has_expired = expires_at is not None and expires_at <= now
    if has_expired:
        facts.append(f"It expired at {expires_at:%Y-%m-%d %H:%M} UTC.")
    return " ".join(facts), has_expired


QUERY_ID_KEY: Final = "x-micromegas-query-id"
_PUSHBACK_KEY: Final = "grpc-retry-pushback-ms"
_PUSHBACK: Final = re.compile(r"[0-9]{1,9}", re.ASCII)


class CallRecord:
    """The metadata of one call's answer; written by the thread that makes it, read by any.

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
        """Store what is known in a call's initial or trailing metadata; the sender is not trusted."""
        query_ids = headers.get(QUERY_ID_KEY, ())
        if query_ids and is_query_id(query_ids[0]):
            self.query_id = str(query_ids[0])
        details = headers.get(ERROR_DETAILS_KEY, ())
        if details and isinstance(details[0], bytes) and len(details[0]) <= MAX_DETAILS_BYTES:
            self.error_details = details[0]
        if pushback := headers.get(_PUSHBACK_KEY, ()):
            self.pushback_ms = int(pushback[0]) if _PUSHBACK.fullmatch(str(pushback[0])) else -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call to a server.

    Attributes:
        server: Host and port, for messages.
        is_encrypted: Whether the connection uses TLS.
        has_certificate: Whether the client has a certificate for a server that asks for one.
        credential: Who makes it.
        headers: Its other headers.
        timeout_seconds: How long it may last, None for as long as it takes.
        started_at: When it is made (aware UTC).
        record: The metadata of its answer.
    """

    server: str
    is_encrypted: bool = False
    has_certificate: bool = False
    credential: Credential
    headers: tuple[Header, ...] = ()
    timeout_seconds: float | None = None
    started_at: datetime
    record: CallRecord = field(default_factory=CallRecord)


WHO_AM_I_ACTION: Final = "MicromegasWhoAmI"
_MAX_IDENTITY_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerIdentity:
    """The caller as the server identifies them.

    Attributes:
        subject: The issuer's own name of the caller, or the API key's name.
        name: A name for people, when the credential has one.
        email: The caller's address, when the credential has one.
        issuer: Who vouches for the caller.
        auth_type: How the caller proved who they are: `oidc`, `api_key` or `none`.
        is_admin: Whether the server's administrator list names the caller.
        expires_at: When the credential expires (aware), None when it does not.
        groups: The caller's groups, as many as fit into the answer.
        group_count: How many the server counts.
        reads_nothing: Whether no role lets the caller read any table.
    """

    subject: str
    issuer: str
    auth_type: str
    is_admin: bool
    name: str | None = None
    email: str | None = None
    expires_at: datetime | None = None
    groups: tuple[str, ...] = ()
    group_count: int = 0
    reads_nothing: bool = False


def parse_server_identity(data: bytes) -> ServerIdentity:
    """Read the server's answer to `MicromegasWhoAmI`."""
    try:
        answer = _expect(decode_strict_json(data[: _MAX_IDENTITY_BYTES + 1].decode("utf-8")), dict)
        count, expires_at = answer.get("group_count"), answer.get("expires_at")
        groups = [] if answer.get("groups") is None else _expect(answer["groups"], list)
        return ServerIdentity(
            subject=_line(answer["subject"]),
            issuer=_line(answer["issuer"]),
            auth_type=_line(answer["auth_type"]),
            is_admin=answer["is_admin"] is True,
            name=None if answer.get("name") is None else _line(answer["name"]),
            email=None if answer.get("email") is None else _line(answer["email"]),
            expires_at=None if expires_at is None else _aware(_line(expires_at)),
            groups=tuple(_line(group) for group in groups),
            group_count=max(count if type(count) is int else 0, len(groups)),
            reads_nothing=answer.get("reads_nothing") is True,
        )
    except (ValueError, TypeError, KeyError, JsonError) as error:
        raise InternalError("The server's answer about your identity cannot be read.") from error


def _expect(value: object, kind: type[_T]) -> _T:
    if not isinstance(value, kind):
        raise TypeError(kind.__name__)
    return value


def _line(value: object) -> str:
    return " ".join(printable_text(_expect(value, str)).split())  # one line, whatever a server says


def _aware(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    if at.utcoffset() is None:
        raise ValueError("no offset")
    return at
