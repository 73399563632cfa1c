"""Processes that write to a lake until they are killed: `python -m tests.integration.lakehouse.writing ROLE ROOT NAME`.

A line of output says what a process is about to write, another that it was acknowledged.
"""

import itertools
import json
import random
import resource
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from micromegas_jupyter.core.protocols import WriteMode, WriteRequest
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.errors import MicromegasError, Unavailable
from micromegas_jupyter.lake.delta_log import open_delta
from micromegas_jupyter.lake.maintenance import MaintenanceSettings, optimize, run_round
from micromegas_jupyter.lake.tables import Tables
from micromegas_jupyter.lake.writer import LakeWriter

TABLE = "t"
ROWS_PER_WRITE = 20
SCHEMA = pa.schema([("id", pa.utf8()), ("n", pa.int64())])
_CALLERS = 3
_INTERVAL_SECONDS = 0.05
_REPOSITORY = Path(__file__).parents[3]


def make_rows(write_id):
    return pa.table({"id": [write_id] * ROWS_PER_WRITE, "n": range(ROWS_PER_WRITE)}, schema=SCHEMA)


def say(kind, write_id):
    sys.stdout.write(f"{kind} {write_id}\n")
    sys.stdout.flush()


def ingest(root, name):
    """Write with ids from several threads."""
    writer = LakeWriter(Storage(root), interval_seconds=_INTERVAL_SECONDS)

    def call(caller):
        for number in itertools.count():
            write_id = f"{name}-{caller}-{number}"
            say("try", write_id)
            writer.append(TABLE, make_rows(write_id), write_id=write_id).result()
            say("ack", write_id)

    for caller in range(_CALLERS):
        threading.Thread(target=call, args=(caller,)).start()


def plain(root, name):
    """Write as a foreign program does."""
    storage = Storage(root)
    for number in itertools.count():
        write_id = f"{name}-plain-{number}"
        say("foreign", write_id)
        options = {"commit_properties": CommitProperties(max_commit_retries=1000), "storage_options": storage.options}
        try:
            write_deltalake(storage.child_uri(TABLE), make_rows(write_id), mode="append", **options)
        except DeltaError as error:
            if "contiguous" not in str(
                error
            ):  # else it listed the log while entries were added, and saw the later ones
                raise
            say("conflict", write_id)
        else:
            say("ack", write_id)


def compact(root, name):
    storage = Storage(root)
    for number in itertools.count():
        try:
            optimize(storage, TABLE)
        except Unavailable:
            say("conflict", f"{name}-{number}")
        else:
            say("ack", f"compacted-{name}-{number}")


def maintain(root, name):
    """Do what the server's own maintenance does, under its lease, one round after the other."""
    storage, settings, seen = Storage(root), MaintenanceSettings(min_small_files=10), None
    for number in itertools.count():
        _, seen = run_round(storage, settings=settings, seen=seen)
        say("ack", f"compacted-{name}-{number}")


def fill(root, file_bytes):
    """Store rows where files may not grow beyond a bound, as on a full disk, and print the outcomes as JSON."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(file_bytes), int(file_bytes)))
    writer = LakeWriter(Storage(root), interval_seconds=0)
    noise = pa.table({"data": [random.randbytes(1024) for _ in range(4096)]})
    few = pa.table({"data": [b"few"]})

    def store(table, mode, rows):
        try:
            write = writer.open_write(WriteRequest(table=table, mode=mode), rows.schema)
            write.write(rows.to_batches()[0])
            return write.commit()
        except MicromegasError as error:
            return [type(error).__name__, str(error)]

    outcomes = [
        store("kept", WriteMode.CREATE, few),
        store("kept", WriteMode.APPEND, noise),
        store("other", WriteMode.CREATE, noise),
        store("kept", WriteMode.APPEND, few),
    ]
    print(json.dumps(outcomes))
    writer.close()


class Child:
    """A process with a role, and what it said."""

    def __init__(self, role, root, name):
        arguments = [sys.executable, "-m", "tests.integration.lakehouse.writing", role, str(root), str(name)]
        self._process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=_REPOSITORY)
        self._changed = threading.Condition()
        self._answers = 0
        self.said = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def listen(self, writes):
        """Wait until so many more writes were answered."""
        with self._changed:
            wanted = self._answers + writes
            assert self._changed.wait_for(lambda: self._answers >= wanted or not self._reader.is_alive(), 240)
            assert self._answers >= wanted, "the process ended by itself"

    def kill(self):
        """End it with -9, and take in what it said before."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        self._process.stdout.close()

    def _read(self):
        for line in self._process.stdout:
            if line.endswith("\n"):
                with self._changed:
                    self.said.append(line.split())
                    self._answers += line.startswith(("ack", "conflict"))
                    self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()


def kill_at_random(root, *, kills, roles, seed=3):
    """Kill processes of these roles one after another, each followed by the next; check that no row is lost or doubled.

    `root` is a folder, or the address of a bucket. Returns facts to print.
    """
    chance, names = random.Random(seed), itertools.count()
    storage = Storage(root)
    Tables(storage).create(TABLE, SCHEMA)
    children = [Child(role, root, next(names)) for role in roles]
    ended, said = [], []
    try:
        for number in range(kills):
            place = chance.randrange(len(children))
            children[place].listen(chance.randint(1, 12) if roles[place] == "ingest" else 0)
            children[place].kill()
            ended.append(children[place])
            children[place] = Child(roles[place], root, next(names))
            if number % 25 == 0:
                assert open_delta(storage, TABLE).count() % ROWS_PER_WRITE == 0
    finally:
        for child in children:
            child.kill()
    said = [line for child in [*ended, *children] for line in child.said]
    acknowledged = {name for kind, name in said if kind == "ack" and not name.startswith("compacted")}
    _check(storage, acknowledged)
    unanswered = {name for kind, name in said if kind == "try"} - acknowledged
    writer = LakeWriter(storage, interval_seconds=0)
    for future in [writer.append(TABLE, make_rows(name), write_id=name) for name in unanswered]:
        assert future.result() == ROWS_PER_WRITE
    writer.close()
    _check(storage, acknowledged | unanswered)
    table = DeltaTable(storage.child_uri(TABLE), storage_options=storage.options)
    litter = table.vacuum(0, enforce_retention_duration=False, dry_run=False, full=True)
    live = {f"{TABLE}/{Path(uri).name}" for uri in table.file_uris()}
    found = {entry.path for entry in storage.list(TABLE)}
    assert {path for path in found if path.endswith(".parquet") and "/_" not in path} == live
    return {"acknowledged": len(acknowledged), "repeated": len(unanswered), "removed files": len(litter)}


def _check(storage, expected):
    """Check that the table holds all rows of these writes, and no row of any write twice."""
    table = DeltaTable(storage.child_uri(TABLE), storage_options=storage.options)
    found = Counter(table.to_pyarrow_table(columns=["id"]).column("id").to_pylist())
    assert expected - found.keys() == set()
    assert {name: count for name, count in found.items() if count != ROWS_PER_WRITE} == {}


if __name__ == "__main__":
    {"ingest": ingest, "plain": plain, "compact": compact, "maintain": maintain, "fill": fill}[sys.argv[1]](
        *sys.argv[2:]
    )
