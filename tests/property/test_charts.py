"""Whatever Arrow table a server sends, its chart stays small, and thinned points keep what matters."""

import csv
import io
import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from micromegas_jupyter.core.text import printable
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.charts.chart import Chart
from micromegas_jupyter.notebook.plotting import KINDS
from micromegas_jupyter.notebook.plotting.slots import m4, one_per_spot
from tests.property.arrow_tables import tables

_MAX_CHARACTERS = 1_000_000


@given(tables(), st.none() | st.sampled_from(KINDS))
def test_any_table_is_drawn_in_little_room_or_the_error_says_what_it_lacks(table, kind):
    try:
        chart = Chart(table, kind=kind)
    except UsageError:
        return

    text = json.dumps(chart.spec, allow_nan=False)
    assert len(text) < _MAX_CHARACTERS
    assert printable(text) == text
    for panel in chart.spec["vconcat"]:
        head, *rows = csv.reader(io.StringIO(panel["data"]["values"]))
        assert {len(row) for row in rows} == {len(head)}


_FLOATS = st.floats(-1e290, 1e290)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.none() | _FLOATS), min_size=1, max_size=300), st.integers(1, 20))
def test_m4_keeps_the_ends_the_lowest_and_the_highest_of_each_column_of_pixels(points, columns):
    points.sort(key=lambda point: point[0])
    x = np.array([time for time, _ in points], float)
    y = np.array([np.nan if value is None else value for _, value in points])

    chosen = m4(x, y, x[0], x[-1], columns)

    assert list(chosen) == sorted(set(chosen))
    column = np.minimum(((x - x[0]) / ((x[-1] - x[0]) / columns or 1)).astype(int), columns - 1)
    for each in set(column[~np.isnan(y)]):
        inside = np.flatnonzero((column == each) & ~np.isnan(y))
        left = [index for index in chosen if column[index] == each and not np.isnan(y[index])]
        assert (left[0], left[-1]) == (inside[0], inside[-1])
        assert (y[left].min(), y[left].max()) == (y[inside].min(), y[inside].max())
        assert len(left) <= 4 or np.count_nonzero(~np.isnan(y)) <= 4 * columns


@given(st.lists(st.tuples(_FLOATS, _FLOATS), min_size=1, max_size=300), st.integers(1, 50))
def test_a_thinned_scatter_plot_counts_each_point(points, max_points):
    x, y = np.array(points).T

    chosen, counts = one_per_spot(x, y, np.zeros(len(x), int), max_points=max_points)

    assert counts.sum() == len(x)
    assert len(set(chosen)) == len(chosen) <= max_points
