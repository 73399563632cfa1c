"""Which columns a chart shows, and as what: named by a person, or chosen by their types."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.charts import KINDS
from micromegas_jupyter.notebook.results.formats import Kind, column_kind, decoded, sql_type
from micromegas_jupyter.notebook.shell import cut, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_SERIES: Final = 12
MAX_PANELS: Final = 8
MAX_BARS: Final = 30
_MAX_CHARACTERS = 50
_MAX_LISTED = 8
_SAMPLE_ROWS = 10_000
_IDENTIFIER = re.compile(r"(?:^|[\W_])(?i:ids?|[ptug]id|ppid|port|hash|key)$|[a-z](?:Id|Pid|Tid|Port|Hash)$")
# XML has no place for two of these, and Vega-Lite puts titles into expressions without escaping a backslash.
_REPLACED = {0xFFFE: "\ufffd", 0xFFFF: "\ufffd", ord("\\"): "\u29f5"}
_FIELDS_OF_CHARTS = {"series", "rows", "start", "end", "range", "when"}


class Role(StrEnum):
    """What a column can be in a chart."""

    TIME = "time"
    NUMBER = "number"
    IDENTIFIER = "identifier"
    """Numbers that name something: their sums and means say nothing."""
    CATEGORY = "category"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Column:
    """A column of the result; `field` is its name in the specification, where it needs no escapes."""

    name: str
    field: str
    role: Role
    values: pa.ChunkedArray

    @property
    def title(self) -> str:
        """The name, fit to be shown."""
        return shown(self.name)

    @property
    def is_text(self) -> bool:
        """Whether it holds texts, as opposed to booleans."""
        return self.role is Role.CATEGORY and not pa.types.is_boolean(self.values.type)

    def distinct_count(self) -> int:
        """Return how many values there are; where they hardly repeat, an estimate."""
        sample = self.values.slice(0, _SAMPLE_ROWS)
        count = int(pc.count_distinct(sample, mode="all").as_py())
        if count > len(sample) // 2:
            return count * len(self.values) // len(sample)
        return int(pc.count_distinct(self.values, mode="all").as_py())


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What is drawn; without `y`, rows are counted. `notes` say what is left out."""

    kind: str
    x: Column
    y: tuple[Column, ...]
    color: tuple[Column, ...]
    unit: Column | None
    notes: tuple[str, ...]


def shown(text: str) -> str:
    """Return a name or value from elsewhere, short and without what would steer a terminal or a page."""
    text = cut(printable(cut(text, _MAX_CHARACTERS)), _MAX_CHARACTERS)
    return text.translate(_REPLACED) or "(empty)"


