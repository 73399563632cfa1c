"""Deletes, drops and other changes of a table are undone within a day."""

import datetime as dt
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from micromegas_jupyter.core.protocols import WriteMode, WriteRequest
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.errors import PermissionDenied, UsageError
from micromegas_jupyter.lake import delta_log, maintenance
from micromegas_jupyter.lake import restore as restore_module
from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.lake.maintenance import MaintenanceSettings, optimize
from micromegas_jupyter.lake.restore import RestoreRequest, restore_table
from micromegas_jupyter.lake.served_folder import ServedFolder
from micromegas_jupyter.lake.tables import Tables
from micromegas_jupyter.lake.writer import LakeWriter
from tests.fakes.clock import FakeClock
from tests.fakes.delta_tables import delete_rows, write_mapped
from tests.fakes.telemetry_rows import log_rows
from tests.unit.engine.conftest import asking

ROWS = pa.table({"id": [1, 2, 3]})
MORE = pa.table({"id": [4, 5]})
HOUR = dt.timedelta(hours=1)


def _now():
    return dt.datetime.now(dt.UTC)


@pytest.fixture
def restore(tables):
    def call(name, time, *, clock=None, **options):
        return restore_table(tables, RestoreRequest(name, time, **options), clock=clock or FakeClock(_now()))

    return call


@pytest.fixture
def ids(storage):
    """Reads a table as deltalake does."""

    def call(table="t"):
        path = storage.child_uri(table)
        return sorted(DeltaTable(path).to_pyarrow_table()["id"].to_pylist())

    return call


def test_a_log_entry_that_the_first_listing_misses_is_found(storage, store, monkeypatch):
    for rows in (ROWS, MORE, MORE):
        store("t", rows, "create_append")
    list_objects, listings = Storage.list, []

    def miss_one(self, folder):
        listings.append(folder)
        found = list_objects(self, folder)
        return [one for one in found if len(listings) > 1 or not one.path.endswith("01.json")]

    monkeypatch.setattr(Storage, "list", miss_one)
    assert delta_log.replay(storage, "t", 0).then.version == 0
    assert len(listings) == 2


def _undo(at):
    return at - dt.timedelta(milliseconds=1)


def test_deleted_rows_come_back_and_the_restore_is_undone_in_turn(tables, store, ids, restore, storage):
    store("t", ROWS, "create")
    deleted = tables.delete("t", "id >= 2")
    store("t", MORE)
    assert ids() == [1, 4, 5]

    done = restore("t", _undo(deleted.committed_at))

    assert ids() == [1, 2, 3]
    assert (done.restored_version, done.version, done.added_files, done.removed_files) == (0, 3, 1, 2)
    restored_at = delta_log.committed_at(storage, "t", 3)
    restore("t", _undo(restored_at))
    assert ids() == [1, 4, 5]
    assert tables.history("t", 1)[0]["operation"] == "RESTORE"


@pytest.mark.parametrize("is_dropped", [False, True])
def test_a_version_is_restored_after_a_dry_run_that_changes_nothing(tables, store, ids, restore, storage, is_dropped):  # noqa: PLR0917 - fixtures
    store("t", ROWS, "create")
    tables.delete("t", "id >= 2")
    store("t", MORE)
    if is_dropped:
        tables.drop("t")
    entries = sorted(entry.path for entry in storage.list(""))

    planned = restore("t", 0, dry_run=True)

    assert (planned.restored_version, planned.version, planned.added_files, planned.removed_files) == (0, 2, 1, 2)
    assert (planned.missing_files, planned.was_dropped) == ((), is_dropped)
    assert sorted(entry.path for entry in storage.list("")) == entries
    assert restore("t", 0) == planned._replace(version=3)
    assert ids() == [1, 2, 3]
    restore("t", 1)
    assert ids() == [1]
    with pytest.raises(UsageError, match="has no version 5") as refused:
        restore("t", 5)
    assert "4" in refused.value.remedy
    with pytest.raises(PermissionDenied):
        restore("t", 5, required_owner="bob")


def test_versions_around_a_drop_are_restored(tables, store, ids, restore):
    store("t", ROWS, "create")
    dropped_at = tables.drop("t")
    restore("t", _undo(dropped_at))
    store("t", MORE)

    restore("t", 0)

    assert ids() == [1, 2, 3]


def test_a_version_whose_window_is_over_is_rejected(tables, store, restore):
    store("t", ROWS, "create")
    tables.delete("t", "id = 1")

    with pytest.raises(UsageError, match="no longer exist"):
        restore("t", 0, clock=FakeClock(_now() + 26 * HOUR))


