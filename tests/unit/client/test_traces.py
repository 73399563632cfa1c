import re

import pyarrow as pa
import pytest

from micromegas_jupyter.client.traces import Trace, fetch_trace, nanoseconds_text, parse_hex_id
from micromegas_jupyter.core.text import terminal_width
from micromegas_jupyter.errors import ResourcesExhausted, UsageError

HOUR = 1_800_000_000_000_000_000
TRACE = "0af7651916cd43dd8448eb211c80319c"


def spans(*rows):
    """Return the columns of spans; each row has an ID, its parent's, name, start and duration, and maybe a status."""
    text = pa.dictionary(pa.int32(), pa.utf8())
    columns = {
        "trace_id": pa.array([bytes.fromhex(TRACE)] * len(rows), pa.binary(16)),
        "span_id": pa.array([number.to_bytes(8, "big") for number, *_ in rows], pa.binary(8)),
        "parent_span_id": pa.array([parent and parent.to_bytes(8, "big") for _, parent, *_ in rows], pa.binary(8)),
        "start_time": pa.array([HOUR + row[3] for row in rows], pa.timestamp("ns", "UTC")),
        "duration": pa.array([row[4] for row in rows], pa.int64()),
        "name": pa.array([row[2] for row in rows]).cast(text),
        "kind": pa.array(["INTERNAL"] * len(rows)).cast(text),
        "status": pa.array([(*row, "UNSET")[5] for row in rows]).cast(text),
        "exe": pa.array(["shop"] * len(rows)),
    }
    return pa.table(columns)


CHECKOUT = spans(
    (2, 1, "charge", 200_000, 700_000, "ERROR"),
    (1, None, "checkout", 0, 1_000_000),
    (3, 1, "log", 210_000, 1_000),
    (4, 9, "lost", 400_000, 50_000),
)


def test_a_trace_is_a_tree_with_self_times_and_its_critical_path():
    trace = Trace(TRACE, CHECKOUT)

    shown = trace.spans.select(["name", "depth", "self_time", "critical_time", "is_orphan"]).to_pylist()
    assert [tuple(row.values()) for row in shown] == [
        ("checkout", 0, 300_000, 300_000, False),
        ("charge", 1, 700_000, 700_000, False),
        ("log", 1, 1_000, 0, False),
        ("lost", 0, 50_000, 0, True),
    ]
    assert trace.summary == "checkout · 4 spans · 1 service · 1 ms · 1 error · 1 span without its parent"
    assert repr(trace) == f"Trace('{TRACE}': {trace.summary})"


def test_a_trace_is_printed_as_a_tree_with_bars():
    lines = list(Trace(TRACE, CHECKOUT).to_lines(width=90))

    assert [kind for _, kind in lines] == ["title", "header", "critical", "error", "other", "other"]
    assert re.fullmatch(r"checkout +shop +0 ns +1 ms +300 µs █+", lines[2][0])
    assert re.fullmatch(r"  charge \(error\) +shop +200 µs +700 µs +700 µs {4,}█+", lines[3][0])
    assert "lost (parent missing)" in lines[5][0]
    assert all(terminal_width(text) <= 90 for text, _ in lines)


def test_of_many_spans_the_telling_ones_are_shown_with_their_ancestors():
    rows = [(1, None, "root", 0, 1_000_000), (2, 1, "slow", 0, 999_000), (3, 2, "slowest", 1, 900_000)]
    rows += [(number, 1, "quick", number, 1) for number in range(4, 500)]
    rows += [(1000, 499, "failed", 499, 1, "ERROR")]

    shown = Trace(TRACE, spans(*rows)).choose_rows(8)

    names = [row.name for row in shown]
    assert names[:3] == ["root", "slow", "slowest"]
    assert "failed" in names
    assert len(names) <= 8
    assert len(names) + sum(row.hidden for row in shown) == len(rows)


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", '" onmouseover="alert(1)', "a\x1b[2Jb\nc", "\u202eabc", None]
)
def test_names_from_elsewhere_are_text_only(name):
    trace = Trace(TRACE, spans((1, None, name, 0, 10)))

    text, page = str(trace), trace.to_html()
    assert "\x1b" not in text + page
    assert "\u202e" not in text + page
    assert text.count("\n") == 2
    assert "<script" not in page
    assert set(re.findall(r"<(\w+)", page)) == {"table", "caption", "thead", "tr", "th", "tbody", "td", "div"}
    assert not re.search(r"<[^>]*onmouseover[^>]*>", page)


def test_a_saved_trace_is_small():
    rows = [(1, None, "root" * 30, 0, 10**9), *((n, 1, "child" * 30, n, 10**6) for n in range(2, 5000))]

    assert len(Trace(TRACE, spans(*rows)).to_html()) < 30_000


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [(0, "0 ns"), (999, "999 ns"), (1_000, "1 µs"), (71_472_082, "71.47 ms"), (999_999, "1 ms"),
     (1_284_000_000, "1.284 s"), (3_600 * 10**9, "3,600 s"), (-5_000, "-5 µs")],
)  # fmt: skip
def test_durations_have_four_digits(nanoseconds, text):
    assert nanoseconds_text(nanoseconds) == text


def test_an_id_may_have_been_copied_from_elsewhere():
    assert parse_hex_id(f" 0x{TRACE.upper()} ", 32) == TRACE
    assert parse_hex_id("0af76519-16cd-43dd-8448-eb211c80319c", 32) == TRACE


@pytest.mark.parametrize("text", ["", "0" * 32, TRACE[:-1], f"{TRACE}0", "' OR 1=1 --".ljust(32, "0"), "٣" * 32])
def test_no_other_text_becomes_part_of_a_statement(text):
    with pytest.raises(UsageError, match="not a trace ID"):
        parse_hex_id(text, 32)


def test_a_trace_without_spans_is_an_error_with_a_remedy():
    with pytest.raises(UsageError, match=r"Trace 0af7\w* has no spans") as caught:
        fetch_trace(TRACE, lambda _sql: CHECKOUT.slice(0, 0))

    assert "time range" in caught.value.remedy


def test_a_trace_with_too_many_spans_is_an_error(monkeypatch):
    monkeypatch.setattr("micromegas_jupyter.client.traces.MAX_SPANS", 3)

    with pytest.raises(ResourcesExhausted, match="more than 3 spans"):
        fetch_trace(TRACE, lambda _sql: CHECKOUT)
