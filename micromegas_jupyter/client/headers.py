"""Call metadata: what a query asks for besides its SQL, checked before the Flight library sees it.

The checks are not a courtesy: the library ends the whole process over a key in upper case or a value that is not
printable ASCII. Who the caller is goes through `credentials`, what the client says about itself is found by
`attribution`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

from micromegas_jupyter.client.attribution import Attribution
from micromegas_jupyter.errors import UsageError

Header = tuple[bytes, bytes]
"""A key in lower case and a value of printable ASCII, as the Flight library takes them."""

MAX_HEADER_VALUE_BYTES: Final = 16 * 1024

# gRPC over HTTP/2, "Header-Name"; names that begin with grpc- are gRPC's own.
_KEY: Final = re.compile(r"(?!grpc-)[0-9a-z_.-]{1,128}")
_VALUE: Final = re.compile(r"[\x20-\x7e]*")
_MAX_TAG_CHARACTERS: Final = 256
_TAG_SAFE: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryOptions:
    """What a query asks for besides its SQL.

    Attributes:
        begin: Start of the time range, RFC 3339.
        end: End of the time range, RFC 3339.
        limit: At most this many rows.
        preserve_dictionary: Whether dictionary-encoded columns stay so.
    """

    begin: str | None = None
    end: str | None = None
    limit: int | None = None
    preserve_dictionary: bool = False

    def __post_init__(self) -> None:
        if self.limit is not None and (type(self.limit) is not int or not 0 <= self.limit < 2**63):
            raise UsageError("The limit is not a whole number of rows.", remedy="Give 0 or more, or leave it out.")


@dataclass(frozen=True, slots=True, kw_only=True)
class NotebookPlace:
    """Which notebook and which cell make the calls, for the server's audit."""

    notebook: str | None = None
    cell: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTags:
    """What the client says about itself with every call."""

    attribution: Attribution
    place: NotebookPlace = field(default_factory=NotebookPlace)


def build_query_headers(options: QueryOptions, tags: CallTags) -> tuple[Header, ...]:
    """Return the metadata of a query."""
    return (*build_tag_headers(tags), *_build_option_headers(options))


def build_tag_headers(tags: CallTags) -> tuple[Header, ...]:
    """Return the metadata that says what kind of client calls."""
    found = {
        "x-client-type": "python",
        "x-client-agent": tags.attribution.agent,
        "x-client-entrypoint": tags.attribution.entrypoint,
        "x-client-session": tags.attribution.session,
        "x-client-notebook": _tag_text(tags.place.notebook),
        "x-client-cell": _tag_text(tags.place.cell),
    }
    return tuple(build_header(key, value) for key, value in found.items() if value)


def build_header(key: str | bytes, value: str | bytes) -> Header:
    """Return a checked header; the key becomes lower case.

    Raises:
        UsageError: The key or the value cannot be call metadata. The message never holds the value.
    """
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
    """Read upstream's `headers` argument: a mapping, or pairs.

    Raises:
        UsageError: It is neither, or one of its headers cannot be sent.
    """
    try:
        pairs = [(key, value) for key, value in (headers.items() if isinstance(headers, Mapping) else headers)]
    except (TypeError, ValueError):
        raise UsageError("headers is neither a mapping nor a list of pairs.") from None
    return tuple(build_header(key, value) for key, value in pairs)


def _build_option_headers(options: QueryOptions) -> tuple[Header, ...]:
    found = {
        "query_range_begin": options.begin,
        "query_range_end": options.end,
        "limit": None if options.limit is None else str(options.limit),
        "preserve_dictionary": "true" if options.preserve_dictionary else None,
    }
    return tuple(build_header(key, value) for key, value in found.items() if value is not None)


def _as_text(value: str | bytes) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")  # every byte becomes a character, so that the checks judge it
    if isinstance(value, str):
        return value
    raise UsageError("A header is neither text nor bytes.")


def _tag_text(text: str | None) -> str | None:
    """Return a name that a person chose so that it can be sent: percent-encoded where it is not plain ASCII."""
    if text is None:
        return None
    return quote(text[:_MAX_TAG_CHARACTERS].encode("utf-8", "replace"), safe=_TAG_SAFE)