def test_a_dry_run_names_files_that_are_gone(tables, store, restore, storage):
    store("t", ROWS, "create")
    tables.delete("t", "id = 1")
    (gone,) = DeltaTable(storage.child_uri("t")).vacuum(0, enforce_retention_duration=False, dry_run=False)

    assert restore("t", 0, dry_run=True).missing_files == (gone,)


def test_a_restore_to_the_present_state_commits_nothing(store, ids, restore, storage):
    store("t", ROWS, "create")

    done = restore("t", _now())

    assert (done.version, ids()) == (0, [1, 2, 3])


def test_a_dropped_table_comes_back_with_its_rows_history_owner_and_retention(tables, store, ids, restore):
    store("t", ROWS, "create", maker="me")
    tables.set_retention("t", 30)
    before = tables.describe("t")
    dropped_at = tables.drop("t")
    assert (tables.list(), tables.find("t")) == ((), None)

    assert restore("t", _undo(dropped_at)).was_dropped

    assert (tables.describe("t"), ids()) == ({**before, "version": 2}, [1, 2, 3])
    assert [one["operation"] for one in tables.history("t", 9)] == ["RESTORE", "SET TBLPROPERTIES", "CREATE TABLE"]
    assert store("t", MORE) == 2


def test_a_time_at_which_the_table_was_dropped_is_rejected_once_it_is_back(tables, store, ids, restore):
    store("t", ROWS, "create")
    dropped_at = tables.drop("t")
    time.sleep(0.01)
    restore("t", _undo(dropped_at))

    with pytest.raises(UsageError, match="It had been dropped by that time"):
        restore("t", dropped_at + dt.timedelta(milliseconds=1))

    restore("t", _undo(dropped_at))
    assert ids() == [1, 2, 3]


def test_a_dropped_table_comes_back_as_it_was_before_its_rows_were_deleted(tables, store, ids, restore):
    store("t", ROWS, "create")
    deleted = tables.delete("t", "true")
    tables.drop("t")

    restore("t", _undo(deleted.committed_at))

    assert ids() == [1, 2, 3]


def test_a_new_table_of_that_name_is_unrelated_and_keeps_the_dropped_one_from_coming_back(
    tables, store, ids, restore, storage
):
    store("t", ROWS, "create", maker="alice", write_id="a")
    first_drop = tables.drop("t")
    store("t", MORE, "create", maker="bob", write_id="a")  # the id is not known to it, either

    assert (ids(), tables.owner("t"), tables.describe("t")["version"]) == ([4, 5], "bob", 0)
    with pytest.raises(UsageError, match="Drop the new one"):
        restore("t", _undo(first_drop))
    second_drop = tables.drop("t")
    restore("t", _undo(first_drop))
    assert (ids(), tables.owner("t")) == ([1, 2, 3], "alice")
    tables.drop("t")
    restore("t", _undo(second_drop))
    assert (ids(), tables.owner("t")) == ([4, 5], "bob")


def test_the_owner_of_the_table_of_then_restores_it_and_nobody_else(tables, store, restore, ids):
    store("t", ROWS, "create", maker="alice")
    before = _now()
    tables.delete("t", "true")
    dropped_at = tables.drop("t")
    store("t", MORE, "create", maker="bob")

    with pytest.raises(PermissionDenied):
        restore("t", _undo(dropped_at), required_owner="bob")
    with pytest.raises(UsageError, match="Drop the new one"):
        restore("t", _undo(dropped_at), required_owner="alice")
    with pytest.raises(PermissionDenied):
        restore("t", _now(), required_owner="alice")
    tables.drop("t")
    with pytest.raises(PermissionDenied):
        restore("t", before, required_owner="bob")
    restore("t", before, required_owner="alice")
    assert ids() == [1, 2, 3]


@pytest.mark.parametrize("name", ["other", "T", "../t", "", "log_entries"])
def test_a_table_that_never_was_cannot_be_restored(store, restore, name):
    store("t", ROWS, "create")
    with pytest.raises(UsageError, match="There is no table"):
        restore(name, _now())


