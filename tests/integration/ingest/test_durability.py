"""Acknowledged rows outlive a killed server; a client that left or stalls, or a full disk, leaves nothing behind."""

import fcntl
import json
import logging
import os
import subprocess
import sys
import threading
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import grpc
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from micromegas_jupyter.auth import StaticTokenAuthProvider
from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.errors import DeadlineExceeded, MicromegasError, ResourcesExhausted
from micromegas_jupyter.executors.settings import IngestSettings
from micromegas_jupyter.flightsql.commands import ERROR_DETAILS_KEY, decode_error
from micromegas_jupyter.server import ingest
from micromegas_jupyter.server.ingest import check_may_ingest
from tests.fakes.waiting import wait_until
from tests.integration.flight_harness import ALICE, FLIGHT
from tests.integration.ingest.lake_server import create_command, ingest_frames, lake_server

pytestmark = pytest.mark.integration

_TESTS = Path(__file__).parents[3]
_WAIT_SECONDS = 60.0
_WRITERS = 8
_AUDIT = "micromegas_jupyter.audit"
_EMPTY = pa.schema({"id": pa.string()}).empty_table()


@contextmanager
def _serving(root):
    command = [sys.executable, "-m", "tests.integration.ingest.child", "serve", str(root)]
    child = subprocess.Popen(command, cwd=_TESTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with child:
        try:
            yield child, child.stdout.readline().strip()
        finally:
            child.kill()


def _client(uri):
    return FlightSQLClient(uri, auth_provider=StaticTokenAuthProvider("alice"), timeout_seconds=_WAIT_SECONDS)


def _write_until_it_ends(uri, acknowledged, unsure, enough):
    """Send one row after the other, each under its id; `enough` is set once some have been acknowledged."""
    with closing(_client(uri)) as client:
        while True:
            row = str(uuid.uuid4())
            try:
                client.bulk_ingest("kept", pa.table({"id": [row]}), ingest_id=row)
            except MicromegasError:
                unsure.append(row)
                return
            acknowledged.append(row)
            if len(acknowledged) >= 3 * _WRITERS:
                enough.set()


def _stored(root):
    return Counter(DeltaTable(root / "kept").to_pyarrow_table()["id"].to_pylist())


@pytest.mark.timeout(1800)
def test_no_acknowledged_row_is_lost_or_doubled_when_the_server_is_killed(tmp_path, pytestconfig):
    acknowledged = []
    unsure = []
    for _ in range(25 if pytestconfig.getoption("--long") else 1):
        # All kills happen while eight writers are under way.
        enough = threading.Event()
        round_acknowledged = []
        with _serving(tmp_path) as (child, uri), ThreadPoolExecutor(_WRITERS) as threads:
            with closing(_client(uri)) as client:
                client.bulk_ingest("kept", _EMPTY, mode="create_append")
                for row in unsure:  # what nobody could tell is sent again under its id
                    client.bulk_ingest("kept", pa.table({"id": [row]}), ingest_id=row)
            acknowledged, unsure = [*acknowledged, *unsure], []
            for _ in range(_WRITERS):
                threads.submit(_write_until_it_ends, uri, round_acknowledged, unsure, enough)
            assert enough.wait(_WAIT_SECONDS)
            child.kill()
        acknowledged += round_acknowledged
        stored = _stored(tmp_path)
        assert set(acknowledged) <= stored.keys()
        assert set(stored) <= {*acknowledged, *unsure}
        assert max(stored.values()) == 1
    print(
        f"{len(acknowledged)} rows acknowledged, {len(stored)} stored, {len(unsure)} of them or not for nobody to tell"
    )


def test_a_full_disk_refuses_the_rows_and_leaves_nothing(tmp_path):
    command = [sys.executable, "-m", "tests.integration.ingest.child", "fill", str(tmp_path), str(1024 * 1024)]

    child = subprocess.run(command, cwd=_TESTS, stdout=subprocess.PIPE, check=True, timeout=2 * _WAIT_SECONDS)

    full = "SQL004 A file of the lake could not be written. The server's storage is full."
    assert json.loads(child.stdout) == [
        {"outcome": 1, "files": 2},
        {"outcome": full, "files": 2},
        {"outcome": full, "files": 2},
        {"outcome": 1, "files": 4},
    ]


def _status(caplog, table):
    found = []

    def is_found():
        lines = [json.loads(record.getMessage()) for record in list(caplog.records) if record.name == _AUDIT]
        found[:] = [line["status"] for line in lines if line["table"] == table]
        return found

    wait_until(is_found, f"an audit line for {table}")
    return found[0]


def test_a_client_that_is_killed_in_the_middle_stores_nothing(server, caplog):
    caplog.set_level(logging.INFO, _AUDIT)
    table = "killed"
    before = server.files()
    command = [sys.executable, "-m", "tests.integration.ingest.child", "send", server.uri, "alice", table, "300"]

    with subprocess.Popen(command, cwd=_TESTS, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "sent\n"
        child.kill()
    status = _status(caplog, table)

    assert status == "incomplete"
    assert server.files() == before
    assert table not in server.column("SELECT table_name FROM information_schema.tables")


def test_a_call_that_is_cancelled_in_the_middle_stores_nothing(server, caplog, monkeypatch):
    caplog.set_level(logging.INFO, _AUDIT)
    before = server.files()
    has_begun, may_end = threading.Event(), threading.Event()

    def note_begin(*arguments):
        has_begun.set()
        check_may_ingest(*arguments)

    # An ingest of which the server has seen nothing yet has no audit line.
    monkeypatch.setattr(ingest, "check_may_ingest", note_begin)

    def frames():
        yield from ingest_frames(create_command("cancelled"), pa.table({"id": [1]}))
        may_end.wait(_WAIT_SECONDS)

    call = server.flight.channel.stream_stream(FLIGHT + "DoPut")(frames(), metadata=ALICE, timeout=_WAIT_SECONDS)
    assert has_begun.wait(_WAIT_SECONDS)
    call.cancel()
    may_end.set()

    assert _status(caplog, "cancelled") == "incomplete"
    assert server.files() == before


_ROWS = pa.table({"id": [1]})


class _Stalled:
    """A call that sends some messages and then nothing until it is told to end."""

    def __init__(self, channel, command):
        self._may_end, has_sent = threading.Event(), threading.Event()

        def send():
            yield from ingest_frames(command, _ROWS)
            has_sent.set()
            self._may_end.wait(_WAIT_SECONDS)

        self._call = channel.stream_stream(FLIGHT + "DoPut")(send(), metadata=ALICE, timeout=_WAIT_SECONDS)
        self._call.add_callback(has_sent.set)  # the server may end it before all is sent
        assert has_sent.wait(_WAIT_SECONDS)

    def finish(self):
        """End the call; return its error, None when its rows are stored."""
        self._may_end.set()
        return self.wait()

    def wait(self):
        with suppress(grpc.RpcError):  # the status is read below
            list(self._call)
        code = self._call.code()
        details = dict(self._call.trailing_metadata() or ()).get(ERROR_DETAILS_KEY)
        self._may_end.set()
        return None if code is grpc.StatusCode.OK else decode_error(details)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        (IngestSettings(idle_seconds=0.3), "Nothing arrived for 0.3 seconds; no rows were stored."),
        (IngestSettings(max_seconds=0.3), ""),
    ],
    ids=["nothing for too long", "too long in all"],
)
def test_a_call_that_takes_too_long_ends(tmp_path, settings, what):
    with lake_server(tmp_path, ingest=settings) as server:
        error = _Stalled(server.flight.channel, create_command("stalled")).wait()

        assert isinstance(error, DeadlineExceeded)
        assert error.what.startswith(what)
        assert server.files() == []


