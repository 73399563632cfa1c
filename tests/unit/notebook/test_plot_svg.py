import re
from xml.etree import ElementTree as ET

import pyarrow as pa
import pytest

from micromegas_jupyter.notebook.charts.plot import COLOURS, plot_svg
from micromegas_jupyter.notebook.charts.series import time_series

SVG = "{http://www.w3.org/2000/svg}"


def drawn(table: pa.Table) -> ET.Element:
    return ET.fromstring(plot_svg(time_series(table), title="A <title>", description="What & where"))


def table(rows: int, values: list[float | None], **columns: list[str]) -> pa.Table:
    return pa.table({"time": pa.array(range(rows), pa.timestamp("s", "UTC")), **columns, "value": values})


def paths(svg: ET.Element, colour: str = COLOURS[0]) -> list[str]:
    return [path.attrib["d"] for path in svg.iter(f"{SVG}path") if colour in path.attrib["style"]]


def test_it_says_what_it_shows_to_those_who_cannot_see_it() -> None:
    svg = drawn(table(2, [1, 2]))

    assert (svg.attrib["role"], svg.attrib["aria-label"]) == ("img", "A <title>")
    assert [svg.findtext(f"{SVG}title"), svg.findtext(f"{SVG}desc")] == ["A <title>", "What & where"]


def test_the_axes_name_what_they_measure_and_the_zone() -> None:
    texts = [text.text for text in drawn(table(5, [0, 25, 50, 75, 100], unit=["ms"] * 5)).iter(f"{SVG}text")]

    assert {"value (ms)", "time (UTC)", "0", "100", "00:00:00", "1970-01-01"} <= set(texts)


def test_one_line_has_no_name_beside_it_and_more_have() -> None:
    lines = table(4, [1, 2, 3, 4], host=["a", "b", "a", "b"])

    one, two = drawn(table(2, [1, 2])), drawn(lines)

    assert [text.text for text in one.iter(f"{SVG}text")].count("value") == 1
    assert {"a", "b"} <= {text.text for text in two.iter(f"{SVG}text")}
    assert {title.text for title in two.iter(f"{SVG}title")} >= {"a", "b"}


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


def test_a_single_point_stands_in_the_middle() -> None:
    (dot,) = paths(drawn(table(1, [5.0])))

    x, y = map(float, re.findall(r"[\d.]+", dot)[:2])
    assert 350 < x < 500
    assert 100 < y < 200


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