def test_a_time_at_which_there_was_no_table_is_answered_with_one_that_works(tables, store, restore, ids):
    before = _now() - dt.timedelta(seconds=1)
    store("t", ROWS, "create")
    for early in (before, dt.datetime.min.replace(tzinfo=dt.timezone(14 * HOUR))):
        with pytest.raises(UsageError, match="did not exist"):
            restore("t", early)
    tables.drop("t")
    with pytest.raises(UsageError, match="There was no table t") as late:
        restore("t", _now() + dt.timedelta(seconds=1))
    for future in (_now() + HOUR, dt.datetime.max.replace(tzinfo=dt.timezone(-12 * HOUR))):
        with pytest.raises(UsageError, match="in the future"):
            restore("t", future)

    restore("t", dt.datetime.fromisoformat(late.value.remedy.rpartition("such as ")[2].rstrip(".")))

    assert ids() == [1, 2, 3]


def test_a_time_before_the_window_is_answered_with_the_earliest_one(store, restore, tables):
    store("t", ROWS, "create")
    tables.delete("t", "id = 1")
    later = FakeClock(_now() + 25 * HOUR)

    with pytest.raises(UsageError, match="The earliest possible time is") as refused:
        restore("t", _now() - HOUR / 60 + HOUR / 30, clock=later)

    assert f"{later.now() - 24 * HOUR:%Y-%m-%dT%H:%M}" in refused.value.remedy


def test_the_earliest_time_is_still_accepted_minutes_after_it_was_reported(store, restore, tables, ids):
    store("t", ROWS, "create")
    time.sleep(0.01)
    chosen = _now()
    time.sleep(0.01)
    tables.drop("t")
    with pytest.raises(UsageError, match="earliest"):
        restore("t", chosen, clock=FakeClock(chosen + 24 * HOUR + HOUR / 10))

    restore("t", chosen, clock=FakeClock(chosen + 24 * HOUR + HOUR / 15))

    assert ids() == [1, 2, 3]


def test_files_that_another_program_removed_are_reported_with_the_earliest_time(store, restore, tables, storage, ids):
    store("t", ROWS, "create")
    before = _now()
    store("t", MORE)
    optimize(storage, "t")
    deleted = tables.delete("t", "id = 1")
    DeltaTable(storage.child_uri("t")).vacuum(0, enforce_retention_duration=False, dry_run=False)

    with pytest.raises(UsageError, match="no longer exist") as refused:
        restore("t", before)

    earliest = dt.datetime.fromisoformat(refused.value.remedy.rpartition(" is ")[2].rstrip("."))
    assert abs(earliest - deleted.committed_at) < dt.timedelta(milliseconds=5)
    restore("t", earliest)
    assert ids() == [2, 3, 4, 5]


def test_a_restore_to_other_columns_has_those_and_writes_fit_them(tables, store, restore, storage):
    store("t", ROWS, "create")
    before = _now()
    tables.add_column("t", pa.field("price", pa.float64()))
    store("t", pa.table({"id": [9], "price": [1.5]}))
    tables.set_retention("t", 5)

    restore("t", before)

    assert DeltaTable(storage.child_uri("t")).to_pyarrow_table().to_pydict() == {"id": [1, 2, 3]}
    assert tables.describe("t")["retention_days"] == 5
    with pytest.raises(UsageError, match="Send them again"):  # another process may have restored it
        store("t", MORE)
    assert store("t", MORE) == 2
    with pytest.raises(UsageError):
        store("t", pa.table({"id": [9], "price": [1.5]}))


def test_a_replaced_table_comes_back_with_its_partitions(tables, store, restore, storage):
    days = [dt.date(2026, 1, 1), dt.date(2026, 1, 2)]
    tables.create("t", pa.schema([("id", pa.int64()), ("day", pa.date32())]), partition_by=("day",))
    store("t", pa.table({"id": [1, 2], "day": days}))
    before = _now()
    store("t", pa.table({"name": ["x"]}), "replace")

    restore("t", before)

    delta = DeltaTable(storage.child_uri("t"))
    assert delta.metadata().partition_columns == ["day"]
    assert sorted(delta.to_pyarrow_table().to_pylist(), key=lambda row: row["id"]) == [
        {"id": 1, "day": days[0]},
        {"id": 2, "day": days[1]},
    ]
    store("t", pa.table({"id": [3], "day": days[:1]}))
    assert len(delta.file_uris()) == 2


