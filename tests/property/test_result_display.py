"""Whatever Arrow table a server sends, its result is shown, holds no markup of it, and stays small."""

import json
from urllib.parse import unquote
from xml.etree import ElementTree as ET

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.charts import plot_bundle, thinned, value_marks, value_range
from micromegas_jupyter.notebook.results.table import MAX_DATA_BYTES, preview_text, result_data, result_html
from tests.property.arrow_tables import tables
from tests.property.test_notebook_preview import OWN_ATTRIBUTES, OWN_TAGS, seen

_MAX_BYTES = 2 * MAX_DATA_BYTES


@settings(deadline=None)
@given(tables())
def test_any_table_is_shown_with_its_own_markup_only_and_in_little_room(table):
    html = result_html(table, max_rows=1_000)

    found = seen(html)
    assert found.tags <= OWN_TAGS | {"script", "style"}
    assert found.attributes <= OWN_ATTRIBUTES | {"type"}
    assert found.others == 0
    assert html.count("<script") in {0, 2}
    assert len(html.encode()) < _MAX_BYTES
    assert preview_text(table)


@settings(deadline=None)
@given(tables())
def test_the_data_of_any_table_is_what_the_script_can_read(table):
    data = result_data(table, max_rows=1_000)

    decoded = json.loads(data.text)
    assert decoded["total"] == table.num_rows
    assert len(decoded["columns"]) == table.num_columns
    for column, values in zip(decoded["columns"], table.columns, strict=True):
        assert len(column["texts"]) == data.rows
        assert column["order"] is None or len(column["order"]) == data.rows
        assert sum(text is None for text in column["texts"]) == values.slice(0, data.rows).null_count
        assert all(text is None or len(text) <= 200 for text in column["texts"])
    assert "<" not in data.text


@settings(deadline=None)
@given(tables())
def test_any_table_is_drawn_with_its_own_markup_only_or_says_what_it_lacks(table):
    try:
        bundle = plot_bundle(table)
    except UsageError:
        return  # it lacks something

    found = seen(bundle["text/html"])
    assert found.tags <= {"figure", "img", "figcaption", "details", "summary", "script", *OWN_TAGS}
    assert found.attributes <= {"alt", "src", *OWN_ATTRIBUTES}
    assert found.others == 0
    (address,) = found.pictures
    svg = ET.fromstring(unquote(address.removeprefix("data:image/svg+xml,")))
    allowed = {"svg", "title", "desc", "rect", "path", "text"}
    assert {element.tag.rpartition("}")[2] for element in svg.iter()} <= allowed
    assert "nan" not in "".join(element.attrib.get("d", "") for element in svg.iter())


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.floats(-1e290, 1e290)), min_size=1, max_size=300), st.integers(4, 40)
)
def test_thinning_keeps_the_ends_the_lowest_and_the_highest(points, max_points):
    points.sort(key=lambda point: point[0])
    times, values = np.array([time for time, _ in points]), np.array([value for _, value in points])

    kept = thinned(times, values, begin=int(times[0]), end=int(times[-1]), max_points=max_points)

    assert len(kept) <= max_points
    assert list(kept) == sorted(set(kept))
    assert {0, len(points) - 1} <= set(kept)
    assert {values.min(), values.max()} <= set(values[kept])


@settings(deadline=None)
@given(st.floats(-1e290, 1e290), st.floats(-1e290, 1e290))
def test_any_values_have_an_axis_of_a_few_marks(one, other):
    low, high = value_range(min(one, other), max(one, other))
    marks = value_marks(low, high)

    assert low <= min(one, other) <= max(one, other) <= high
    assert 2 <= len(marks) <= 8
    # A mark is a product of two numbers, and so may lie a rounding error beyond the end.
    margin = (high - low) * 1e-9
    assert all(low - margin <= mark.at <= high + margin for mark in marks)
    assert max(len(mark.text) for mark in marks) <= 24
