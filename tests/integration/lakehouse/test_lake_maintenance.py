"""Maintenance in a bucket, by several processes, of which some are killed at any moment."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.engine.functions.denial_store import DenialStore
from micromegas_jupyter.errors import Unavailable
from micromegas_jupyter.lake.lease import TAKE_OVER_SECONDS, ObservedLease, try_acquire
from micromegas_jupyter.lake.maintenance import MaintenanceSettings, read_status, run_round
from tests.fakes.clock import FakeClock
from tests.integration.lakehouse.faulty_s3 import BUCKET, FaultyS3, moto_server

_SETTINGS = MaintenanceSettings(min_small_files=3, quiet_seconds=0.0)
_ROUNDS = """
import sys
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.lake import lease
from micromegas_jupyter.lake.maintenance import MaintenanceSettings, run_round

lease.TAKE_OVER_SECONDS, seen = float(sys.argv[2]), None
settings = MaintenanceSettings(min_small_files=3, checkpoint_commits=5)
while True:
    report = run_round(Storage(sys.argv[1]), settings=settings, seen=seen)
    seen = report.seen
    if report.status is not None:
        print("done", flush=True)
"""


@pytest.fixture(scope="module")
def moto():
    with moto_server() as port:
        yield port


@pytest.fixture
def bucket(moto, monkeypatch, request):
    values = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{moto}",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{request.node.name}"


def _append(storage, number, table="numbers"):
    write_deltalake(
        storage.child_uri(table),
        pa.table({"number": pa.array([number], pa.int64())}),
        mode="append",
        storage_options=storage.options,
    )


def _numbers(storage):
    table = DeltaTable(storage.child_uri("numbers"), storage_options=storage.options)
    return sorted(table.to_pyarrow_table()["number"].to_pylist())


def test_a_lake_in_a_bucket_is_maintained(bucket):
    storage = Storage(bucket)
    for number in range(5):
        _append(storage, number)

    report = run_round(storage, settings=_SETTINGS)
    table = DeltaTable(storage.child_uri("numbers"), storage_options=storage.options)
    again = run_round(storage, settings=_SETTINGS)
    late = FakeClock(datetime.now(UTC) + timedelta(hours=25))
    removed = run_round(storage, settings=replace(_SETTINGS, vacuum_hours=0), clock=late).status.done["removed_files"]

    assert report.status.tables == again.status.tables
    assert (len(table.file_uris()), _numbers(storage)) == (1, [0, 1, 2, 3, 4])
    assert (removed, len(list(storage.list("numbers")))) == (5, 7)  # six versions of the log, and one file
    assert read_status(storage).tables["numbers"].files == 1
    assert read_status(storage).free_bytes is None


def test_a_lease_in_a_bucket_is_taken_over_only_when_it_stands_still(bucket):
    storage, clock = Storage(bucket), FakeClock()
    other = FakeClock(datetime(1999, 1, 1, tzinfo=UTC))  # a machine whose clock is wrong
    held = try_acquire(storage, clock=clock)

    seen = try_acquire(storage, clock=other)
    assert isinstance(seen, ObservedLease)
    other.advance(TAKE_OVER_SECONDS - 1)
    assert try_acquire(storage, clock=other, seen=seen) == seen
    clock.advance(11)
    assert held.is_held()
    other.advance(TAKE_OVER_SECONDS)
    seen = try_acquire(storage, clock=other, seen=seen)
    assert isinstance(seen, ObservedLease)
    other.advance(TAKE_OVER_SECONDS)
    taken = try_acquire(storage, clock=other, seen=seen)

    clock.advance(11)
    assert not held.is_held()
    held.release()
    assert isinstance(try_acquire(storage, clock=clock), ObservedLease)
    taken.release()
    try_acquire(storage, clock=clock).release()


def test_of_many_that_want_the_lease_one_gets_it(bucket):
    storage = Storage(bucket)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: try_acquire(storage, clock=FakeClock()), range(8)))

    held = [one for one in found if one is not None and not isinstance(one, ObservedLease)]
    assert len(held) == 1
    held[0].release()


def test_rules_made_at_once_in_a_bucket_are_all_kept_and_seen_by_their_mark(bucket):
    location = f"{bucket}/_micromegas/query_denials.json"
    watching = DenialStore(location)
    assert (watching.mark(), watching.rules(), watching.name) == (None, (), "query_denials.json")

    with ThreadPoolExecutor(4) as pool:
        adding = [
            pool.submit(DenialStore(location).add, f"client = '{n}'", "a reason", created_by="root") for n in range(8)
        ]
    made = {one.result() for one in adding}

    mark = watching.mark()
    assert {rule.rule_id for rule in watching.rules()} == made
    assert watching.remove(made.pop())
    assert watching.mark() != mark
    assert {rule.rule_id for rule in DenialStore(location).rules()} == made


def test_a_rule_whose_answer_is_lost_is_kept_once_when_another_follows_it(moto, bucket, monkeypatch):
    location, s3, others = f"{bucket}/query_denials.json", FaultyS3(moto), []
    late = DenialStore(location)

    def fault(method, path):
        if method == "PUT" and not others:
            others.append("")
            return "applied 500"
        if method == "PUT" and others == [""]:
            others[0] = late.add("client = 'b'", "a reason", created_by="root")
        return None

    assert late.rules() == ()
    s3.fault = fault
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.environ["AWS_ENDPOINT_URL"])
    early = DenialStore(location)
    made = early.add("client = 'a'", "a reason", created_by="root")
    s3.close()

    assert [rule.rule_id for rule in late.rules()] == [made, others[0]]


@pytest.mark.usefixtures("bucket")
def test_a_bucket_that_is_gone_is_unavailable():

    storage = Storage("s3://other/lake")

    with pytest.raises(Unavailable):
        run_round(storage)
    with pytest.raises(Unavailable):
        DenialStore(f"{storage.uri}/query_denials.json").add("client = 'x'", "a reason", created_by="root")


# Forks maintainers, since each would take a second to load what it needs, and kills two at a time at any moment.
_KILLS = """
import os
import random
import signal
import sys
import time
from contextlib import suppress
import pandas  # pyarrow loads it, too
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.lake import lease
from micromegas_jupyter.lake.maintenance import MaintenanceSettings, run_round