def test_an_upload_that_a_restore_undid_is_stored_when_it_is_repeated(store, restore, ids, storage):
    store("t", ROWS, "create", write_id="kept")
    before = _now()
    store("t", MORE, write_id="undone")
    restore("t", before)

    assert store("t", ROWS, write_id="kept") == 3
    assert ids() == [1, 2, 3]
    assert store("t", MORE, write_id="undone") == 2
    DeltaTable(storage.child_uri("t")).create_checkpoint()
    other = LakeWriter(storage, interval_seconds=0)
    assert other.append("t", MORE, write_id="undone").result() == 2
    assert other.append("t", ROWS, write_id="kept").result() == 3
    other.close()
    assert ids() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("has_checkpoint", [False, True])
def test_an_upload_whose_rows_a_second_restore_brings_back_is_not_stored_twice(  # noqa: PLR0917 - fixtures
    tables, store, restore, ids, storage, has_checkpoint
):
    store("t", ROWS, "create")
    before = _now()
    store("t", MORE, write_id="back")
    if has_checkpoint:
        _checkpoint(storage)
    done = restore("t", before)
    restore("t", _undo(delta_log.committed_at(storage, "t", done.version)))

    assert store("t", MORE, write_id="back") == 2

    assert ids() == [1, 2, 3, 4, 5]


def test_ids_that_are_soon_forgotten_are_taken_back_too(writer, restore, storage):
    def send(one, number, write_id):
        request = WriteRequest(
            table="log_entries", mode=WriteMode.APPEND, write_id=write_id, is_trusted=True, is_short_lived=True
        )
        # Retention removes the rows of last week.
        rows = log_rows([{"time": int(_now().timestamp()) * 10**9, "target": "w", "msg": f"w:{number}"}])
        write = one.open_write(request, rows.schema)
        write.write(rows)
        return write.submit().result()

    def count():
        return DeltaTable(storage.child_uri("log_entries")).count()

    send(writer, 1, "kept")
    before = _now()
    send(writer, 2, "undone")
    restore("log_entries", before)
    other = LakeWriter(storage, interval_seconds=0)

    for one in (writer, other):
        send(one, 1, "kept")
    assert count() == 1
    for one in (other, writer):
        send(one, 2, "undone")
    other.close()
    assert count() == 2


def _times(*days_ago):
    noon = _now().replace(hour=12, minute=0, second=0, microsecond=0)
    return [noon - dt.timedelta(days=days) for days in days_ago]


def _timed(*days_ago):
    return pa.table({"id": list(days_ago), "time": pa.array(_times(*days_ago), pa.timestamp("us", "UTC"))})


def test_rows_that_retention_deleted_stay_deleted(tables, store, restore, ids, storage):
    for days in (1, 20):
        store("t", _timed(days), "create_append")
    store("t", _timed(2, 21))
    before = _now()
    tables.delete("t", "true")
    tables.set_retention("t", 10)

    restore("t", before)

    assert ids() == [1, 2]
    assert tables.describe("t")["row_count"] == 2


def test_what_maintenance_deleted_stays_deleted_after_the_setting_is_gone(tables, store, restore, ids, storage):
    store("t", _timed(1, 20), "create")
    store("t", _timed(2))
    tables.set_retention("t", 10)
    before = _now()
    maintenance.run_round(storage)
    assert ids() == [1, 2]
    tables.set_retention("t", None)
    tables.delete("t", "id = 1")

    restore("t", before)

    assert ids() == [1, 2]


def test_days_that_were_deleted_for_the_size_of_the_lake_stay_deleted(writer, restore, storage):
    for day in (0, 1, 2):
        time_ns = int((_now() - dt.timedelta(days=day)).timestamp()) * 10**9
        writer.append("log_entries", log_rows([{"time": time_ns, "msg": "m"}])).result()
    before = _now()
    maintenance.run_round(storage, settings=MaintenanceSettings(max_total_bytes=1))
    delta = DeltaTable(storage.child_uri("log_entries"))
    assert delta.count() == 1

    restore("log_entries", before)

    assert DeltaTable(storage.child_uri("log_entries")).count() == 1


def test_rows_that_expire_while_a_table_is_dropped_do_not_come_back(tables, store, restore, ids):
    store("t", _timed(1, 6), "create")
    tables.set_retention("t", 6)
    dropped_at = tables.drop("t")

    midnight = _times(0)[0] + 12 * HOUR
    restore("t", _undo(dropped_at), clock=FakeClock(midnight + dt.timedelta(seconds=1)))

    assert ids() == [1]


