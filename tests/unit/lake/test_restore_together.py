"""Restores of a table that eight writers and a compactor change all the time."""

import io
import itertools
import json
import re
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.lake import delta_log
from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.lake.maintenance import optimize
from micromegas_jupyter.lake.restore import RestoreRequest, restore_table
from micromegas_jupyter.lake.writer import LakeWriter
from tests.fakes.delta_tables import delete_rows
from tests.fakes.waiting import wait_until
from tests.unit.engine.conftest import asking

ROWS = pa.table({"id": [1, 2, 3]})
WRITERS, PROCESSES = 8, 2
PAUSE_SECONDS = 0.1  # of each thread: more commits only make the log longer
WAIT_SECONDS = 120.0  # for any writer


class _OtherProgram:
    """Changes a table with deletion vectors, which this project does not write to, as other programs do."""

    def __init__(self, storage, version):
        self._storage = storage
        self._version = version
        self._lock = threading.Lock()

    def append(self, rows):
        entry = delta_log.build_entry("WRITE", uuid.uuid4().hex, [{"add": self._write(rows)}], clock=SYSTEM_CLOCK)
        self._commit(entry)

    def compact(self):
        """Replace all files by one with their live rows, unless a restore comes first; return how many there were."""
        state = delta_log.read_state(self._storage, "t", self._version)
        rows, removals = [], []
        for add in state.files.values():
            found = pq.read_table(io.BytesIO(self._storage.read(f"t/{add['path']}")[0]))
            vector = {key: add[key] for key in ("deletionVector",) if add.get(key)}
            rows.append(found.take([0, 2]) if vector else found)
            removals.append({"remove": {"path": add["path"], "deletionTimestamp": 1, "dataChange": False, **vector}})
        actions = [*removals, {"add": self._write(pa.concat_tables(rows))}]
        entry = delta_log.build_entry("OPTIMIZE", uuid.uuid4().hex, actions, clock=SYSTEM_CLOCK)
        removed = {add["path"] for add in state.files.values()}
        return len(removed) if self._commit(entry, first=state.version + 1, removed=removed) else 0

    def _write(self, rows):
        path, sink = f"{uuid.uuid4()}.parquet", pa.BufferOutputStream()
        pq.write_table(rows, sink)
        content = sink.getvalue().to_pybytes()
        self._storage.write(f"t/{path}", content)
        facts = {"path": path, "size": len(content), "modificationTime": 1, "dataChange": True, "partitionValues": {}}
        return {**facts, "stats": json.dumps({"numRecords": rows.num_rows})}

    def _commit(self, entry, *, first=None, removed=frozenset()):
        with self._lock:
            version = self._version + 1 if first is None else first
            while not self._storage.create(delta_log.log_path("t", delta_log.entry_name(version)), entry):
                found = delta_log.read_entry(self._storage, "t", version) if removed else ()
                if any("remove" in action and action["remove"]["path"] in removed for action in found):
                    return False
                version += 1
            self._version = version
            return True


class _Crowd:
    """Writes numbers, each once; `acknowledged` has those that are stored, by when their write began."""

    def __init__(self, appends, compact):
        self._appends = appends
        self._compact = compact
        self._ids = itertools.count(1000)
        self._changed = threading.Condition()
        self._errors = []
        self._is_over = threading.Event()
        self.acknowledged = {}
        self.compacted = 0
        self.round = 0

    def run(self, pool):
        """Begin on the threads of a pool; return what is to be done until the end."""
        works = [lambda number=number: self._write(number) for number in range(WRITERS)]
        return [pool.submit(self._until_the_end, one) for one in (*works, self._compact_once)]

    def _until_the_end(self, work):
        try:
            while not self._is_over.wait(PAUSE_SECONDS):
                work()
        except BaseException as error:
            with self._changed:
                self._errors.append(error)
                self._changed.notify_all()
            raise

    def _write(self, number):
        with self._changed:
            one, began_in = next(self._ids), self.round
        self._appends[number % len(self._appends)](pa.table({"id": [one]}))
        with self._changed:
            self.acknowledged[one] = (number, began_in)
            self._changed.notify_all()

    def _compact_once(self):
        self.compacted += self._compact()

    def next_round(self):
        with self._changed:
            self.round += 1

    def wait_for_all(self):
        """Wait until each writer has stored a row whose write began in this round; return all of these rows."""

        def is_done():
            stored = {who for who, began_in in self.acknowledged.values() if began_in == self.round}
            return self._errors or len(stored) == WRITERS

        with self._changed:
            while not is_done():
                assert self._changed.wait(WAIT_SECONDS), "no writer stores anything"
            for error in self._errors:
                raise error
            return self.of_round()

    def of_round(self):
        return {one for one, (_, began_in) in self.acknowledged.items() if began_in == self.round}

    def end(self):
        """Have all stop."""
        self._is_over.set()


def _newest_state(storage):
    return delta_log.read_state(storage, "t", delta_log.open_delta(storage, "t").version())


@pytest.mark.parametrize("rounds", [1, pytest.param(60, marks=pytest.mark.long)])
@pytest.mark.parametrize("has_vectors", [False, True])
def test_nothing_that_is_acknowledged_after_a_restore_is_lost(storage, tables, store, has_vectors, rounds):
    store("t", ROWS, "create")
    if has_vectors:
        delete_rows(storage, "t", lambda *_: [1])
    wanted, version = ([1, 3], 1) if has_vectors else ([1, 2, 3], 0)
    files = {*delta_log.read_state(storage, "t", version).files}
    vectors = {key for key in files if key[1]}
    writers = [LakeWriter(storage, interval_seconds=0) for _ in range(PROCESSES)]
    other = _OtherProgram(storage, version)
    if has_vectors:
        crowd = _Crowd([other.append], other.compact)
    else:
        appends = [lambda rows, one=one: one.append("t", rows).result() for one in writers]
        crowd = _Crowd(appends, lambda: optimize(storage, "t")["removed_files"])
    with ThreadPoolExecutor(WRITERS + 1) as pool, asking(Lake(storage)) as ask:
        running = crowd.run(pool)
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
            # Once the file is compacted, another program may vacuum it.
            ((path, _),) = files
            wait_until(lambda: files.isdisjoint(_newest_state(storage).files), "its file is compacted")
            storage.delete(f"t/{path}")
            with pytest.raises(UsageError, match=re.escape(path)):
                restore_table(tables, RestoreRequest("t", version))
        finally:
            crowd.end()
        for one in running:
            one.result()
        for one in writers:
            one.close()
        found = [row["id"] for row in ask.rows("SELECT id FROM t ORDER BY id")]

    assert crowd.of_round() <= {*found}
    assert len(found) == len({*found})
    assert bool(vectors) == has_vectors
    assert crowd.compacted > 0
