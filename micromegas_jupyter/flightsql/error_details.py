"""How an error crosses the wire: a gRPC trailer for this project's client, a status text for all others.

Both directions are here, so that they cannot drift apart.
"""

import json
import re
import unicodedata
from collections.abc import Callable
from typing import NamedTuple, TypeGuard
from urllib.parse import quote

from micromegas_jupyter.core.json import JsonError, decode_strict_json
from micromegas_jupyter.errors import (
    ConfigurationError,
    MicromegasError,
    QueryError,
    ResourcesExhausted,
    error_classes,
)

ERROR_DETAILS_KEY = "micromegas-error-bin"
"""The trailing metadata key; gRPC carries `-bin` values as bytes."""

MAX_DETAILS_BYTES = 4096
"""Upper bound of an encoded error. In base64 it leaves 2.7 kB of a client's usual 8 kB for everything else."""

MAX_STATUS_BYTES = 2048
"""Upper bound of a status text as it travels, that is percent-encoded (gRPC over HTTP/2, `grpc-message`)."""

_MAX_REMEDY_CHARACTERS = 512
_MAX_PARSED_CHARACTERS = 8192
_MAX_POSITION = 2**31 - 1
_MAX_RETRY_SECONDS = 24 * 3600.0
_CUT = " …"

# Control characters, direction overrides and the like, surrogates, line and paragraph separators.
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_UNENCODED = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")

_QUERY_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_STATUS_TAIL = re.compile(
    r"\s?\[(?P<code>[A-Z]{3,8}[0-9]{3})\]"
    r"(?: \(line (?P<line>[0-9]{1,9})(?:, column (?P<column>[0-9]{1,9}))?\))?"
    r"(?: \(query_id=(?P<query_id>[A-Za-z0-9._-]{1,64})\))?"
)


class _Details(NamedTuple):
    """The details of an error, each field checked."""

    code: str
    what: str
    remedy: str
    query_id: str | None
    line: int | None
    column: int | None
    retry_after_seconds: float | None = None


def encode_error(error: MicromegasError) -> bytes:
    """Return `error` as compact JSON of at most `MAX_DETAILS_BYTES`; its sentence is cut when it is too long."""
    fields: dict[str, str | float] = {"code": error.code, "what": "", "remedy": _cut(error.remedy)}
    if is_query_id(error.query_id):
        fields["query_id"] = error.query_id
    if isinstance(error, QueryError):
        positions = {"line": error.line, "column": error.column}
        fields.update({name: at for name, at in positions.items() if at is not None and 0 < at <= _MAX_POSITION})
    if isinstance(error, ResourcesExhausted) and _is_delay(error.retry_after_seconds):
        fields["retry_after_seconds"] = error.retry_after_seconds
    max_cost = MAX_DETAILS_BYTES - len(_compact(fields))
    fields["what"] = _fit(printable_text(error.what), max_cost, cost=lambda text: len(_compact(text)) - 2)
    return _compact(fields)


def decode_error(data: bytes) -> MicromegasError | None:
    """Return the error that `encode_error` wrote, or None for anything else: the sender is not trusted.

    Names that are not known are ignored, so that a newer server may say more.
    """
    if len(data) > MAX_DETAILS_BYTES:
        return None
    try:
        fields = decode_strict_json(data.decode("utf-8"), max_depth=2)
    except (UnicodeDecodeError, JsonError):
        return None
    return _check_fields(fields) if isinstance(fields, dict) else None


