"""A result as a plot over time."""

import decimal
import re
from html.parser import HTMLParser
from urllib.parse import unquote
from xml.etree import ElementTree as ET

import numpy as np
import pyarrow as pa
import pytest

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.charts import (
    COLOURS,
    MAX_POINTS,
    plot_bundle,
    plot_svg,
    plot_zone,
    thinned,
    time_marks,
    time_series,
    value_marks,
)

LOADS = pa.table(
    {
        "time": pa.array([1_700_000_000, 1_700_000_060, 1_700_000_120, 1_700_000_180], pa.timestamp("s", "UTC")),
        "host": ["a", "<b>", "a", "<b>"],
        "load": [1.5, 2.0, 2.5, 4.0],
    }
)
SECOND = 1_000_000
DAY = 86_400 * SECOND
BEGIN = 1_700_000_000 * SECOND  # 2023-11-14 22:13:20 UTC
T0 = 1_700_000_000
TIMES = pa.array([T0, T0 + 1, T0 + 2], pa.timestamp("s", "UTC"))
SVG = "{http://www.w3.org/2000/svg}"


class _Picture(HTMLParser):
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.attributes = dict(attrs)


def picture(html: str) -> dict[str, str]:
    parser = _Picture()
    parser.feed(html)
    return parser.attributes


def test_the_picture_needs_no_script_and_says_what_it_shows() -> None:
    shown = picture(plot_bundle(LOADS)["text/html"])

    assert shown["alt"] == "load over time: a, <b>. From 2023-11-14 22:13:20 to 2023-11-14 22:16:20 (UTC)."
    assert unquote(shown["src"].removeprefix("data:image/svg+xml,")).startswith("<svg xmlns=")
    assert " " not in shown["src"]


def test_the_same_stands_there_in_figures() -> None:
    assert plot_bundle(LOADS)["text/plain"].split("\n") == [
        "load over time: a, <b>. From 2023-11-14 22:13:20 to 2023-11-14 22:16:20 (UTC).",
        "line  points  first                last                 lowest  highest  mean",
        "a     2       2023-11-14 22:13:20  2023-11-14 22:15:20  1.5     2.5      2",
        "<b>   2       2023-11-14 22:14:20  2023-11-14 22:16:20  2       4        3",
    ]
    assert '<td style="text-align:left">&lt;b&gt;</td>' in plot_bundle(LOADS)["text/html"]


def test_many_long_lines_still_make_a_bounded_output() -> None:
    rows = 120_000
    columns = {f"n{index}": pa.array([(row * 7919) % 1009 for row in range(rows)]) for index in range(12)}

    html = plot_bundle(pa.table({"time": pa.array(range(rows), pa.timestamp("s"))} | columns))["text/html"]

    assert len(html.encode()) < 200_000


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (0.0, 105.0, ["0", "20", "40", "60", "80", "100"]),
        (-1.0, 1.0, ["-1.0", "-0.5", "0.0", "0.5", "1.0"]),
        (0.0, 2_100.0, ["0", "500", "1,000", "1,500", "2,000"]),
        (3e6, 4e6, ["3.0M", "3.2M", "3.4M", "3.6M", "3.8M", "4.0M"]),
        (0.0, 6e9, ["0G", "1G", "2G", "3G", "4G", "5G", "6G"]),
        (0.0, 3e-6, ["0", "5e-07", "1e-06", "1.5e-06", "2e-06", "2.5e-06", "3e-06"]),
        (0.0, 3e290, ["0", "5e+289", "1e+290", "1.5e+290", "2e+290", "2.5e+290", "3e+290"]),
    ],
)
def test_marks_of_values_stand_at_round_numbers(low: float, high: float, texts: list[str]) -> None:
    assert [mark.text for mark in value_marks(low, high)] == texts


