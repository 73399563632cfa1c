"""Untrusted text: strict JSON, URLs, times, and safe display. Also sizes and excerpts for messages."""

import ipaddress
import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, TextIO, TypeGuard
from urllib.parse import SplitResult, urlsplit

from micromegas_jupyter.errors import ConfigurationError, MicromegasError, ProviderMisbehaved, QueryError, UsageError

_BYTE_UNITS: Final = ("B", "kB", "MB", "GB", "TB")
_BYTE_STEP: Final = 1000
_SHORT_ID_CHARACTERS: Final = 8
_UNSAFE_CATEGORIES: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
# Explicit formatting characters and marks of the Unicode Bidirectional Algorithm (UAX 9).
_DIRECTION_CHARACTERS: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_MINUTE_SECONDS: Final = 60
_EXCERPT_BEFORE: Final = 80
_EXCERPT_AFTER: Final = 40
_INDENT: Final = "    "
_MAX_SHOWN_CHARACTERS: Final = 80
MAX_DEPTH = 32

# A string (an unterminated one extends to the end of the text) or a single bracket. Each character is read once.
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.|\\\Z)*+(?:"|\Z)|[\[\]{}]', re.DOTALL)


class JsonError(ValueError):
    """The text is not unambiguous JSON; `args[0]` contains the problem and its position, but none of the text.

    Duplicate names, NaN, Infinity, lone surrogates, and deep nesting are rejected.
    """


def decode_strict_json(text: str, *, max_depth: int = MAX_DEPTH) -> object:
    """Decode JSON, or raise `JsonError`.

    Source: RFC 7515 section 4 and RFC 7519 section 4 require that duplicate names be rejected.
    """
    # Most texts have fewer brackets than the maximum depth, and counting brackets is fast.
    if text.count("[") + text.count("{") > max_depth:
        _check_depth(text, max_depth)
    if text.startswith("\ufeff"):
        raise JsonError("line 1, column 1: unexpected byte order mark")
    try:
        value = _decode(text)
    except json.JSONDecodeError as error:
        raise JsonError(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise JsonError(str(error.args[0]) if isinstance(error, JsonError) else "a number is out of range") from None
    if "\\u" in text or not text.isascii():
        _check_characters(text, value)
    return value


def _decode(text: str) -> object:
    # Without surrounding whitespace, the decoder can skip two searches for it.
    try:
        value, end = _scan(text, 0)
    except StopIteration:
        end = -1
    return value if end == len(text) else _DECODER.decode(text)


def _object_without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise JsonError("a name appears twice in one object")
    return found


def _refuse_constant(_constant: str) -> float:
    raise JsonError("NaN and Infinity are not valid JSON")


def _finite(text: str) -> float:
    number = float(text)
    if number in {float("inf"), float("-inf")}:
        raise JsonError("a number is out of range")
    return number


def _check_characters(text: str, value: object) -> None:
    """Reject lone surrogates, literal or escaped: they are not characters, and UTF-8 can't encode them."""
    try:
        text.encode("utf-8")
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise JsonError("a lone surrogate") from None


def _check_depth(text: str, max_depth: int) -> None:
    depth = 0
    for found in _STRING_OR_BRACKET.finditer(text):
        piece = found.group()
        if piece in "[{":
            depth += 1
        elif piece in "]}":
            depth -= 1
        if depth > max_depth:
            raise JsonError(f"nested deeper than {max_depth}")


# Created once, because creating a decoder costs about as much as decoding a token.
_DECODER = json.JSONDecoder(
    object_pairs_hook=_object_without_duplicates, parse_constant=_refuse_constant, parse_float=_finite
)
_scan: Callable[[str, int], tuple[object, int]] = _DECODER.scan_once  # type: ignore[attr-defined] # not in typeshed


encode_json: Final = json.JSONEncoder(ensure_ascii=False).encode
"""Return a value as JSON on one line."""


def cell_text(value: object) -> str:
    """Return one value of a row as a string without line breaks or control characters; None becomes an empty string."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else encode_json(value)
    return text if text.isprintable() else printable(text)


def rows_text(count: int) -> str:
    """Return `1 row` or `1,842,113 rows`."""
    return "1 row" if count == 1 else f"{count:,} rows"


def files_text(count: int) -> str:
    """Return `1 file` or `812 files`."""
    return "1 file" if count == 1 else f"{count:,} files"


def bytes_text(size_bytes: int) -> str:
    """Return a size in decimal units: `131 MB`, `1.4 kB`, `12 B`."""
    size = float(size_bytes)
    unit = 0
    # 999.5 would otherwise be written as 1000 in the smaller unit.
    while size >= _BYTE_STEP - 0.5 and unit < len(_BYTE_UNITS) - 1:
        size /= _BYTE_STEP
        unit += 1
    digits = 1 if unit and size < 9.95 else 0  # noqa: PLR2004 - 9.95 is written as 10
    return f"{size:,.{digits}f} {_BYTE_UNITS[unit]}"


def seconds_text(seconds: float) -> str:
    """Return a duration: `0.02 s`, `4.1 s`, `2 min 05 s`."""
    seconds = max(seconds, 0.0)
    if seconds < 0.1:  # noqa: PLR2004 - below a tenth one digit would say nothing
        return f"{seconds:.2f} s"
    if seconds < _MINUTE_SECONDS - 0.05:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), _MINUTE_SECONDS)
    return f"{minutes} min {rest:02d} s"


def short_query_id(query_id: str) -> str:
    """Return the beginning of a query ID for use in messages."""
    return printable(query_id[:_SHORT_ID_CHARACTERS])


def printable(text: str) -> str:
    r"""Return untrusted text with escapes (`\x1b`) for characters that would move a cursor or reorder a line."""
    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if unicodedata.category(character) in _UNSAFE_CATEGORIES or character in _DIRECTION_CHARACTERS
        else character
        for character in text
    )


def cut(text: str, max_characters: int) -> str:
    """Return at most `max_characters` of the text, with an ellipsis at the end if it was truncated."""
    return text if len(text) <= max_characters else text[: max_characters - 1] + "…"


def shown(text: str) -> str:
    """Return an untrusted, nonsecret string for use in a sentence: quoted, escaped, and truncated."""
    return repr(text if len(text) <= _MAX_SHOWN_CHARACTERS else f"{text[:_MAX_SHOWN_CHARACTERS]}…")


def terminal_width(text: str) -> int:
    """Return how many character cells the text takes: East Asian wide characters and emoji take two, accents none."""
    if text.isascii():
        return len(text)
    from wcwidth import width  # its tables take time to load

    return width(text)


def has_color(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether to use color on this stream: the terminal supports it, and the user has not turned it off."""
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM", "") not in {"", "dumb"}


def statement_excerpt(error: MicromegasError, sql: str | None) -> list[str]:
    """Return the line of the SQL that an error refers to, with a caret below the position; empty without a position."""
    if not isinstance(error, QueryError) or sql is None or error.line is None or error.column is None:
        return []
    source = sql.split("\n")
    if not 1 <= error.line <= len(source):
        return []
    text = source[error.line - 1].replace("\t", " ").rstrip("\r")
    before = min(max(error.column - 1, 0), len(text))
    first = max(0, before - _EXCERPT_BEFORE)
    start = "…" if first else ""
    end = "…" if len(text) > before + _EXCERPT_AFTER else ""
    left = start + printable(text[first:before])
    right = printable(text[before : before + _EXCERPT_AFTER]) + end
    caret = " " * terminal_width(left) + f"^ line {error.line}, column {error.column}"
    return [_INDENT + left + right, _INDENT + caret]


MAX_URL_CHARACTERS = 2048
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})

