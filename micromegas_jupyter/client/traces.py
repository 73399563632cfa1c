"""`client.trace(id)`: the spans of one trace with their tree, as text and as an HTML table."""

import html
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from micromegas_jupyter.core.text import cut, printable, terminal_width
from micromegas_jupyter.errors import ResourcesExhausted, UsageError
from micromegas_jupyter.telemetry.traces import Segment, SpanTree, build_span_tree, find_critical_path

MAX_SPANS: Final = 1_000_000
DEFAULT_ROWS: Final = 40
TRACE_ID_DIGITS: Final = 32
SPAN_ID_DIGITS: Final = 16
MAX_DETAILS: Final = 200
"""The maximum number of a span's log lines to fetch."""

_COLUMNS: Final = "trace_id, span_id, parent_span_id, start_time, duration, name, kind, status, exe"
_MAX_NAME: Final = 120
_MIN_NAME_WIDTH: Final = 20
_MIN_BAR_WIDTH: Final = 10
_MAX_BAR_WIDTH: Final = 40
_BAR_PIXELS: Final = 320
_HEADERS: Final = ("span", "service", "start", "duration", "self", "")
_COLORS: Final = {"error": "#c62828", "critical": "#b35900", "other": "#4a7fb5"}
_LOG_MARGIN: Final = 60 * 10**9
_UNITS: Final = (("s", 10**9), ("ms", 10**6), ("µs", 10**3))


def parse_hex_id(text: str, digits: int) -> str:
    """Return an ID as lowercase hexadecimal, without dashes or `0x`.

    Raises:
        UsageError: The text isn't an ID with this number of digits. Only a valid ID may become part of a statement.
    """
    plain = text.strip().lower().removeprefix("0x").replace("-", "")
    if len(plain) != digits or set(plain) - set("0123456789abcdef") or not int(plain, 16):
        kind = "trace" if digits == TRACE_ID_DIGITS else "span"
        raise UsageError(f"This is not a {kind} ID.", remedy=f"A {kind} ID has {digits} hexadecimal digits, not all 0.")
    return plain


def nanoseconds_text(nanoseconds: int) -> str:
    """Return a duration with four significant digits, as in `1.284 s`, `71.47 ms`, or `312 ns`.

    >>> nanoseconds_text(71_472_082)
    '71.47 ms'
    """
    for unit, size in _UNITS:
        # 999.95 µs would be shown as 1,000 µs.
        if abs(nanoseconds) >= size * 0.99995:
            value = nanoseconds / size
            return f"{value:,.0f} {unit}" if abs(value) >= 1000 else f"{value:.4g} {unit}"  # noqa: PLR2004 - digits
    return f"{nanoseconds} ns"


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceRow:
    """A displayed span: times in nanoseconds, `start` relative to the start of the trace."""

    name: str
    service: str
    depth: int
    start: int
    duration: int
    self_time: int
    is_error: bool
    is_critical: bool
    is_orphan: bool
    hidden: int
    """The number of spans below this one that aren't shown."""

    @property
    def kind(self) -> str:
        """Return the kind that determines the span's color."""
        return "error" if self.is_error else "critical" if self.is_critical else "other"

    @property
    def remarks(self) -> str:
        """Return notable facts about the span, as text."""
        remarks = [
            *(["error"] if self.is_error else []),
            *(["parent missing"] if self.is_orphan else []),
            *([f"{self.hidden:,} more below"] if self.hidden else []),
        ]
        return f" ({', '.join(remarks)})" if remarks else ""


