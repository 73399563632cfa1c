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
from urllib.parse import SplitResult, urlsplit

from micromegas_jupyter.core.json import JsonError, decode_strict_json
from micromegas_jupyter.core.protocols import AuthProvider, Secret
from micromegas_jupyter.errors import InternalError, LoginRequired, MicromegasError, ProviderUnavailable, UsageError
from micromegas_jupyter.flightsql.error_details import ERROR_DETAILS_KEY, MAX_DETAILS_BYTES, is_query_id, printable_text

_SCHEMES: Final = {
    "grpc": "grpc",
    "grpc+tcp": "grpc",
    "http": "grpc",
    "grpc+tls": "grpc+tls",
    "https": "grpc+tls",
}
_TLS_PORT: Final = 443
_EXAMPLE: Final = "Write it like grpc://localhost:50051 or grpc+tls://lake.example.com:50051."


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAddress:
    """A server's address.

    Attributes:
        location: The URI as the Flight library takes it.
        name: Host and port, for messages.
        is_encrypted: Whether the connection uses TLS.
        is_loopback: Whether the host is this machine.
    """

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
    parts, port = _split(uri)
    scheme = _SCHEMES.get(parts.scheme)
    host = parts.hostname
    if scheme is None or not host or not _is_plain(host):
        raise UsageError("The server's address is not a Flight SQL URI.", remedy=_EXAMPLE)
    if parts.username is not None or parts.password is not None:
        raise UsageError("The server's address holds a user name.", remedy="Leave it out and pass an auth_provider.")
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise UsageError("The server's address holds more than host and port.", remedy=_EXAMPLE)
    is_encrypted = scheme == "grpc+tls"
    if port is None:
        if not is_encrypted:
            raise UsageError(f"The address of {host} names no port.", remedy=_EXAMPLE)
        port = _TLS_PORT
    name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return ServerAddress(
        location=f"{scheme}://{name}", name=name, is_encrypted=is_encrypted, is_loopback=_is_loopback(host)
    )


def _split(uri: str) -> tuple[SplitResult, int | None]:
    try:
        parts = urlsplit(uri.strip())
        port = parts.port  # read here because it is checked when it is read
    except ValueError:
        raise UsageError("The server's address is not a Flight SQL URI.", remedy=_EXAMPLE) from None
    return parts, port


def _is_plain(host: str) -> bool:
    return host.isascii() and not any(character in " %\\,;" or not character.isprintable() for character in host)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


