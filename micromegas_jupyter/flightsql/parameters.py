"""Placeholders in a statement and their values, which are sent as typed Arrow columns, never inside the SQL."""

import re
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Final, NamedTuple

import pyarrow as pa

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.flightsql.commands import MAX_PARAMETERS

# One alternative for each construct that may contain a colon, followed by the placeholder itself. Unterminated
# constructs extend to the end of the text, and the server reports the problem. Nested comments are counted separately.
_TOKEN: Final = re.compile(
    r"""
      (?P<escape_string> (?<!\w) [eE] ' (?: [^'\\] | \\. | '' )*+ (?: ' | \Z ) )
    | (?P<string> ' (?: [^'] | '' )*+ (?: ' | \Z ) )
    | (?P<identifier> " (?: [^"] | "" )*+ (?: " | \Z ) | ` (?: [^`] | `` )*+ (?: ` | \Z ) )
    | (?P<line_comment> -- [^\n]* )
    | (?P<block_comment> /\* )
    | (?P<dollar_quote> (?<! [\w$] ) \$ (?P<tag> (?: [^\W\d] \w* )? ) \$ .*? (?: \$ (?P=tag) \$ | \Z ) )
    | (?P<dollar_name> (?<! [\w$] ) \$ (?P<own_name> [^\W\d] \w* ) )
    | (?P<cast> :: )
    | (?P<semicolon> ; )
    | (?P<placeholder> (?<! [\w:)\]}'"`] ) : (?P<name> [^\W\d] \w* ) )
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE: Final = re.compile(r"/\*|\*/")
_WORD_BEFORE: Final = re.compile(r"(\w+|\S)\Z")
_MAX_WORD_CHARACTERS: Final = 64


class Placeholder(NamedTuple):
    """One `:name` in a statement: its position, and the preceding word or symbol, ignoring comments."""

    name: str
    start: int
    end: int
    preceded_by: str


def find_placeholders(sql: str) -> Iterator[Placeholder]:
    """Yield every `:name` in order of appearance."""
    for found, code in _find_tokens(sql):
        if found.lastgroup == "placeholder":
            before = _WORD_BEFORE.search(code.rstrip()[-_MAX_WORD_CHARACTERS:])
            preceded_by = before[1].upper() if before else ""
            yield Placeholder(found["name"], found.start("placeholder"), found.end(), preceded_by)


def without_end(sql: str) -> str:
    """Return a statement without its final semicolon and any comments after it."""
    ends = (found.start() for found, _ in _find_tokens(sql) if found.lastgroup == "semicolon")
    return sql[: next(ends, len(sql))].rstrip()


def _find_tokens(sql: str) -> Iterator[tuple[re.Match[str], str]]:
    """Yield each token with the code that precedes it; comments count as spaces."""
    position, code = 0, ""
    while (found := _TOKEN.search(sql, position)) is not None:
        code += sql[position : found.start()]
        position = found.end()
        yield found, code
        is_comment = found.lastgroup in {"block_comment", "line_comment"}
        if found.lastgroup == "block_comment":
            position = _end_of_comment(sql, position)
        code = code + " " if is_comment else "x"


def quote_literal(text: object) -> str:
    """Return `text` as an SQL string literal."""
    if not isinstance(text, str) or "\0" in text:
        raise UsageError("A value cannot be inserted into the statement.", remedy="Use strings without NUL characters.")
    return "'" + text.replace("'", "''") + "'"


def quote_identifier(name: object) -> str:
    """Return a table or column name as a quoted SQL identifier: `user id` becomes `"user id"`.

    Use it to build statements from dynamic names. The name keeps its case; quote each part of a qualified name
    separately. Don't quote values: write `:name` and bind them.
    """
    if not isinstance(name, str) or not name or "\0" in name or any("\ud800" <= part <= "\udfff" for part in name):
        raise UsageError("This is not a valid table or column name.", remedy="Use text without NUL characters.")
    return '"' + name.replace('"', '""') + '"'


def _end_of_comment(sql: str, position: int) -> int:
    depth = 1
    while depth and (edge := _COMMENT_EDGE.search(sql, position)) is not None:
        depth += 1 if edge[0] == "/*" else -1
        position = edge.end()
    return position if depth == 0 else len(sql)


@dataclass(frozen=True, slots=True)
class Untyped:
    """A value that takes its column's inferred type; it is a string if the server doesn't infer a type.

    `read_time` parses the text for a time column; on a ValueError or UsageError, the server gets the text.
    """

    text: str = field(repr=False)
    read_time: Callable[[str], datetime] = field(default=datetime.fromisoformat, repr=False)

    def as_type(self, kind: pa.DataType, *, name: str) -> pa.Scalar:
        """Return the value as a scalar for a column of this type; `name` is used in messages."""
        text = pa.scalar(self.text, pa.string())
        if pa.types.is_null(kind) or any(is_text(kind) for is_text in _TEXT_TYPES):
            return text
        if self.text == "null":
            return pa.scalar(None, kind)
        try:
            return self._read(kind, name)
        except (KeyError, ArithmeticError):
            raise UsageError(
                f"The value of :{name} does not fit its column, which has the type {kind}.",
                remedy=f"To send it as a string, specify the type: -p {name}:text=VALUE.",
            ) from None
        except (ValueError, UsageError):
            return text

    def _read(self, kind: pa.DataType, name: str) -> pa.Scalar:
        if pa.types.is_boolean(kind):
            return pa.scalar(_BOOLEANS[self.text.lower()])
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            return _number(Decimal(self.text), kind)
        if pa.types.is_date(kind):
            return pa.scalar(date.fromisoformat(self.text), kind)
        if pa.types.is_timestamp(kind) and not _NANOSECONDS.search(self.text):
            return _timestamp(self.read_time(self.text), name)
        raise ValueError


def _number(value: Decimal, kind: pa.DataType) -> pa.Scalar:
    """Return a number in its column's type; numbers that don't fit can still be compared, such as 4.5 with integers."""
    is_whole = value.is_finite() and value.adjusted() < _MAX_DIGITS and value == value.to_integral_value()
    if pa.types.is_floating(kind) or not value.is_finite():
        return pa.scalar(float(value), kind if pa.types.is_floating(kind) else pa.float64())
    if pa.types.is_integer(kind) and not is_whole:
        return pa.scalar(value)
    number = value if pa.types.is_decimal(kind) else int(value)
    try:
        return pa.scalar(number, kind)
    except (pa.ArrowException, OverflowError):
        return pa.scalar(value) if isinstance(number, Decimal) else _integer(number)


_TEXT_TYPES: Final = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_MAX_DIGITS: Final = 76  # Arrow's largest decimal
_BOOLEANS: Final = {"true": True, "false": False}
# Python's times would lose the last digits. The server can also compare strings with times.
_NANOSECONDS: Final = re.compile(r"\.\d{7}", re.ASCII)

# The data model's timestamps (COMPAT: TS). Equivalent time zones compare as equal, but one is enough.
_ZONE: Final = "+00:00"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_MAX_INT64: Final = 2**63 - 1
_MAX_UINT64: Final = 2**64 - 1


def to_scalar(value: object, *, name: str) -> pa.Scalar:
    """Return `value` as a typed Arrow scalar; `name` is used in messages, which never contain the value.

    Times and durations are converted to nanoseconds, or to microseconds if they don't fit; times are in UTC.
    """
    try:
        return _convert(_unwrap(value), name)
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise UsageError(
            f"The value of :{name} cannot be sent: no SQL type fits it.", remedy="Use a smaller or simpler value."
        ) from error


def _convert(value: object, name: str) -> pa.Scalar:  # noqa: C901, PLR0911, PLR0912 - one line for each type
    match value:
        case Untyped():
            return pa.scalar(value.text, pa.string())
        case None | bool() | Decimal():
            return pa.scalar(value)
        case pa.Scalar():
            return _convert(value.as_py(), name)
        case int():
            return _integer(int(value))
        case float():
            return pa.scalar(float(value), pa.float64())
        case str():
            return pa.scalar(str.__str__(value), pa.string())
        case uuid.UUID():
            return pa.scalar(str(value), pa.string())
        case bytes() | bytearray() | memoryview():
            return pa.scalar(bytes(value), pa.binary())
        case datetime():
            return _timestamp(value, name)
        case date():
            return pa.scalar(value, pa.date32())
        case timedelta():
            return _scaled(_total_nanoseconds(value), pa.duration("ns"), pa.duration("us"))
        case Enum():
            raise UsageError(
                f"The value of :{name} cannot be bound: it is a member of {type(value).__name__}.",
                remedy="Bind its value: .value.",
            )
        case _:
            raise UsageError(
                f"The value of :{name} cannot be bound: it is of type {type(value).__name__}.",
                remedy="Bind numbers, strings, bytes, times with a time zone, durations, None, or a list of these.",
            )


def _unwrap(value: object) -> object:
    """Return the Python equivalent of a numpy scalar or a pandas missing value."""
    kind = type(value)
    if kind.__module__.partition(".")[0] == "numpy" and hasattr(value, "dtype") and not getattr(value, "shape", ()):
        return _unwrap_numpy(value)
    if kind.__name__ in {"NaTType", "NAType"} and kind.__module__.startswith("pandas."):
        return None
    return value


def _unwrap_numpy(value: Any) -> object:
    if value.dtype.kind != "m":
        # A numpy time doesn't have a time zone, so it becomes a naive datetime, which is rejected with the right
        # message.
        return value.astype("datetime64[us]").item() if value.dtype.kind == "M" else value.item()
    import pandas as pd

    duration: object = pd.Timedelta(value)
    return None if duration is pd.NaT else duration


def _integer(value: int) -> pa.Scalar:
    if -_MAX_INT64 - 1 <= value <= _MAX_INT64:
        return pa.scalar(value, pa.int64())
    if 0 < value <= _MAX_UINT64:
        return pa.scalar(value, pa.uint64())
    return pa.scalar(Decimal(value))


def _timestamp(value: datetime, name: str) -> pa.Scalar:
    if value.utcoffset() is None:
        raise UsageError(
            f"The time :{name} has no time zone.", remedy="Add a time zone, for example datetime.now(timezone.utc)."
        )
    nanoseconds = _total_nanoseconds(value.astimezone(UTC) - _EPOCH)
    return _scaled(nanoseconds, pa.timestamp("ns", _ZONE), pa.timestamp("us", _ZONE))


def _total_nanoseconds(duration: timedelta) -> int:
    # pandas.Timedelta is a timedelta with additional nanoseconds.
    return (duration // _MICROSECOND) * 1000 + int(getattr(duration, "nanoseconds", 0))


def _scaled(nanoseconds: int, exact: pa.DataType, coarse: pa.DataType) -> pa.Scalar:
    if abs(nanoseconds) <= _MAX_INT64:
        return pa.scalar(nanoseconds, pa.int64()).cast(exact)
    return pa.scalar(nanoseconds // 1000, pa.int64()).cast(coarse)


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundStatement:
    """A statement with `$name` for `:name` or `$name_1, $name_2, …` for a list, and a row with one column per value.

    `lists` has the position of each list in `sql`, its length there, and the length of its `:name`. `untyped` are
    columns of `row` that take the types that the server infers.
    """

    sql: str = field(repr=False)
    row: pa.RecordBatch = field(repr=False)
    lists: tuple[tuple[int, int, int], ...] = ()
    untyped: Mapping[str, Untyped] = field(default_factory=dict, repr=False)

    def typed_row(self, inferred: pa.Schema) -> pa.RecordBatch:
        """Return the row to send, given the prepared statement's parameter schema."""
        kinds = {parameter.name.removeprefix("$"): parameter.type for parameter in inferred}
        scalars = {name: self.row.column(name)[0] for name in self.row.schema.names}
        for name, value in self.untyped.items():
            scalars[name] = value.as_type(kinds.get(name, pa.null()), name=name)
        return _build_row(scalars)

    def original_column(self, line: int, column: int) -> int:
        """Return the column in the original statement for a column in `sql`; the line number is the same in both."""
        start = sum(len(text) + 1 for text in self.sql.split("\n")[: line - 1])
        at = start + column - 1
        for list_at, sent_characters, original_characters in self.lists:
            if start <= list_at <= at:  # a position within the list maps to the start of its name
                is_within = at < list_at + sent_characters
                column -= at - list_at if is_within else sent_characters - original_characters
        return column


def parameter_names(sql: str) -> tuple[str, ...]:
    """Return the distinct names of a statement's `:name` placeholders, in order of appearance."""
    return tuple(dict.fromkeys(placeholder.name for placeholder in find_placeholders(sql)))


def bind_named(sql: str, values: Mapping[str, object]) -> BoundStatement:
    """Bind a value to every `:name`; a list, set, array, or Series expands to its elements (`IN :names`)."""
    found = list(find_placeholders(sql))
    names = dict.fromkeys(placeholder.name for placeholder in found)
    _check_names(names, values)
    elements = {name: elements_of(values[name]) for name in names}
    _check_lists(elements)
    columns = _name_columns(elements)
    scalars = {
        column: to_scalar(value, name=name)
        for name, listed in elements.items()
        for column, value in zip(columns[name], [values[name]] if listed is None else listed, strict=True)
    }
    rewritten, lists = _rewrite(sql, found, columns, elements)
    untyped = {name: value for name in names if isinstance(value := values[name], Untyped)}
    return BoundStatement(sql=rewritten, row=_build_row(scalars), lists=lists, untyped=untyped)


def _build_row(scalars: Mapping[str, pa.Scalar]) -> pa.RecordBatch:
    arrays = [pa.array([scalar], scalar.type) for scalar in scalars.values()]
    return pa.RecordBatch.from_arrays(arrays, names=list(scalars))


def frozen_values(sql: str, values: Mapping[str, object]) -> dict[str, object]:
    """Return copies of the values for a statement's placeholders, so that later changes to lists have no effect."""
    bind_named(sql, values)
    frozen = {}
    for name in parameter_names(sql):
        value, elements = values[name], elements_of(values[name])
        single = bytes(value) if isinstance(value, (bytearray, memoryview)) else value
        frozen[name] = single if elements is None else tuple(elements)
    return frozen


def elements_of(value: object) -> Sequence[object] | None:
    """Return the values of a list, a set, or a library's column, or None for a single value."""
    if isinstance(value, (list, tuple, pa.Array, pa.ChunkedArray)):
        return value
    if isinstance(value, (set, frozenset)):
        return list(value)
    return _column_elements(value)


def _column_elements(column: Any) -> list[object] | None:
    """Return a numpy, pandas, or polars column's first values, one more than can be bound, or None for others."""
    match type(column).__module__.partition(".")[0], getattr(column, "ndim", None):
        case "numpy", 1:
            return list(column[: MAX_PARAMETERS + 1])
        case "pandas", 1:
            # A Series itself may slice by label.
            first = getattr(column, "iloc", column)[: MAX_PARAMETERS + 1]
            return [None if gone else element for element, gone in zip(first, first.isna(), strict=True)]
        case "polars", _ if hasattr(column, "to_arrow") and hasattr(column, "dtype"):
            return list(column[: MAX_PARAMETERS + 1])
        case _:
            return None


def _check_names(names: Collection[str], values: Mapping[str, object]) -> None:
    missing = [name for name in names if name not in values]
    if missing:
        listed = ", ".join(f":{name}" for name in missing)
        raise UsageError(
            f"No value was specified for {listed}.", remedy="Specify it in params, or with -p in a terminal."
        )
    for name in names:
        if not name.isascii():
            raise UsageError(
                f"The placeholder :{name} has a name outside ASCII.", remedy="Use letters, digits, and underscores."
            )


def _check_lists(elements: Mapping[str, Sequence[object] | None]) -> None:
    count = sum(1 if listed is None else len(listed) for listed in elements.values())
    if count > MAX_PARAMETERS:
        raise UsageError(
            f"A statement cannot bind more than {MAX_PARAMETERS} values.",
            remedy="Use a shorter list, or select the values in the statement.",
        )
    for name, listed in elements.items():
        if listed is not None and not len(listed):
            raise UsageError(
                f"The list :{name} is empty.",
                remedy="IN requires at least one value, so run the statement only if the list isn't empty.",
            )


def _name_columns(elements: Mapping[str, Sequence[object] | None]) -> dict[str, list[str]]:
    """Return the column names for each placeholder; names for list elements differ from all placeholders."""
    columns: dict[str, list[str]] = {}
    taken = {name.lower() for name in elements}
    for name, listed in elements.items():
        if listed is None:
            columns[name] = [name]
            continue
        stem = name
        while any(f"{stem}_{number}".lower() in taken for number in range(1, len(listed) + 1)):
            stem += "_"
        columns[name] = [f"{stem}_{number}" for number in range(1, len(listed) + 1)]
        taken.update(column.lower() for column in columns[name])
    return columns


def _rewrite(
    sql: str,
    found: list[Placeholder],
    columns: Mapping[str, list[str]],
    elements: Mapping[str, Sequence[object] | None],
) -> tuple[str, tuple[tuple[int, int, int], ...]]:
    rewritten, position, lists = "", 0, []
    for placeholder in found:
        rewritten += sql[position : placeholder.start]
        position = placeholder.end
        listed = ", ".join(f"${column}" for column in columns[placeholder.name])
        if elements[placeholder.name] is not None:
            if placeholder.preceded_by == "IN":
                listed = f"({listed})"
            elif placeholder.preceded_by not in {"(", ","}:
                raise UsageError(
                    f"The list :{placeholder.name} is used where one value is required.",
                    remedy="Use it after IN, or between commas.",
                )
            lists.append((len(rewritten), len(listed), placeholder.end - placeholder.start))
        rewritten += listed
    return rewritten + sql[position:], tuple(lists)


Params = Mapping[str, object] | Sequence[object] | None

_SYNTAX: Final = "Use a mapping for :name or $name, a list or tuple for ? or $1."


def bind(sql: str, params: Params) -> BoundStatement | None:
    """Bind the values of `params`, as documented in `query`, or return None if there are no values."""
    if params is None:
        return None
    if isinstance(params, Mapping):
        bound = _with_dollar_names(bind_named(sql, params), sql, params)
    elif isinstance(params, (list, tuple)):
        bound = _bind_in_order(sql, params)
    else:
        raise UsageError(f"params is of type {type(params).__name__}.", remedy=_SYNTAX)
    return bound if bound.row.num_columns else None


def _with_dollar_names(bound: BoundStatement, sql: str, values: Mapping[str, object]) -> BoundStatement:
    """Add the values for `$name`, the server's native syntax."""
    scalars = {name: bound.row.column(name)[0] for name in bound.row.schema.names}
    untyped = dict(bound.untyped)
    for found, _ in _find_tokens(sql):
        name = found["own_name"]
        if name is not None and name in values and name not in scalars:
            value = values[name]
            scalars[name] = to_scalar(value, name=name)
            if isinstance(value, Untyped):
                untyped[name] = value
    return replace(bound, row=_build_row(scalars), untyped=untyped)


def _bind_in_order(sql: str, values: Sequence[object]) -> BoundStatement:
    if names := parameter_names(sql):
        raise UsageError(
            f"The statement has a name, :{names[0]}, but params doesn't contain any names.", remedy=_SYNTAX
        )
    if len(values) > MAX_PARAMETERS:
        raise UsageError(
            f"A statement cannot bind more than {MAX_PARAMETERS} values.", remedy="Select the values in the statement."
        )
    # Flight SQL clients number the columns from 0, even if the statement counts from $1.
    scalars = {str(number): to_scalar(value, name=str(number + 1)) for number, value in enumerate(values)}
    return BoundStatement(sql=sql, row=_build_row(scalars))
