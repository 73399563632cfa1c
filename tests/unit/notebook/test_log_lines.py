"""The lines that a log view holds, and its counts of all lines."""

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from micromegas_jupyter.core import jsonb
from micromegas_jupyter.notebook.logs import lines as log_lines
from micromegas_jupyter.notebook.logs.lines import LogLines, PatternCounts, Volume
from micromegas_jupyter.notebook.logs.widget import saved_lines

SECOND = 10**9
TIME = pa.timestamp("ns", "UTC")
HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</td></tr></table><script>alert(1)</script>",
    "a\nforged line\r\x1b[2J",
    "\u202eright to left",
    "| a | b |\n|---|---|",
    "x" * 100_000,
]


def table(*messages, level=4, time=0):
    count = len(messages)
    return pa.table(
        {
            "time": pa.array([time + index for index in range(count)], TIME),
            "level": pa.array([level] * count, pa.int32()),
            "exe": ["shop"] * count,
            "target": ["net"] * count,
            "msg": list(messages),
            "properties": [jsonb.encode({})] * count,
        }
    )


@given(st.lists(st.integers(0, 40), max_size=30), st.integers(1, 50))
def test_the_newest_lines_are_held_and_keep_their_numbers(sizes, limit):
    held, total = LogLines(table().schema), 0
    before, log_lines.MAX_LINES = log_lines.MAX_LINES, limit
    try:
        for size in sizes:
            held.add(table(*(str(total + index) for index in range(size))))
            total += size
            first, found = held.read(0, limit)
            assert found["msg"].to_pylist() == [str(number) for number in range(max(total - limit, 0), total)]
            assert (held.skipped, held.held, first) == (max(total - limit, 0), min(total, limit), held.skipped)
            number, last = held.read(total - 1, 1)
            assert not total or (number, last["msg"].to_pylist()) == (total - 1, [str(total - 1)])
    finally:
        log_lines.MAX_LINES = before


def test_large_lines_are_dropped_when_they_take_too_much_memory(monkeypatch):
    monkeypatch.setattr(log_lines, "MAX_LINES_BYTES", 100_000)
    held = LogLines(table().schema)
    for number in range(20):
        held.add(table(f"{number}" * 10_000))

    _, found = held.read(0, 20)
    assert 1 < found.num_rows < 12
    assert found["msg"].to_pylist()[-1].startswith("19")


@given(st.lists(st.tuples(st.integers(-50, 10_000), st.integers(1, 6)), max_size=50))
def test_the_volume_counts_each_line_once_however_long_a_follow_lasts(lines):
    volume = Volume(0, 60 * SECOND)
    for second, level in lines:
        found = table("", level=level, time=second * SECOND)
        volume.add(found["time"], found["level"], now=max(second, 0) * SECOND)

    bars = volume.bars(10_000 * SECOND)
    assert volume.total == len(lines)
    assert [sum(bar[level] for bar in bars) for level in range(6)] == [
        sum(level == found for _, found in lines) for level in range(1, 7)
    ]
    assert len(bars) <= 2 * log_lines.BARS


def test_a_line_with_a_time_to_come_is_counted_now():
    volume, found = Volume(0, 60 * SECOND), table("", time=2**62)
    volume.add(found["time"], found["level"], now=30 * SECOND)

    assert [bar for bar, levels in enumerate(volume.bars(60 * SECOND)) if any(levels)] == [30]


def test_patterns_have_the_worst_level():
    counts = PatternCounts()
    for level in (4, 2, 5):
        found = table("order 1 failed", "order 2 failed", level=level)
        counts.add(found["msg"], found["level"])

    assert counts.ranked() == ([("order <*> failed", 6, 2)], 1)


def test_saved_lines_execute_nothing_and_break_no_table():
    found = saved_lines(table(*HOSTILE, level=2))

    for text in found.values():
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert found["text/plain"].count("\n") == len(HOSTILE)
    assert found["text/html"].count("<tr>") == len(HOSTILE) + 1
    assert "<script" not in found["text/html"]
    assert "<img" not in found["text/html"]
    assert "&lt;img" in found["text/html"]  # the control: it is there


def test_saved_lines_are_the_newest_and_short():
    found = saved_lines(table(*(f"<{number}>" * 100 for number in range(1000))))

    assert sum(map(len, found.values())) < 30_000
    assert "of 1,000 lines" in found["text/plain"]
    assert "&lt;999&gt;" in found["text/html"]