# URL parsers could interpret these differently.
_AMBIGUOUS_CHARACTERS = frozenset(' \\"<>')


def is_loopback_url(url: str) -> bool:
    """Whether the URL's host is an address or name that always refers to this machine."""
    try:
        return urlsplit(url).hostname in LOOPBACK_HOSTS
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine can reach a listening address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def split_plain_url(url: str, *, max_characters: int | None = None) -> SplitResult | None:
    """Return a URL's parts, or None if it has no host, is too long, or is parsed differently by different parsers."""
    if max_characters is not None and len(url) > max_characters:
        return None
    if not url.isascii() or not url.isprintable() or set(url) & _AMBIGUOUS_CHARACTERS:
        return None
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if has_host else None


def scheme_and_host(url: str) -> tuple[str, str | None]:
    """Return the scheme and host of an http or https URL, with None as the host of an invalid or ambiguous URL."""
    parts = split_plain_url(url)
    return ("", None) if parts is None or parts.scheme not in {"https", "http"} else (parts.scheme, parts.hostname)


def check_endpoint_url(url: str) -> str:
    """Check that a provider's address may be called (RFC 9700 section 2.6), and return its host for messages."""
    parts = split_plain_url(url, max_characters=MAX_URL_CHARACTERS)
    if parts is None or parts.hostname is None:
        raise ProviderMisbehaved("The identity provider specifies an invalid address.")
    host = parts.hostname
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback_url(url)):
        raise ProviderMisbehaved(f"The identity provider specifies an address at {host} that is not https.")
    if "@" in parts.netloc or parts.fragment:
        raise ProviderMisbehaved(f"The identity provider specifies an address at {host} with a user or a fragment.")
    return host