@pytest.mark.parametrize(
    ("length", "zone", "texts"),
    [
        (3_600 * SECOND, "UTC", ["22:20", "22:30", "22:40", "22:50", "23:00", "23:10"]),
        (5 * SECOND, "UTC", [f"22:13:{second}" for second in range(20, 26)]),
        (SECOND // 100, "UTC", ["22:13:20.000", "22:13:20.002", "22:13:20.004", "22:13:20.006", "22:13:20.008",
                                "22:13:20.010"]),
        (10, "UTC", ["22:13:20.000000", "22:13:20.000002", "22:13:20.000004", "22:13:20.000006", "22:13:20.000008",
                     "22:13:20.000010"]),
        (12 * DAY, "UTC", ["2023-11-15", "2023-11-17", "2023-11-19", "2023-11-21", "2023-11-23", "2023-11-25"]),
        (DAY, "Asia/Kolkata", ["06:00", "12:00", "18:00", "00:00"]),
    ],
)  # fmt: skip
def test_marks_of_times_stand_at_round_times_of_their_zone(length: int, zone: str, texts: list[str]) -> None:
    marks = time_marks(BEGIN, BEGIN + length, plot_zone(zone))

    assert [mark.text for mark in marks] == texts
    assert all(BEGIN <= mark.at <= BEGIN + length for mark in marks)


def test_there_are_few_marks_over_thousands_of_years_and_over_a_microsecond() -> None:
    zone = plot_zone("Europe/Paris")

    assert 2 <= len(time_marks(-62_104_060_800_000_000, 253_370_764_800_000_000, zone)) <= 8
    assert 1 <= len(time_marks(BEGIN, BEGIN + 1, zone)) <= 8


@pytest.mark.parametrize(
    ("name", "label", "shown"),
    [
        (None, "no time zone", "22:13"),
        ("UTC", "UTC", "22:13"),
        ("+00:00", "UTC", "22:13"),
        ("-09:30", "UTC-09:30", "12:43"),
        ("Europe/Paris", "Europe/Paris", "23:13"),
        ("Nobody/Knows", "UTC, for Nobody/Knows is not known here", "22:13"),
        ("../../etc/passwd", "UTC, for ../../etc/passwd is not known here", "22:13"),
        ("\x1b[2J", r"UTC, for \x1b[2J is not known here", "22:13"),
    ],
)
def test_a_zone_has_a_label_and_its_times(name: str | None, label: str, shown: str) -> None:
    zone = plot_zone(name)

    assert zone.label == label
    assert zone.local_time(1_700_000_000_000_000).strftime("%H:%M") == shown


def test_of_each_stretch_the_first_the_last_the_lowest_and_the_highest_point_stay() -> None:
    times = np.arange(20)
    values = np.array([5, 9, 1, 5, 5, 5, 5, 5, 5, 6, 4, 4, 4, 0, 4, 4, 8, 4, 4, 3], float)

    kept = thinned(times, values, begin=0, end=20, max_points=8)

    assert list(kept) == [0, 1, 2, 9, 10, 13, 16, 19]


def test_a_single_peak_among_a_million_points_is_kept_where_it_is() -> None:
    times = np.arange(1_000_000) * 1_000_000_000
    values = np.zeros(1_000_000)
    values[777_777] = 1.0

    kept = thinned(times, values, begin=0, end=int(times[-1]), max_points=MAX_POINTS)

    assert 777_777 in kept
    assert len(kept) <= MAX_POINTS
    assert {0, 999_999} <= set(kept)


def lines(table: pa.Table) -> dict[str, list[float]]:
    return {line.name: list(line.values) for line in time_series(table).lines}


def test_text_columns_that_vary_name_the_lines_together_and_others_do_not() -> None:
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

    assert lines(table) == {
        "a · cpu · n": [1],
        "b · cpu · n": [2],
        "b · memory · n": [3],
        "a · cpu · m": [4],
        "b · cpu · m": [5],
        "b · memory · m": [6],
    }


@pytest.mark.parametrize(
    "values",
    [
        pa.array([decimal.Decimal("1.5"), decimal.Decimal("2.5"), None]),
        pa.array([1.5, 2.5, None], pa.float16()),
        pa.array([1.5, 2.5, None]).dictionary_encode(),
    ],
)
def test_numbers_of_every_kind_are_drawn(values: pa.Array) -> None:
    assert lines(pa.table({"time": TIMES, "n": values})) == {"n": [1.5, 2.5]}


def test_what_is_no_number_ends_a_stretch() -> None:
    times = pa.array(range(6), pa.timestamp("s"))
    (line,) = time_series(pa.table({"time": times, "n": [1, None, 2, float("nan"), float("inf"), 3]})).lines

    assert list(line.values) == [1, 2, 3]
    assert list(np.diff(line.stretches) > 0) == [True, True]