# Printable ASCII of at most 64 characters (COMPAT: `x-client-agent`).
_TAG: Final = re.compile(r"[\x20-\x7e]{1,64}")
_AGENT_MARKS: Final = {"CLAUDECODE": "claude-code"}
_SESSION_VARIABLES: Final = ("CLAUDE_CODE_SESSION_ID",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """What a client says about itself with every call, as upstream's client does; for the server's audit only."""

    agent: str
    entrypoint: str
    session: str


def find_attribution(environ: Mapping[str, str], *, entrypoint: str | None = None) -> Attribution:
    """Return the tags of this process."""
    if entrypoint and _tag(entrypoint) is None:
        raise UsageError("client_entrypoint cannot be sent.", remedy="Use at most 64 printable ASCII characters.")
    marked = next((agent for variable, agent in _AGENT_MARKS.items() if environ.get(variable)), "none")
    sessions = (_tag(environ.get(variable)) for variable in _SESSION_VARIABLES)
    return Attribution(
        agent=_tag(environ.get("MICROMEGAS_CLIENT_AGENT")) or marked,
        entrypoint=entrypoint or _tag(environ.get("MICROMEGAS_CLIENT_ENTRYPOINT")) or _detect_entrypoint(),
        session=next((session for session in sessions if session), None) or str(uuid.uuid4()),
    )


def _tag(text: str | None) -> str | None:
    return text if isinstance(text, str) and _TAG.fullmatch(text) else None


def _detect_entrypoint() -> str:
    if "ipykernel" in sys.modules:
        return "jupyter"
    if sys.argv and sys.argv[0] == "-c":
        return "script"
    is_interactive = sys.flags.interactive or not hasattr(sys.modules.get("__main__"), "__file__")
    return "repl" if is_interactive else "script"


Header = tuple[bytes, bytes]
"""A key in lower case and a value of printable ASCII, as the Flight library takes them."""

MAX_HEADER_VALUE_BYTES: Final = 16 * 1024

# gRPC over HTTP/2, "Header-Name"; names that begin with grpc- are gRPC's own.
_KEY: Final = re.compile(r"(?!grpc-)[0-9a-z_.-]{1,128}")
_VALUE: Final = re.compile(r"[\x20-\x7e]*")


def build_tag_headers(tags: Attribution) -> tuple[Header, ...]:
    """Return the metadata that says what kind of client calls."""
    found = {
        "x-client-type": "python",
        "x-client-agent": tags.agent,
        "x-client-entrypoint": tags.entrypoint,
        "x-client-session": tags.session,
    }
    return tuple(build_header(key, value) for key, value in found.items() if value)


def build_option_headers(
    *, begin: str | None = None, end: str | None = None, limit: int | None = None, preserve_dictionary: bool = False
) -> tuple[Header, ...]:
    """Return the metadata of what a query asks for besides its SQL; `begin` and `end` are RFC 3339."""
    if limit is not None and (type(limit) is not int or not 0 <= limit < 2**63):
        raise UsageError("The limit is not a whole number of rows.", remedy="Give 0 or more, or leave it out.")
    found = {
        "query_range_begin": begin,
        "query_range_end": end,
        "limit": None if limit is None else str(limit),
        "preserve_dictionary": "true" if preserve_dictionary else None,
    }
    return tuple(build_header(key, value) for key, value in found.items() if value is not None)


def build_header(key: str | bytes, value: str | bytes) -> Header:
    """Return a checked header; the key becomes lower case. An error never holds the value."""
    key_text, value_text = _as_text(key).lower(), _as_text(value)
    if _KEY.fullmatch(key_text) is None:
        raise UsageError("The name of a header cannot be sent.", remedy="Use letters, digits, '-', '_' and '.'.")
    if _VALUE.fullmatch(value_text) is None or len(value_text) > MAX_HEADER_VALUE_BYTES:
        raise UsageError(
            f"The value of the header {key_text} cannot be sent.",
            remedy="It must be printable ASCII without line breaks, of at most 16 kB.",
        )
    return key_text.encode("ascii"), value_text.encode("ascii")


def parse_static_headers(
    headers: Mapping[str | bytes, str | bytes] | Iterable[tuple[str | bytes, str | bytes]],
) -> tuple[Header, ...]:
    """Read upstream's `headers` argument: a mapping, or pairs."""
    try:
        pairs = [(key, value) for key, value in (headers.items() if isinstance(headers, Mapping) else headers)]
    except (TypeError, ValueError):
        raise UsageError("headers is neither a mapping nor a list of pairs.") from None
    return tuple(build_header(key, value) for key, value in pairs)


def _as_text(value: str | bytes) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")  # every byte becomes a character, so that the checks judge it
    if isinstance(value, str):
        return value
    raise UsageError("A header is neither text nor bytes.")


NOTICE_KEY: Final = "x-micromegas-notice"

_MAX_CHARACTERS: Final = 256
_MAX_TEXTS: Final = 4
_LOG: Final = logging.getLogger("micromegas_jupyter.client")


class Notices:
    """The notices of one client. One lock guards which texts are known; it is free while one is told."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: set[str] = set()
        self._tell: Callable[[str], None] = _log

    def tell_to(self, tell: Callable[[str], None]) -> None:
        """Have `tell` called with each new text, on any thread, in place of a warning in the log."""
        self._tell = tell

    def note(self, headers: Mapping[str, Sequence[str | bytes]]) -> None:
        """Tell a notice that stands in a call's metadata, unless it is known; the sender is not trusted."""
        texts = headers.get(NOTICE_KEY, ())
        if not texts or not isinstance(texts[0], str):
            return
        text = " ".join(printable_text(texts[0][:_MAX_CHARACTERS]).split())
        with self._lock:
            if not text or text in self._known or len(self._known) >= _MAX_TEXTS:
                return
            self._known.add(text)
        # Whoever shows it decides nothing about the call.
        with suppress(Exception):
            self._tell(text)


def _log(text: str) -> None:
    _LOG.warning("The server says: %s", text)


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
    def is_given(self) -> bool:
        """Whether the call carries an `authorization` header."""
        return any(key == _AUTHORIZATION for key, _ in self.headers)


class CredentialSource:
    """Gives the credential of each call: a token of the provider, or static headers where there is no provider."""

    def __init__(self, provider: AuthProvider | None, static_headers: tuple[Header, ...] = ()) -> None:
        self._provider = provider
        self._static = Credential(headers=static_headers)

    @property
    def carries_secret(self) -> bool:
        """Whether calls carry a credential, or a header whose name says that it may be one."""
        return self._provider is not None or any(_SECRET_NAME.search(key) for key, _ in self._static.headers)

    def fetch(self) -> Credential:
        """Return the credential of the call that is about to be made."""
        if self._provider is None:
            return self._static
        token = _check_token(_ask(self._provider.get_token))
        return Credential(headers=(build_header(_AUTHORIZATION, _SCHEME + token),), token=Secret(token))

    def renew(self, refused: Credential) -> Credential | None:
        """Return a fresh credential in place of one that a server refused, or None when there is no other."""
        invalidate: Callable[[str], object] | None = getattr(self._provider, "invalidate", None)
        token = refused.token
        if token is None or invalidate is None:
            return None
        _ask(lambda: invalidate(token.reveal()))
        renewed = self.fetch()
        return None if renewed.token == token else renewed


def check_plaintext(address: ServerAddress, source: CredentialSource, *, allow_plaintext: bool) -> None:
    """Refuse to send credentials over plain text to another machine."""
    if address.is_encrypted or address.is_loopback or not source.carries_secret or allow_plaintext:
        return
    raise UsageError(
        f"The connection to {address.name} is not encrypted: anybody on the way could read the token.",
        remedy="Use grpc+tls://, or pass allow_plaintext=True where the way is safe.",
    )


def check_provider(provider: object) -> AuthProvider | None:
    """Return the provider when it can give tokens."""
    if provider is None or isinstance(provider, AuthProvider):
        return provider
    raise UsageError("The auth_provider has no get_token method.", remedy="Pass a provider of micromegas_jupyter.auth.")


def _ask(question: Callable[[], _T]) -> _T:
    try:
        return question()
    except MicromegasError:
        raise
    except OSError as error:  # what requests, sockets and files raise
        raise ProviderUnavailable("The auth provider could not reach what it needs.") from error
    except Exception as error:
        raise LoginRequired(f"The auth provider gave no token ({type(error).__name__}).") from error


def _check_token(token: object) -> str:
    if isinstance(token, str) and 0 < len(token) <= MAX_HEADER_VALUE_BYTES - len(_SCHEME) and _TOKEN.fullmatch(token):
        return token
    raise UsageError(
        "What the auth provider gave is not a bearer token.",
        remedy="A token is printable ASCII without blanks, of at most 16 kB.",
    )


_MAX_FIELD_CHARACTERS: Final = 200
_JWT_PARTS: Final = 3


def read_claims(token: str) -> Mapping[str, object] | None:
    """Return what a JWT says about itself, for the person who holds it: nothing is verified. None when it is none.

    The header is not looked at: a token of a kind that no server accepts is what a person wants to know about.
    """
    parts = token.split(".")
    if len(parts) != _JWT_PARTS:
        return None
    try:
        claims = decode_strict_json(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)).decode("utf-8"))
    except (ValueError, JsonError):  # the first is what base64 and UTF-8 raise, too
        return None
    return claims if isinstance(claims, dict) else None


