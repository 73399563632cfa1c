"""The arithmetic of traces: tree, order, self time, critical path, and call paths, in integer nanoseconds."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
_LATEST: Final = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanTree:
    """Spans in waterfall order: each before its children, and siblings by start time.

    All arrays have one element per span. The spans of a subtree are adjacent, so the next sibling of span `i` is
    `i + size[i]`.
    """

    rows: Integers
    """The row of each span in the arrays from which the tree was built."""
    parent: Integers
    """The index of the parent in this order, or -1."""
    size: Integers
    """The number of spans in the subtree, including its root."""
    depth: Integers
    start: Integers
    duration: Integers
    self_time: Integers
    """The part of the duration that no child covers."""
    is_orphan: NDArray[np.bool_]
    """Whether the span has a parent that isn't among the spans: lost, not received yet, or hidden from the caller."""

    @property
    def end(self) -> Integers:
        """Return the end times."""
        return self.start + self.duration


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment of the critical path, during which only this span kept the trace from ending earlier."""

    span: int
    begin: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPaths:
    """Spans merged by their labels from the root down. A path comes before the paths below it."""

    parent: Integers
    label: Integers
    self_time: Integers
    total: Integers
    """The self times of the path and of all paths below it, so that widths add up even if children ran in parallel."""
    count: Integers
    errors: Integers
    path_of: Integers
    """The path of each span."""


def build_span_tree(
    *,
    span_ids: NDArray[np.uint64],
    parent_ids: NDArray[np.uint64],
    starts: Integers,
    durations: Integers,
    trace_ids: NDArray[np.uint64] | None = None,
) -> SpanTree:
    """Return the tree of spans, which may be incomplete, sent twice, or malformed.

    A span that was sent twice counts once. If spans are each other's ancestors (or their own), the earliest becomes a
    root. An ID of 0, which OpenTelemetry doesn't allow, means a missing ID. `trace_ids` distinguishes spans of several
    traces; negative durations count as 0.
    """
    # IDs and traces become small numbers, so that one integer identifies a span.
    codes = np.unique(np.concatenate((span_ids, parent_ids)), return_inverse=True)[1].astype(np.int64)
    traces = 0 if trace_ids is None else np.unique(trace_ids, return_inverse=True)[1].astype(np.int64) * len(codes)
    keys, rows = np.unique(codes[: len(span_ids)] + traces, return_index=True)
    wanted = (codes[len(span_ids) :] + traces)[rows]
    starts = starts[rows]
    durations = np.minimum(np.maximum(durations[rows], 0), _LATEST - np.maximum(starts, 0))
    found = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
    has_parent = (parent_ids[rows] != 0) & (wanted != keys)
    is_found = has_parent & (keys[found] == wanted)
    parents = np.where(is_found, found, -1)
    depths = _cut_cycles(parents, starts)

    by_depth = np.lexsort((starts, depths))
    parent_list, sizes = parents.tolist(), [1] * len(keys)
    downwards = by_depth.tolist()
    for span in reversed(downwards):
        if parent_list[span] >= 0:
            sizes[parent_list[span]] += sizes[span]
    positions, next_positions, next_root = [0] * len(keys), [0] * len(keys), 0
    for span in downwards:
        parent = parent_list[span]
        if parent >= 0:
            position = next_positions[parent]
            next_positions[parent] += sizes[span]
        else:
            position = next_root
            next_root += sizes[span]
        positions[span], next_positions[span] = position, position + 1
    order, places = np.argsort(positions), np.array(positions, dtype=np.int64)
    parents = parents[order]
    starts, durations = starts[order], durations[order]
    ordered_parents = np.where(parents >= 0, places[parents], -1)
    return SpanTree(
        rows=rows[order],
        parent=ordered_parents,
        size=np.array(sizes, dtype=np.int64)[order],
        depth=depths[order],
        start=starts,
        duration=durations,
        self_time=_measure_self_times(ordered_parents, starts, durations),
        is_orphan=(has_parent & ~is_found)[order],
    )


def find_critical_path(tree: SpanTree) -> list[Segment]:
    """Return the longest root's critical path as segments ordered by time; they add up to the root's duration.

    From the root's end backwards, the path follows the child that ended last. A child counts only within its parent.
    """
    if not len(tree.start):
        return []
    roots = np.flatnonzero(tree.parent < 0)
    root = int(roots[np.argmax(tree.duration[roots])])
    starts, ends, sizes = tree.start.tolist(), tree.end.tolist(), tree.size.tolist()

    def list_children(span: int) -> list[int]:
        """Return the children in order of their end times."""
        children, child, last = [], span + 1, span + sizes[span]
        while child < last:
            children.append(child)
            child += sizes[child]
        return sorted(children, key=lambda each: ends[each])

    segments: list[Segment] = []
    # Spans on the way down: the span, the start of its part, and its remaining children.
    stack = [(root, starts[root], list_children(root))]
    until = ends[root]
    while stack:
        span, begin, children = stack[-1]
        child = -1
        while children and until > begin:
            child = children.pop()
            if min(ends[child], until) > max(starts[child], begin):
                break
            child = -1
        if child < 0:
            if until > begin:
                segments.append(Segment(span, begin, until))
                until = begin
            stack.pop()
            continue
        if until > ends[child]:
            segments.append(Segment(span, ends[child], until))
            until = ends[child]
        stack.append((child, max(starts[child], begin), list_children(child)))
    return segments[::-1]


def merge_call_paths(tree: SpanTree, labels: Integers, is_error: NDArray[np.bool_]) -> CallPaths:
    """Merge spans that have the same labels from the root down; `labels` and `is_error` are in the tree's order."""
    node_of_key: dict[tuple[int, int], int] = {}
    nodes: list[int] = []
    for parent, label in zip(tree.parent.tolist(), labels.tolist(), strict=True):
        key = (nodes[parent] if parent >= 0 else -1, label)
        nodes.append(node_of_key.setdefault(key, len(node_of_key)))
    count = len(node_of_key)
    keys = np.array(list(node_of_key), dtype=np.int64).reshape(-1, 2)
    self_times = np.zeros(count, dtype=np.int64)
    np.add.at(self_times, nodes, tree.self_time)
    totals, parents = self_times.tolist(), keys[:, 0].tolist()
    for node in range(count - 1, -1, -1):
        if parents[node] >= 0:
            totals[parents[node]] += totals[node]
    return CallPaths(
        parent=keys[:, 0],
        label=keys[:, 1],
        self_time=self_times,
        total=np.array(totals, dtype=np.int64),
        count=np.bincount(nodes, minlength=count),
        errors=np.bincount(nodes, weights=is_error, minlength=count).astype(np.int64),
        path_of=np.array(nodes, dtype=np.int64),
    )