lease.TAKE_OVER_SECONDS = 0.1
settings = MaintenanceSettings(min_small_files=3, checkpoint_commits=5)

def maintain(done):
    seen = None
    while True:
        with suppress(MicromegasError):
            report = run_round(Storage(sys.argv[1]), settings=settings, seen=seen)
            seen = report.seen
            if report.status is not None:
                os.write(done, b".")

drawn = random.Random(7)
for _ in range(int(sys.argv[2])):
    is_done, done = os.pipe()
    two = []
    for _ in range(2):
        two.append(os.fork())
        if two[-1] == 0:
            try:
                maintain(done)
            finally:
                os._exit(1)
    os.close(done)
    for _ in range(1 + drawn.randrange(4)):
        os.read(is_done, 1)
    time.sleep(drawn.uniform(0, 0.1))
    for one in two:
        os.kill(one, signal.SIGKILL)
        assert os.waitpid(one, 0)[1] == signal.SIGKILL, "it ended by itself"
    os.close(is_done)
"""


def test_maintainers_killed_at_any_moment_lose_and_double_nothing(tmp_path, pytestconfig):
    kills = 20 if pytestconfig.getoption("--long") else 1
    storage = Storage(tmp_path / "lake")
    _append(storage, -1)
    is_over = threading.Event()
    kept, deleted = [], []

    def write():
        number = 0
        while not is_over.wait(0.01):
            with suppress(DeltaError):
                _append(storage, number)
                kept.append(number)
            number += 1

    def delete():
        while not is_over.wait(0.01):
            for number in kept[len(deleted) * 10 :: 10][:1]:
                with suppress(DeltaError):
                    if DeltaTable(storage.child_uri("numbers")).delete(f"number = {number}")["num_deleted_rows"]:
                        deleted.append(number)

    with ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        stack.callback(is_over.set)
        working = [pool.submit(write), pool.submit(delete)]
        subprocess.run([sys.executable, "-c", _KILLS, storage.uri, str(kills)], check=True)
        is_over.set()
        for one in working:
            one.result()

    assert _numbers(storage) == sorted({-1, *kept} - {*deleted})
    # Vacuum keeps what was removed at a time that is still to come by the machine's clock, which deltalake asks.
    soon = FakeClock(datetime.now(UTC) - timedelta(seconds=TAKE_OVER_SECONDS))
    seen = run_round(storage, settings=_SETTINGS, clock=soon).seen
    soon.advance(TAKE_OVER_SECONDS)
    assert run_round(storage, settings=_SETTINGS, clock=soon, seen=seen).status is not None
    late = FakeClock(datetime.now(UTC) + timedelta(hours=25))
    settings = MaintenanceSettings(vacuum_hours=0, vacuum_interval_seconds=0)
    assert run_round(storage, settings=settings, clock=late).status.done.keys() == {"removed_files"}
    files = DeltaTable(storage.child_uri("numbers")).file_uris()
    left = {path.name for path in Path(storage.child_uri("numbers")).iterdir() if path.is_file()}
    assert left == {Path(file).name for file in files}
    assert list(tmp_path.rglob("*.tmp")) == []
    assert _numbers(storage) == sorted({-1, *kept} - {*deleted})


def test_a_maintainer_of_a_bucket_that_is_killed_in_a_round_is_followed_within_a_minute(bucket):
    storage, clock = Storage(bucket), FakeClock()
    for number in range(3):
        _append(storage, number)
    stuck = "import sys; from micromegas_jupyter.lake import maintenance; " + (
        "maintenance._Round._commit = lambda *_, **__: (print('in a round', flush=True), sys.stdin.read())" + _ROUNDS
    )
    with subprocess.Popen(
        [sys.executable, "-c", stuck, bucket, "45"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "in a round\n"
        held = run_round(storage, settings=_SETTINGS, clock=clock)
        holder.kill()
        holder.wait()

    rounds, seen = [], held.seen
    for _ in range(4):  # every 15 seconds
        clock.advance(15)
        report = run_round(storage, settings=_SETTINGS, clock=clock, seen=seen)
        rounds.append(report.status)
        seen = report.seen

    assert held.status is None
    assert any(status is not None for status in rounds)
    assert _numbers(storage) == [0, 1, 2]
