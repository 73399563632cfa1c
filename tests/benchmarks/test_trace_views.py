"""What the kernel's half of the trace views takes for 100,000 spans; printed, never judged."""

import gc
import random
import threading
import time
from contextlib import contextmanager

import psutil
import pyarrow as pa
import pytest

from micromegas_jupyter.client.flames import Flame
from micromegas_jupyter.client.traces import Trace
from micromegas_jupyter.notebook.trace_view import TraceView

pytestmark = pytest.mark.slow

HOUR = 1_800_000_000_000_000_000
NAMES = [f"{verb} {noun}" for verb in ("read", "write", "check", "send") for noun in "abcdefghij"]


def spans(traces, spans_per_trace):
    """Return well-formed trees: each child within its parent, with its name chosen from 40."""
    rng, rows = random.Random(7), []
    for trace in range(traces):
        tree = [(0, 10**9)]
        rows.append((trace, 1, None, HOUR + trace * 10**9, 10**9, "POST /orders"))
        while len(tree) < spans_per_trace:
            parent = rng.randrange(max(len(tree) // 3, 1))
            begin, size = tree[parent]
            start, duration = begin + rng.randrange(max(size // 2, 1)), max(rng.randrange(max(size // 2, 1)), 1)
            tree.append((start, duration))
            rows.append(
                (trace, len(tree), parent + 1, HOUR + trace * 10**9 + start, duration, NAMES[parent * 7 % len(NAMES)])
            )
    trace_ids, span_ids, parents, starts, durations, names = zip(*rows, strict=True)
    text = pa.dictionary(pa.int32(), pa.utf8())
    return pa.table(
        {
            "trace_id": pa.array([(trace + 1).to_bytes(16, "big") for trace in trace_ids], pa.binary(16)),
            "span_id": pa.array([span.to_bytes(8, "big") for span in span_ids], pa.binary(8)),
            "parent_span_id": pa.array([parent and parent.to_bytes(8, "big") for parent in parents], pa.binary(8)),
            "start_time": pa.array(starts, pa.timestamp("ns", "UTC")),
            "duration": pa.array(durations, pa.int64()),
            "name": pa.array(names).cast(text),
            "kind": pa.array(["INTERNAL"] * len(rows)).cast(text),
            "status": pa.array(["UNSET"] * len(rows)).cast(text),
            "exe": ["shop"] * len(rows),
        }
    )


@contextmanager
def peak_memory():
    """Give a list that receives by how many bytes this process grew at its highest."""
    found, is_over, process = [], threading.Event(), psutil.Process()
    gc.collect()
    before = process.memory_info().rss
    sizes = [before]

    def watch():
        while not is_over.wait(0.002):
            sizes.append(process.memory_info().rss)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield found
    finally:
        is_over.set()
        watching.join()
        found.append(max(sizes) - before)


def test_a_trace_of_99_000_spans_becomes_columns(say):
    Trace("0" * 31 + "1", spans(1, 10))  # loads what it needs
    rows = spans(1, 99_000)
    with peak_memory() as growth:
        began = time.perf_counter()
        trace = Trace("0" * 31 + "1", rows)
        built = time.perf_counter()
        _, buffers = TraceView(trace).reply({"op": "spans"})
        packed = time.perf_counter()

    say(
        f"tree {1000 * (built - began):.0f} ms, columns {1000 * (packed - built):.0f} ms, "
        f"{sum(map(len, buffers)) / 1e6:.1f} MB sent, {growth[0] / 1e6:+.0f} MB at the peak"
    )


def test_300_traces_of_330_spans_are_merged(say):
    rows, seconds = spans(303, 330), []
    for _ in range(3):
        began = time.perf_counter()
        flame = Flame("shop", rows)
        seconds.append(time.perf_counter() - began)

    say(f"{rows.num_rows:,} spans, {flame.paths.num_rows:,} call paths in {min(seconds):.2f} s")
