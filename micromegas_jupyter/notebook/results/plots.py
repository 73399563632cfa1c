"""The chart above a grid: drawn from the matching rows; a brush or a click on it becomes filters of the grid."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from micromegas_jupyter.core.text import cut, printable
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.formats import NANOSECONDS, decoded
from micromegas_jupyter.notebook.plotting.choice import Options, choose, listed
from micromegas_jupyter.notebook.plotting.columns import Column, Role
from micromegas_jupyter.notebook.plotting.draw import draw
from micromegas_jupyter.notebook.plotting.panels import Groups, brush_slots
from micromegas_jupyter.notebook.results.filters import time_text, value_filter
from micromegas_jupyter.notebook.shell import option_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from micromegas_jupyter.notebook.plotting.slots import Slots
    from micromegas_jupyter.notebook.results.view import RowQuery, RowsView

Asked = dict[str, Any]
"""A page's chart options: columns by position; missing options follow from the columns."""


class Plot:
    """A chart of the matching rows.

    Raises:
        UsageError: There is nothing to draw.
    """

    def __init__(self, view: RowsView, order: RowQuery, options: Asked, width: int | None = None) -> None:
        names = view.table.schema.names
        named = {key: [names[at] for at in options.get(key, ())] for key in ("x", "y", "color")}
        chart_options = Options(
            kind=options.get("kind"),
            x=next(iter(named["x"]), None),
            y=named["y"],
            color=next(iter(named["color"]), None),
            agg=options.get("agg"),
            bins=options.get("bins"),
            log=options.get("log"),
        )
        self._view, self._names = view, names
        self._choice = choose(view.rows(order, 0, view.table.num_rows), chart_options)
        self.spec, self.text, self._axes = draw(self._choice, width)

    @property
    def chosen(self) -> Asked:
        """The options of the chart as drawn."""
        choice = self._choice
        columns = {"x": [choice.x], "y": choice.y, "color": choice.color}
        found = {key: [self._names.index(each.name) for each in each_columns] for key, each_columns in columns.items()}
        return found | {"kind": choice.kind, "agg": list(choice.aggregates), "bins": choice.bins, "log": choice.log}

    def filters(self, panel: int, ranges: Mapping[str, Sequence[Any]]) -> dict[int, str]:
        """Return the filters for a brush, aligned to slots; an empty range has an empty filter."""
        found = {}
        for axis, (column, slots) in self._axes[panel].items():
            index, ends = self._names.index(column.name), ranges.get(axis) or ()
            if isinstance(slots, Groups):
                found[index] = self._label_filter(index, str(ends[-1])) if ends else ""
            else:
                found[index] = _range_filter(column, slots or brush_slots(self._choice, column, axis), ends)
        return found

    def _label_filter(self, index: int, label: str) -> str:
        column, form = self._view.table.column(index), self._view.format_of(index)
        is_it = pc.equal(decoded(column).cast(pa.large_string()), label)
        place = pc.index(is_it, True).as_py()
        if place < 0 and not (label == "null" and column.null_count):
            what = f'Rows of "{cut(printable(label), 40)}" cannot be filtered.'
            raise UsageError(what, remedy="Type a filter in the column's header.")
        return value_filter(column.slice(place, 1), form, label) if place >= 0 else "="


def _range_filter(column: Column, slots: Slots, ends: Sequence[float]) -> str:
    if not ends:
        return ""
    low, high = sorted(map(float, ends))
    edges = slots.edges
    first = int(np.clip(np.searchsorted(edges, low, side="right") - 1, 0, len(edges) - 2))
    last = int(np.clip(np.searchsorted(edges, high, side="left"), first + 1, len(edges) - 1))
    kind = column.values.type
    if column.role is not Role.TIME:
        return "..<".join(_number_text(kind, float(edges[at])) for at in (first, last))
    unit = "s" if types.is_date32(kind) else getattr(kind, "unit", "ms")
    zone = pa.timestamp("ns", getattr(kind, "tz", None))
    return "..<".join(time_text(slots.starts[at] * NANOSECONDS[unit], zone) for at in (first, last))


def _number_text(kind: pa.DataType, edge: float) -> str:
    if types.is_integer(kind):
        return str(ceil(edge))
    return repr(edge).removesuffix(".0") + ("s" if types.is_duration(kind) else "")


def plot_arguments(options: Asked, names: Sequence[str]) -> str:
    """Return the `%%sql` options that draw the same chart.

    Raises:
        UsageError: A name cannot be written as an option.
    """
    columns = {key: [names[at] for at in options.get(key, ())] for key in ("x", "y", "color")}
    if len(columns["y"]) > 1 and any("," in name for name in columns["y"]):
        raise UsageError("A column's name contains a comma.", remedy="Rename it with AS.")
    values = {key: ",".join(each) for key, each in columns.items()}
    values |= {
        "agg": ",".join(options.get("agg") or ()),
        "bins": str(options.get("bins") or ""),
        "log": options.get("log") or "",
    }
    words = [f"--{key} {option_value(value)}" for key, value in values.items() if value]
    return " ".join(["--plot", *([options["kind"]] if options.get("kind") else []), *words])


def build_plot(names: Sequence[str], options: Options) -> Asked:
    """Convert options with column names to those that a page sends."""
    columns = {"x": listed(options.x, names), "y": listed(options.y, names), "color": listed(options.color, names)}
    found: Asked = {key: [names.index(name) for name in each if name] for key, each in columns.items()}
    aggregates = listed(options.agg) or None
    return found | {"kind": options.kind, "agg": aggregates, "bins": options.bins, "log": options.log}
