from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from micromegas_jupyter.telemetry.traces import build_span_tree, find_critical_path, merge_call_paths

MAX_COUNT = 12
spans = st.lists(
    st.tuples(st.integers(1, MAX_COUNT), st.integers(0, MAX_COUNT), st.integers(0, 60), st.integers(-5, 40)),
    max_size=MAX_COUNT,
)


def tree_of(rows, **more):
    columns = list(zip(*rows, strict=True)) or [()] * 4
    types = (np.uint64, np.uint64, np.int64, np.int64)
    span_ids, parent_ids, starts, durations = (
        np.array(column, dtype=kind) for column, kind in zip(columns, types, strict=True)
    )
    return build_span_tree(span_ids=span_ids, parent_ids=parent_ids, starts=starts, durations=durations, **more)


def children_of(tree, span):
    return [child for child in range(len(tree.start)) if tree.parent[child] == span]


@given(spans)
def test_a_tree_has_each_span_once_with_its_subtree_behind_it(rows):
    tree = tree_of(rows)

    assert sorted({row[0] for row in rows}) == sorted(rows[row][0] for row in tree.rows)
    for span in range(len(tree.start)):
        parent = tree.parent[span]
        assert parent < span
        assert tree.depth[span] == (tree.depth[parent] + 1 if parent >= 0 else 0)
        children = children_of(tree, span)
        assert tree.size[span] == 1 + sum(tree.size[child] for child in children)
        assert all(tree.start[a] <= tree.start[b] and b == a + tree.size[a] for a, b in pairwise(children))
        known = {row[0] for row in rows}
        assert tree.is_orphan[span] == (rows[tree.rows[span]][1] not in {0, *known})


@given(spans)
def test_self_time_is_what_no_child_covers(rows):
    tree = tree_of(rows)

    for span in range(len(tree.start)):
        times = set(range(tree.start[span], tree.start[span] + tree.duration[span]))
        for child in children_of(tree, span):
            times -= set(range(tree.start[child], tree.start[child] + tree.duration[child]))
        assert tree.self_time[span] == len(times)


@given(spans)
def test_the_segments_of_the_critical_path_add_up_to_the_longest_root(rows):
    tree = tree_of(rows)
    path = find_critical_path(tree)

    longest = max((tree.duration[span] for span in range(len(tree.start)) if tree.parent[span] < 0), default=0)
    assert sum(segment.end - segment.begin for segment in path) == longest
    assert all(before.end == after.begin for before, after in pairwise(path))
    for segment in path:
        assert tree.start[segment.span] <= segment.begin < segment.end <= tree.end[segment.span]


def test_the_critical_path_follows_the_child_that_ended_last():
    root, slow, quick, deep = (1, 0, 0, 100), (2, 1, 10, 60), (3, 1, 20, 30), (4, 2, 30, 40)

    path = find_critical_path(tree_of([root, slow, quick, deep]))

    assert [(one.span, one.begin, one.end) for one in path] == [(0, 0, 10), (1, 10, 30), (2, 30, 70), (0, 70, 100)]


def test_spans_that_are_each_others_ancestors_begin_at_the_earliest():
    tree = tree_of([(1, 3, 30, 5), (2, 1, 10, 5), (3, 2, 20, 5), (4, 3, 40, 5)])

    assert tree.rows.tolist() == [1, 2, 0, 3]
    assert tree.depth.tolist() == [0, 1, 2, 2]


def test_ids_are_those_of_one_trace():
    rows = [(1, 0, 0, 10), (1, 0, 5, 10), (2, 1, 6, 2)]

    tree = tree_of(rows, trace_ids=np.array([7, 8, 8], dtype=np.uint64))

    assert tree.parent.tolist() == [-1, -1, 1]
    assert tree.rows.tolist() == [0, 1, 2]


@pytest.mark.parametrize("shape", ["chain", "siblings", "circles"])
def test_deep_wide_and_circular_traces_take_linear_time(shape):
    count = 50_000
    numbers = np.arange(1, count + 1, dtype=np.uint64)
    parents = {"chain": numbers - 1, "siblings": (numbers > 1).astype(np.uint64), "circles": ((numbers - 1) ^ 1) + 1}

    tree = build_span_tree(
        span_ids=numbers,
        parent_ids=parents[shape].astype(np.uint64),
        starts=numbers.astype(np.int64),
        durations=np.full(count, 5, dtype=np.int64),
    )
    path = find_critical_path(tree)
    paths = merge_call_paths(tree, np.zeros(count, dtype=np.int64), np.zeros(count, dtype=bool))

    assert len(path) >= 1
    assert paths.count.sum() == count
    assert tree.parent.tolist().count(-1) == (count // 2 if shape == "circles" else 1)


@given(spans, st.lists(st.integers(0, 2), min_size=MAX_COUNT, max_size=MAX_COUNT))
def test_call_paths_add_up_to_the_self_times_of_all_spans(rows, labels):
    tree = tree_of(rows)
    labels = np.array(labels[: len(tree.start)], dtype=np.int64)
    paths = merge_call_paths(tree, labels, labels == 1)

    expected = {}
    for span in range(len(tree.start)):
        path, above = (), span
        while above >= 0:
            path, above = (int(labels[above]), *path), tree.parent[above]
        count, own = expected.get(path, (0, 0))
        expected[path] = (count + 1, own + tree.self_time[span])
    found = {}
    for node in range(len(paths.label)):
        path, above = (), node
        while above >= 0:
            path, above = (int(paths.label[above]), *path), paths.parent[above]
        found[path] = (paths.count[node], paths.self_time[node])
        assert paths.errors[node] == (paths.count[node] if paths.label[node] == 1 else 0)
        below = [other for other in range(len(paths.label)) if paths.parent[other] == node]
        assert paths.total[node] == paths.self_time[node] + sum(paths.total[other] for other in below)
    assert found == expected
