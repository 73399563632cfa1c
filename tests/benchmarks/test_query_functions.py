"""What a million calls of functions of properties and histograms cost, beside a plain column; printed, never judged."""

import random
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.core.jsonb import encode
from micromegas_jupyter.core.protocols import TableSnapshot
from tests.fakes.fixed_tables import data_files
from tests.unit.engine.conftest import asking

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROWS, DISTINCT, RUNS = 1_000_000, 1000, 5
PLAIN = "SELECT count(*) FROM t WHERE host = 'host-7'"
STATEMENTS = {
    "property_get": "SELECT count(*) FROM t WHERE property_get(p, 'host') = 'host-7'",
    "property_get of a map": "SELECT count(*) FROM t WHERE property_get(m, 'host') = 'host-7'",
    "group by property_get": "SELECT property_get(p, 'host'), count(*) FROM t GROUP BY 1",
    "group by the column": "SELECT host, count(*) FROM t GROUP BY 1",
    "all of property_get": "SELECT property_get(p, 'host') FROM t",
    "all of the column": "SELECT host FROM t",
    "jsonb_path_query_first": "SELECT count(*) FROM t WHERE jsonb_path_query_first(p, '$.host') IS NULL",
    "make_histogram": "SELECT make_histogram(0, 1000, 100, v) FROM t",
    "50 histograms": "SELECT host, make_histogram(0, 1000, 100, v) FROM t GROUP BY 1",
}


def _write(folder):
    chooser = random.Random(1)
    codes = [chooser.randrange(DISTINCT) for _ in range(ROWS)]
    pods = [
        {"region": "eu", "host": f"host-{code % 50}", "pod": f"pod-{code}", "version": "1.2"}
        for code in range(DISTINCT)
    ]
    indices = pa.array(codes, pa.int32())
    maps = pa.array([list(pod.items()) for pod in pods], pa.map_(pa.string(), pa.string()))
    rows = pa.table(
        {
            "p": pa.DictionaryArray.from_arrays(indices, pa.array([encode(pod) for pod in pods])),
            "host": pa.DictionaryArray.from_arrays(indices, pa.array([pod["host"] for pod in pods])),
            "m": maps.take(indices),
            "v": pa.array(codes, pa.float64()),
        }
    )
    pq.write_table(rows, folder / "t.parquet")
    return TableSnapshot(name="t", schema=rows.schema, files=data_files(folder / "t.parquet"))


def test_functions_beside_a_plain_column(tmp_path, capsys):
    with asking([_write(tmp_path)]) as everything:
        some = everything.seeing({"t": ("v >= 0",)})
        with capsys.disabled():
            for who, ask in (("all rows", everything), ("with a row filter", some)):
                plain = _best(ask, PLAIN)
                print(f"\n{who}: a comparison of a plain column {plain:.1f} ms")
                for name, sql in STATEMENTS.items():
                    found = _best(ask, sql)
                    print(f"  {name:24} {found:8.1f} ms  x {found / plain:.2f}")


def _best(ask, sql):
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        ask.table(sql)
        times.append(time.perf_counter() - started)
    return min(times) * 1e3
