"""What it costs to read a large Delta table, beside a plain native plan and deltalake's own; printed, never judged.

Each figure is of a process of its own, so that none helps the next.
"""

import json
import subprocess
import sys

import pytest

from tests.benchmarks.delta_logs import process_id, write

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

PROCESS = process_id(2010)
STATEMENTS = {
    "one hour": "SELECT * FROM log_entries WHERE time >= '2026-10-10T10:00:00Z' AND time < '2026-10-10T11:00:00Z'",
    "latest 100": "SELECT * FROM log_entries ORDER BY time DESC LIMIT 100",
    "a process": f"SELECT time, level, msg FROM log_entries WHERE process_id = '{PROCESS}' ORDER BY time",
    "full scan": "SELECT exe, level, count(*), max(time) FROM log_entries GROUP BY 1, 2",
    "text": "SELECT count(*) FROM log_entries WHERE msg LIKE '%timeout retry%'",
}
ONE = """
import json, sys, time
from pathlib import Path
import pyarrow as pa

folder, way, sql = sys.argv[1:]

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) >> 10

if way == "ours":
    from micromegas_jupyter.core.protocols import AuthContext, AuthType
    from micromegas_jupyter.core.storage import Storage
    from micromegas_jupyter.engine.contract import EngineSettings, StatementRequest
    from micromegas_jupyter.engine.datafusion_engine import DataFusionEngine
    from micromegas_jupyter.lake.lake import Lake

    caller = AuthContext(subject="ann", issuer="none", auth_type=AuthType.NONE)
    engine = DataFusionEngine(Lake(Storage(folder)), EngineSettings())
    run = lambda: sum(batch.num_rows for batch in engine.plan(StatementRequest(sql=sql), caller).batches())
elif way == "native":
    from datafusion import SessionConfig, SessionContext

    options = {"datafusion.execution.parquet.pushdown_filters": "true"}
    session = SessionContext(SessionConfig(options).with_batch_size(65536))
    from deltalake import DeltaTable

    schema = pa.schema(DeltaTable(folder + "/log_entries").schema().to_arrow())
    schema = schema.remove(schema.get_field_index("date"))
    partition = [("date", pa.date32())]
    session.register_parquet(
        "log_entries", folder + "/log_entries/", schema=schema, table_partition_cols=partition
    )
    run = lambda: sum(batch.to_pyarrow().num_rows for batch in session.sql(sql).execute_stream())
else:
    from deltalake import DeltaTable, QueryBuilder

    table = DeltaTable(folder + "/log_entries")
    builder = QueryBuilder().register("log_entries", table)
    run = lambda: sum(batch.num_rows for batch in pa.RecordBatchReader.from_stream(builder.execute(sql)))
costs = []
for _ in range(5):
    wall, cpu = time.perf_counter(), time.process_time()
    rows = run()
    costs.append((1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu)))
print(json.dumps({"rows": rows, "first": costs[0], "best": min(costs), "peak": peak()}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, pytestconfig):
    folder = tmp_path_factory.mktemp("lake")
    write(folder, files=500, rows=40_000 if pytestconfig.getoption("--long") else 4_000)
    return str(folder)


@pytest.mark.parametrize("name", STATEMENTS)
def test_reading_beside_a_native_plan_and_deltalake(folder, say, name):
    lines = []
    for way in ("ours", "native", "QueryBuilder"):
        done = subprocess.run(
            [sys.executable, "-c", ONE, folder, way, STATEMENTS[name]], capture_output=True, text=True, check=True
        )
        cost = json.loads(done.stdout)
        first, best = (f"{wall:.0f} ms, {cpu:.0f} ms of CPU" for wall, cpu in (cost["first"], cost["best"]))
        lines.append(f"{name}, {way}: {cost['rows']} rows, first {first}; best {best}; peak {cost['peak']} MB")
    say("\n".join(lines))
