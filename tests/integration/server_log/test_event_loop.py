"""Nothing slow runs on the server's event loop, and a loop that is blocked is reported."""

import asyncio
import gc
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests

from micromegas_jupyter import FlightSQLClient
from micromegas_jupyter.config.server import ServerSettings
from micromegas_jupyter.server import flight_server
from micromegas_jupyter.wiring import server as wiring
from tests.fakes.waiting import DEADLINE_SECONDS, wait_until

pytestmark = pytest.mark.integration

MAX_CALLBACK_SECONDS = 0.020
STATEMENT_BYTES = 100_000
CALLERS = 3
TABLE = "many_files"
LAG = "micromegas_server_loop_lag_seconds "
ID = pa.schema([("id", pa.int64())])


class CallbackMeter:
    """Measures the CPU time of each callback on the server's event loop; a context manager."""

    def __init__(self, patch):
        self._patch = patch
        self.longest = []

    def __enter__(self):
        gc.collect()
        gc.freeze()  # as the server does
        run = asyncio.Handle._run

        def measured(handle):
            began = time.thread_time()
            run(handle)
            if threading.current_thread().name == "flight-server":
                self.longest.append((time.thread_time() - began, repr(handle)[:300]))
                if len(self.longest) > 1000:
                    self.longest = sorted(self.longest)[-10:]

        self._patch.setattr(asyncio.Handle, "_run", measured)
        # uvloop calls callbacks from C, where nothing can be measured. The server's own code is the same.
        self._patch.setattr(flight_server, "_new_event_loop", asyncio.new_event_loop)
        return self

    def __exit__(self, *_error):
        self._patch.undo()
        self.longest = sorted(self.longest)[-10:]


def add_action(number):
    stats = {"numRecords": 1, "minValues": {"id": number}, "maxValues": {"id": number}, "nullCount": {"id": 0}}
    return {
        "add": {
            "path": f"part-{number:05}-of-the-table-with-a-name-as-long-as-others.parquet",
            "partitionValues": {}, "size": 500, "modificationTime": 1_700_000_000_000, "dataChange": True,
            "stats": json.dumps(stats),
        }
    }  # fmt: skip


class ManyFiles:
    """A Delta table of many small files, which `commit` adds another one to."""

    def __init__(self, folder, count):
        self._folder = folder
        (folder / "_delta_log").mkdir(parents=True)
        self._numbers = iter(range(10**9))
        self._file = folder / "source"
        pq.write_table(pa.table({"id": [0]}, schema=ID), self._file)
        schema = {"type": "struct", "fields": [{"name": "id", "type": "long", "nullable": True, "metadata": {}}]}
        actions = [
            {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}},
            {
                "metaData": {
                    "id": "0" * 8, "format": {"provider": "parquet", "options": {}}, "partitionColumns": [],
                    "schemaString": json.dumps(schema), "configuration": {}, "createdTime": 1_700_000_000_000,
                }
            },
        ]  # fmt: skip
        self._version = 0
        self._commit(actions + [self._add() for _ in range(count)])

    def commit(self):
        self._commit([self._add()])

    def _add(self):
        action = add_action(next(self._numbers))
        os.link(self._file, self._folder / action["add"]["path"])
        return action

    def _commit(self, actions):
        name = self._folder / "_delta_log" / f"{self._version:020}.json"
        self._version += 1
        name.with_suffix(".new").write_text("\n".join(map(json.dumps, actions)))
        name.with_suffix(".new").rename(name)


def long_statement(start, separator, end=""):
    """Return a statement of about `STATEMENT_BYTES`."""
    pieces, size = [start], len(start) + len(end)
    while size < STATEMENT_BYTES:
        pieces.append(separator.format(len(pieces)))
        size += len(pieces[-1])
    return "".join([*pieces, end])


LONG_STATEMENTS = (
    long_statement("SELECT 1 AS partition WHERE 0 IN (0", ", {}", ")"),
    long_statement("SELECT 'running_queries' || '", "it''s "[:5] + "{}", "'"),
    long_statement(f"SELECT count(*) FROM {TABLE} WHERE id = -1 AND 'a' <> '", " {}", "'"),
    long_statement("SELECT 1 /*", " show from partition {}", "*/"),
    long_statement("SELECT 1 --", " 'show \"{} /*"),
)


def test_no_callback_of_the_event_loop_takes_long(tmp_path, monkeypatch, pytestconfig):
    files, rounds = (20_000, 20) if pytestconfig.getoption("--long") else (2_000, 2)
    table = ManyFiles(tmp_path / "lake" / TABLE, files)
    denials = tmp_path / "denials.json"
    rule = {
        "rule_id": "1", "created_at": "2026-11-24T12:00:00Z", "created_by": "ann", "reason": "a test",
        "match_expr": "sql_hash = 'no-such-statement'",
    }  # fmt: skip
    denials.write_text(json.dumps({"version": 1, "rules": [rule]}))
    denials.chmod(0o600)
    settings = ServerSettings(
        lake=str(tmp_path / "lake"), port=0, disable_auth=True, no_telemetry=True, no_http=True,
        query_denials_file=denials, drain_timeout_seconds=1.0,
    )  # fmt: skip

    def call(server, number):
        with FlightSQLClient(server.uri) as client:
            for place in range(rounds):
                table_rows = client.query_arrow(f"SELECT id FROM {TABLE} WHERE id = {-1 - place}")
                assert table_rows.num_rows == 0
                for sql in LONG_STATEMENTS:
                    assert client.query_arrow(sql).num_rows == 1
                if number == 0:
                    table.commit()

    with (
        CallbackMeter(monkeypatch) as meter,
        wiring.ServerStack(settings, environ={}) as server,
        ThreadPoolExecutor(CALLERS) as threads,
    ):
        list(threads.map(lambda number: call(server, number), range(CALLERS)))

    seconds, callback = meter.longest[-1]
    print(f"the longest callback took {seconds * 1000:.1f} ms of CPU time: {callback}")
    assert seconds < MAX_CALLBACK_SECONDS, meter.longest


def test_a_blocked_event_loop_is_measured_and_reported(tmp_path, monkeypatch):
    settings = ServerSettings(lake=str(tmp_path / "lake"), port=0, disable_auth=True, no_telemetry=True)
    may_continue = threading.Event()
    with wiring.ServerStack(settings, environ={}) as server:

        def get(path):
            return requests.get(f"{server.http_url}{path}", timeout=DEADLINE_SECONDS)

        def lag():
            lines = get("/metrics").text.splitlines()
            return float(next(line for line in lines if line.startswith(LAG)).rpartition(" ")[2])

        assert (get("/ready").status_code, lag() < 1) == (200, True)
        server._server._loop.call_soon_threadsafe(may_continue.wait, DEADLINE_SECONDS)

        wait_until(lambda: get("/ready").json().get("reason") == "loop", "it is not ready")
        assert lag() > 2
        assert get("/health").status_code == 200
        with monkeypatch.context() as patch:
            patch.setattr(wiring, "MAX_ALIVE_LAG_SECONDS", 2.0)
            assert get("/health").status_code == 503

        may_continue.set()
        wait_until(lambda: get("/ready").status_code == 200, "it is ready again")
        assert lag() > 2  # of the last minute
