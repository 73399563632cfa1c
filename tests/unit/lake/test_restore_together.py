"""Restores of a table that eight writers and a compactor change all the time."""

import itertools
import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.lake import delta_log
from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.lake.maintenance import optimize
from micromegas_jupyter.lake.restore import RestoreRequest, restore_table
from micromegas_jupyter.lake.writer import LakeWriter
from tests.fakes.delta_tables import delete_rows
from tests.unit.engine.conftest import asking

ROWS = pa.table({"id": [1, 2, 3]})
WRITERS, PROCESSES = 8, 2
COMPACTED = 40  # rows that are stored between two compactions, each of which makes a restore plan anew
PAUSE_SECONDS = 0.05  # of each writer: more commits only make the log longer
WAIT_SECONDS = 120.0


class _OtherProgram:
    """Appends to a table with deletion vectors, which this project does not write to, as other programs do."""

    def __init__(self, storage):
        self._storage = storage

    def append(self, rows):
        path = f"{uuid.uuid4()}.parquet"
        sink = pa.BufferOutputStream()
        pq.write_table(rows, sink)
        content = sink.getvalue().to_pybytes()
        self._storage.write(f"t/{path}", content)
        add = {"path": path, "size": len(content), "modificationTime": 1, "dataChange": True, "partitionValues": {}}
        add["stats"] = json.dumps({"numRecords": rows.num_rows})
        entry = delta_log.build_entry("WRITE", uuid.uuid4().hex, [{"add": add}], clock=SYSTEM_CLOCK)
        version = DeltaTable(self._storage.child_uri("t")).version() + 1
        while not self._storage.create(delta_log.log_path("t", delta_log.entry_name(version)), entry):
            version += 1


class _Crowd:
    """Writes numbers, each once; `acknowledged` has those that are stored, by when their write began."""

    def __init__(self, appends):
        self._appends = appends
        self._ids = itertools.count(1000)
        self._changed = threading.Condition()
        self.is_over = threading.Event()
        self.acknowledged = {}
        self.round = 0

    def write(self, number):
        append = self._appends[number % len(self._appends)]
        while not self.is_over.wait(PAUSE_SECONDS):
            with self._changed:
                one, began_in = next(self._ids), self.round
            append(pa.table({"id": [one]}))
            with self._changed:
                self.acknowledged[one] = (number, began_in)
                self._changed.notify_all()

    def next_round(self):
        with self._changed:
            self.round += 1

    def wait_for_all(self):
        """Wait until each writer has stored a row whose write began in this round; return all of these rows."""
        with self._changed:
            assert self._changed.wait_for(lambda: len({who for who, _ in self._of_round()}) == WRITERS, WAIT_SECONDS)
            return {one for one, (_, began_in) in self.acknowledged.items() if began_in == self.round}

    def wait_for_more(self, count):
        """Wait until so many more rows are stored; return whether they are, and not the end has come."""
        with self._changed:
            wanted = len(self.acknowledged) + count
            self._changed.wait_for(lambda: len(self.acknowledged) >= wanted or self.is_over.is_set(), WAIT_SECONDS)
            return not self.is_over.is_set()

    def end(self):
        """Have all stop."""
        with self._changed:
            self.is_over.set()
            self._changed.notify_all()

    def _of_round(self):
        return [found for found in self.acknowledged.values() if found[1] == self.round]


def _compact(storage, crowd, done):
    while crowd.wait_for_more(COMPACTED):
        with suppress(UsageError):  # the table has deletion vectors
            done.append(optimize(storage, "t")["removed_files"])


@pytest.mark.parametrize("rounds", [3, pytest.param(60, marks=pytest.mark.long)])
@pytest.mark.parametrize("has_vectors", [False, True])
def test_nothing_that_is_acknowledged_after_a_restore_is_lost(storage, tables, store, has_vectors, rounds):
    store("t", ROWS, "create")
    if has_vectors:
        delete_rows(storage, "t", lambda *_: [1])
    wanted, version = ([1, 3], 1) if has_vectors else ([1, 2, 3], 0)
    vectors = {key for key in delta_log.read_state(storage, "t", version).files if key[1]}
    writers = [LakeWriter(storage, interval_seconds=0) for _ in range(PROCESSES)]
    others = [_OtherProgram(storage).append]
    crowd = _Crowd(others if has_vectors else [lambda rows, one=one: one.append("t", rows).result() for one in writers])
    merged = []
    with ThreadPoolExecutor(WRITERS + 1) as pool, asking(Lake(storage)) as ask:
        running = [pool.submit(crowd.write, number) for number in range(WRITERS)]
        running.append(pool.submit(_compact, storage, crowd, merged))
        try:
            for _ in range(rounds):
                crowd.wait_for_all()
                done = restore_table(tables, RestoreRequest("t", version))
                assert done.version > done.restored_version == version
                crowd.next_round()
                acknowledged = crowd.wait_for_all()
                found = [row["id"] for row in ask.rows("SELECT id FROM t ORDER BY id")]
                assert [one for one in found if one < 1000] == wanted
                assert acknowledged <= {*found}
                assert len(found) == len({*found})
                assert vectors <= delta_log.read_state(storage, "t", done.version).files.keys()
        finally:
            crowd.end()
        for one in running:
            one.result()
        for one in writers:
            one.close()
        found = [row["id"] for row in ask.rows("SELECT id FROM t ORDER BY id")]

    last = {one for one, (_, began_in) in crowd.acknowledged.items() if began_in == crowd.round}
    assert last <= {*found}
    assert bool(vectors) == has_vectors
    assert (sum(merged) > 0) != has_vectors