def test_calls_over_the_limit_of_a_caller_wait_and_those_of_others_do_not(tmp_path):
    settings = IngestSettings(max_per_caller=1, admission_wait_seconds=1.0)
    with lake_server(tmp_path, ingest=settings) as server:
        flight = server.flight
        first = _Stalled(flight.channel, create_command("first"))
        wait_until(lambda: flight.metric("ingests_running") == 1, "the first call has begun")
        own = flight.call(FLIGHT + "DoPut", *ingest_frames(create_command("own"), _ROWS))
        others = flight.call(
            FLIGHT + "DoPut",
            *ingest_frames(create_command("others"), _ROWS),
            metadata=(("authorization", "Bearer collector"),),
        )
        stored = first.finish()
        later = flight.call(FLIGHT + "DoPut", *ingest_frames(create_command("later"), _ROWS))

    assert type(own.error) is ResourcesExhausted
    assert stored is None
    assert [answer.code for answer in (others, later)] == [grpc.StatusCode.OK] * 2


def test_rows_whose_commit_took_too_long_are_not_said_to_be_lost(tmp_path):
    rows = pa.table({"id": ["x"]})
    with (
        lake_server(tmp_path, ingest=IngestSettings(max_seconds=2.0)) as server,
        server.client("alice") as client,
    ):
        client.bulk_ingest("t", rows, mode="create")
        log = os.open(tmp_path / "t/_delta_log", os.O_RDONLY)
        try:
            fcntl.flock(log, fcntl.LOCK_EX)  # as if the storage were slow
            with pytest.raises(DeadlineExceeded) as failure:
                client.bulk_ingest("t", rows, ingest_id="once")
        finally:
            os.close(log)

        assert "unknown whether" in str(failure.value)
        client.bulk_ingest("t", rows, ingest_id="once")
        assert server.column("SELECT count(*) FROM t") == [2]
