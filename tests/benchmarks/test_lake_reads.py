"""What it costs to read a large Delta table, beside a plain native plan and deltalake's own; printed, never judged.

Each way is a process of its own that runs one statement again and again, in turns with the others, so that the load of
the machine is the same for all. Memory is what the first run added to the process: what its libraries take is not
counted, and an executor shares most of that with others.
"""

import contextlib
import json
import statistics
import subprocess
import sys

import pytest

from tests.benchmarks.delta_logs import process_id, write, write_links

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

PROCESS = process_id(2010)
STATEMENTS = {
    "one hour": "SELECT * FROM log_entries WHERE time >= '2026-10-10T10:00:00Z' AND time < '2026-10-10T11:00:00Z'",
    "latest 100": "SELECT * FROM log_entries ORDER BY time DESC LIMIT 100",
    "a process": f"SELECT time, level, msg FROM log_entries WHERE process_id = '{PROCESS}' ORDER BY time",
    "full scan": "SELECT exe, level, count(*), max(time) FROM log_entries GROUP BY 1, 2",
    "text": "SELECT count(*) FROM log_entries WHERE msg LIKE '%timeout retry%'",
}
COUNT = "SELECT count(*), max(level) FROM log_entries"
WAYS = ("ours", "previous", "native", "QueryBuilder")
ONE = """
import json, sys, time
from pathlib import Path
import pyarrow as pa

folder, way, sql = sys.argv[1:]

def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) >> 10

if way in {"ours", "previous"}:
    from micromegas_jupyter.core.protocols import AuthContext, AuthType
    from micromegas_jupyter.core.storage import Storage
    from micromegas_jupyter.engine.contract import EngineSettings, StatementRequest
    from micromegas_jupyter.engine.datafusion_engine import DataFusionEngine
    from micromegas_jupyter.lake.lake import Lake

    caller = AuthContext(subject="ann", issuer="none", auth_type=AuthType.NONE)
    lake = Lake(Storage(folder))
    engine = DataFusionEngine(lake, EngineSettings())
    lake.snapshot()
    engine.warm()  # as executors do before their first statement
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
for _ in sys.stdin:
    Path("/proc/self/clear_refs").write_text("5")  # from here on the peak is a new one
    before, wall, cpu = memory("VmRSS"), time.perf_counter(), time.process_time()
    rows = run()
    wall, cpu = 1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu)
    print(json.dumps({"rows": rows, "wall": wall, "cpu": cpu, "memory": memory("VmHWM") - before}), flush=True)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, pytestconfig):
    folder = tmp_path_factory.mktemp("lake")
    write(folder, files=500, rows=40_000 if pytestconfig.getoption("--long") else 4_000)
    return str(folder)


@pytest.mark.parametrize("name", STATEMENTS)
def test_reading_beside_a_native_plan_and_deltalake(folder, say, name, pytestconfig):
    compare(name, STATEMENTS[name], folder, pytestconfig, say)


def test_counting_over_120_files(tmp_path, say, pytestconfig):
    write(tmp_path, files=120, rows=10_000 if pytestconfig.getoption("--long") else 1_000)

    compare("count over 120 files", COUNT, str(tmp_path), pytestconfig, say)


def test_one_hour_in_many_files(tmp_path, say, pytestconfig):
    files = 20_000 if pytestconfig.getoption("--long") else 2_000
    write_links(tmp_path, files=files)

    compare(f"one hour of {files:,} files", STATEMENTS["one hour"], str(tmp_path), pytestconfig, say)


def compare(name, sql, folder, pytestconfig, say):
    rounds = 11 if pytestconfig.getoption("--long") else 4
    pythons = dict.fromkeys(WAYS, sys.executable) | {"previous": pytestconfig.getoption("--previous")}
    costs = {way: [] for way, python in pythons.items() if python}
    with contextlib.ExitStack() as stack:
        children = {}
        for way in costs:
            command = [pythons[way], "-c", ONE, folder, way, sql]
            # Python finds modules in its working directory first, and another version must find its own.
            child = subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            children[way] = stack.enter_context(child)
        for _ in range(rounds):
            for way, child in children.items():
                child.stdin.write("again\n")
                child.stdin.flush()
                costs[way].append(json.loads(child.stdout.readline()))
    lines = []
    for way, (first, *later) in costs.items():
        assert first["rows"] == costs["ours"][0]["rows"]
        wall, cpu = (statistics.median(cost[what] for cost in later) for what in ("wall", "cpu"))
        pairs = zip(costs["ours"][1:], later, strict=True)
        ratios = sorted(own["cpu"] / cost["cpu"] for own, cost in pairs)
        lines.append(
            f"{name}, {way}: {first['rows']} rows, first {first['cpu']:.0f} ms of CPU, {first['memory']} MB; then "
            f"{wall:.0f} ms, {cpu:.0f} ms of CPU; ours is {statistics.median(ratios):.2f} times that "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )
    say("\n".join(lines))
