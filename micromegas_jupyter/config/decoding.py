"""Parses JSON into checked values; each `as_` function rejects invalid values with an error that includes the key."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import msgspec

from micromegas_jupyter.core.text import (
    JsonError,
    as_text,
    decode_strict_json,
    is_text,
    refused,
    shown,
)

MAX_SETTING_BYTES = 16 * 2**20
MAX_NAME_CHARACTERS = 256
MAX_ENTRIES = 10_000
SIGNATURE_ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}
)

_RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)


def decode_setting(text: str, key: str) -> object:
    """Decode a setting's JSON text; errors contain the position of the problem, but never the text."""
    if is_too_long(text):
        raise refused(key, f"is longer than {MAX_SETTING_BYTES // 2**20} MiB")
    try:
        return decode_strict_json(text)
    except JsonError as error:
        raise refused(key, f"is not valid JSON ({error})") from None


def is_too_long(text: str) -> bool:
    """Whether a setting's text exceeds the size limit."""
    return len(text) > MAX_SETTING_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_SETTING_BYTES


def as_object(value: object, key: str, *, known: frozenset[str] | None = None) -> dict[str, object]:
    """Return `value` as an object; all names must be `known`."""
    if not isinstance(value, dict):
        raise refused(key, "is not a JSON object")
    unknown = sorted(set(value) - known) if known is not None else []
    if unknown and known is not None:
        from difflib import get_close_matches  # imported only for errors

        nearest = "".join(f"Did you mean {name}? " for name in get_close_matches(unknown[0][:100], known, n=1))
        remedy = f"{nearest}Known names: {', '.join(sorted(known))}."
        raise refused(key, f"has the unknown name {shown(unknown[0])}", remedy)
    return value


def as_named(value: object, key: str) -> dict[str, object]:
    """Return `value` as an object with user-defined names (printable, nonempty, and limited in length and number)."""
    named = as_object(value, key)
    if len(named) > MAX_ENTRIES:
        raise refused(key, f"has more than {MAX_ENTRIES} names")
    if not all(name.strip() and name.isprintable() and len(name) <= MAX_NAME_CHARACTERS for name in named):
        raise refused(key, f"has a name that is empty, not printable, or longer than {MAX_NAME_CHARACTERS} characters")
    return named


def as_list(value: object, key: str) -> list[object]:
    """Return `value` as a list."""
    if not isinstance(value, list):
        raise refused(key, "is not a JSON list")
    return value


def as_texts(value: object, key: str) -> tuple[str, ...]:
    """Return `value` as one or more strings; an empty list could mean "nothing" or "no limit", so it is rejected."""
    listed = as_list(value, key)
    if not listed:
        raise refused(key, "is empty", "Add an entry, or omit the list.")
    if len(listed) > MAX_ENTRIES:
        raise refused(key, f"has more than {MAX_ENTRIES} entries")
    return tuple(as_text(entry, f"{key}[{index}]") for index, entry in enumerate(listed))


def as_text_or_texts(value: object, key: str) -> tuple[str, ...]:
    """Return a string, or a list of strings, as a tuple of strings."""
    return as_texts(value, key) if isinstance(value, list) else (as_text(value, key),)


def describe_type(kind: Any) -> str:
    """Return a description of a type's allowed values."""
    meta = next((entry for entry in get_args(kind) if isinstance(entry, msgspec.Meta)), None)
    if meta is not None and meta.description is not None:
        return meta.description
    if meta is not None and meta.ge is not None and meta.le is not None:
        return f"a number from {meta.ge:,} to {meta.le:,}"
    if kind is bool:
        return "true or false"
    choices = get_args(kind) if get_origin(kind) is Literal else kind
    return f"one of {', '.join(choices)}"


def as_type(value: object, key: str, *, kind: Any, is_typed: bool = False, remedy: str | None = None) -> Any:
    """Return `value` as a number, string, choice, or flag of a type that msgspec supports; errors don't show it.

    With `is_typed`, a string (as in variables) isn't accepted for a number.
    """
    try:
        if isinstance(value, str) and not is_typed and get_args(kind)[:1] in {(int,), (float,)}:
            # Allow only plain digits; the library also accepts 1e3.
            if value.isascii() and value.strip("0123456789") in {"", "."}:
                return msgspec.convert(value, kind, strict=False)
        elif not isinstance(value, str) or is_text(value):
            return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        pass
    raise refused(key, f"is not {describe_type(kind)}", remedy)


as_flag = partial(as_type, kind=bool)


def as_count(value: object, key: str, *, maximum: int, minimum: int = 1) -> int:
    """Return `value` as a whole number from `minimum` to `maximum`."""
    return int(as_type(value, key, kind=Annotated[int, msgspec.Meta(ge=minimum, le=maximum)], is_typed=True))


def parse_count(text: str, key: str, *, minimum: int, maximum: int) -> int:
    """Return the whole number from `minimum` to `maximum` in a variable's text."""
    return int(as_type(text, key, kind=Annotated[int, msgspec.Meta(ge=minimum, le=maximum)]))


def as_rate(value: object, key: str, *, minimum: float, maximum: float) -> float:
    """Return `value` as a number from `minimum` to `maximum`."""
    return float(as_type(value, key, kind=Annotated[float, msgspec.Meta(ge=minimum, le=maximum)], is_typed=True))


def as_time(value: object, key: str) -> datetime:
    """Return an RFC 3339 time as an aware datetime in UTC; times without an offset are rejected as ambiguous."""
    try:
        if isinstance(value, str) and _RFC_3339.fullmatch(value):
            return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        pass  # month 13, or an offset that exceeds the calendar
    raise refused(key, "is not a time", "Use RFC 3339 with an offset, such as 2026-01-31T12:00:00Z.")


Value = TypeVar("Value")
Default = TypeVar("Default")


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """The members of one object; `place` identifies it in errors."""

    values: Mapping[str, object]
    place: str

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def key(self, name: str) -> str:
        """Return the path of a member in errors."""
        return f"{self.place}.{name}"

    def read(self, name: str, reader: Callable[[object, str], Value], default: Default) -> Value | Default:
        """Return the result of `reader` for a member, or `default` if it is missing."""
        return reader(self.values[name], self.key(name)) if name in self.values else default

    def require(self, name: str, reader: Callable[[object, str], Value]) -> Value:
        """Return the result of `reader` for a required member."""
        if name not in self.values:
            raise refused(self.key(name), "is missing", f"Add {name}.")
        return reader(self.values[name], self.key(name))
