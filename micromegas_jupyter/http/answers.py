"""Turns a raw answer of a provider into a decoded value, or into the error that it amounts to.

Getting the bytes within time and size is the exchange's job.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from micromegas_jupyter.errors import ProviderMisbehaved, ProviderUnavailable
from micromegas_jupyter.strict_json import JsonError, decode_strict_json

if TYPE_CHECKING:
    from collections.abc import Mapping

_SUCCESS = range(200, 300)
_CLIENT_ERRORS = range(400, 500)
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
    if raw.status in _SERVER_ERRORS or raw.status == _TOO_MANY_REQUESTS:
        raise ProviderUnavailable(f"The identity provider {host} answered with status {raw.status}.")
    if raw.status not in _SUCCESS and raw.status not in _CLIENT_ERRORS:
        # A redirect could lead a secret to another host: RFC 9700 section 4.12.
        raise ProviderMisbehaved(
            f"The identity provider {host} answered with status {raw.status}, not with a document."
        )
    date = _provider_time(raw.headers)
    if raw.status in _SUCCESS and not needs_body:
        return HttpAnswer(status=raw.status, body=None, date=date, reached_private=raw.reached_private)
    if len(raw.body) > max_bytes:
        raise ProviderMisbehaved(f"The identity provider {host} sent more than {max_bytes} bytes.")
    if raw.headers.get("content-encoding", "identity").strip().lower() not in {"identity", ""}:
        raise ProviderMisbehaved(f"The identity provider {host} sent a compressed body, which was not asked for.")
    body = _decode_body(raw, host) if raw.body else None
    return HttpAnswer(status=raw.status, body=body, date=date, reached_private=raw.reached_private)


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


def _provider_time(headers: Mapping[str, str]) -> datetime | None:
    # A cache repeats the Date of the answer that it kept, and says how old that is: RFC 9111 section 5.1.
    return parse_date(headers.get("date")) if headers.get("age", "0").strip() == "0" else None


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