@pytest.mark.parametrize(
    ("table", "what"),
    [
        (pa.table({"n": [1], "msg": ["a"]}), "--plot needs a column of times, and this result has none (n int64, msg"),
        (pa.table({"time": TIMES, "msg": ["a"] * 3}), "--plot needs a column of numbers, and this result has none"),
        (pa.table({}), "this result has none (no columns)"),
        (pa.table({"time": TIMES, "n": pa.nulls(3, pa.int64())}), "no row has both a time and a number"),
        (pa.table({"time": TIMES.slice(0, 0), "n": pa.array([], pa.int64())}), "the result has no rows"),
        (pa.table({"time": pa.array([2**60], pa.timestamp("s")), "n": [1]}), "no row has both a time and a number"),
    ],
)
def test_a_result_that_is_no_time_series_says_what_is_missing(table: pa.Table, what: str) -> None:
    with pytest.raises(UsageError) as raised:
        time_series(table)

    assert what in raised.value.what


def numbers_of(rows: int, **columns: list[str]) -> pa.Table:
    return pa.table({"time": pa.array(range(rows), pa.timestamp("s")), **columns, "n": range(rows)})


@pytest.mark.parametrize(
    ("table", "what"),
    [
        (numbers_of(26, host=[f"host{row // 2}" for row in range(26)]), "host would make 13 lines, and --plot draws"),
        (numbers_of(16, host=list("aabbccddeeffgghh"), name=list("xy" * 8)), "host and name would make 16 lines"),
        (pa.table({"time": TIMES} | {f"n{index}": [1, 2, 3] for index in range(13)}), "numbers would make 13 lines"),
    ],
)
def test_too_many_lines_are_refused_by_the_columns_that_make_them(table: pa.Table, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        time_series(table)


def drawn(table: pa.Table) -> ET.Element:
    return ET.fromstring(plot_svg(time_series(table), title="A <title>", description="What & where"))


def table(rows: int, values: list[float | None], **columns: list[str]) -> pa.Table:
    return pa.table({"time": pa.array(range(rows), pa.timestamp("s", "UTC")), **columns, "value": values})


def paths(svg: ET.Element, colour: str = COLOURS[0]) -> list[str]:
    return [path.attrib["d"] for path in svg.iter(f"{SVG}path") if colour in path.attrib["style"]]


def test_a_name_with_characters_that_xml_forbids_is_drawn_all_the_same() -> None:
    svg = drawn(table(2, [1, 2], host=["a\x00\x1b", "b\ufffe\uffff]]>"]))

    assert {r"a\x00\x1b", "b\ufffd\ufffd]]>"} <= {text.text for text in svg.iter(f"{SVG}text")}


def test_names_that_end_at_one_place_are_written_one_below_the_other() -> None:
    rows = 24
    svg = drawn(table(rows, [1.0] * rows, host=[f"host {row % 12:02d}" for row in range(rows)]))

    heights = [float(text.attrib["y"]) for text in svg.iter(f"{SVG}text") if (text.text or "").startswith("host")]
    assert len(heights) == 12
    assert min(below - above for above, below in zip(sorted(heights), sorted(heights)[1:], strict=False)) >= 14.9
    assert min(heights) > 0
    assert max(heights) < 320


def test_a_gap_is_not_drawn_over_and_a_point_alone_is_a_dot() -> None:
    joined, dots = paths(drawn(table(6, [1, 2, None, 3, None, 4])))

    assert re.fullmatch(r"M[\d.]+,[\d.]+L[\d.]+,[\d.]+", joined)
    assert re.fullmatch(r"(M[\d.]+,[\d.]+h0){2}", dots)


def test_a_million_points_make_a_small_drawing() -> None:
    rows = 1_000_000
    large = pa.table({"time": pa.array(range(rows), pa.timestamp("s")), "n": range(rows)})

    svg = plot_svg(time_series(large), title="", description="")

    assert len(svg) < 40_000
    assert svg.count("L") < 2_000


def _luminance(colour: str) -> float:
    def linear(part: float) -> float:
        return part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4

    red, green, blue = (linear(int(colour[place : place + 2], 16) / 255) for place in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("colour", COLOURS)
def test_each_colour_stands_out_from_light_and_dark_pages(colour: str) -> None:
    light, dark, own = _luminance("#ffffff") + 0.05, _luminance("#111111") + 0.05, _luminance(colour) + 0.05

    assert light / own >= 3
    assert own / dark >= 3