def test_rows_without_a_time_and_columns_of_earlier_versions_are_kept(tables, store, restore, storage):
    store("t", ROWS, "create")
    tables.add_column("t", pa.field("time", pa.timestamp("us", "UTC")))
    times = pa.array([*_times(1, 20), None], pa.timestamp("us", "UTC"))
    store("t", pa.table({"id": [10, 11, 12], "time": times}))
    before = _now()
    tables.set_retention("t", 10)
    tables.delete("t", "true")

    restore("t", before)

    assert sorted(DeltaTable(storage.child_uri("t")).to_pyarrow_table()["id"].to_pylist()) == [1, 2, 3, 10, 12]


def test_a_restore_beside_appends_loses_none_that_comes_after_it(tables, storage, restore, ids):
    tables.create("t", ROWS.schema)
    writer = LakeWriter(storage, interval_seconds=0)
    writer.append("t", ROWS).result()
    before = _now()
    is_over = threading.Event()
    acknowledged = []

    def write(first):
        number = first
        while not is_over.is_set():
            writer.append("t", pa.table({"id": [number]})).result()
            acknowledged.append(number)
            number += 1

    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(write, first) for first in (1000, 2000, 3000)]
        try:
            for _ in range(5):
                done = restore("t", before)
        finally:
            is_over.set()
        [one.result() for one in running]
    writer.close()

    found = ids()
    assert [one for one in found if one < 1000] == [1, 2, 3]
    version = DeltaTable(storage.child_uri("t")).version()
    later = set()
    for number in range(done.version + 1, version + 1):
        entry = Path(storage.child_uri(f"t/_delta_log/{number:020}.json")).read_text()
        later |= {json.loads(line)["add"]["path"] for line in entry.splitlines() if '"add"' in line}
    assert {Path(uri).name for uri in DeltaTable(storage.child_uri("t")).file_uris()} >= later
    assert set(found) - {1, 2, 3} <= set(acknowledged)


def test_a_compaction_between_plan_and_commit_makes_the_plan_anew(  # noqa: PLR0917 - fixtures
    tables, store, restore, storage, ids, monkeypatch
):
    for number in range(3):
        store("t", pa.table({"id": [number]}), "create_append")
    before = _now()
    store("t", MORE)
    find = restore_module._Work._find_files
    acts = [lambda: store("t", ROWS), lambda: tables.set_retention("t", 3), lambda: optimize(storage, "t")]

    def interfere(work, *arguments):
        if acts:
            acts.pop()()
        return find(work, *arguments)

    monkeypatch.setattr(restore_module._Work, "_find_files", interfere)
    restore("t", before)

    assert (ids(), acts) == ([0, 1, 2], [])


def test_compactions_of_later_rows_before_each_commit_do_not_keep_a_restore_from_its_own(
    store, restore, storage, ids, monkeypatch
):
    store("t", ROWS, "create")
    find, merged = restore_module._Work._find_files, []

    def interfere(work, *arguments):
        for _ in range(2):
            store("t", MORE)
        merged.append(optimize(storage, "t")["removed_files"])
        return find(work, *arguments)

    monkeypatch.setattr(restore_module._Work, "_find_files", interfere)
    store("t", MORE)
    restore("t", 0)

    assert (ids(), min(merged) > 1) == ([1, 2, 3], True)


def test_a_restore_syncs_the_log_entries_of_other_programs_alone(tmp_path):
    synced = []

    class Observed(Storage):
        def sync_file(self, path):
            synced.append(path)
            return super().sync_file(path)

    storage = Observed(tmp_path / "lake")
    tables = Tables(storage)
    tables.create("t", ROWS.schema)
    with closing(LakeWriter(storage, interval_seconds=0)) as writer:
        for _ in range(3):
            writer.append("t", ROWS).result()
        write_deltalake(storage.child_uri("t"), MORE, mode="append")
        writer.append("t", ROWS).result()
        synced.clear()
        restore_table(tables, RestoreRequest("t", 1))

    assert {path for path in synced if path.endswith(".json")} == {"t/_delta_log/00000000000000000004.json"}


