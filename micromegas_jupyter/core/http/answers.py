"""Why no answer came, or what it is: a raw answer becomes a decoded value, or the error that it amounts to."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from micromegas_jupyter.core.json import JsonError, decode_strict_json
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.errors import ProviderMisbehaved, ProviderUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping


class FailureKind(enum.Enum):
    """What stood in the way of an answer, as far as somebody can do something about it."""

    NAME = "name"  # there is no such host
    REFUSED = "refused"  # nobody listens there
    TLS = "tls"
    PROXY = "proxy"
    OTHER = "other"


class ExchangeFailed(Exception):
    """The network gave no answer; `args[0]` says why in words that hold no address and no secret."""

    def __init__(self, why: str, kind: FailureKind = FailureKind.OTHER) -> None:
        super().__init__(why)
        self.kind = kind


_SUCCESS = range(200, 300)
_CLIENT_ERRORS = range(400, 500)
_REDIRECTS = range(300, 400)
_SERVER_ERRORS = range(500, 600)
_TOO_MANY_REQUESTS = 429


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAnswer:
    """A provider's answer that is fit to be read.

    Attributes:
        status: 2xx, or 4xx for the errors that OAuth reports in JSON.
        body: The decoded JSON; None when the body was empty or not asked for.
        date: The provider's own clock (the Date header) as aware UTC; None when absent, unreadable, or a cache's.
        reached_private: Whether the answer came from an address inside a network, without a proxy.
    """

    status: int
    body: object = field(repr=False)
    date: datetime | None = None
    reached_private: bool = False

    @property
    def is_success(self) -> bool:
        """Whether the status is one of success."""
        return self.status in _SUCCESS


@dataclass(frozen=True, slots=True, kw_only=True)
class RawAnswer:
    """Status, headers (names in lower case) and the undecoded body, at most one byte over the size cap.

    `reached_private` says whether it came from an address inside a network, without a proxy.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    reached_private: bool = False


def read_answer(raw: RawAnswer, *, host: str, max_bytes: int, needs_body: bool = True) -> HttpAnswer:
    """Judge and decode an answer.

    Args:
        raw: What came.
        host: Names the provider in errors.
        max_bytes: The size cap on the body.
        needs_body: Whether the body of a success counts; RFC 7009 section 2.2 asks to ignore that of a revocation.

    Raises:
        ProviderUnavailable: 5xx or 429.
        ProviderMisbehaved: A redirect or another unexpected status, an encoded or oversized body, or no JSON.
    """
    check_available(raw, f"The identity provider {host}")
    if raw.status not in _SUCCESS and raw.status not in _CLIENT_ERRORS:
        # A redirect could lead a secret to another host: RFC 9700 section 4.12.
        raise ProviderMisbehaved(
            f"The identity provider {host} answered with status {raw.status}, not with a document."
        )
    # A cache repeats the Date of the answer that it kept, and says how old that is: RFC 9111 section 5.1.
    date = parse_date(raw.headers.get("date")) if raw.headers.get("age", "0").strip() == "0" else None
    if raw.status in _SUCCESS and not needs_body:
        return HttpAnswer(status=raw.status, body=None, date=date, reached_private=raw.reached_private)
    check_body(raw, f"The identity provider {host}", max_bytes=max_bytes)
    body = _decode_body(raw, host) if raw.body else None
    return HttpAnswer(status=raw.status, body=body, date=date, reached_private=raw.reached_private)


def check_available(raw: RawAnswer, name: str) -> None:
    """Check that whoever is called could answer at all."""
    if raw.status in _SERVER_ERRORS or raw.status == _TOO_MANY_REQUESTS:
        raise ProviderUnavailable(f"{name} answered with status {raw.status}.")


def check_not_redirected(raw: RawAnswer, name: str, *, remedy: str) -> None:
    """Check that the answer does not lead elsewhere."""
    if raw.status in _REDIRECTS:
        raise ProviderMisbehaved(f"{name} answered with a redirect, which is not followed.", remedy=remedy)


def check_body(raw: RawAnswer, name: str, *, max_bytes: int, remedy: str | None = None) -> None:
    """Check that the body is neither oversized nor encoded."""
    if len(raw.body) > max_bytes:
        raise ProviderMisbehaved(f"{name} sent more than {max_bytes} bytes.", remedy=remedy)
    if raw.headers.get("content-encoding", "identity").strip().lower() not in {"identity", ""}:
        raise ProviderMisbehaved(f"{name} sent a compressed body, which was not asked for.", remedy=remedy)


def revealed(values: Mapping[str, str | Secret]) -> dict[str, str]:
    """Return headers or fields with their secrets in plain text; only for the thread that sends them."""
    return {name: value.reveal() if isinstance(value, Secret) else value for name, value in values.items()}


def _decode_body(raw: RawAnswer, host: str) -> object:
    media_type = raw.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        raise ProviderMisbehaved(f"The identity provider {host} answered with status {raw.status} and no JSON.")
    try:
        return decode_strict_json(raw.body.decode("utf-8"))
    except (UnicodeDecodeError, JsonError):
        raise ProviderMisbehaved(f"The identity provider {host} sent a document that is not valid JSON.") from None


def parse_date(text: str | None) -> datetime | None:
    """Return a Date header as aware UTC; None when it is absent or cannot be read."""
    if text is None:
        return None
    from email.utils import parsedate_to_datetime

    try:
        moment = parsedate_to_datetime(text)
        return None if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
