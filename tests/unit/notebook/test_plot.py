"""A result as a plot over time."""

from urllib.parse import unquote
from xml.etree import ElementTree as ET

import pyarrow as pa
import pytest

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.charts import plot_bundle, plot_svg, plot_zone, time_series

LOADS = pa.table(
    {
        "time": pa.array([1_700_000_000, 1_700_000_060, 1_700_000_120, 1_700_000_180], pa.timestamp("s", "UTC")),
        "host": ["a", "<b>", "a", "<b>"],
        "load": [1.5, 2.0, 2.5, 4.0],
    }
)
T0 = 1_700_000_000
TIMES = pa.array([T0, T0 + 1, T0 + 2], pa.timestamp("s", "UTC"))
SVG = "{http://www.w3.org/2000/svg}"


def test_the_picture_needs_no_script_and_says_what_it_shows():
    shown = plot_bundle(LOADS)["text/html"]

    assert 'alt="load over time: a, &lt;b&gt;. From 2023-11-14 22:13:20 to 2023-11-14 22:16:20 (UTC).' in shown
    assert "<svg xmlns=" in unquote(shown.partition("data:image/svg+xml,")[2].partition('"')[0])


@pytest.mark.parametrize(
    ("name", "label", "shown"),
    [
        (None, "no time zone", "22:13"),
        ("+00:00", "UTC", "22:13"),
        ("-09:30", "UTC-09:30", "12:43"),
        ("Europe/Paris", "Europe/Paris", "23:13"),
        ("../../etc/passwd", "UTC, for ../../etc/passwd is not known here", "22:13"),
        ("\x1b[2J", r"UTC, for \x1b[2J is not known here", "22:13"),
    ],
)
def test_a_zone_has_a_label_and_its_times(name, label, shown):
    zone = plot_zone(name)

    assert zone.label == label
    assert zone.local_time(1_700_000_000_000_000).strftime("%H:%M") == shown


def test_text_columns_that_vary_name_the_lines_together_and_others_do_not():
    table = pa.table(
        {
            "time": TIMES,
            "host": ["a", "b", "b"],
            "site": ["x", "x", "x"],
            "name": ["cpu", "cpu", "memory"],
            "n": [1, 2, 3],
            "m": [4, 5, 6],
        }
    )

    assert {line.name: list(line.values) for line in time_series(table).lines} == {
        "a · cpu · n": [1],
        "b · cpu · n": [2],
        "b · memory · n": [3],
        "a · cpu · m": [4],
        "b · cpu · m": [5],
        "b · memory · m": [6],
    }


def numbers_of(rows, **columns):
    return pa.table({"time": pa.array(range(rows), pa.timestamp("s")), **columns, "n": range(rows)})


@pytest.mark.parametrize(
    ("table", "what"),
    [
        (pa.table({"n": [1], "msg": ["a"]}), "--plot needs a column of times, and this result has none (n bigint, msg"),
        (pa.table({"time": TIMES, "msg": ["a"] * 3}), "--plot needs a column of numbers, and this result has none"),
        (pa.table({}), "this result has none (no columns)"),
        (pa.table({"time": TIMES, "n": pa.nulls(3, pa.int64())}), "no row has both a time and a number"),
        (pa.table({"time": TIMES.slice(0, 0), "n": pa.array([], pa.int64())}), "the result has no rows"),
        (pa.table({"time": pa.array([2**60], pa.timestamp("s")), "n": [1]}), "no row has both a time and a number"),
        (numbers_of(26, host=[f"host{row // 2}" for row in range(26)]), "host would make 13 lines, and --plot draws"),
        (numbers_of(16, host=list("aabbccddeeffgghh"), name=list("xy" * 8)), "host and name would make 16 lines"),
        (pa.table({"time": TIMES} | {f"n{index}": [1, 2, 3] for index in range(13)}), "numbers would make 13 lines"),
    ],
)
def test_a_result_that_is_no_time_series_or_has_too_many_lines_says_why(table, what):
    with pytest.raises(UsageError) as raised:
        time_series(table)

    assert what in raised.value.what


def test_a_name_with_characters_that_xml_forbids_is_drawn_all_the_same():
    series = time_series(numbers_of(2, host=["a\x00\x1b", "b\ufffe\uffff]]>"]))
    svg = ET.fromstring(plot_svg(series, title="A <title>", description="What & where"))

    assert {r"a\x00\x1b", "b\ufffd\ufffd]]>"} <= {text.text for text in svg.iter(f"{SVG}text")}
