"""Processes around a view until they are killed: `python -m tests.integration.lakehouse.refreshing ROLE ROOT`."""

import datetime as dt
import itertools
import random
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pyarrow as pa

from micromegas_jupyter.core.protocols import AuthContext, AuthType, WriteMode, WriteRequest
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.engine.contract import EngineSettings, StatementRequest
from micromegas_jupyter.engine.datafusion_engine import DataFusionEngine
from micromegas_jupyter.errors import Unavailable
from micromegas_jupyter.executors.views import check_definition, refresh_view
from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.lake.maintenance import MaintenanceSettings, optimize, run_round
from micromegas_jupyter.lake.tables import Tables
from micromegas_jupyter.lake.writer import LakeWriter
from micromegas_jupyter.telemetry.view_definitions import parse_view_statement
from tests.fakes.fixed_tables import FixedTables

SCHEMA = pa.schema([("time", pa.timestamp("us", "UTC")), ("key", pa.int64())])
KEPT_DAYS = 3
EXTRACT = "SELECT date_bin(INTERVAL '1 minute', time) AS time_bin, key, count(*) AS n FROM events GROUP BY 1, 2"
VIEW = parse_view_statement(
    f"""CREATE MATERIALIZED VIEW per_minute WITH (extract_query = $${EXTRACT}$$, update_group = 1,
        count_src_query = 'SELECT count(*) AS count FROM blocks WHERE insert_time BETWEEN {{begin}} AND {{end}}',
        merge_partitions_query = 'SELECT time_bin, key, sum(n) AS n FROM {{source}} GROUP BY 1, 2',
        time_column = 'time_bin')"""
).definition
# Longer than a round of work takes, so that some commit succeeds: moto takes a second for what a disk does at once.
_PAUSE_SECONDS, _BUCKET_PAUSE_SECONDS = 0.2, 3.0
_REPOSITORY = Path(__file__).parents[3]
_SETTINGS = EngineSettings(memory_limit_bytes=256 << 20)
_ADMIN = AuthContext(subject="ann", issuer="none", auth_type=AuthType.NONE, is_admin=True)


def make(root):
    """Make a table with a retention, and its view."""
    storage = Storage(root)
    _store(LakeWriter(storage, interval_seconds=0), WriteMode.CREATE)
    tables = Tables(storage)
    facts = check_definition(Lake(storage).snapshot(), _SETTINGS, VIEW)
    schema = pa.ipc.read_schema(pa.py_buffer(bytes.fromhex(facts["schema"])))
    tables.create_view(VIEW, schema, source=facts["source"], replaces=False, owner="ann", updated_by="ann")
    for name in ("events", VIEW.name):
        tables.set_retention(name, KEPT_DAYS)


def _store(writer, mode=WriteMode.APPEND):
    """Store rows of the last minutes, some late ones, and some that retention is about to delete."""
    now = dt.datetime.now(dt.UTC)
    hours = [random.choice([0, 0, 0, 1, 40, 24 * (KEPT_DAYS + 2)]) for _ in range(random.randint(1, 500))]
    times = [now - dt.timedelta(hours=hour, seconds=random.randint(0, 300)) for hour in hours]
    rows = pa.table({"time": times, "key": [random.randint(0, 4) for _ in hours]}, schema=SCHEMA)
    write = writer.open_write(WriteRequest(table="events", mode=mode, may_read=True), SCHEMA)
    write.write(rows.to_batches()[0])
    write.commit()


def _pause(root):
    seconds = _BUCKET_PAUSE_SECONDS if str(root).startswith("s3://") else _PAUSE_SECONDS
    return not threading.Event().wait(seconds * random.uniform(0.5, 1.5))


def write(root):
    writer = LakeWriter(Storage(root), interval_seconds=0)
    while _pause(root):  # else files become more than a round of compaction takes
        _store(writer)
        yield


def refresh(root):
    while _pause(root):  # else refreshers leave no processor to the others
        refresh_view(Storage(root), _SETTINGS, VIEW.name)
        yield


def change(root):
    """Compact the table, delete rows as retention does, and, seldom, as a user."""
    storage, settings = Storage(root), MaintenanceSettings(min_small_files=4, checkpoint_commits=20)
    for number in itertools.count():
        _pause(root)
        optimize(storage, "events")
        run_round(storage, settings=settings)
        if number % 3 == 1:
            before = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=3)
            Tables(storage).delete("events", f"key = {random.randint(0, 4)} AND time < '{before.isoformat()}'")
        yield


def compare(root):
    """Return how many rows the view has, or fail if it has others than the direct query over the same versions."""
    tables = FixedTables(list(Lake(Storage(root)).snapshot("events per_minute")))
    kept = (dt.datetime.now(dt.UTC) - dt.timedelta(days=KEPT_DAYS - 1)).date()

    def rows(source):
        order = f"SELECT time_bin::TIMESTAMP, key, n FROM {source} AS r WHERE time_bin >= '{kept}' ORDER BY 1, 2"
        with closing(DataFusionEngine(tables, _SETTINGS)) as engine:
            planned = engine.plan(StatementRequest(sql=order), _ADMIN)
            return pa.Table.from_batches(list(planned.batches()), planned.schema)

    view, direct = rows(VIEW.name), rows(f"({EXTRACT})")
    assert view.to_pylist() == direct.to_pylist()
    return view.num_rows


class Child:
    """A process with a role, which says when it has done something."""

    def __init__(self, role, root):
        self.role = role
        arguments = [sys.executable, "-m", "tests.integration.lakehouse.refreshing", role, str(root)]
        self._process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=_REPOSITORY)

    def wait_for_work(self):
        assert self._process.stdout.readline() == "done\n"

    def kill(self):
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


def main(role, root):
    work = {"write": write, "refresh": refresh, "change": change}[role](root)
    while True:
        try:
            for _ in work:
                print("done", flush=True)
        except Unavailable:  # others changed the table all the time
            work = {"write": write, "refresh": refresh, "change": change}[role](root)


if __name__ == "__main__":
    main(*sys.argv[1:])
