"""The contents of a chart: the specified options, and defaults based on the columns' roles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc

from micromegas_jupyter.core.jsonb import with_json
from micromegas_jupyter.core.text import cut
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.plotting import KINDS
from micromegas_jupyter.notebook.plotting.columns import (
    MAX_LISTED,
    Column,
    Role,
    columns_of,
    named_column,
    shown,
    undrawable,
)
from micromegas_jupyter.notebook.plotting.slots import check_aggregate

if TYPE_CHECKING:
    from collections.abc import Sequence

    Names = str | Sequence[str] | None

MAX_SERIES: Final = 12
MAX_PANELS: Final = 8
MAX_BINS: Final = 500
_SAMPLE_ROWS = 100_000
_UNSUMMED = frozenset({Role.IDENTIFIER, Role.CODE})
# Charts of these kinds count rows or draw rows as points.
_NO_AGGREGATES = {"hist": "count rows", "heat": "count rows", "point": "draw each row"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The specified options of a chart; defaults for None or empty ones are based on the columns."""

    kind: str | None = None
    x: str | None = None
    y: Names = None
    color: str | None = None
    agg: Names = None
    bins: int | None = None
    log: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The contents to draw; without `y`, rows are counted, and without `aggregates`, each row is drawn."""

    kind: str
    x: Column
    y: list[Column]
    color: list[Column]
    unit: list[Column]
    aggregates: tuple[str, ...]
    bins: int | None
    log: str
    notes: list[str]
    """What is omitted from the chart."""


def choose(table: pa.Table, options: Options) -> Choice:
    """Choose what to draw from the table.

    Raises:
        UsageError: An option is wrong, or the options and columns leave nothing to draw.
    """
    kind, aggregates, log = _checked(options)
    if not table.num_rows:
        raise UsageError("There is nothing to plot: the result has no rows.", remedy="Widen the time range or WHERE.")
    table = with_json(table, {options.x, options.color})
    rows, columns = min(table.num_rows, _SAMPLE_ROWS), columns_of(table)
    y = listed(options.y, table.column_names)
    along, color_by, named_y = (
        [named_column(columns, name) for name in each if name] for each in ([options.x], [options.color], y)
    )
    free = [column for column in columns if column not in [*along, *color_by, *named_y]]
    times, numbers, identifiers, categories, codes = ([c for c in free if c.role is role] for role in list(Role)[:5])
    categories += codes
    unit = [column for column in categories if column.name.lower() == "unit"]
    samples = {c: c.values.slice(0, rows).cast(pa.large_string()) for c in categories if c not in unit}
    counts = {column: pc.count_distinct(sample, mode="all").as_py() for column, sample in samples.items()}
    texts = sorted(counts, key=lambda column: counts[column] == 1)  # varying ones first
    # If text columns distinguish all rows, the query grouped by these columns.
    is_grouped = bool(texts) and math.prod(counts.values()) >= rows
    first = texts if is_grouped or (kind is None and not numbers) else []
    candidates = {
        None: [*times, *first, *numbers, *texts],
        "bar": [*first, *times, *texts, *identifiers, *numbers],
        "hist": [*named_y, *numbers, *times, *codes],
        "heat": [*times, *numbers, *texts],
    }.get(kind, [*times, *numbers, *identifiers, *codes])
    chosen_x = next(iter([*along, *candidates, *named_y]), None)
    if chosen_x is None:
        raise undrawable("There is nothing to plot", columns)
    fitting = numbers or codes if kind in {"line", "area", "point"} and not aggregates else numbers
    fitting = [*numbers, *codes, *texts] if kind == "heat" else [] if aggregates == ("count",) else fitting
    measures = named_y or [column for column in fitting if column is not chosen_x]
    if kind is None:
        kind = {Role.CATEGORY: "bar", Role.CODE: "bar", Role.TIME: "line"}.get(chosen_x.role, "point")
        kind = "bar" if kind == "point" and aggregates else kind
        kind = kind if kind == "bar" or aggregates or measures not in ([], [chosen_x]) else "hist"
    notes: list[str] = []
    if kind == "bar" and not aggregates:
        counted = [column for column in measures if column.role in _UNSUMMED]
        measures = [column for column in measures if column not in counted]
        color_by = color_by or counted[:1]
        notes = [f"Not summed: {_titles(counted)} (codes and identifiers are counted)."] * bool(counted)
    if kind == "hist":
        measures = [] if chosen_x.role is Role.TIME else named_y or along or numbers or [chosen_x]
    if kind == "heat":
        measures = named_y or measures[:1]
    aggregates = aggregates or _default_aggregates(kind, measures)
    _check(kind, chosen_x, measures, color_by, aggregates)
    _check_axes(kind, [column for column in measures if kind == "hist"] or [chosen_x], measures, options.bins, log)
    is_split = kind in {"line", "area"} and not aggregates  # each combination of strings has its own line
    limit = max(MAX_SERIES, rows // 2) if is_split else MAX_SERIES if kind == "bar" else min(MAX_SERIES, rows // 2)
    series = [column for column, count in counts.items() if column not in [chosen_x, *measures] and 1 < count <= limit]
    if kind == "heat" or len(aggregates) > 1 or (kind == "bar" and counts.get(chosen_x) == rows):
        series = []  # bars don't need colors if their column identifies the rows
    unused = [column for column in identifiers if column is not chosen_x and measures and not named_y]
    unsplit = [column for column, count in counts.items() if count > limit and is_split]
    notes += _left_out(measures, unused, unsplit)
    has_units = len(measures) == 1 and kind not in {"hist", "heat"} and aggregates != ("count",)
    return Choice(
        kind=kind,
        x=chosen_x,
        y=measures[:MAX_PANELS],
        color=color_by or (series if is_split else series[:1]),
        unit=unit if has_units else [],
        aggregates=aggregates,
        bins=options.bins,
        log=log,
        notes=notes,
    )


def _left_out(measures: Sequence[Column], unused: Sequence[Column], unsplit: Sequence[Column]) -> list[str]:
    panels = f"{MAX_PANELS} of {len(measures)} columns of numbers are drawn; y chooses others."
    notes = [panels] * (len(measures) > MAX_PANELS)
    if unused:
        notes.append(f"Not drawn: {_titles(unused)} (identifiers; y draws them).")
    if unsplit:
        notes.append(f"{_titles(unsplit)} separates no lines: the values hardly repeat.")
    return notes


def _titles(columns: Sequence[Column]) -> str:
    return cut(", ".join(column.title for column in columns), MAX_LISTED)


def listed(names: Names, known: Sequence[str] = ()) -> list[str]:
    """Return the names in a list or a comma-separated string; known names may themselves contain commas."""
    if isinstance(names, str):
        return [names] if names in known else [name.strip() for name in names.split(",")]
    return list(names or ())


def _checked(options: Options) -> tuple[str | None, tuple[str, ...], str]:
    """Return the validated kind, aggregates, and logarithmic axes."""
    kind, aggregates, log = options.kind, tuple(dict.fromkeys(listed(options.agg))), options.log or ""
    if kind not in {None, *KINDS}:
        raise UsageError(f'"{shown(str(kind))}" is not a chart type.', remedy=f"Use one of {', '.join(KINDS)}.")
    for name in aggregates:
        check_aggregate(name)
    if aggregates and kind in _NO_AGGREGATES:
        raise UsageError(f"Charts of the kind {kind} {_NO_AGGREGATES[kind]}.", remedy="Leave the aggregates out.")
    if len(aggregates) > MAX_SERIES:
        raise UsageError(f"A chart has at most {MAX_SERIES} aggregates.", remedy="Name fewer.")
    if options.bins is not None and not 1 <= options.bins <= MAX_BINS:
        raise UsageError("The number of bins is out of range.", remedy=f"Use a number from 1 to {MAX_BINS}.")
    if not set(log) <= set("xy"):
        raise UsageError(f'"{shown(log)}" is not an axis.', remedy="Use x, y, or xy.")
    return kind, aggregates, log


def _default_aggregates(kind: str, measures: Sequence[Column]) -> tuple[str, ...]:
    if kind in _NO_AGGREGATES:
        return () if kind == "point" else ("count",)
    if not measures:
        return ("count",)
    return ("sum",) if kind == "bar" else ()


def _check(
    kind: str, x: Column, measures: Sequence[Column], color: Sequence[Column], aggregates: Sequence[str]
) -> None:
    if kind == "heat":
        if color:
            raise UsageError("The colors of a heat map are row counts.", remedy="Leave color out.")
        if not measures:
            raise undrawable("A heat map needs another column for its y axis", [x])
        if wrong := [column for column in measures if column.role is Role.TIME]:
            raise undrawable("The y axis of a heat map needs numbers or strings", wrong)
        return
    is_counted = set(aggregates) <= {"count"} and kind != "hist"
    is_wrong = {Role.CATEGORY: [] if is_counted and aggregates else measures, Role.TIME: [*measures, *color]}
    if wrong := [column for role, columns in is_wrong.items() for column in columns if column.role is role]:
        raise undrawable("The y axis needs numbers, and colors need strings or numbers", wrong)
    if kind != "bar" and x.role is Role.CATEGORY:
        raise UsageError(f"{x.title} can only be plotted as bars.", remedy="Use the kind bar.")
    if kind == "point" and not measures:
        raise undrawable("The y axis needs another numeric column", [x])
    if not measures and not set(aggregates) <= {"count"}:
        raise undrawable(f"The aggregate {', '.join(aggregates)} needs a numeric column", [x])
    if "sum" in aggregates and (wrong := [column for column in measures if column.role in _UNSUMMED]):
        remedy = "Use another aggregate: count, max, or p50."
        raise undrawable("Codes and identifiers can't be summed meaningfully", wrong, remedy=remedy)


def _check_axes(kind: str, along: Sequence[Column], measures: Sequence[Column], bins: int | None, log: str) -> None:
    has_numbers_on_y = kind != "heat" or all(column.role not in {Role.CATEGORY, Role.TIME} for column in measures)
    are_numbers = all(column.role not in {Role.CATEGORY, Role.TIME} for column in along)
    if ("x" in log and not are_numbers) or ("y" in log and not has_numbers_on_y):
        raise undrawable("Only a numeric axis can be logarithmic", [*along, *measures], remedy="Leave log out.")
    if bins is not None and along[0].role is Role.CATEGORY:
        raise undrawable("Only times and numbers can be binned", along, remedy="Leave bins out.")
