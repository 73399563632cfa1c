"""Call paths of many traces, and the difference of two sets."""

import re
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from micromegas_jupyter.client import flames
from micromegas_jupyter.client.flames import Flame, TraceSet, fetch_flame
from micromegas_jupyter.errors import ResourcesExhausted, UsageError
from tests.unit.client.test_traces import spans

ORDER = spans(
    (1, None, "order", 0, 100),
    (2, 1, "worker 14", 0, 60, "ERROR"),
    (3, 1, "worker 7", 10, 70),
    (4, 3, "read", 20, 10),
)
SLOW_ORDER = spans((1, None, "order", 0, 300), (2, 1, "retry", 0, 200))


def paths(flame, *columns):
    return [tuple(row.values()) for row in flame.paths.select(columns).to_pylist()]


def test_paths_that_differ_by_numbers_are_merged_and_add_up_in_parallel():
    flame = Flame("shop", ORDER)

    assert paths(flame, "depth", "name", "total", "self_time", "spans", "errors") == [
        (0, "order", 150, 20, 1, 0),
        (1, "worker <*>", 130, 120, 2, 1),
        (2, "read", 10, 10, 1, 0),
    ]
    assert flame.summary == "shop · 1 traces · 4 spans · 3 call paths"


def test_a_difference_is_per_trace_and_has_the_paths_of_both_sets():
    flame = Flame("shop", ORDER, SLOW_ORDER)

    assert sorted(paths(flame, "name", "total", "total_before", "spans", "spans_before")) == [
        ("order", 150, 300, 1, 1),
        ("read", 10, 0, 1, 0),
        ("retry", 0, 200, 0, 1),
        ("worker <*>", 130, 0, 2, 0),
    ]
    assert "retry<i> (-200 ns)</i>" in flame.to_html()
    assert "compared with 1" in str(flame)


rows = st.lists(
    st.tuples(
        st.integers(1, 9), st.none() | st.integers(1, 9), st.sampled_from("abc"), st.integers(0, 50), st.integers(0, 40)
    ),
    min_size=1,
    max_size=9,
)


@given(rows, rows)
def test_widths_contain_those_below_and_siblings_never_overlap(one, other):
    flame = Flame("shop", spans(*one), spans(*other))

    total, before = (flame.paths[name].to_numpy() for name in ("self_time", "self_time_before"))
    ends = flame.starts + flame.widths
    for path, parent in enumerate(flame.parent.tolist()):
        below = np.flatnonzero(flame.parent == path)
        assert parent < path
        assert flame.widths[path] == max(total[path], before[path]) + flame.widths[below].sum()
        assert all(flame.starts[path] <= flame.starts[each] and ends[each] <= ends[path] for each in below)
        assert all(ends[first] <= flame.starts[second] for first, second in pairwise(below))


def test_names_from_elsewhere_are_text_only_and_a_saved_flame_graph_is_small():
    many = [(n, n - 1 or None, f"<img src=x onerror=alert({'x' * n})>\x1b[2J", n, 10_000 - n) for n in range(1, 500)]

    text, page = str(Flame("shop", spans(*many))), Flame("shop", spans(*many)).to_html()

    assert "\x1b" not in text + page
    assert set(re.findall(r"<(\w+)", page)) == {"table", "caption", "thead", "tr", "th", "tbody", "td", "div"}
    assert len(page) < 30_000


def test_the_condition_cannot_leave_its_parentheses_by_a_comment():
    asked = []
    fetch_flame(TraceSet("shop", lambda sql, values: asked.append((sql, values)) or ORDER, "status = 'ERROR' -- all"))

    ((sql, values),) = asked
    assert "AND (\nstatus = 'ERROR' -- all\n)" in sql
    assert list(values.values()) == ["shop"]


def test_too_many_spans_or_none_are_an_error_with_a_remedy(monkeypatch):
    monkeypatch.setattr(flames, "MAX_SPANS", 3)
    with pytest.raises(ResourcesExhausted, match="more than 3 spans"):
        fetch_flame(TraceSet("shop", lambda *_: ORDER))
    with pytest.raises(UsageError, match="'shop' has no traces"):
        fetch_flame(TraceSet("shop", lambda *_: pa.Table.from_batches([], ORDER.schema)))
