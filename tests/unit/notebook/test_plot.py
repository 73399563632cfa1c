from html.parser import HTMLParser
from urllib.parse import unquote

import pyarrow as pa
import pytest

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.charts.plot import plot_bundle
from micromegas_jupyter.notebook.results.table import static_text

TABLE = pa.table(
    {
        "time": pa.array([1_700_000_000, 1_700_000_060, 1_700_000_120, 1_700_000_180], pa.timestamp("s", "UTC")),
        "host": ["a", "<b>", "a", "<b>"],
        "load": [1.5, 2.0, 2.5, 4.0],
    }
)


class _Picture(HTMLParser):
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.attributes = dict(attrs)


def picture(html: str) -> dict[str, str]:
    parser = _Picture()
    parser.feed(html)
    return parser.attributes


def test_the_picture_needs_no_script_and_says_what_it_shows() -> None:
    shown = picture(plot_bundle(TABLE)["text/html"])

    assert shown["alt"] == "load over time: a, <b>. From 2023-11-14 22:13:20 to 2023-11-14 22:16:20 (UTC)."
    assert unquote(shown["src"].removeprefix("data:image/svg+xml,")).startswith("<svg xmlns=")
    assert " " not in shown["src"]


def test_the_same_stands_there_in_figures() -> None:
    assert plot_bundle(TABLE)["text/plain"].split("\n") == [
        "load over time: a, <b>. From 2023-11-14 22:13:20 to 2023-11-14 22:16:20 (UTC).",
        "line  points  first                last                 lowest  highest  mean",
        "a     2       2023-11-14 22:13:20  2023-11-14 22:15:20  1.5     2.5      2",
        "<b>   2       2023-11-14 22:14:20  2023-11-14 22:16:20  2       4        3",
    ]
    assert '<td style="text-align:left">&lt;b&gt;</td>' in plot_bundle(TABLE)["text/html"]


def test_the_note_says_when_not_every_point_is_drawn() -> None:
    rows = 5_000
    large = pa.table({"time": pa.array(range(rows), pa.timestamp("s")), "n": range(rows)})

    assert ">4 points<" in plot_bundle(TABLE)["text/html"]
    assert ">5,000 points; of each line at most 2,000 are drawn" in plot_bundle(large)["text/html"]


def test_many_long_lines_still_make_a_bounded_output() -> None:
    rows = 120_000
    columns = {f"n{index}": pa.array([(row * 7919) % 1009 for row in range(rows)]) for index in range(12)}

    html = plot_bundle(pa.table({"time": pa.array(range(rows), pa.timestamp("s"))} | columns))["text/html"]

    assert len(html.encode()) < 200_000


def test_what_is_no_time_series_is_an_error() -> None:
    with pytest.raises(UsageError, match="--plot needs a column of times"):
        plot_bundle(pa.table({"n": [1]}))


def test_the_script_that_is_saved_with_each_plot_is_small() -> None:
    assert len(static_text("plot.js")) < 1_000