def choose(
    table: pa.Table, *, kind: str | None, x: str | None, y: str | Sequence[str] | None, color: str | None
) -> Choice:
    """Return what is drawn of the table; what is not named follows from the columns' types."""
    if kind not in {None, *KINDS}:
        raise UsageError(f'"{shown(str(kind))}" is not a kind of chart.', remedy=f"The kinds are {', '.join(KINDS)}.")
    if not table.num_rows:
        raise UsageError("There is nothing to draw: the result has no rows.", remedy="Widen the time range or WHERE.")
    columns, rows = _read(table), table.num_rows
    named_x, named_color = ([] if name is None else [_named(columns, name)] for name in (x, color))
    named_y = [_named(columns, name) for name in _split(columns, y)]
    free = [column for column in columns if column not in [*named_x, *named_color, *named_y]]
    times = [column for column in free if column.role is Role.TIME]
    numbers = [column for column in free if column.role is Role.NUMBER]
    identifiers = [column for column in free if column.role is Role.IDENTIFIER]
    units = [column for column in free if column.is_text and column.name.lower() == "unit"]
    categories = [column for column in free if column.role is Role.CATEGORY and column not in units]
    counts = {column: column.distinct_count() for column in categories}
    texts = sorted(counts, key=lambda column: counts[column] == 1)  # what varies first
    # Rows that their texts tell apart have been grouped by these.
    is_grouped = bool(texts) and math.prod(counts.values()) >= rows
    candidates = {
        None: [*times, *(texts if is_grouped or not numbers else []), *numbers, *texts],
        "bar": [*texts, *times, *identifiers, *numbers] if is_grouped else [*times, *texts, *identifiers, *numbers],
        "hist": [*named_y, *numbers, *times],
    }.get(kind, [*times, *numbers, *identifiers])
    chosen_x = next(iter([*named_x, *candidates, *named_y]), None)
    if chosen_x is None:
        raise _undrawable("There is nothing to draw", columns)
    measures = named_y or [column for column in numbers if column is not chosen_x]
    if kind is None:
        kind = {Role.CATEGORY: "bar", Role.TIME: "line"}.get(chosen_x.role, "point")
        kind = kind if kind == "bar" or measures not in ([], [chosen_x]) else "hist"
    if kind == "hist":
        measures = [] if chosen_x.role is Role.TIME else named_y or (named_x or numbers or [chosen_x])
    _check(kind, chosen_x, measures)
    limit = {"line": max(MAX_SERIES, rows // 2), "area": max(MAX_SERIES, rows // 2), "bar": MAX_SERIES}.get(
        kind, min(MAX_SERIES, rows // 2)
    )
    series = [column for column, count in counts.items() if column is not chosen_x and 1 < count <= limit]
    if kind not in {"line", "area"}:
        is_one_row_each = kind == "bar" and chosen_x.role is not Role.TIME and counts.get(chosen_x) == rows
        series = [] if is_one_row_each else series[:1]
    notes = []
    if len(measures) > MAX_PANELS:
        notes.append(f"{MAX_PANELS} of {len(measures)} columns of numbers are drawn; y chooses others.")
    if unused := [column.title for column in identifiers if column is not chosen_x and measures and not named_y]:
        notes.append(f"Not drawn: {_listed(unused)} (identifiers; y draws them).")
    if unused := [column.title for column, count in counts.items() if count > limit and kind in {"line", "area"}]:
        notes.append(f"{_listed(unused)} separates no lines: the values hardly repeat.")
    has_units = units and len(measures) == 1 and units[0].distinct_count() <= MAX_PANELS
    return Choice(
        kind=kind,
        x=chosen_x,
        y=tuple(measures[:MAX_PANELS]),
        color=tuple(named_color or series),
        unit=units[0] if has_units else None,
        notes=tuple(notes),
    )


def _read(table: pa.Table) -> list[Column]:
    columns: list[Column] = []
    for index, column in enumerate(table.schema):
        name = re.sub(r"\W", "_", cut(column.name, _MAX_CHARACTERS)).strip("_") or "column"
        name = f"{name}_{index}" if name in {*_FIELDS_OF_CHARTS, *(each.field for each in columns)} else name
        values = decoded(table.column(index))
        role = _role(values.type, column.name)
        if role is Role.CATEGORY and not pa.types.is_boolean(values.type):
            # Bytes, because what a server sends as text need not be text.
            values = values.cast(pa.large_string()).cast(pa.large_binary())
        columns.append(Column(name=column.name, field=name, role=role, values=values))
    return columns


def _role(kind: pa.DataType, name: str) -> Role:
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return Role.TIME
    if pa.types.is_integer(kind) and _IDENTIFIER.search(name):
        return Role.IDENTIFIER
    if column_kind(kind) is Kind.NUMBER:
        return Role.NUMBER
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return Role.CATEGORY if is_text or pa.types.is_boolean(kind) else Role.NONE


def _split(columns: Sequence[Column], y: str | Sequence[str] | None) -> Sequence[str]:
    if not isinstance(y, str):
        return y or ()
    return [y] if any(column.name == y for column in columns) else [name.strip() for name in y.split(",")]


def _named(columns: Sequence[Column], name: str) -> Column:
    found = [column for column in columns if column.name == name]
    if found and found[0].role is Role.NONE:
        raise _undrawable("This type cannot be drawn", found)
    if found:
        return found[0]
    names = [column.name for column in columns]
    nearest = get_close_matches(name, names, n=1)
    remedy = f"Did you mean {shown(nearest[0])}?" if nearest else f"The columns are {_listed(map(shown, names))}."
    raise UsageError(f'The result has no column "{shown(name)}".', remedy=remedy)


def _check(kind: str, x: Column, measures: Sequence[Column]) -> None:
    if wrong := [column for column in measures if column.is_text or column.role is Role.TIME]:
        raise _undrawable("The y axis needs numbers", wrong)
    if kind != "bar" and x.role is Role.CATEGORY:
        raise UsageError(f"{x.title} can only be drawn as bars.", remedy="Use the kind bar.")
    if kind in {"line", "area", "point"} and not measures:
        raise _undrawable("The y axis needs one more column of numbers", [x])


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:_MAX_LISTED]) + (", …" if len(names) > _MAX_LISTED else "")


def _undrawable(why: str, columns: Sequence[Column]) -> UsageError:
    named = ((each.title, "text" if each.is_text else sql_type(each.values.type)) for each in columns)
    types = _listed(f"{title} {kind}" for title, kind in named)
    remedy = "Select times, numbers or texts, for example: SELECT time, value FROM measures."
    return UsageError(f"{why} ({types or 'no columns'}).", remedy=remedy)
