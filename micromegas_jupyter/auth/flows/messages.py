"""What a Jupyter server and a kernel say to each other about a sign-in by redirect, and the names in its addresses.

A start address ends with `kernel_id.random`, and the state of the sign-in has the same form, so the server finds the
kernel and keeps nothing. Messages are JSON objects with a version; neither side trusts the other, and both may be of
different versions of this package: what cannot be read as a message is None.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

from micromegas_jupyter.auth.flows.pages import LoginOutcome
from micromegas_jupyter.core.secrets import Secret

REQUEST_TYPE = "micromegas_oauth_request"
REPLY_TYPE = "micromegas_oauth_reply"
VERSION = 1

MAX_QUERY_CHARACTERS = 16 * 1024
MAX_ADDRESS_CHARACTERS = 2048
MAX_AUTHORIZATION_CHARACTERS = 16 * 1024
MAX_SENTENCE_CHARACTERS = 2000
RANDOM_BYTES = 32
"""How many random bytes make a name unguessable (RFC 9700 section 4.7 asks for enough of them in a state)."""

START_PATH = "micromegas/start/"
CALLBACK_PATH = "micromegas/callback"
DONE_PATH = "micromegas/done"

_MAX_PARAMETERS = 50
# A kernel id is a UUID nearly everywhere; what provisioners and gateways make of it stays within this.
_KERNEL_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_NAME = re.compile(r"([A-Za-z0-9_-]{1,64})\.[A-Za-z0-9_-]{43}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
# RFC 3986 section 3.2: a name, an IPv4 or a bracketed IPv6 address, and a port; no user.
_AUTHORITY = re.compile(r"(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?", re.ASCII)
_BASE_URL = re.compile(r"[\x21-\x7e]+", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRequest:
    """Where should the browser go that opened the start address `name`? The provider returns it to `redirect_uri`."""

    name: str = field(repr=False)
    redirect_uri: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackRequest:
    """A browser came back with this query."""

    query: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeRequest:
    """How did the sign-in end whose state has this digest?"""

    state_digest: str


Request = StartRequest | CallbackRequest | OutcomeRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The sign-in is waiting; the browser goes to `authorization_url`, whose state has the digest."""

    authorization_url: str = field(repr=False)
    state_digest: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """The callback belongs to a sign-in that was waiting for it; its outcome follows."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """There is no such sign-in, or not any more."""


@dataclass(frozen=True, slots=True)
class StillWorking:
    """The sign-in has its callback and has not ended yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The sign-in has ended."""

    outcome: LoginOutcome


Reply = Started | Accepted | Unknown | StillWorking | Ended


def build_request(request: Request) -> dict[str, object]:
    """Return a request as it is sent."""
    match request:
        case StartRequest():
            return _message("start", name=request.name, redirect_uri=request.redirect_uri)
        case CallbackRequest():
            return _message("answer", query=request.query.reveal())
        case OutcomeRequest():
            return _message("ending", state_digest=request.state_digest)


def parse_request(content: object) -> Request | None:
    """Return the request that was sent; None when it is not one of this version."""
    fields = _fields(content)
    match fields.get("action"):
        case "start":
            name = _text(fields, "name", MAX_ADDRESS_CHARACTERS)
            redirect_uri = _text(fields, "redirect_uri", MAX_ADDRESS_CHARACTERS)
            if kernel_id_in(name) is not None and redirect_uri:
                return StartRequest(name=name, redirect_uri=redirect_uri)
        case "answer":
            query = _text(fields, "query", MAX_QUERY_CHARACTERS)
            return CallbackRequest(query=Secret(query)) if query else None
        case "ending":
            digest = _digest(fields)
            return OutcomeRequest(state_digest=digest) if digest else None
    return None


def build_reply(reply: Reply) -> dict[str, object]:
    """Return a reply as it is sent."""
    match reply:
        case Started():
            return _message("started", authorization_url=reply.authorization_url, state_digest=reply.state_digest)
        case Accepted():
            return _message("accepted")
        case Unknown():
            return _message("unknown")
        case StillWorking():
            return _message("working")
        case Ended(outcome=found):
            return _message(
                "ended", is_signed_in=found.is_signed_in, who=found.who, what=found.what, remedy=found.remedy
            )


def parse_reply(content: object) -> Reply | None:
    """Return the reply that was sent; None when it is not one of this version."""
    fields = _fields(content)
    match fields.get("action"):
        case "started":
            url, digest = _text(fields, "authorization_url", MAX_AUTHORIZATION_CHARACTERS), _digest(fields)
            return Started(authorization_url=url, state_digest=digest) if url and digest else None
        case "accepted":
            return Accepted()
        case "unknown":
            return Unknown()
        case "working":
            return StillWorking()
        case "ended":
            texts = {name: fields.get(name) for name in ("who", "what", "remedy")}
            shown = {name: text[:MAX_SENTENCE_CHARACTERS] for name, text in texts.items() if isinstance(text, str)}
            return Ended(outcome=LoginOutcome(is_signed_in=fields.get("is_signed_in") is True, **shown))
    return None


def is_kernel_id(text: str) -> bool:
    """Whether a text can stand before the dot of a name."""
    return _KERNEL_ID.fullmatch(text) is not None


def build_name(kernel_id: str, random: str) -> str:
    """Return the name of one sign-in of a kernel; `random` is `RANDOM_BYTES` bytes as unpadded base64url."""
    name = f"{kernel_id}.{random}"
    if _NAME.fullmatch(name) is None:
        raise ValueError("not the parts of a name")
    return name


def kernel_id_in(name: str) -> str | None:
    """Return the kernel that a name leads to; None when it is not such a name."""
    found = _NAME.fullmatch(name)
    return None if found is None else found.group(1)


def state_in(query: str) -> str | None:
    """Return the state that stands in a query exactly once; None otherwise."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_PARAMETERS)
    except ValueError:
        return None
    states = [value for name, value in pairs if name == "state"]
    return states[0] if len(states) == 1 else None


