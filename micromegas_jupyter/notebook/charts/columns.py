"""Which columns a chart shows, and as what: named by a person, or chosen by their types."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.charts import KINDS
from micromegas_jupyter.notebook.results.formats import decoded, sql_type
from micromegas_jupyter.notebook.shell import cut, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_SERIES, MAX_PANELS = 12, 8
_SAMPLE_ROWS, _MAX_CHARACTERS, _MAX_LISTED = 100_000, 50, 300
_IDENTIFIER = re.compile(r"(?:^|[\W_])(?i:ids?|[ptug]id|ppid|port|hash|key)$|[a-z](?:Id|Pid|Tid|Port|Hash)$")
# XML has no place for two of these, and Vega-Lite puts titles into expressions without escaping a backslash.
_REPLACED = {0xFFFE: "\ufffd", 0xFFFF: "\ufffd", ord("\\"): "\u29f5"}


# Identifiers are numbers whose sums and means say nothing.
Role = StrEnum("Role", ["TIME", "NUMBER", "IDENTIFIER", "CATEGORY", "NONE"])


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """A column of the result, without dictionary encoding; its title is the name, fit to be shown."""

    name: str
    title: str
    values: pa.ChunkedArray
    role: Role


class Choice(NamedTuple):
    """What is drawn; without `y`, rows are counted. `notes` say what is left out."""

    kind: str
    x: Column
    y: list[Column]
    color: list[Column]
    unit: list[Column]
    notes: list[str]


def shown(text: str) -> str:
    """Return a name or value from elsewhere, short and without what would steer a terminal or a page."""
    return cut(printable(cut(text, _MAX_CHARACTERS)), _MAX_CHARACTERS).translate(_REPLACED) or "(empty)"


def choose(
    table: pa.Table, *, kind: str | None, x: str | None, y: str | Sequence[str] | None, color: str | None
) -> Choice:
    """Return what is drawn of the table; what is not named follows from the columns' types."""
    if kind not in {None, *KINDS}:
        raise UsageError(f'"{shown(str(kind))}" is not a kind of chart.', remedy=f"The kinds are {', '.join(KINDS)}.")
    if not table.num_rows:
        raise UsageError("There is nothing to draw: the result has no rows.", remedy="Widen the time range or WHERE.")
    rows, arrays = min(table.num_rows, _SAMPLE_ROWS), zip(table.column_names, map(decoded, table.columns), strict=True)
    columns = [Column(name, shown(name), each, _role(each.type, name)) for name, each in arrays]
    if isinstance(y, str):
        y = [y] if y in table.column_names else [name.strip() for name in y.split(",")]
    along, color_by, named_y = (
        [_named(columns, name) for name in each or ()] for each in (x and [x], color and [color], y)
    )
    free = [column for column in columns if column not in [*along, *color_by, *named_y]]
    times, numbers, identifiers, categories = ([c for c in free if c.role is role] for role in list(Role)[:4])
    unit = [column for column in categories if column.name.lower() == "unit"]
    samples = {c: c.values.slice(0, rows).cast(pa.large_string()) for c in categories if c not in unit}
    counts = {column: pc.count_distinct(sample, mode="all").as_py() for column, sample in samples.items()}
    texts = sorted(counts, key=lambda column: counts[column] == 1)  # what varies first
    # Rows that their texts tell apart have been grouped by these.
    is_grouped = bool(texts) and math.prod(counts.values()) >= rows
    first = texts if is_grouped or (kind is None and not numbers) else []
    candidates = {
        None: [*times, *first, *numbers, *texts],
        "bar": [*first, *times, *texts, *identifiers, *numbers],
        "hist": [*named_y, *numbers, *times],
    }.get(kind, [*times, *numbers, *identifiers])
    chosen_x = next(iter([*along, *candidates, *named_y]), None)
    if chosen_x is None:
        raise _undrawable("There is nothing to draw", columns)
    measures = named_y or [column for column in numbers if column is not chosen_x]
    if kind is None:
        kind = {Role.CATEGORY: "bar", Role.TIME: "line"}.get(chosen_x.role, "point")
        kind = kind if kind == "bar" or measures not in ([], [chosen_x]) else "hist"
    if kind == "hist":
        measures = [] if chosen_x.role is Role.TIME else named_y or along or numbers or [chosen_x]
    _check(kind, chosen_x, measures, color_by)
    limits = {"bar": MAX_SERIES, "hist": min(MAX_SERIES, rows // 2), "point": min(MAX_SERIES, rows // 2)}
    limit = limits.get(kind, max(MAX_SERIES, rows // 2))
    series = [column for column, count in counts.items() if column is not chosen_x and 1 < count <= limit]
    if kind not in {"line", "area"}:  # bars of a column that tells the rows apart need no colors
        series = [] if kind == "bar" and counts.get(chosen_x) == rows else series[:1]
    panels = f"{MAX_PANELS} of {len(measures)} columns of numbers are drawn; y chooses others."
    notes = [panels] * (len(measures) > MAX_PANELS)
    if unused := [column.title for column in identifiers if column is not chosen_x and measures and not named_y]:
        notes.append(f"Not drawn: {cut(', '.join(unused), _MAX_LISTED)} (identifiers; y draws them).")
    if unused := [column.title for column, count in counts.items() if count > limit and kind in {"line", "area"}]:
        notes.append(f"{cut(', '.join(unused), _MAX_LISTED)} separates no lines: the values hardly repeat.")
    has_units = len(measures) == 1 and kind != "hist"
    return Choice(kind, chosen_x, measures[:MAX_PANELS], color_by or series, unit if has_units else [], notes)


def _role(kind: pa.DataType, name: str) -> Role:
    types = pa.types
    if types.is_timestamp(kind) or types.is_date(kind):
        return Role.TIME
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_duration(kind):
        return Role.IDENTIFIER if types.is_integer(kind) and _IDENTIFIER.search(name) else Role.NUMBER
    return Role.CATEGORY if str(kind) in {"string", "large_string", "string_view", "bool"} else Role.NONE


def _named(columns: Sequence[Column], name: str) -> Column:
    found = next((column for column in columns if column.name == name), None)
    if found is None:
        nearest = get_close_matches(name, [column.name for column in columns], n=1)
        names = cut(", ".join(column.title for column in columns), _MAX_LISTED)
        remedy = f"Did you mean {shown(nearest[0])}?" if nearest else f"The columns are {names}."
        raise UsageError(f'The result has no column "{shown(name)}".', remedy=remedy)
    if found.role is Role.NONE:
        raise _undrawable("This type cannot be drawn", [found])
    return found


def _check(kind: str, x: Column, measures: Sequence[Column], color: Sequence[Column]) -> None:
    is_wrong = {Role.CATEGORY: measures, Role.TIME: [*measures, *color]}
    if wrong := [column for role, columns in is_wrong.items() for column in columns if column.role is role]:
        raise _undrawable("The y axis needs numbers, and colors texts or numbers", wrong)
    if kind != "bar" and x.role is Role.CATEGORY:
        raise UsageError(f"{x.title} can only be drawn as bars.", remedy="Use the kind bar.")
    if kind in {"line", "area", "point"} and not measures:
        raise _undrawable("The y axis needs one more column of numbers", [x])


def _undrawable(why: str, columns: Sequence[Column]) -> UsageError:
    types = cut(", ".join(f"{each.title} {sql_type(each.values.type)}" for each in columns), _MAX_LISTED)
    remedy = "Select times, numbers or texts, for example: SELECT time, value FROM measures."
    return UsageError(f"{why} ({types or 'no columns'}).", remedy=remedy)
