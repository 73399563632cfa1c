"""The widget that shows a trace or a flame graph. The page requests the columns, so notebooks don't save them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import traitlets

from micromegas_jupyter.client.flames import Flame
from micromegas_jupyter.client.traces import MAX_DETAILS, TRACE_ID_DIGITS, Trace, nanoseconds_text, parse_hex_id
from micromegas_jupyter.core.text import cut, printable
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.widget import KernelWidget, shows_widgets, static_text, widget_bundle
from micromegas_jupyter.telemetry.levels import Level

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from micromegas_jupyter.notebook.shell import Bundle

_ERROR, _CRITICAL, _ORPHAN = 1, 2, 4
_MAX_NAME: Final = 120
_MAX_VALUE: Final = 4_000
_MAX_SEARCH: Final = 200


class TraceView(KernelWidget):
    """A trace as a waterfall, a flame graph, and a table; or merged call paths as a flame graph and a table."""

    _esm = static_text("trace.js")
    _css = static_text("trace.css")

    summary = traitlets.Unicode().tag(sync=True)
    mode = traitlets.Unicode().tag(sync=True)

    def __init__(self, source: Trace | Flame) -> None:
        self._source = source
        mode = "trace" if isinstance(source, Trace) else "difference" if source.is_difference else "flame"
        super().__init__(summary=source.summary, mode=mode)

    def reply(self, message: Mapping[str, Any]) -> tuple[object, list[bytes]]:
        """Return the response to a request, and its buffers."""
        match self._source, message:
            case Trace(), {"op": "spans"}:
                return _pack_trace(self._source)
            case Flame(), {"op": "spans"}:
                return _pack_flame(self._source)
            case Trace(), {"op": "details", "span": int(span)} if 0 <= span < self._source.spans.num_rows:
                return _describe(self._source, span), []
            case _, {"op": "search", "text": str(text)}:
                return {"spans": self._source.find(text[:_MAX_SEARCH])}, []
        raise UsageError("This view doesn't support this operation.", remedy="Run the cell again.")


def show_trace(shown: Trace | Flame) -> Bundle:
    """Return the display of a trace or a flame graph: the widget, and a table that is saved."""
    saved = {"text/html": shown.to_html(), "text/plain": str(shown)}
    return widget_bundle(TraceView(shown), saved) if shows_widgets() else (saved, {})


def _pack_trace(trace: Trace) -> tuple[dict[str, object], list[bytes]]:
    tree, path = trace.tree, trace.critical_path
    names, services = (_encode(trace.spans[column]) for column in ("name", "exe"))
    flags = (
        trace.is_error * _ERROR | (trace.spans["critical_time"].to_numpy() > 0) * _CRITICAL | tree.is_orphan * _ORPHAN
    )
    begin = int(tree.start.min())
    about: dict[str, object] = {"names": names[1], "services": services[1], "total": max(trace.duration, 1)}
    return about, [
        *_columns(tree.start - begin, tree.duration, tree.self_time, kind="<f8"),
        *_columns(tree.parent, tree.size, kind="<i4"),
        *_columns(names[0], services[0], kind="<u4"),
        *_columns(flags, kind="u1"),
        *_columns(tree.depth, kind="<u4"),
        *_columns([each.span for each in path], kind="<i4"),
        *_columns([each.begin - begin for each in path], [each.end - begin for each in path], kind="<f8"),
    ]


def _pack_flame(flame: Flame) -> tuple[dict[str, object], list[bytes]]:
    paths, parent = flame.paths, flame.parent.tolist()
    size = [1] * len(parent)
    for path in range(len(parent) - 1, -1, -1):
        if parent[path] >= 0:
            size[parent[path]] += size[path]
    errors = paths["errors"].to_numpy()
    suffixes = ("", "_before") if flame.is_difference else ("",)
    counts = [paths[name].to_numpy() for suffix in suffixes for name in (f"spans{suffix}", f"total{suffix}")]
    total = max(int(flame.widths[flame.parent < 0].sum()), 1)
    return {"names": flame.names, "services": flame.services, "total": total}, [
        *_columns(flame.starts, flame.widths, paths["self_time"].to_numpy(), kind="<f8"),
        *_columns(flame.parent, size, kind="<i4"),
        *_columns(flame.name_codes, flame.service_codes, kind="<u4"),
        *_columns((errors > 0) * _ERROR, kind="u1"),
        *_columns(paths["depth"].to_numpy(), kind="<u4"),
        *_columns([], [], [], kind="<f8"),  # no critical path
        *_columns(errors, *counts, kind="<f8"),
    ]


def _columns(*columns: Any, kind: str) -> list[bytes]:
    return [np.asarray(column).astype(kind).tobytes() for column in columns]


def _encode(column: pa.ChunkedArray) -> tuple[Any, list[str]]:
    encoded = column.combine_chunks()
    encoded = encoded if hasattr(encoded, "dictionary") else encoded.dictionary_encode()
    texts = [cut(printable(text or ""), _MAX_NAME) for text in encoded.dictionary.to_pylist()]
    return encoded.indices.fill_null(len(texts)).to_numpy(), [*texts, ""]


def _describe(trace: Trace, span: int) -> dict[str, object]:
    details: dict[str, Any] = trace.fetch_details(span)
    begin = int(trace.tree.start[span])

    def after(time: int) -> str:
        return f"{'+' if time >= begin else ''}{nanoseconds_text(time - begin)}"

    texts = {name: _text(trace.spans[name][span].as_py()) for name in ("name", "exe", "kind", "status")}
    status = ": ".join(each for each in (texts["status"], _text(details["status_message"])) if each)
    facts = [
        ("service", texts["exe"]),
        ("start", f"{np.datetime64(begin, 'ns')}Z"),
        ("duration", f"{int(trace.tree.duration[span]):,} ns"),
        ("self", f"{int(trace.tree.self_time[span]):,} ns"),
        ("kind", texts["kind"]),
        ("status", status),
        ("span ID", details["span_id"]),
    ]
    events = [
        {"text": f"{after(event['time'])} {_text(event['name'])}", "pairs": _pairs(event["attributes"])}
        for event in details["events"][:MAX_DETAILS]
    ]
    links = [{"trace_id": id_} for link in details["links"][:MAX_DETAILS] if (id_ := _link(link["trace_id"]))]
    logs = [
        {
            "text": f"{after(line['time'])} {_level(line['level'])} {_text(line['msg'])}",
            "is_severe": line["level"] <= Level.WARNING,
        }
        for line in details["logs"]
    ]
    attributes = [{"pairs": pairs}] if (pairs := _pairs(details["attributes"])) else []
    sections = [("", [{"pairs": facts}]), ("Attributes", attributes), ("Events", events), ("Links", links)]
    return {"name": texts["name"], "sections": [each for each in (*sections, ("Logs", logs)) if each[1]]}


def _link(trace_id: str) -> str:
    """Return the ID of a linked trace if it is valid; it is checked because it becomes part of a cell."""
    try:
        return parse_hex_id(trace_id, TRACE_ID_DIGITS)
    except UsageError:
        return ""


def _level(level: int) -> str:
    try:
        return Level(level).name
    except ValueError:
        return ""


def _pairs(attributes: Mapping[str, object]) -> list[tuple[str, str]]:
    return [(_text(key), _text(value)) for key, value in sorted(attributes.items())[:MAX_DETAILS]]


def _text(value: object) -> str:
    if not isinstance(value, str):
        value = "" if value is None else json.dumps(value, ensure_ascii=False, default=str)
    return cut(printable(value), _MAX_VALUE)