def test_states_are_rebuilt_from_checkpoints_after_the_log_was_cleaned_up(store, restore, storage, ids, tables):
    store("t", ROWS, "create")
    too_early = _now()
    for number in range(10, 14):
        store("t", pa.table({"id": [number]}))
    _checkpoint(storage)
    before = _now()
    store("t", MORE)
    tables.delete("t", "id < 12")
    _checkpoint(storage)
    log = Path(storage.child_uri("t/_delta_log"))
    old = (_now() - 26 * HOUR).timestamp()
    for name in [*(f"{number:020}.json" for number in range(5)), f"{4:020}.checkpoint.parquet"]:
        os.utime(log / name, (old, old))

    assert delta_log.cleanup_log(storage, "t", before=(_now() - 25 * HOUR).timestamp()) == 4
    assert delta_log.cleanup_log(storage, "t", before=(_now() - 27 * HOUR).timestamp()) == 0

    with pytest.raises(UsageError, match="earliest possible"):
        restore("t", too_early)
    restore("t", before)
    assert ids() == [1, 2, 3, 10, 11, 12, 13]
    assert DeltaTable(storage.child_uri("t")).metadata().configuration["delta.logRetentionDuration"] == "interval 1 day"


def _checkpoint(storage):
    DeltaTable(storage.child_uri("t")).create_checkpoint()


def test_maintenance_keeps_what_was_in_force_a_day_ago(store, storage, tables, restore, ids):
    """deltalake's own cleanup would remove all entries but those of the last checkpoint."""
    store("t", ROWS, "create")
    for _ in range(4):
        store("t", MORE)
    log = Path(storage.child_uri("t/_delta_log"))
    for number in range(5):
        _set_time(log / f"{number:020}.json", _now() - 30 * HOUR)
    deleted = tables.delete("t", "true")

    maintenance.run_round(storage, settings=MaintenanceSettings(checkpoint_commits=2))
    assert (log / "_last_checkpoint").exists()
    restore("t", _undo(deleted.committed_at))

    assert ids() == [1, 2, 3, *[4] * 4, *[5] * 4]


def _set_time(entry, time):
    lines = entry.read_text().splitlines()
    info = json.loads(lines[0])
    info["commitInfo"]["timestamp"] = int(time.timestamp() * 1000)
    entry.write_text("\n".join([json.dumps(info), *lines[1:]]) + "\n")
    os.utime(entry, (time.timestamp(), time.timestamp()))


def test_vacuum_keeps_for_a_day_what_a_restore_needs(store, storage, tables, restore, ids):
    store("t", ROWS, "create")
    deleted = tables.delete("t", "id = 1")
    maintenance.run_round(storage, clock=FakeClock(_now() + HOUR * 24.5))

    restore("t", _undo(deleted.committed_at))

    assert ids() == [1, 2, 3]


def test_vacuum_keeps_old_files_that_were_removed_today(store, storage, tables, restore, ids):
    store("t", ROWS, "create")
    [file] = Path(storage.child_uri("t")).glob("*.parquet")
    old = (_now() - 72 * HOUR).timestamp()
    os.utime(file, (old, old))
    deleted = tables.delete("t", "id = 1")
    optimize(storage, "t")

    report = maintenance.run_round(storage)

    assert (report.status.vacuumed_at is not None, report.status.done.get("removed_files", 0)) == (True, 0)
    restore("t", _undo(deleted.committed_at))
    assert ids() == [1, 2, 3]


def test_a_dropped_table_is_removed_when_its_drop_cannot_be_undone_any_more(store, storage, tables, restore):
    store("t", ROWS, "create")
    dropped_at = tables.drop("t")
    maintenance.run_round(storage, clock=FakeClock(_now() + 24.5 * HOUR))
    with pytest.raises(UsageError):
        restore("t", _undo(dropped_at), clock=FakeClock(_now() + 24.5 * HOUR))
    assert list(Path(storage.child_uri("_micromegas/dropped")).iterdir())

    report = maintenance.run_round(storage, clock=FakeClock(_now() + 25.5 * HOUR))

    assert report.status.done["removed_tables"] == 1
    assert list(Path(storage.child_uri("_micromegas/dropped")).iterdir()) == []
    with pytest.raises(UsageError, match="There is no table"):
        restore("t", _undo(dropped_at))


def test_a_longer_undo_keeps_log_files_and_drops_for_that_long(store, storage, tables, restore, ids):
    store("t", ROWS, "create")
    assert tables.describe("t")["undo_hours"] == 24
    tables.set_undo_hours("t", 72)
    deleted = tables.delete("t", "id = 1")
    log = sorted(Path(storage.child_uri("t/_delta_log")).glob("*.json"))
    late = FakeClock(_now() + 71 * HOUR)
    maintenance.run_round(storage, settings=MaintenanceSettings(checkpoint_commits=1), clock=late)

    restore("t", _undo(deleted.committed_at), clock=late)

    assert (ids(), tables.describe("t")["undo_hours"]) == ([1, 2, 3], 72)
    assert all(entry.exists() for entry in log)
    dropped_at = tables.drop("t")
    maintenance.run_round(storage, clock=FakeClock(dropped_at + 71 * HOUR))
    with pytest.raises(UsageError, match="no longer exist"):
        restore("t", _undo(dropped_at), clock=FakeClock(dropped_at + 73 * HOUR))
    restore("t", _undo(dropped_at), clock=FakeClock(dropped_at + 71 * HOUR))
    assert ids() == [1, 2, 3]
    dropped_at = tables.drop("t")
    report = maintenance.run_round(storage, clock=FakeClock(dropped_at + 74 * HOUR))
    assert report.status.done["removed_tables"] == 1