def claimed_end(claims: Mapping[str, object] | None) -> datetime | None:
    """Return when a token says that it ends (aware UTC); None when it does not say."""
    from micromegas_jupyter.oidc.claims import expiry_of
    from micromegas_jupyter.oidc.jws import TokenProblem

    try:
        return None if claims is None else expiry_of(claims)
    except TokenProblem:
        return None


def describe_token(token: Secret, *, now: datetime) -> str:
    """Return sentences on a JWT's audience, issuer and end; empty when it is none."""
    claims = read_claims(token.reveal()) or {}
    audience, issuer, ends = claims.get("aud"), claims.get("iss"), claimed_end(claims)
    if isinstance(audience, list):
        audience = ", ".join(str(entry) for entry in audience)
    facts = []
    if isinstance(audience, str) and isinstance(issuer, str):
        facts.append(f'The token is for audience "{_short(audience)}", from {_short(issuer)}.')
    if ends is not None and ends <= now:
        facts.append(f"It ended at {ends:%Y-%m-%d %H:%M} UTC.")
    return " ".join(facts)


def has_ended(token: Secret, *, now: datetime) -> bool:
    """Whether a JWT says that it ended; False when it is none."""
    ends = claimed_end(read_claims(token.reveal()))
    return ends is not None and ends <= now