def _cut_cycles(parents: Integers, starts: Integers) -> Integers:
    """Make the earliest span of each parent cycle a root, in place, and return the depth of each span."""
    steps = len(parents).bit_length()
    depths, ancestors = _climb(parents, steps)
    is_on_cycle = ancestors[ancestors >= 0]
    if not len(is_on_cycle):
        return depths
    # Each step doubles the distance at which a span finds the earliest one on its cycle.
    members = np.unique(is_on_cycle)
    ranks = np.empty(len(parents), dtype=np.int64)
    ranks[np.lexsort((np.arange(len(parents)), starts))] = np.arange(len(parents))
    earliest, ahead = ranks.copy(), np.where(parents >= 0, parents, np.arange(len(parents)))
    for _ in range(steps):
        earliest = np.minimum(earliest, earliest[ahead])
        ahead = ahead[ahead]
    parents[members[earliest[members] == ranks[members]]] = -1
    return _climb(parents, steps)[0]


def _climb(parents: Integers, steps: int) -> tuple[Integers, Integers]:
    """Return each span's number of ancestors, and an ancestor of spans on or below a cycle, otherwise -1."""
    depths, ancestors = (parents >= 0).astype(np.int64), parents
    for _ in range(steps):
        is_inside = ancestors >= 0
        if not is_inside.any():
            break
        depths = depths + np.where(is_inside, depths[ancestors], 0)
        ancestors = np.where(is_inside, ancestors[ancestors], -1)
    return depths, ancestors


def _measure_self_times(parents: Integers, starts: Integers, durations: Integers) -> Integers:
    """Return the part of each span that no child covers; the time of parallel children counts once."""
    children = np.flatnonzero(parents >= 0)
    children = children[np.lexsort((starts[children], parents[children]))]
    of = parents[children]
    begins = np.clip(starts[children], starts[of], starts[of] + durations[of]) - starts[of]
    ends = np.clip(starts[children] + durations[children], starts[of], starts[of] + durations[of]) - starts[of]
    covered = [0] * len(parents)
    previous, reached = -1, 0
    for parent, begin, end in zip(of.tolist(), begins.tolist(), ends.tolist(), strict=True):
        if parent != previous:
            previous, reached = parent, 0
        if end > reached:
            covered[parent] += end - max(begin, reached)
            reached = end
    return durations - np.array(covered, dtype=np.int64)