def digest_of(name: str) -> str:
    """Return the SHA-256 of a name in hexadecimal digits, for where the name itself must not be kept."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


def public_base(url: str) -> str | None:
    """Return the address below which a Jupyter server's pages lie, with a slash at its end; None when it cannot be one.

    It is `http` or `https`, names a host, and has no user, query or fragment.
    """
    if len(url) > MAX_ADDRESS_CHARACTERS or _BASE_URL.fullmatch(url) is None or set(url) & set("\\?#"):
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    if parts.scheme not in {"http", "https"} or _AUTHORITY.fullmatch(parts.netloc) is None:
        return None
    return url if url.endswith("/") else f"{url}/"


def callback_address(base: str) -> str:
    """Return the redirect URI of a server whose pages lie below `base`, which `public_base` returned."""
    return f"{base}{CALLBACK_PATH}"


def is_callback_address(url: str) -> bool:
    """Whether a redirect URI is a Jupyter server's."""
    return url.endswith(f"/{CALLBACK_PATH}") and public_base(url.removesuffix(CALLBACK_PATH)) is not None


def is_web_address(url: str) -> bool:
    """Whether a browser may be sent there at all: `http` or `https`, in printable ASCII."""
    return re.fullmatch(r"https?://[\x21-\x7e]+", url) is not None and "\\" not in url


def _message(action: str, **fields: object) -> dict[str, object]:
    return {"version": VERSION, "action": action, **fields}


def _fields(content: object) -> Mapping[str, object]:
    if not isinstance(content, Mapping) or content.get("version") is True or content.get("version") != VERSION:
        return {}
    return content


def _text(fields: Mapping[str, object], name: str, max_characters: int) -> str:
    """Return a member that is a text and not too long; empty otherwise."""
    value = fields.get(name)
    return value if isinstance(value, str) and len(value) <= max_characters else ""


def _digest(fields: Mapping[str, object]) -> str:
    text = _text(fields, "state_digest", MAX_ADDRESS_CHARACTERS)
    return text if _DIGEST.fullmatch(text) else ""