def test_a_dropped_table_of_another_program_comes_back_though_it_cannot_be_written(tables, restore, storage):
    path = storage.child_uri("t")
    write_deltalake(path, ROWS, configuration={"delta.enableChangeDataFeed": "true"})
    before = DeltaTable(path).version()
    dropped_at = tables.drop("t")

    restore("t", _undo(dropped_at))

    assert (DeltaTable(path).version(), DeltaTable(path).count()) == (before, 3)


def test_a_table_that_only_grows_is_not_restored(restore, storage, ids):
    path = storage.child_uri("t")
    write_deltalake(path, ROWS, configuration={"delta.appendOnly": "true"})
    before = _now()
    write_deltalake(path, MORE, mode="append")

    with pytest.raises(UsageError, match="appendOnly"):
        restore("t", before)

    assert ids() == [1, 2, 3, 4, 5]


def _shown(storage):
    with asking(ServedFolder(storage)) as ask:
        return [row["a"] for row in ask.rows("SELECT a FROM t ORDER BY a")]


def check_vectors_are_restored(storage, mode):
    """Restore states with other deletion vectors, and name the file of one that is gone."""
    write_mapped(storage, "t", [pa.table({"a": [1, 2, 3, 4]})], mode=mode, physical={"a": "b"})
    first = delete_rows(storage, "t", lambda *_: [0])
    delete_rows(storage, "t", lambda *_: [0, 1])

    def restore(version, *, dry_run=False):
        request = RestoreRequest("t", version, dry_run=dry_run)
        return restore_table(Tables(storage), request, clock=FakeClock(dt.datetime.fromtimestamp(60, dt.UTC)))

    for version, left in ((1, [2, 3, 4]), (2, [3, 4]), (0, [1, 2, 3, 4]), (1, [2, 3, 4]), (2, [3, 4])):
        restore(version)
        assert _shown(storage) == left
    storage.delete(first)
    assert restore(1, dry_run=True).missing_files == (first.removeprefix("t/"),)
    with pytest.raises(UsageError, match=first.removeprefix("t/")):
        restore(1)
    assert _shown(storage) == [3, 4]


@pytest.mark.parametrize("mode", ["name", "id"])
def test_deletion_vectors_and_mapped_columns_are_restored(storage, mode):
    check_vectors_are_restored(storage, mode)


def test_another_column_mapping_is_not_restored(storage, restore):
    write_mapped(storage, "t", [pa.table({"a": [1]})], mode="id", physical={"a": "b"})
    changed = delta_log.read_state(storage, "t", 0).metadata
    changed = {**changed, "configuration": {**changed["configuration"], "delta.columnMapping.mode": "name"}}
    entry = [{"commitInfo": {"timestamp": 2}}, {"metaData": changed}]
    storage.write(
        delta_log.log_path("t", delta_log.entry_name(1)), "".join(json.dumps(one) + "\n" for one in entry).encode()
    )

    with pytest.raises(UsageError, match="column mapping"):
        restore("t", 0, clock=FakeClock(dt.datetime.fromtimestamp(60, dt.UTC)))


def test_of_many_restores_of_a_dropped_table_one_brings_it_back(tables, store, storage, ids):
    store("t", ROWS, "create")
    times = [_now()]
    store("t", MORE)
    times.append(_now())
    tables.drop("t")

    def run(number):
        try:
            return restore_table(Tables(storage), RestoreRequest("t", times[number % 2])).was_dropped and number % 2
        except UsageError:
            return None

    with ThreadPoolExecutor(6) as pool:
        found = [one for one in pool.map(run, range(6)) if one is not None]

    first = [number for number in found if number is not False]
    assert ids() in ([1, 2, 3], [1, 2, 3, 4, 5])
    assert first
    assert list(Path(storage.child_uri("_micromegas/dropped")).iterdir()) == []


