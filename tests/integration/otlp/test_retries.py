"""What is acknowledged outlives a killed process, and what an exporter sends again is stored once."""

import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
import requests
from deltalake import DeltaTable
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.lake.delta_log import read_short_lived_ids
from tests.fakes.waiting import wait_until
from tests.integration.ingest.test_ingest_process import _kill_ingest_process
from tests.integration.otlp.exporting import NOON, PROTOBUF, any_value, export, export_server, status_of

pytestmark = pytest.mark.integration

_ROOT = Path(__file__).parents[3]
_EXPORTERS = 8
_WAIT_SECONDS = 60.0
_METHOD = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
_HEADERS = {"Authorization": "Bearer collector", "Content-Type": PROTOBUF}


def _record(name, **fields):
    return export("logs", LogRecord(time_unix_nano=NOON, body=any_value(name), **fields), service="retried")


@contextmanager
def _serving(root):
    command = [sys.executable, "-m", "tests.integration.otlp.child", str(root)]
    child = subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with child:
        try:
            yield child, *child.stdout.readline().split()
        finally:
            child.kill()


def _post(url, body):
    try:
        answer = requests.post(f"{url}/v1/logs", data=body, headers=_HEADERS, timeout=_WAIT_SECONDS)
    except requests.RequestException:
        return False
    if answer.status_code != 200:
        print(answer.status_code, answer.content)
    return answer.status_code == 200


def _call(uri, body):
    with grpc.insecure_channel(uri.removeprefix("grpc://")) as channel:
        try:
            channel.unary_unary(_METHOD)(body, metadata=(("authorization", "Bearer collector"),), timeout=_WAIT_SECONDS)
        except grpc.RpcError:
            return False
        return True


def _export_until_it_fails(send, acknowledged, unsure, enough):
    """Export one record after the other; `enough` is set once some have been acknowledged."""
    while True:
        name = str(uuid.uuid4())
        body = _record(name).SerializeToString()
        if not send(body):
            unsure[name] = body
            return
        acknowledged.append(name)
        if len(acknowledged) >= 3 * _EXPORTERS:
            enough.set()


def _stored(root):
    return Counter(DeltaTable(root / "log_entries").to_pyarrow_table(columns=["msg"])["msg"].to_pylist())


def _check_blocks(root, stored):
    blocks = DeltaTable(root / "blocks").to_pyarrow_table(columns=["block_id"])["block_id"].to_pylist()
    assert len(set(blocks)) == len(blocks)
    return len(blocks) - len(stored)


@pytest.mark.timeout(7200)
def test_nothing_acknowledged_is_lost_or_doubled_when_the_server_is_killed(tmp_path, pytestconfig):
    acknowledged, unsure = [], {}
    for _ in range(200 if pytestconfig.getoption("--long") else 1):
        enough, found = threading.Event(), []
        with _serving(tmp_path) as (child, url, uri), ThreadPoolExecutor(_EXPORTERS) as threads:
            # What nobody could tell is exported again, as exporters do.
            assert all(_post(url, body) for body in unsure.values())
            acknowledged += unsure
            unsure.clear()
            for number in range(_EXPORTERS):
                send = (
                    (lambda body, url=url: _post(url, body)) if number % 2 else (lambda body, uri=uri: _call(uri, body))
                )
                threads.submit(_export_until_it_fails, send, found, unsure, enough)
            assert enough.wait(_WAIT_SECONDS)
            child.kill()
        acknowledged += found
        stored = _stored(tmp_path)
        assert set(acknowledged) <= stored.keys()
        assert set(stored) <= {*acknowledged, *unsure}
        assert max(stored.values()) == 1
        # Of an export that nobody acknowledged, one of the two tables may lack its part until it comes again.
        assert abs(_check_blocks(tmp_path, stored)) <= len(unsure)
    print(f"{len(acknowledged)} records acknowledged, {len(stored)} stored, {len(unsure)} unsure")


def test_exports_survive_a_killed_ingest_process(tmp_path, pytestconfig):
    names = [str(uuid.uuid4()) for _ in range(5 * _EXPORTERS)]
    rounds = 20 if pytestconfig.getoption("--long") else 1
    is_over = threading.Event()

    with export_server(tmp_path) as server, ThreadPoolExecutor(_EXPORTERS) as threads:

        def send(name):
            body = _record(name).SerializeToString()
            while not _post(server.url, body):
                assert not is_over.is_set()
            return name

        try:
            send("first")
            for number in range(rounds):
                sent = [threads.submit(send, f"{name}-{number}") for name in names]
                wait_until(lambda sent=sent: any(one.done() for one in sent), "some have been acknowledged")
                _kill_ingest_process(server.lake)
                for one in sent:
                    one.result(_WAIT_SECONDS)
        finally:
            is_over.set()

        stored = _stored(tmp_path)
        assert set(stored.values()) == {1}
        assert len(stored) == rounds * len(names) + 1
        assert _check_blocks(tmp_path, stored) == 0
        assert len(server.rows("SELECT 1 FROM processes WHERE exe = 'retried'")) == 1


def test_a_server_that_stops_is_to_be_tried_again(tmp_path):
    with export_server(tmp_path) as server:
        server.lake.flight.server.stop(grace_seconds=0)
        answer = server.post("logs", _record("late"))

    assert (answer.status_code, answer.headers["Retry-After"], status_of(answer).code) == (503, "2", 14)


def test_the_same_export_is_stored_once_by_several_servers_at_once(tmp_path):
    body = _record("raced").SerializeToString()
    with export_server(tmp_path) as one, export_server(tmp_path) as other, ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda number: _post((one, other)[number % 2].url, body), range(16)))

        assert answers == [True] * 16
        assert one.rows("SELECT msg FROM log_entries") == [{"msg": "raced"}]
        assert len(one.rows("SELECT block_id FROM blocks")) == 1


def test_ids_of_exports_are_forgotten_after_some_minutes(tmp_path):
    with export_server(tmp_path) as server:
        assert _post(server.url, _record("old").SerializeToString())
    storage, version = Storage(tmp_path), DeltaTable(tmp_path / "log_entries").version()

    ((write_id, row_count),) = read_short_lived_ids(storage, "log_entries", version=version, since=0).items()

    assert (len(write_id), row_count) == (36, 1)
    assert read_short_lived_ids(storage, "log_entries", version=version, since=time.time() + 1) == {}
    # Checkpoints, which keep ids for a day, do not have them.
    assert DeltaTable(tmp_path / "log_entries").transaction_version(write_id) is None