_HTTPS_REMEDY = "Use https; http is accepted only on 127.0.0.1, ::1, and localhost."


def host_text(url: str) -> str:
    """Return a URL's host and port for display, or the text itself if it has no host."""
    try:
        network_location = urlsplit(url).netloc
    except ValueError:
        network_location = ""
    return network_location.rpartition("@")[2] or url


def refused(key: str, problem: str, remedy: str | None = None) -> ConfigurationError:
    """Return the error for a setting; its message begins with the key."""
    return ConfigurationError(f"{key} {problem}.", key=key, remedy=remedy)


def as_text(value: object, key: str) -> str:
    """Return `value` as a nonempty string without control characters."""
    if not is_text(value):
        raise refused(key, "is not a string of printable characters")
    return value


def is_text(value: object) -> TypeGuard[str]:
    """Whether `value` is a nonempty string without control characters."""
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def as_issuer(value: object, key: str) -> str:
    """Return an issuer: an https URL (or http on loopback) without query, fragment, or user (RFC 9700 section 2.6)."""
    issuer = as_text(value, key)
    # The text before an @ may be a password, so the value is not shown.
    if "@" in issuer or "?" in issuer or "#" in issuer:
        raise refused(key, "specifies an issuer with a query, a fragment, or a user")
    scheme, host = scheme_and_host(issuer)
    if host is None:
        raise refused(key, f"specifies an issuer that is not an https URL: {shown(issuer)}")
    if scheme == "http" and host not in LOOPBACK_HOSTS:
        raise refused(key, f"specifies an issuer that uses http: {shown(issuer)}", _HTTPS_REMEDY)
    return issuer


def as_fetch_url(value: object, key: str) -> str:
    """Return a document's URL: like an issuer, but may have a query, which may contain a secret and is never shown."""
    url = as_text(value, key)
    scheme, host = scheme_and_host(url)
    if host is None or "@" in url.partition("?")[0] or "#" in url:
        raise refused(key, "must be an https URL without a user or a fragment")
    if scheme == "http" and host not in LOOPBACK_HOSTS:
        raise refused(key, "uses http", _HTTPS_REMEDY)
    return url


_RELATIVE = re.compile(r"([0-9]{1,6})([mhd])")
_ABSOLUTE = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})?"
)
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def parse_time(text: str, *, now: datetime, is_future: bool = False) -> datetime:
    """Return an aware time from RFC 3339 (default UTC) or `7d`, which is seven days ago (ahead with `is_future`)."""
    try:
        if relative := _RELATIVE.fullmatch(text):
            distance = timedelta(**{_UNITS[relative[2]]: int(relative[1])})
            return now + distance if is_future else now - distance
        if _ABSOLUTE.fullmatch(text):
            time = datetime.fromisoformat(text.upper())
            return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        pass  # month 13, or more days than the calendar has
    raise UsageError(
        f"{shown(text)} is not a valid time.",
        remedy=f"Use a duration such as 15m, 1h, or 7d ({'from now' if is_future else 'ago'}), or an RFC 3339 time "
        "such as 2026-01-31T12:00:00Z.",
    )


