"""The kernel's half of the trace widget."""

import nbformat
import numpy as np
import pytest
from nbconvert import HTMLExporter

from micromegas_jupyter.client.flames import Flame
from micromegas_jupyter.client.traces import Trace
from micromegas_jupyter.notebook.logs.widget import saved_lines
from micromegas_jupyter.notebook.trace_view import TraceView, show_trace
from tests.unit.client.test_flames import ORDER, SLOW_ORDER
from tests.unit.client.test_traces import CHECKOUT, TRACE, spans
from tests.unit.notebook.test_log_lines import table


def ask(source, op, **details):
    view = TraceView(source)
    replies = []
    view.send = lambda content, buffers=(): replies.append((content, buffers))
    view._handle_custom_msg({"id": 7, "op": op, **details}, [])
    ((reply, buffers),) = replies
    assert reply["id"] == 7
    return reply, buffers


def columns(buffers, kinds):
    return [np.frombuffer(data, kind).tolist() for data, kind in zip(buffers, kinds, strict=True)]


def test_a_trace_is_sent_as_columns_in_nanoseconds():
    reply, buffers = ask(Trace(TRACE, CHECKOUT), "spans")

    start, duration, own, parent, size, name, _, flags, depth, path, begin, end = columns(
        buffers, ["f8"] * 3 + ["i4"] * 2 + ["u4"] * 2 + ["u1", "u4", "i4", "f8", "f8"]
    )
    assert [reply["answer"]["names"][each] for each in name] == ["checkout", "charge", "log", "lost"]
    assert start == [0, 200_000, 210_000, 400_000]
    assert duration == [1_000_000, 700_000, 1_000, 50_000]
    assert own == [300_000, 700_000, 1_000, 50_000]
    assert (parent, size) == ([-1, 0, 0, -1], [3, 1, 1, 1])
    assert (flags, depth) == ([2, 1 | 2, 0, 4], [0, 1, 1, 0])
    assert [*zip(path, begin, end, strict=True)] == [
        (0, 0, 200_000), (1, 200_000, 900_000), (0, 900_000, 1_000_000)
    ]  # fmt: skip


@pytest.mark.parametrize("others", [None, SLOW_ORDER])
def test_call_paths_are_sent_with_their_counts(others):
    reply, buffers = ask(Flame("shop", ORDER, others), "spans")

    kinds = ["f8"] * 3 + ["i4"] * 2 + ["u4"] * 2 + ["u1", "u4"] + ["f8"] * (8 if others else 6)
    _, width, _, _, size, name, _, _, _, _, _, _, errors, count, *_ = columns(buffers, kinds)
    shown = [reply["answer"]["names"][each] for each in name]
    assert dict(zip(shown, zip(count, errors, strict=True), strict=True))["worker <*>"] == (2, 1)
    assert (size[0], max(width)) == ((4, 430) if others else (3, 150))


def test_a_missing_parent_has_no_name():
    reply, buffers = ask(Trace(TRACE, spans((2, 1, "child", 0, 10))), "spans")

    assert reply["answer"] == {"names": ["child", ""], "services": ["shop", ""], "total": 10}
    assert np.frombuffer(buffers[7], "u1").tolist() == [2 | 4]


@pytest.mark.parametrize(
    "message", [{"op": "details", "span": 99}, {"op": "details", "span": "0"}, {"op": "nothing"}, {"op": "search"}]
)
def test_other_requests_are_an_error(message):
    reply, _ = ask(Trace(TRACE, CHECKOUT), **message)

    assert reply["error"] == "This view doesn't support this operation. Run the cell again."


def test_a_trace_without_a_connection_explains_why_it_has_no_details():
    assert "no connection" in ask(Trace(TRACE, CHECKOUT), "details", span=0)[0]["error"]


@pytest.mark.parametrize("source", [Trace(TRACE, CHECKOUT), Flame("shop", CHECKOUT)])
def test_spans_and_paths_are_found_by_name_in_any_case(source):
    assert ask(source, "search", text="CHARGE")[0]["answer"] == {"spans": [1]}


def test_nothing_of_the_spans_is_in_the_widgets_state():
    state = TraceView(Trace(TRACE, spans((1, None, "a name", 0, 10), (2, 1, "another", 0, 5)))).get_state()

    assert "another" not in str({name: value for name, value in state.items() if not name.startswith("_")})


def test_a_notebook_as_html_has_readable_traces_call_paths_and_log_lines():
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "0", "version_major": 2, "version_minor": 0}}
    shown = [show_trace(Trace(TRACE, CHECKOUT))[0], show_trace(Flame("shop", ORDER))[0], saved_lines(table("slow"))]
    outputs = [nbformat.v4.new_output("display_data", {**widget, **each}) for each in shown]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=outputs)])

    page, _ = HTMLExporter(template_name="basic").from_notebook_node(notebook)

    for text in ("checkout · 4 spans", "charge<i> (error)</i>", "worker &lt;*&gt;", ">slow</td>"):
        assert text in page
    assert page.count("<table>") == len(shown)
    assert "<script" not in page