def status_text(error: MicromegasError) -> str:
    """Return `error` for a client that does not read the trailer: sentence, remedy, code, position and query id."""
    tail = f" [{error.code}]"
    if isinstance(error, QueryError) and error.line is not None:
        tail += f" (line {error.line}" + (")" if error.column is None else f", column {error.column})")
    if is_query_id(error.query_id):
        tail += f" (query_id={error.query_id})"
    remedy = _fit(printable_text(error.remedy), MAX_STATUS_BYTES // 2, cost=_wire_cost)
    end = f" {remedy}{tail}" if remedy else tail
    return _fit(printable_text(error.what), MAX_STATUS_BYTES - _wire_cost(end), cost=_wire_cost) + end


def parse_status_text(text: str) -> MicromegasError | None:
    """Return the error that a status text names, or None when it carries no known code.

    Text after the code, such as the library's own context, is dropped. Sentence and remedy are told apart only
    when the remedy is the class's own; otherwise both stand in the sentence.
    """
    tails = [
        found for found in _STATUS_TAIL.finditer(text[:_MAX_PARSED_CHARACTERS]) if found["code"] in error_classes()
    ]
    if not tails:
        return None
    # The last one: the sentence may quote the caller's SQL, which may look like a code.
    found = tails[-1]
    kind = error_classes()[found["code"]]
    what, remedy = printable_text(text[: found.start()]).strip(), ""
    if kind.default_remedy and what.endswith(kind.default_remedy):
        what, remedy = what.removesuffix(kind.default_remedy).strip(), kind.default_remedy
    line, column = (int(found[name]) if found[name] else None for name in ("line", "column"))
    return _rebuild(_Details(found["code"], what, remedy, found["query_id"], line, column))


def _check_fields(fields: dict[str, object]) -> MicromegasError | None:
    code, what, remedy = (fields.get(name) for name in ("code", "what", "remedy"))
    query_id, line, column = (fields.get(name) for name in ("query_id", "line", "column"))
    if not isinstance(code, str) or not isinstance(what, str) or not isinstance(remedy, str):
        return None
    if not (query_id is None or is_query_id(query_id)) or not _is_position(line) or not _is_position(column):
        return None
    delay = fields.get("retry_after_seconds")
    if not (delay is None or _is_delay(delay)):
        return None
    return _rebuild(_Details(code, printable_text(what), _cut(remedy), query_id, line, column, delay))


def _rebuild(details: _Details) -> MicromegasError | None:
    kind = error_classes().get(details.code)
    if kind is None:
        return None
    if issubclass(kind, QueryError):
        found = kind(
            details.what, line=details.line, column=details.column, remedy=details.remedy, query_id=details.query_id
        )
        if isinstance(found, ResourcesExhausted):
            found.retry_after_seconds = details.retry_after_seconds
        return found
    if issubclass(kind, ConfigurationError):
        error: MicromegasError = kind(details.what, key="the server's configuration", remedy=details.remedy)
        error.query_id = details.query_id
        return error
    return kind(details.what, remedy=details.remedy, query_id=details.query_id)


def is_query_id(value: object) -> TypeGuard[str]:
    """Whether a value can be a query's id: one short ASCII word."""
    return isinstance(value, str) and _QUERY_ID.fullmatch(value) is not None


def _is_position(value: object) -> TypeGuard[int | None]:
    return value is None or (type(value) is int and 0 < value <= _MAX_POSITION)


def _is_delay(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= _MAX_RETRY_SECONDS


def _compact(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def _cut(remedy: str) -> str:
    text = printable_text(remedy)
    return text if len(text) <= _MAX_REMEDY_CHARACTERS else text[: _MAX_REMEDY_CHARACTERS - len(_CUT)] + _CUT


def _fit(text: str, max_cost: int, *, cost: Callable[[str], int]) -> str:
    """Return `text`, or its longest beginning that costs at most `max_cost` with the ellipsis."""
    if cost(text) <= max_cost:
        return text
    low, high = 0, min(len(text), max_cost)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if cost(text[:middle] + _CUT) <= max_cost else (low, middle - 1)
    return text[:low] + _CUT


def _wire_cost(text: str) -> int:
    # Printable ASCII but "%" travels as it is, every other byte as three (gRPC over HTTP/2, Percent-Encoded).
    return len(quote(text, safe=_UNENCODED))


def printable_text(text: str) -> str:
    """Return `text` without what could steer a terminal or mislead an eye; line feeds stay."""
    if text.isascii() and text.isprintable():
        return text  # nearly every text, and answering a flood should cost little
    return "".join(character if _is_printable(character) else "\ufffd" for character in text)


def _is_printable(character: str) -> bool:
    return character == "\n" or unicodedata.category(character) not in _UNPRINTABLE