class Trace:
    """The spans of a trace.

    `print(trace)` shows the tree, a notebook shows a table with bars. `spans` is an Arrow table in the order of the
    tree, with these columns added: `depth`, `self_time` (nanoseconds), `critical_time` (nanoseconds on the critical
    path), and `is_orphan` (the span's parent is missing: lost, not received yet, or hidden from you).

    ```python
    trace = client.trace("0af7651916cd43dd8448eb211c80319c")
    print(trace)
    slowest = trace.spans.sort_by([("self_time", "descending")]).slice(0, 10).to_pandas()
    ```
    """

    def __init__(self, trace_id: str, rows: pa.Table, query: Callable[..., pa.Table] | None = None) -> None:
        """Build the tree from a trace's rows; `query` (statement, parameters) fetches a span's details."""
        self.trace_id = trace_id
        self._query = query
        self.tree: SpanTree = build_span_tree(
            span_ids=read_ids(rows["span_id"]),
            parent_ids=read_ids(rows["parent_span_id"]),
            starts=rows["start_time"].cast(pa.int64()).to_numpy(),
            durations=rows["duration"].fill_null(0).to_numpy(),
        )
        self.critical_path: list[Segment] = find_critical_path(self.tree)
        critical = np.zeros(len(self.tree.start), dtype=np.int64)
        for segment in self.critical_path:
            critical[segment.span] += segment.end - segment.begin
        self.spans: pa.Table = rows.take(pa.array(self.tree.rows))
        for name, values in (
            ("depth", self.tree.depth),
            ("self_time", self.tree.self_time),
            ("critical_time", critical),
            ("is_orphan", self.tree.is_orphan),
        ):
            self.spans = self.spans.append_column(name, pa.array(values))

    @cached_property
    def is_error(self) -> "np.typing.NDArray[np.bool_]":
        """Return which spans failed."""
        is_error = pc.equal(self.spans["status"].cast(pa.utf8()), "ERROR")
        return np.asarray(is_error.fill_null(fill_value=False).to_numpy(), dtype=np.bool_)

    @cached_property
    def duration(self) -> int:
        """Return the nanoseconds from the first start to the last end."""
        return int(self.tree.end.max() - self.tree.start.min())

    @property
    def summary(self) -> str:
        """Return a one-line summary of the trace."""
        services, errors, orphans = (
            pc.count_distinct(self.spans["exe"]).as_py(),
            *map(int, (self.is_error.sum(), self.tree.is_orphan.sum())),
        )
        facts = [
            _count(len(self.tree.start), "span"),
            _count(services, "service"),
            nanoseconds_text(self.duration),
            _count(errors, "error"),
            *([f"{_count(orphans, 'span')} without its parent"] if orphans else []),
        ]
        return f"{self._text('name', 0)} · {' · '.join(facts)}"

    def choose_rows(self, max_rows: int | None = DEFAULT_ROWS) -> list[TraceRow]:
        """Return the most relevant spans: critical path, errors, and longest self times, each with its ancestors."""
        tree, critical = self.tree, self.spans["critical_time"].to_numpy()
        count = len(tree.start)
        chosen = set(range(count)) if max_rows is None or count <= max_rows else self._choose(critical, max_rows)
        # Ancestors of chosen spans are chosen, so a subtree is hidden except for those of its root's chosen children.
        hidden = {span: int(tree.size[span]) - 1 for span in chosen}
        for span in chosen:
            if (parent := int(tree.parent[span])) >= 0:
                hidden[parent] -= int(tree.size[span])
        first = int(tree.start.min())
        return [
            TraceRow(
                name=self._text("name", span),
                service=self._text("exe", span),
                depth=int(tree.depth[span]),
                start=int(tree.start[span]) - first,
                duration=int(tree.duration[span]),
                self_time=int(tree.self_time[span]),
                is_error=bool(self.is_error[span]),
                is_critical=critical[span] > 0,
                is_orphan=bool(tree.is_orphan[span]),
                hidden=hidden[span],
            )
            for span in sorted(chosen)
        ]

    def _choose(self, critical: "np.typing.NDArray[np.int64]", max_rows: int) -> set[int]:
        self_times = self.tree.self_time
        slowest = np.flatnonzero(self_times >= np.partition(self_times, -max_rows)[-max_rows])
        on_path = np.flatnonzero(critical)
        ranked = [
            0,
            *on_path[np.argsort(-critical[on_path], kind="stable")][: max_rows // 2].tolist(),
            *np.flatnonzero(self.is_error)[: max_rows // 4].tolist(),
            *slowest[np.argsort(-self_times[slowest], kind="stable")][:max_rows].tolist(),
        ]
        chosen: set[int] = set()
        for span in ranked:
            line = set()
            while span >= 0 and span not in chosen:
                line.add(span)
                span = int(self.tree.parent[span])  # noqa: PLW2901 - climbs to the root
            if len(chosen) + len(line) <= max_rows:
                chosen |= line
        return chosen

    def _text(self, column: str, span: int) -> str:
        return cut(printable(self.spans[column][span].as_py() or ""), _MAX_NAME)

    def to_lines(self, *, width: int = 120, max_rows: int | None = DEFAULT_ROWS) -> Iterator[tuple[str, str]]:
        """Yield the lines of the tree, each with its kind: `title`, `header`, `error`, `critical`, or `other`."""
        rows = self.choose_rows(max_rows)
        cells = [
            (
                f"{'  ' * row.depth}{row.name}{row.remarks}",
                row.service,
                *(nanoseconds_text(each) for each in (row.start, row.duration, row.self_time)),
            )
            for row in rows
        ]
        numbers = [max(terminal_width(line[column]) for line in (_HEADERS, *cells)) for column in (2, 3, 4)]
        service = min(max(terminal_width(line[1]) for line in (_HEADERS, *cells)), max(width // 5, 10))
        rest = width - sum(numbers) - service - 5
        names = max(terminal_width(line[0]) for line in cells)
        bar = min(max(rest - names, _MIN_BAR_WIDTH), _MAX_BAR_WIDTH)
        name = max(min(rest - bar, names), _MIN_NAME_WIDTH)
        yield self.summary, "title"
        for line, row in zip((_HEADERS[:5], *cells), (None, *rows), strict=True):
            durations = (
                " " * (size - terminal_width(text)) + text for text, size in zip(line[2:], numbers, strict=True)
            )
            texts = (_fit(line[0], name), _fit(line[1], service), *durations)
            drawn = "" if row is None else self._draw_bar(row, bar)
            yield f"{' '.join(texts)} {drawn}".rstrip(), "header" if row is None else row.kind

    def _draw_bar(self, row: TraceRow, width: int) -> str:
        left, right = (each * width / max(self.duration, 1) for each in (row.start, row.start + row.duration))
        begin = min(int(left), width - 1)
        return " " * begin + ("█" if row.kind != "other" else "▒") * max(min(round(right), width) - begin, 1)

    def __repr__(self) -> str:
        return f"Trace({self.trace_id!r}: {self.summary})"

    def __str__(self) -> str:
        return "\n".join(line for line, _ in self.to_lines())

    def to_html(self) -> str:
        """Return a table with the spans drawn in its last column, with inline styles and without scripts."""
        total = max(self.duration, 1)
        rows = (
            BarRow(
                label=row.name,
                remarks=row.remarks,
                depth=row.depth,
                cells=(
                    row.service,
                    *(nanoseconds_text(each) for each in (row.start, row.duration, row.self_time)),
                ),
                left=row.start / total,
                width=row.duration / total,
                color=_COLORS[row.kind],
            )
            for row in self.choose_rows()
        )
        return bar_table(self.summary, _HEADERS[:5], rows)

    def _repr_html_(self) -> str:
        return self.to_html()

    def fetch_details(self, span: int) -> dict[str, object]:
        """Return the details of a row's span that `spans` doesn't contain: attributes, events, links, and logs.

        Raises:
            UsageError: The trace was built without a client.
        """
        from micromegas_jupyter.core import jsonb  # only notebooks need it

        span_id = self.spans["span_id"][span].as_py().hex()
        (row,) = self._fetch(
            "SELECT status_message, properties, events, links FROM otel_spans "  # noqa: S608 - checked IDs
            f"WHERE trace_id = X'{self.trace_id}' AND span_id = X'{span_id}' LIMIT 1"
        ).to_pylist() or [{}]
        # Logs outside the span's time were written before a context was exited, or on a machine with a different clock.
        first, last = (
            np.datetime64(int(each) + margin, "ns")
            for each, margin in ((self.tree.start[span], -_LOG_MARGIN), (self.tree.end[span], _LOG_MARGIN))
        )
        logs = self._fetch(
            "SELECT time, level, target, msg FROM log_entries "  # noqa: S608 - checked IDs
            f"WHERE time BETWEEN TIMESTAMP '{first}Z' AND TIMESTAMP '{last}Z' "
            f"AND property_get(properties, 'otel.trace_id') = '{self.trace_id}' "
            f"AND property_get(properties, 'otel.span_id') = '{span_id}' ORDER BY time LIMIT {MAX_DETAILS}"
        )
        decoded = {
            name: jsonb.to_plain(jsonb.decode(row[name])) if row.get(name) else empty
            for name, empty in (("properties", {}), ("events", []), ("links", []))
        }
        return {
            "span_id": span_id,
            "status_message": row.get("status_message") or "",
            "attributes": decoded["properties"],
            "events": decoded["events"],
            "links": decoded["links"],
            "logs": logs.set_column(0, "time", logs["time"].cast(pa.int64())).to_pylist(),
        }

    def find(self, text: str) -> list[int]:
        """Return the rows of spans with a string in their name, service, attributes, or status, ignoring case."""
        is_found = contains(self.spans["name"], text) | contains(self.spans["exe"], text)
        if self._query is not None:
            found = self._fetch(
                f"SELECT span_id FROM otel_spans WHERE trace_id = X'{self.trace_id}' AND ("  # noqa: S608 - a checked ID
                "strpos(lower(jsonb_format_json(properties)), lower(:text)) > 0 "
                "OR strpos(lower(status_message), lower(:text)) > 0)",
                {"text": text},
            )
            is_found |= np.isin(read_ids(self.spans["span_id"]), read_ids(found["span_id"]))
        return [int(span) for span in np.flatnonzero(is_found)]

    def _fetch(self, sql: str, parameters: dict[str, object] | None = None) -> pa.Table:
        if self._query is None:
            raise UsageError("This trace has no connection to a server.", remedy="Get it with client.trace.")
        return self._query(sql, parameters)


@dataclass(frozen=True, slots=True, kw_only=True)
class BarRow:
    """A row of a table with bars in its last column; `left` and `width` are fractions of the column."""

    label: str
    remarks: str
    depth: int
    cells: tuple[str, ...]
    left: float
    width: float
    color: str


def bar_table(caption: str, headers: Iterable[str], rows: Iterable[BarRow]) -> str:
    """Return an HTML table with bars in its last column, with inline styles and without scripts."""
    body = []
    for row in rows:
        left = min(100 * row.left, 99.7)
        size = min(max(100 * row.width, 0.3), 100 - left)
        label = html.escape(row.label) + (f"<i>{html.escape(row.remarks)}</i>" if row.remarks else "")
        service, *numbers = row.cells
        body.append(
            f'<tr><td style="text-align:left;padding-left:{6 + 12 * min(row.depth, 20)}px">{label}</td>'
            f'<td style="text-align:left">{html.escape(service)}</td>'
            + "".join(f'<td style="text-align:right;white-space:nowrap">{html.escape(text)}</td>' for text in numbers)
            + f'<td><div style="width:{_BAR_PIXELS}px;background-color:rgba(128,128,128,0.12)">'
            f'<div style="margin-left:{left:.2f}%;width:{size:.2f}%;height:11px;background-color:{row.color}"></div>'
            "</div></td></tr>"
        )
    head = "".join(f"<th>{html.escape(header)}</th>" for header in (*headers, ""))
    return (
        f"<table><caption>{html.escape(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table>"
    )


def fetch_trace(trace_id: str, query: Callable[..., pa.Table]) -> Trace:
    """Return a trace; see `FlightSQLClient.trace`. `query` accepts a statement and, optionally, its parameters."""
    plain = parse_hex_id(trace_id, TRACE_ID_DIGITS)
    sql = f"SELECT {_COLUMNS} FROM otel_spans WHERE trace_id = X'{plain}' LIMIT {MAX_SPANS + 1}"  # noqa: S608 - a checked ID
    rows = query(sql)
    if not rows.num_rows:
        raise UsageError(
            f"Trace {plain} has no spans that you can read.",
            remedy="They may not have arrived yet, or may be outside the time range.",
        )
    if rows.num_rows > MAX_SPANS:
        raise ResourcesExhausted(
            f"Trace {plain} has more than {MAX_SPANS:,} spans.", remedy="Narrow the time range with begin and end."
        )
    return Trace(plain, rows, query)


def contains(column: pa.ChunkedArray, text: str) -> "np.typing.NDArray[np.bool_]":
    """Return which values contain a string, ignoring case."""
    is_found = pc.match_substring(column.cast(pa.utf8()), text, ignore_case=True).fill_null(fill_value=False)
    return np.asarray(is_found.to_numpy(), dtype=np.bool_)


def read_ids(column: pa.ChunkedArray) -> "np.typing.NDArray[np.uint64]":
    """Return 8-byte IDs as integers; null, or an ID of another length, becomes 0."""
    is_id = pc.equal(pc.binary_length(column), 8)
    fixed = pc.if_else(is_id.fill_null(fill_value=False), column, pa.scalar(bytes(8), column.type)).cast(pa.binary(8))
    chunks = [np.frombuffer(one.buffers()[1], dtype=">u8")[one.offset : one.offset + len(one)] for one in fixed.chunks]
    return np.concatenate([*chunks, np.zeros(0, ">u8")]).astype(np.uint64)


def _count(count: int, noun: str) -> str:
    return f"1 {noun}" if count == 1 else f"{count:,} {noun}s"


def _fit(text: str, width: int) -> str:
    """Pad or truncate the text to exactly this many character cells."""
    while terminal_width(text) > width:
        text = f"{text.removesuffix('…')[:-1]}…"
    return text + " " * (width - terminal_width(text))
