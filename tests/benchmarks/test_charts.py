"""What a chart of a million rows takes; printed, never judged."""

import json
import time

import numpy as np
import pyarrow as pa
import pytest

from micromegas_jupyter.notebook.charts.chart import Chart

pytestmark = [pytest.mark.slow]
ROWS, TRIES = 1_000_000, 5


def tables():
    random = np.random.default_rng(1)
    at = pa.array(np.arange(ROWS) * 1_000_000).cast(pa.timestamp("us", "UTC"))
    values = random.normal(0, 1, ROWS)
    hosts = pa.array([f"host-{number}" for number in range(8)]).take(pa.array(np.arange(ROWS) % 8))
    yield "line", pa.table({"time": at, "value": values})
    yield "lines of 8 hosts", pa.table({"time": at, "host": hosts.dictionary_encode(), "value": values})
    yield "points", pa.table({"a": values, "b": random.gamma(2, 1, ROWS)})
    yield "histogram", pa.table({"a": values})
    yield "rows over time", pa.table({"time": at, "host": hosts})


def test_a_chart_of_a_million_rows(say):
    lines = []
    for name, table in tables():
        wall, processor = [], []
        for _ in range(TRIES):
            began = time.perf_counter(), time.process_time()
            chart = Chart(table)
            wall.append(time.perf_counter() - began[0])
            processor.append(time.process_time() - began[1])
        kilobytes = sum(len(json.dumps(value)) for value in chart._repr_mimebundle_()[0].values()) / 1000
        lines.append(
            f"  {name}: {min(wall):.2f} s, {min(processor):.2f} s of processor, {kilobytes:.0f} kB with picture"
        )
    say("\n".join([f"charts of {ROWS:,} rows:", *lines]))