_KILLED = """
import datetime as dt, os, signal, sys
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.lake import restore
from micromegas_jupyter.lake.served_folder import ServedFolder
from micromegas_jupyter.lake.tables import Tables
import pathlib

storage, calls = Storage(sys.argv[1]), 0
limit = int(sys.argv[3])

def counted(owner, name):
    call = getattr(owner, name)
    def run(*arguments, **options):
        global calls
        calls += 1
        if calls == limit:
            os.kill(os.getpid(), signal.SIGKILL)
        result = call(*arguments, **options)
        calls += 1
        if calls == limit:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(owner, name, run)

counted(Storage, "create")
counted(pathlib.Path, "rename")
tables = Tables(storage)
if sys.argv[2] == "drop":
    tables.drop("t")
else:
    time = dt.datetime.fromisoformat(sys.argv[2])
    restore.restore_table(tables, restore.RestoreRequest("t", time))
print("done")
"""


def _run_killed(storage, what, limit):
    command = [sys.executable, "-c", _KILLED, storage.uri, what, str(limit)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
def test_a_kill_leaves_the_table_dropped_or_not_and_restored_or_not(tables, store, storage, ids, restore):
    store("t", ROWS, "create")
    before = _now()
    tables.delete("t", "id = 1")
    deleted = [2, 3]

    for limit in (1, 2):  # around the one rename of a drop
        assert _run_killed(storage, "drop", limit).returncode == -signal.SIGKILL
        if limit == 1:
            assert ids() == deleted
    assert tables.list() == ()
    for limit in (1, 2, 3):  # before and after the commit, and before the table is renamed
        assert _run_killed(storage, before.isoformat(), limit).returncode == -signal.SIGKILL
        assert tables.list() == ()
    assert _run_killed(storage, before.isoformat(), 4).returncode == -signal.SIGKILL

    assert ids() == [1, 2, 3]


def test_a_dropped_table_is_neither_listed_nor_found(tables, store, storage):
    store("t", ROWS, "create")
    tables.drop("t")
    lake = Lake(storage)

    assert "t" not in {one.name for one in lake.snapshot()}
    assert "t" not in {one.name for one in lake.snapshot("SELECT * FROM t")}
    with pytest.raises(UsageError):
        tables.describe("t")


STEPS, LONG_STEPS = 40, 1500


@pytest.mark.slow
def test_any_state_of_any_table_that_had_the_name_comes_back(storage, pytestconfig):
    """Changes are random; each state so far is a possible target of a restore."""
    chance = random.Random(25)
    steps = LONG_STEPS if pytestconfig.getoption("--long") else STEPS
    tables, writers = Tables(storage), [LakeWriter(storage, interval_seconds=0) for _ in range(2)]
    states = []  # when, and which ids there were; None while there was no table
    there, number = None, 0

    def after(ids):
        time.sleep(0.003)  # times of commits are whole milliseconds
        states.append((_now(), ids))
        return ids

    there = after(None)
    for _ in range(steps):
        change = chance.choice(
            ["append"] * 4 + ["delete", "delete", "drop", "replace", "optimize", "checkpoint", "restore", "restore"]
        )
        if change == "restore":
            when, wanted = chance.choice(states)
            alive = there is not None
            try:
                restore_table(tables, RestoreRequest("t", when))
            except UsageError:
                assert wanted is None or alive, when
                continue
            assert wanted is not None
            there = after(wanted)
        elif there is None:
            with suppress(UsageError):
                tables.create("t", ROWS.schema)
            there = after(frozenset())
        elif change == "append":
            number += 1
            chance.choice(writers).append("t", pa.table({"id": [number]})).result()
            there = after(there | {number})
        elif change == "delete":
            rest = chance.randrange(3)
            tables.delete("t", f"id % 3 = {rest}")
            there = after(frozenset(one for one in there if one % 3 != rest))
        elif change == "drop":
            tables.drop("t")
            there = after(None)
        elif change == "replace":
            write = writers[0].open_write(WriteRequest(table="t", mode=WriteMode.REPLACE), ROWS.schema)
            write.write(ROWS.to_batches()[0])
            write.commit()
            there = after(frozenset([1, 2, 3]))
        elif change == "optimize":
            optimize(storage, "t")
        else:
            _checkpoint(storage)
        found = None if there is None else set(DeltaTable(storage.child_uri("t")).to_pyarrow_table()["id"].to_pylist())
        assert found == there
    for one in writers:
        one.close()
