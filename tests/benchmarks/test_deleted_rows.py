"""What deletion vectors and mapped columns cost, beside tables without them and deltalake; printed, never judged.

Each way is a process of its own with the allocator's settings of executors. CPU time is the median of several runs in
three rounds in turns, and memory the peak after the first run.
"""

import json
import os
import statistics
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.executors.zygote import VARIABLES
from tests.fakes.delta_tables import delete_rows, write_mapped

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

ROUNDS = 3
STATEMENTS = {
    "sum": "SELECT count(*), sum(x), min(n) FROM {}",
    "filter": "SELECT count(*), sum(x) FROM {} WHERE n % 100 <> 1",
    "group": "SELECT tenant, avg(x) FROM {} GROUP BY tenant",
    "count": "SELECT count(*) FROM {}",
    "lookup": "SELECT * FROM {} WHERE n = 123457",
    "all": "SELECT * FROM {}",
    "text": "SELECT max(text), count(*) FROM {} WHERE text LIKE '%99%'",
    "cast": "SELECT sum(CAST(text AS BIGINT)) FROM {}",
}
WAYS = (
    ("ours", "plain"),
    ("ours", "deleted"),
    ("deltalake", "deleted"),
    ("ours", "mapped"),
    ("ours", "unmapped"),
)
ONE = """
import json, statistics, sys, time
from pathlib import Path
import pyarrow as pa

folder, way, table, sql = sys.argv[1:]
if way == "ours":
    from micromegas_jupyter.core.protocols import AuthContext, AuthType
    from micromegas_jupyter.core.storage import Storage
    from micromegas_jupyter.engine.contract import EngineSettings, StatementRequest
    from micromegas_jupyter.engine.datafusion_engine import DataFusionEngine
    from micromegas_jupyter.lake.served_folder import ServedFolder

    caller = AuthContext(subject="ann", issuer="none", auth_type=AuthType.NONE)
    engine = DataFusionEngine(ServedFolder(Storage(folder)), EngineSettings())
    engine.warm()
    request = StatementRequest(sql=sql.format(table))
    run = lambda: sum(batch.num_rows for batch in engine.plan(request, caller).batches())
else:
    from deltalake import DeltaTable, QueryBuilder

    builder = QueryBuilder().register("t", DeltaTable(f"{folder}/{table}"))
    run = lambda: sum(pa.record_batch(batch).num_rows for batch in builder.execute(sql.format("t")))

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) >> 10

run()
memory, times = peak(), []
for _ in range(5):
    started = time.process_time()
    run()
    times.append(1000 * (time.process_time() - started))
print(json.dumps([statistics.median(times), memory]))
"""


def rows_of(number, count):
    n = np.arange(count) + number * count
    text = (n * 7919 % 1_000_003).astype(str)
    tenant = np.array(["a", "b", "c", "d"])[n % 4]
    return pa.table({"n": n, "x": np.random.default_rng(number).random(count), "tenant": tenant, "text": text})


def run(folder, way, table, sql):
    command = [sys.executable, "-c", ONE, str(folder), way, table, sql]
    return json.loads(subprocess.run(command, env=os.environ | VARIABLES, capture_output=True, check=True).stdout)


@pytest.mark.parametrize(("files", "count"), [(10, 500_000), (400, 1_000)])
def test_deleted_rows_and_mapped_columns(tmp_path, files, count):
    storage, names = Storage(tmp_path), {name: f"col-{name}" for name in ("n", "x", "tenant", "text")}
    parts = [rows_of(number, count) for number in range(files)]
    for part in parts:
        for table in ("plain", "deleted"):
            write_deltalake(storage.child_uri(table), part, mode="append")
    delete_rows(storage, "deleted", lambda _, rows: range(0, rows, 100))
    write_mapped(storage, "mapped", parts, mode="name", physical=names)
    write_mapped(storage, "unmapped", parts, mode="name", physical={name: name for name in names})

    print(f"\n{files} files of {count:,} rows: CPU ms, peak MB")
    for name, sql in STATEMENTS.items():
        rounds = [{key: run(tmp_path, *key, sql) for key in WAYS} for _ in range(ROUNDS)]
        found = {" ".join(key): [statistics.median(one[key][at] for one in rounds) for at in (0, 1)] for key in WAYS}
        cpu, memory = ({key: one[place] for key, one in found.items()} for place in (0, 1))
        print(
            f"{name:8}",
            *(f"{key} {cpu[key]:.0f}/{memory[key]}" for key in found),
            f"| deleted: {cpu['ours deleted'] / cpu['deltalake deleted']:.2f} of deltalake's CPU,",
            f"{memory['ours deleted'] / memory['ours plain']:.2f} of the memory without vectors",
            f"| mapped: {cpu['ours mapped'] / cpu['ours unmapped']:.2f}",
        )
