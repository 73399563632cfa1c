"""Shows where many traces spend their time: merges spans by call path, and compares two sets of traces."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from micromegas_jupyter.client.traces import MAX_SPANS, BarRow, bar_table, contains, nanoseconds_text, read_ids
from micromegas_jupyter.core.text import cut, printable
from micromegas_jupyter.errors import ResourcesExhausted, UsageError
from micromegas_jupyter.telemetry.log_patterns import mask_variables
from micromegas_jupyter.telemetry.traces import Integers, build_span_tree, merge_call_paths

MAX_STATIC_PATHS: Final = 40
_COLUMNS: Final = "trace_id, span_id, parent_span_id, start_time, duration, name, status, exe"
_SERVICE: Final = "service_of_traces"
"""A parameter name that no variable is likely to have."""
_MAX_NAME: Final = 120
_HEADERS: Final = ("call path", "service", "total", "self", "spans", "errors")
_MORE, _LESS, _SAME = "#c62828", "#2e6da4", "#6b7280"
_NOTABLE_CHANGE: Final = 0.1


class TraceSet(NamedTuple):
    """Traces of a service; `query` accepts a statement and its parameters, and adds the time range."""

    service: str
    query: Callable[[str, dict[str, object]], pa.Table]
    where: str | None = None
    values: Mapping[str, object] = MappingProxyType({})
    """The parameters of `where`."""

    def fetch(self) -> pa.Table:
        """Return the spans of all traces with a span from the service (matching `where`, if set).

        Raises:
            UsageError: There are no such traces that the caller can read.
            ResourcesExhausted: There are more than a million.
        """
        # The newline ends a comment in the condition.
        condition = f" AND (\n{self.where}\n)" if self.where else ""
        rows = self.query(
            f"SELECT {_COLUMNS} FROM otel_spans WHERE trace_id IN (SELECT trace_id FROM otel_spans "  # noqa: S608 - the caller's condition
            f"WHERE (exe = :{_SERVICE} OR ends_with(exe, concat('/', :{_SERVICE}))){condition}) LIMIT {MAX_SPANS + 1}",
            {**self.values, _SERVICE: self.service},
        )
        if not rows.num_rows:
            raise UsageError(
                f"{self.service!r} has no traces that you can read.",
                remedy="Check the service's name, the time range, and --where.",
            )
        if rows.num_rows > MAX_SPANS:
            raise ResourcesExhausted(
                f"The traces have more than {MAX_SPANS:,} spans.", remedy="Shorten the time range, or use --where."
            )
        return rows


class Flame:
    """Merged call paths of many traces. Numbers and IDs in span names are replaced with `<*>`.

    `paths` is an Arrow table with a row per path, each path before the paths below it: `parent` (a row, or -1),
    `depth`, `service`, `name`, `total` and `self_time` (nanoseconds), `spans`, `errors`. Totals are sums of self times,
    so they add up even if calls ran in parallel. With a second set of traces, times are nanoseconds per trace, and
    `total_before`, `self_time_before`, and `spans_before` describe that set.
    """

    def __init__(self, service: str, rows: pa.Table, before: pa.Table | None = None) -> None:
        """Merge the spans of traces, and compare them with those of `before` if set."""
        self.service = service
        self.is_difference = before is not None
        tables = [rows] if before is None else [rows, before]
        is_before = np.repeat(np.arange(len(tables)) == 1, [table.num_rows for table in tables])
        spans = pa.concat_tables(table.select(_COLUMNS.split(", ")) for table in tables)
        # A trace may be in both sets.
        trace_ids = spans["trace_id"].combine_chunks().dictionary_encode()
        traces = trace_ids.indices.to_numpy().astype(np.int64) * 2 + is_before
        tree = build_span_tree(
            span_ids=read_ids(spans["span_id"]),
            parent_ids=read_ids(spans["parent_span_id"]),
            starts=spans["start_time"].cast(pa.int64()).to_numpy(),
            durations=spans["duration"].fill_null(0).to_numpy(),
            trace_ids=traces.astype(np.uint64),
        )
        names, self._names = _encode(spans["name"], mask_variables)
        services, self._services = _encode(spans["exe"])
        labels = services * len(self._names) + names
        errors = pc.equal(spans["status"].cast(pa.utf8()), "ERROR").fill_null(fill_value=False).to_numpy()
        is_before = is_before[tree.rows]
        merged = merge_call_paths(tree, labels[tree.rows], errors[tree.rows] & ~is_before)
        self.trace_counts = [len(np.unique(traces[traces % 2 == each])) for each in range(len(tables))]
        self.span_count = int((~is_before).sum())

        sums = []
        for is_chosen, count in zip((~is_before, is_before), self.trace_counts, strict=False):
            chosen = merged.path_of[is_chosen]
            self_time = np.zeros(len(merged.parent), dtype=np.int64)
            np.add.at(self_time, chosen, tree.self_time[is_chosen])
            divisor = count if self.is_difference else 1
            sums.append((self_time // divisor, np.bincount(chosen, minlength=len(merged.parent))))
        # A path that exists only in the second set keeps its width there.
        widths = np.max([self_time for self_time, _ in sums], axis=0)
        order, self.starts, self.widths = _arrange(merged.parent, widths)
        position = np.empty(len(order), dtype=np.int64)
        position[order] = np.arange(len(order))
        self.parent = np.where(merged.parent[order] >= 0, position[merged.parent[order]], -1)
        self.name_codes, self.service_codes = (
            merged.label[order] % len(self._names),
            merged.label[order] // len(self._names),
        )
        depth = np.zeros(len(order), dtype=np.int64)
        for path, parent in enumerate(self.parent.tolist()):
            depth[path] = depth[parent] + 1 if parent >= 0 else 0
        columns = {
            "parent": self.parent,
            "depth": depth,
            "service": pa.array(self._services).take(pa.array(self.service_codes)),
            "name": pa.array(self._names).take(pa.array(self.name_codes)),
        }
        for (self_time, spans_of), suffix in zip(sums, ("", "_before"), strict=False):
            columns[f"total{suffix}"] = _add_up(self.parent, self_time[order])
            columns[f"self_time{suffix}"] = self_time[order]
            columns[f"spans{suffix}"] = spans_of[order]
            if not suffix:
                columns["errors"] = merged.errors[order]
        self.paths = pa.table(columns)

    @property
    def names(self) -> list[str]:
        """Return the masked names to which `name_codes` refers."""
        return self._names

    @property
    def services(self) -> list[str]:
        """Return the services to which `service_codes` refers."""
        return self._services

    @property
    def summary(self) -> str:
        """Return a one-line summary of the flame graph."""
        now, *before = self.trace_counts
        compared = f" compared with {before[0]:,} (time per trace)" if before else ""
        counts = f"{self.span_count:,} spans · {self.paths.num_rows:,} call paths"
        return f"{self.service} · {now:,} traces{compared} · {counts}"

    def find(self, text: str) -> list[int]:
        """Return the rows of the paths whose name or service contains a string, ignoring case."""
        is_found = contains(self.paths["name"], text) | contains(self.paths["service"], text)
        return [int(path) for path in np.flatnonzero(is_found)]

    def _rows(self) -> Iterator[BarRow]:
        # A path's total is at least that of the paths below it, so a path's ancestors are always included.
        total = max(int(self.widths[self.parent < 0].sum()), 1)
        for row in sorted(np.argsort(-self.widths, kind="stable")[:MAX_STATIC_PATHS].tolist()):
            path = self.paths.slice(row, 1).to_pylist()[0]
            color, change = _SAME, ""
            if self.is_difference:
                difference, reference = (
                    path["total"] - path["total_before"],
                    max(path["total"], path["total_before"], 1),
                )
                color = _SAME if abs(difference) < _NOTABLE_CHANGE * reference else _MORE if difference > 0 else _LESS
                change = f" ({'+' if difference >= 0 else ''}{nanoseconds_text(difference)})"
            times = (nanoseconds_text(path[each]) for each in ("total", "self_time"))
            yield BarRow(
                label=path["name"],
                remarks=change,
                depth=path["depth"],
                cells=(path["service"], *times, f"{path['spans']:,}", f"{path['errors']:,}"),
                left=int(self.starts[row]) / total,
                width=int(self.widths[row]) / total,
                color=color,
            )

    def to_html(self) -> str:
        """Return a table of the widest call paths, with inline styles and without scripts."""
        return bar_table(self.summary, _HEADERS, self._rows())

    def _repr_html_(self) -> str:
        return self.to_html()

    def __str__(self) -> str:
        lines = (f"{'  ' * row.depth}{row.label}{row.remarks}  {'  '.join(row.cells)}" for row in self._rows())
        return "\n".join((self.summary, "  ".join(_HEADERS), *lines))

    def __repr__(self) -> str:
        return f"Flame({self.summary})"


def fetch_flame(traces: TraceSet, against: TraceSet | None = None) -> Flame:
    """Return the call paths of traces, compared with other traces if `against` is set."""
    return Flame(traces.service, traces.fetch(), None if against is None else against.fetch())


def _encode(column: pa.ChunkedArray, change: Callable[[str], str] | None = None) -> tuple[Integers, list[str]]:
    """Return a number per value and the distinct values, prepared for display; equal values share a number."""
    encoded = column.combine_chunks()
    encoded = encoded if pa.types.is_dictionary(encoded.type) else encoded.dictionary_encode()
    codes = encoded.indices.fill_null(len(encoded.dictionary)).to_numpy().astype(np.int64)
    values = [cut(printable(value or ""), _MAX_NAME) for value in (*encoded.dictionary.to_pylist(), "")]
    distinct, inverse = np.unique([change(each) if change else each for each in values], return_inverse=True)
    return inverse.astype(np.int64)[codes], distinct.tolist()


def _add_up(parent: Integers, self_time: Integers) -> Integers:
    totals = self_time.tolist()
    for path, above in reversed(list(enumerate(parent.tolist()))):
        if above >= 0:
            totals[above] += totals[path]
    return np.array(totals, dtype=np.int64)


def _arrange(parent: Integers, self_time: Integers) -> tuple[Integers, Integers, Integers]:
    """Return an order with parents before children and siblings by width, and each path's start and width."""
    widths = _add_up(parent, self_time)
    below: dict[int, list[int]] = {}
    for path in np.argsort(widths, kind="stable").tolist():
        below.setdefault(int(parent[path]), []).append(path)  # the widest last
    order, starts = [], np.zeros(len(parent), dtype=np.int64)
    stack, free = below.get(-1, []), {-1: 0}
    while stack:
        path = stack.pop()
        above = int(parent[path])
        starts[path] = free[above]
        free[above] += int(widths[path])
        free[path] = int(starts[path])
        order.append(path)
        stack += below.get(path, [])
    positions = np.array(order, dtype=np.int64)
    return positions, starts[positions], widths[positions]