def parse_range(begin: str | None, end: str | None, *, now: datetime) -> tuple[datetime | None, datetime | None]:
    """Return the range given by `--begin` and `--end`; without an end, it extends to the current time."""
    if begin is None:
        if end is not None:
            raise UsageError(
                "--end requires --begin.", remedy="Specify both, or only --begin for a range that ends now."
            )
        return None, None
    first = parse_time(begin, now=now)
    last = now if end is None else parse_time(end, now=now)
    if first > last:
        if end is None:
            raise UsageError("--begin is in the future.", remedy="Use a time in the past, such as 1h for an hour ago.")
        raise UsageError("--begin is after --end.", remedy="Swap the two.")
    return first, last


# RFC 3339 section 5.6, with a space allowed as its note says and any fraction up to nanoseconds.
_RFC3339: Final = re.compile(
    r"(?P<date>\d{4}-\d{2}-\d{2})[Tt ](?P<time>\d{2}:\d{2}:\d{2})(?:\.(?P<fraction>\d{1,9}))?"
    r"(?P<offset>[Zz]|[+-]\d{2}:\d{2})",
    re.ASCII,
)
_EARLIEST_TIME: Final = "1970-01-01T00:00:00+00:00"
_TIME_REMEDY: Final = (
    "Use a datetime with a time zone, a pandas.Timestamp with one, or an RFC 3339 string such as 2026-11-24T12:00:00Z."
)

TimeArgument = datetime | str | None


def format_time(value: TimeArgument, *, name: str = "time") -> str | None:
    """Return an RFC 3339 string with an offset in upstream's format, including nanoseconds."""
    if value is None:
        return None
    if isinstance(value, str):
        return _format_text(value, name)
    if not isinstance(value, datetime):
        raise UsageError(f"{name} must be a time, not {type(value).__name__}.", remedy=_TIME_REMEDY)
    try:
        offset = value.utcoffset()
    except ValueError:  # pandas.NaT is a datetime without a value
        offset = None
    if offset is None:
        raise UsageError(f"{name} has no time zone.", remedy=_TIME_REMEDY)
    if offset.total_seconds() % 60:
        # RFC 3339 offsets have minutes only, but historical local times have seconds.
        value = value.astimezone(UTC)
    return value.isoformat()


def format_time_range(begin: TimeArgument, end: TimeArgument, *, now: datetime) -> tuple[str | None, str | None]:
    """Return both ends of a time range, or neither, because servers silently ignore a range without an end."""
    begin_text, end_text = format_time(begin, name="begin"), format_time(end, name="end")
    if begin_text is None and end_text is None:
        return None, None
    begin_text, end_text = begin_text or _EARLIEST_TIME, end_text or now.isoformat()
    if datetime.fromisoformat(begin_text) > datetime.fromisoformat(end_text):
        raise UsageError("begin is after end.", remedy="Swap them; without an end, the range ends now.")
    return begin_text, end_text


def _format_text(text: str, name: str) -> str:
    found = _RFC3339.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"{name} is not an RFC 3339 string with an offset.", remedy=_TIME_REMEDY)
    fraction = f".{found['fraction']}" if found["fraction"] else ""
    offset = "+00:00" if found["offset"] in {"Z", "z"} else found["offset"]
    whole = f"{found['date']}T{found['time']}{fraction}{offset}"
    try:
        at = datetime.fromisoformat(whole)
    except ValueError:
        raise UsageError(f"{name} is not a valid date and time.", remedy=_TIME_REMEDY) from None
    return whole if len(fraction) > len(".123456") else at.isoformat()