def _short(text: str) -> str:
    return printable_text(text)[:_MAX_FIELD_CHARACTERS]


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


WHO_AM_I_ACTION: Final = "MicromegasWhoAmI"
_MAX_ANSWER_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerIdentity:
    """The caller as the server sees them.

    Attributes:
        subject: The issuer's own name of the caller, or the API key's name.
        name: A name for people, when the credential has one.
        email: The caller's address, when the credential has one.
        issuer: Who vouches for the caller.
        auth_type: How the caller proved who they are: `oidc`, `api_key` or `none`.
        is_admin: Whether the server's administrator list names the caller.
        expires_at: When the credential ends (aware), None when it does not.
        groups: The caller's groups, as many as fit into the answer.
        group_count: How many the server counts.
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


def parse_server_identity(data: bytes) -> ServerIdentity:
    """Read the server's answer."""
    try:
        answer = _decode(data)
        groups = _texts(answer.get("groups"))
        return ServerIdentity(
            subject=_text(answer["subject"]),
            issuer=_text(answer["issuer"]),
            auth_type=_text(answer["auth_type"]),
            is_admin=answer["is_admin"] is True,
            name=_optional_text(answer.get("name")),
            email=_optional_text(answer.get("email")),
            expires_at=_time(answer.get("expires_at")),
            groups=groups,
            group_count=max(_count(answer.get("group_count")), len(groups)),
        )
    except (ValueError, TypeError, KeyError, JsonError) as error:
        raise InternalError("The server's answer to who you are cannot be read.") from error


def _decode(data: bytes) -> dict[str, object]:
    if len(data) > _MAX_ANSWER_BYTES:
        raise ValueError("too large")
    answer = decode_strict_json(data.decode("utf-8"))
    if not isinstance(answer, dict):
        raise TypeError("not an object")
    return answer


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not text")
    return " ".join(printable_text(value).split())  # one line, whatever a server says


def _optional_text(value: object) -> str | None:
    return None if value is None else _text(value)


def _texts(value: object) -> tuple[str, ...]:
    if value is None:
        return ()  # a server that does not tell
    if not isinstance(value, list):
        raise TypeError("not a list")
    return tuple(_text(entry) for entry in value)


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _time(value: object) -> datetime | None:
    text = _optional_text(value)
    if text is None:
        return None
    at = datetime.fromisoformat(text)
    if at.utcoffset() is None:
        raise ValueError("no offset")
    return at
