"""Call metadata as values: the caller's options for a query and what the client says about itself.

Whether the caller may make the call is `authentication`'s and `attribution`'s job. Identity headers (`x-auth-*`)
are never read, so a client that sends them changes nothing.
"""

import functools
import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from micromegas_jupyter.engine import TimeRange
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.flightsql.framing import Compression

# RFC 3339 section 5.6; "any fraction" because clients send nanoseconds.
_RFC3339: Final = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}:\d{2})(?:\.(\d{1,12}))?([Zz]|[+-]\d{2}:\d{2})", re.ASCII
)
_MICROSECOND_DIGITS: Final = 6
_ADDRESS_WITH_PORT: Final = re.compile(r"(?:\[(?P<v6>[^\[\]]+)\](?::[0-9]{1,5})?|(?P<v4>[0-9.]+):[0-9]{1,5})")
_ROW_LIMIT: Final = re.compile(r"[0-9]{1,18}")

Headers = Mapping[str, tuple[str, ...]]
COMPRESSION_HEADER: Final = "x-micromegas-compression"
UNKNOWN_ADDRESS: Final = "unknown"


class ReceivedHeaders(dict[str, tuple[str, ...]]):
    """Headers that hold a credential, fit to stand among the variables that a verbose traceback shows."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"ReceivedHeaders({', '.join(sorted(self))})"

    __str__ = __repr__


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryOptions:
    """What a query's headers ask for."""

    time_range: TimeRange | None = None
    row_limit: int | None = None
    preserve_dictionary: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTags:
    """What the client says about itself; for the audit only."""

    client: str = "unknown"
    agent: str = "unknown"
    entrypoint: str = "unknown"
    optional: Mapping[str, str] = field(default_factory=dict)


def group_headers(metadata: Iterable[tuple[str, str | bytes]] | None) -> Headers:
    """Return the text headers of a call, each with all its values in order; binary ones are left out."""
    grouped = ReceivedHeaders()
    for key, value in metadata or ():
        if isinstance(value, str):
            grouped[key] = (*grouped.get(key, ()), value)
    return grouped


def first_value(headers: Headers, key: str) -> str | None:
    """Return the first value of a header, None when it was not sent."""
    values = headers.get(key)
    return values[0] if values else None


def parse_query_options(headers: Headers) -> QueryOptions:
    """Read `query_range_begin`, `query_range_end`, `limit` and `preserve_dictionary`.

    One end of a range without the other is ignored, and an empty one counts as not sent, as upstream does.
    """
    return QueryOptions(
        time_range=_parse_time_range(headers),
        row_limit=_parse_row_limit(first_value(headers, "limit")),
        preserve_dictionary=(first_value(headers, "preserve_dictionary") or "").lower() == "true",
    )


def parse_compression(headers: Headers) -> Compression | None:
    """Read `x-micromegas-compression`: how the rows are to be compressed; `none` and nothing are the same."""
    match (first_value(headers, COMPRESSION_HEADER) or "none").lower():
        case "none":
            return None
        case "lz4":
            return "lz4"
        case "zstd":
            return "zstd"
        case _:
            raise UsageError(
                f"The header {COMPRESSION_HEADER} is no compression.", remedy="Send lz4, zstd or none, or leave it out."
            )


def parse_client_tags(headers: Headers) -> ClientTags:
    """Read the `x-client-*` headers."""
    optional = {name: first_value(headers, f"x-client-{name}") for name in ("session", "notebook", "cell")}
    return ClientTags(
        client=first_value(headers, "x-client-type") or "unknown",
        agent=first_value(headers, "x-client-agent") or "unknown",
        entrypoint=first_value(headers, "x-client-entrypoint") or "unknown",
        optional={name: value for name, value in optional.items() if value},
    )


def find_client_address(peer: str, headers: Headers, trusted_proxies: frozenset[str]) -> str:
    """Return the client's IP address; forwarding headers count only when the peer is a trusted proxy.

    The last entry of `x-forwarded-for` is the proxy's own and may have a port. When it cannot be read, nothing else is
    believed: many proxies pass on an `x-real-ip` that the client made up.

    Args:
        peer: gRPC's name of the peer, such as `ipv4:127.0.0.1:4711` or `ipv6:[::1]:4711`, perhaps percent-encoded.
        headers: The call's headers.
        trusted_proxies: Addresses of proxies.
    """
    address = _peer_address(peer)
    if address not in trusted_proxies:
        return address
    forwarded = headers.get("x-forwarded-for")
    claimed = forwarded[-1].rpartition(",")[2] if forwarded else first_value(headers, "x-real-ip") or ""
    return _address_without_port(claimed.strip()) or address


@functools.lru_cache(maxsize=1024)
def _peer_address(peer: str) -> str:
    kind, _, rest = peer.partition(":")
    if kind not in {"ipv4", "ipv6"}:
        return UNKNOWN_ADDRESS
    address = rest.rpartition(":")[0].replace("%5B", "").replace("%5D", "").strip("[]")
    return address if _is_ip_address(address) else UNKNOWN_ADDRESS


def _address_without_port(text: str) -> str | None:
    """Return the address of `192.0.2.7`, `192.0.2.7:4711`, `2001:db8::7` or `[2001:db8::7]:4711`; else None."""
    if _is_ip_address(text):
        return text
    found = _ADDRESS_WITH_PORT.fullmatch(text)
    if found is None:
        return None
    address: str = found["v6"] or found["v4"]
    is_fitting = (":" in address) == (found["v6"] is not None)
    return address if is_fitting and _is_ip_address(address) else None


def _is_ip_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _parse_row_limit(text: str | None) -> int | None:
    if text is None:
        return None
    if _ROW_LIMIT.fullmatch(text) is None:
        raise UsageError("The limit header is not a whole number.", remedy="Send decimal digits, or leave it out.")
    return int(text)


def _parse_time_range(headers: Headers) -> TimeRange | None:
    begin_text, end_text = first_value(headers, "query_range_begin"), first_value(headers, "query_range_end")
    if not begin_text or not end_text:
        return None
    begin = _parse_time(begin_text, "query_range_begin", rounds_up=False)
    end = _parse_time(end_text, "query_range_end", rounds_up=True)
    if end < begin:
        raise UsageError("The query's time range ends before it begins.", remedy="Exchange begin and end.")
    return TimeRange(begin=begin, end=end)


def _parse_time(text: str, header: str, *, rounds_up: bool) -> datetime:
    """Read an RFC 3339 time; what is finer than a microsecond widens the range rather than losing rows."""
    found = _RFC3339.fullmatch(text)
    if found is None:
        raise _not_a_time(header)
    date, time, fraction, offset = found.groups()
    try:
        digits = (fraction or "").ljust(_MICROSECOND_DIGITS, "0")
        zone = "+00:00" if offset in {"Z", "z"} else offset
        parsed = datetime.fromisoformat(f"{date}T{time}.{digits[:_MICROSECOND_DIGITS]}{zone}")
        if rounds_up and digits[_MICROSECOND_DIGITS:].strip("0"):
            parsed += timedelta(microseconds=1)
    except (ValueError, OverflowError):
        raise _not_a_time(header) from None
    return parsed


def _not_a_time(header: str) -> UsageError:
    return UsageError(
        f"The header {header} is not a time.", remedy="Send RFC 3339 with an offset, such as 2026-11-24T12:00:00Z."
    )
