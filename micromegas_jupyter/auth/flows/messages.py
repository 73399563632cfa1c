"""What a Jupyter server and a kernel say to each other about a sign-in by redirect, and the names in its addresses.

A start address ends with `kernel_id.random`, and the state of the sign-in has the same form, so the server finds the
kernel and keeps nothing. Messages are JSON objects with a version; neither side trusts the other, and both may be of
different versions of this package: what cannot be read as a message is None.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl

import msgspec

from micromegas_jupyter.auth.flows.pages import LoginOutcome
from micromegas_jupyter.core.http import split_plain_url
from micromegas_jupyter.core.system import Secret

REQUEST_TYPE = "micromegas_oauth_request"
REPLY_TYPE = "micromegas_oauth_reply"
VERSION: Literal[1] = 1

MAX_QUERY_CHARACTERS = 16 * 1024
MAX_ADDRESS_CHARACTERS = 2048
MAX_AUTHORIZATION_CHARACTERS = MAX_QUERY_CHARACTERS
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
# RFC 3986 section 3.2: a name, an IPv4 or a bracketed IPv6 address, and a port; no user.
_AUTHORITY = re.compile(r"(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?", re.ASCII)


_Address = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ADDRESS_CHARACTERS)]
_Name = Annotated[str, msgspec.Meta(pattern=rf"\A{_NAME.pattern}\Z")]
_Digest = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
_Sentence = Annotated[str, msgspec.Meta(max_length=MAX_SENTENCE_CHARACTERS)]


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="action"):
    version: Literal[1] = VERSION


class StartRequest(_Message, frozen=True, tag="start"):
    """Where should the browser go that opened the start address `name`? The provider returns it to `redirect_uri`."""

    name: _Name
    redirect_uri: _Address


class CallbackRequest(_Message, frozen=True, tag="answer"):
    """A browser came back with this query."""

    query: Secret


class OutcomeRequest(_Message, frozen=True, tag="ending"):
    """How did the sign-in end whose state has this digest?"""

    state_digest: _Digest


Request = StartRequest | CallbackRequest | OutcomeRequest


class Started(_Message, frozen=True, tag="started"):
    """The sign-in is waiting; the browser goes to `authorization_url`, whose state has the digest."""

    authorization_url: Secret
    state_digest: _Digest


class Accepted(_Message, frozen=True, tag="accepted"):
    """The callback belongs to a sign-in that was waiting for it; its outcome follows."""


class Unknown(_Message, frozen=True, tag="unknown"):
    """There is no such sign-in, or not any more."""


class StillWorking(_Message, frozen=True, tag="working"):
    """The sign-in has its callback and has not ended yet."""


class Ended(_Message, frozen=True, tag="ended"):
    """The sign-in has ended; the fields are those of `LoginOutcome`."""

    is_signed_in: bool = False
    who: _Sentence = ""
    what: _Sentence = ""
    remedy: _Sentence = ""

    @classmethod
    def of(cls, outcome: LoginOutcome) -> "Ended":
        """Return the message about an outcome, whose sentences are cut."""
        texts = {name: getattr(outcome, name)[:MAX_SENTENCE_CHARACTERS] for name in ("who", "what", "remedy")}
        return cls(is_signed_in=outcome.is_signed_in, **texts)

    @property
    def outcome(self) -> LoginOutcome:
        """The outcome that the message is about."""
        return LoginOutcome(is_signed_in=self.is_signed_in, who=self.who, what=self.what, remedy=self.remedy)


Reply = Started | Accepted | Unknown | StillWorking | Ended


def build_message(message: Request | Reply) -> dict[str, object]:
    """Return a message as it is sent."""
    content: dict[str, object] = msgspec.to_builtins(message, enc_hook=lambda secret: secret.reveal())
    return content


def parse_request(content: object) -> Request | None:
    """Return the request that was sent; None when it is not one of this version."""
    request: Request | None = _parse(content, Request)
    return request


def parse_reply(content: object) -> Reply | None:
    """Return the reply that was sent; None when it is not one of this version."""
    reply: Reply | None = _parse(content, Reply)
    return reply


def _parse(content: object, kind: Any) -> Any:
    if not isinstance(content, Mapping) or "version" not in content:
        return None
    try:
        return msgspec.convert(content, kind, dec_hook=_secret)
    except msgspec.ValidationError:
        return None


def _secret(_type: type, value: object) -> Secret:
    if isinstance(value, str) and 0 < len(value) <= MAX_QUERY_CHARACTERS:
        return Secret(value)
    raise ValueError("not a text, or too long")


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
    parts = split_plain_url(url, max_characters=MAX_ADDRESS_CHARACTERS)
    if parts is None or parts.scheme not in {"http", "https"} or set(url) & set("?#"):
        return None
    if _AUTHORITY.fullmatch(parts.netloc) is None:
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
