"""What a Jupyter server asks a kernel about a sign-in by redirect, and what the kernel answers.

Messages are JSON objects with a version. Both sides may be of different age and neither believes the other: what does
not read as a message is none (`parse_request`, `parse_reply` answer None). Carrying them is `relay`'s and `notebook`'s.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.redirect.pages import Ending
from micromegas_jupyter.redirect.routing import kernel_id_in

REQUEST_TYPE = "micromegas_oauth_request"
REPLY_TYPE = "micromegas_oauth_reply"
VERSION = 1

MAX_QUERY_CHARACTERS = 16 * 1024
MAX_ADDRESS_CHARACTERS = 2048
MAX_AUTHORIZATION_CHARACTERS = 16 * 1024
MAX_SENTENCE_CHARACTERS = 2000

_DIGEST_CHARACTERS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRequest:
    """Asks where to send the browser of a person who opened a start address.

    Attributes:
        name: The start address's last part.
        redirect_uri: Where the provider is to send the browser back to.
    """

    name: str = field(repr=False)
    redirect_uri: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRequest:
    """Hands over what a browser came back with.

    Attributes:
        query: The query of the callback, as it came.
    """

    query: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class EndingRequest:
    """Asks how a sign-in ended whose answer was handed over.

    Attributes:
        state_digest: The digest of its state.
    """

    state_digest: str


Request = StartRequest | AnswerRequest | EndingRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The sign-in waits; the browser is to go there.

    Attributes:
        authorization_url: The provider's page; it holds state, nonce and challenge.
        state_digest: The digest of that state.
    """

    authorization_url: str = field(repr=False)
    state_digest: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer is one of a sign-in that waited for it; what it comes to follows."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """There is no such sign-in, or none any more."""


@dataclass(frozen=True, slots=True)
class StillWorking:
    """The sign-in has its answer and has not ended yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The sign-in has ended.

    Attributes:
        ending: How.
    """

    ending: Ending


Reply = Started | Accepted | Unknown | StillWorking | Ended


def request_content(request: Request) -> dict[str, object]:
    """Return a request as it is sent."""
    match request:
        case StartRequest():
            return _message("start", name=request.name, redirect_uri=request.redirect_uri)
        case AnswerRequest():
            return _message("answer", query=request.query.reveal())
        case EndingRequest():
            return _message("ending", state_digest=request.state_digest)


def parse_request(content: object) -> Request | None:
    """Return the request that was sent; None when it is none of this version."""
    fields = _fields(content)
    match fields.get("action"):
        case "start":
            name = _text(fields.get("name"), MAX_ADDRESS_CHARACTERS)
            redirect_uri = _text(fields.get("redirect_uri"), MAX_ADDRESS_CHARACTERS)
            if kernel_id_in(name) is None or not redirect_uri:
                return None
            return StartRequest(name=name, redirect_uri=redirect_uri)
        case "answer":
            query = _text(fields.get("query"), MAX_QUERY_CHARACTERS)
            return AnswerRequest(query=Secret(query)) if query else None
        case "ending":
            digest = _digest(fields.get("state_digest"))
            return EndingRequest(state_digest=digest) if digest else None
        case _:
            return None


def reply_content(reply: Reply) -> dict[str, object]:
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
        case Ended():
            ending = reply.ending
            return _message(
                "ended", is_signed_in=ending.is_signed_in, who=ending.who, what=ending.what, remedy=ending.remedy
            )


def parse_reply(content: object) -> Reply | None:
    """Return the reply that was sent; None when it is none of this version."""
    fields = _fields(content)
    match fields.get("action"):
        case "started":
            url = _text(fields.get("authorization_url"), MAX_AUTHORIZATION_CHARACTERS)
            digest = _digest(fields.get("state_digest"))
            return Started(authorization_url=url, state_digest=digest) if url and digest else None
        case "accepted":
            return Accepted()
        case "unknown":
            return Unknown()
        case "working":
            return StillWorking()
        case "ended":
            who, what, remedy = (_sentence(fields.get(name)) for name in ("who", "what", "remedy"))
            return Ended(
                ending=Ending(is_signed_in=fields.get("is_signed_in") is True, who=who, what=what, remedy=remedy)
            )
        case _:
            return None


def _message(action: str, **fields: object) -> dict[str, object]:
    return {"version": VERSION, "action": action, **fields}


def _fields(content: object) -> Mapping[str, object]:
    if not isinstance(content, Mapping) or content.get("version") is True or content.get("version") != VERSION:
        return {}
    return content


def _text(value: object, max_characters: int) -> str:
    """Return a text that is one and not too long; empty otherwise."""
    return value if isinstance(value, str) and len(value) <= max_characters else ""


def _digest(value: object) -> str:
    text = _text(value, _DIGEST_CHARACTERS)
    return text if len(text) == _DIGEST_CHARACTERS and set(text) <= set("0123456789abcdef") else ""


def _sentence(value: object) -> str:
    return value[:MAX_SENTENCE_CHARACTERS] if isinstance(value, str) else ""
