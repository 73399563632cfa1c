"""A lake lists what its writers stored."""

import os

import pyarrow as pa
import pytest

from micromegas_jupyter.core.protocols import WriteMode, WriteRequest
from micromegas_jupyter.errors import MicromegasError, ResourcesExhausted, Unavailable, UsageError
from micromegas_jupyter.lake.files import Segment, SegmentWriter, parse_segment, publish, select_visible
from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.lake.user_tables import UserTable, UserTables, check_fits, convert_rows, stored_schema
from micromegas_jupyter.telemetry.tables import LOG_ENTRIES
from tests.fakes.telemetry_rows import log_batch


@pytest.fixture
def lake(tmp_path, clock):
    return Lake(tmp_path / "lake", clock=clock)


def _logs(lake):
    return next(snapshot for snapshot in lake.snapshot() if snapshot.name == "log_entries")


def test_a_folder_that_changed_just_now_is_listed_again(lake, tmp_path, clock):
    writer = lake.open_writer("a")
    writer.append("log_entries", log_batch([1]))
    folder = tmp_path / "lake" / "log_entries"
    just_now = clock.now().timestamp() - 0.01
    os.utime(folder, (just_now, just_now))
    before = _logs(lake)
    writer.append("log_entries", log_batch([2]))
    # A second change in the same step of the file system's clock.
    os.utime(folder, (just_now, just_now))

    after = _logs(lake)

    assert (len(before.files), len(after.files)) == (1, 2)
    writer.close()


def test_all_that_is_written_is_for_this_account_only(lake, tmp_path):
    writer = lake.open_writer("a")
    writer.append("log_entries", log_batch([1]))
    _create(tmp_path / "lake", "t", pa.record_batch({"id": [1]}))
    writer.close()

    modes = {(path.is_dir(), path.stat().st_mode & 0o777) for path in (tmp_path / "lake").rglob("*")}

    assert modes == {(True, 0o700), (False, 0o600)}


def test_only_unfinished_files_of_long_ago_are_removed(lake, tmp_path, clock):
    folder = tmp_path / "lake" / "log_entries"
    folder.mkdir(parents=True)
    now = clock.now().timestamp()
    for name, age in ((".old.tmp", 3700), (".new.tmp", 3500), ("old.parquet", 3700)):
        (folder / name).touch()
        os.utime(folder / name, (now - age, now - age))

    lake.remove_stale_files()

    assert {path.name for path in folder.iterdir()} == {".new.tmp", "old.parquet"}


@pytest.mark.parametrize(
    "name",
    [
        "part-0.parquet",
        ".writer1-000000000000-000000000000.w.tmp",
        "writer1-000000000005-000000000004.parquet",
        "writer1-٠٠٠٠٠٠٠٠٠٠٠٠-000000000000.parquet",
        "writer1-000000000000-000000000000.parquet\n",
    ],
)
def test_any_other_file_is_no_segment(name):
    assert parse_segment(name) is None


def test_a_merged_file_hides_what_it_was_made_of_and_a_tombstone_all_of_its_range():
    merged, beyond = Segment("a", 0, 3), Segment("a", 4, 4)
    sources = [Segment("a", 0, 0), Segment("a", 1, 2), Segment("a", 3, 3)]

    assert select_visible([beyond, *sources, merged]) == [merged, beyond]
    assert select_visible([beyond, *sources, merged, merged._replace(is_tombstone=True)]) == [beyond]


NAME = "w-000000000000-000000000000.parquet"


def test_a_link_in_the_place_of_a_temporary_file_is_not_followed(tmp_path):
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    folder = tmp_path / "table"
    folder.mkdir()
    (folder / ".w-000000000000-000000000000.w.tmp").symlink_to(target)

    with pytest.raises(FileExistsError):
        publish(folder, NAME, owner_id="w", write=lambda stream: stream.write(b"rows"))

    assert target.read_bytes() == b"precious"


@pytest.fixture
def writer(tmp_path):
    return SegmentWriter(tmp_path / "log_entries", LOG_ENTRIES, writer_id="w")


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_number_is_not_used_again_after_a_failure(writer, tmp_path):
    (tmp_path / "log_entries").write_text("a file in the folder's place")
    with pytest.raises(Unavailable):
        writer.append(log_batch([1]))
    (tmp_path / "log_entries").unlink()

    writer.append(log_batch([2]))

    assert _names(tmp_path / "log_entries") == ["w-000000000001-000000000001.parquet"]
    assert writer.settled_sequence == 2


SCHEMA = pa.schema([pa.field("id", pa.int64(), nullable=False), ("name", pa.utf8())])
FOLDER = "0" * 32


def _add(tables, name="t", folder=FOLDER):
    return tables.add(UserTable(name=name, schema=SCHEMA, folder=tables.rows_folder(folder), write_id="f"))


def _create(root, name, rows, mode=WriteMode.CREATE):
    write = Lake(root).sink().open_write(WriteRequest(table=name, mode=mode), rows.schema)
    try:
        write.write(rows)
        return write.commit()
    finally:
        write.abandon()


@pytest.mark.parametrize(
    "content", [b"", b"noise", SCHEMA.serialize().to_pybytes()], ids=["empty", "noise", "nameless"]
)
def test_a_description_that_cannot_be_read_makes_no_table_and_hides_no_other(tmp_path, content):
    tables = UserTables(tmp_path)
    _add(tables)
    (tmp_path / ".tables" / f"{'a' * 32}.table").write_bytes(content)

    assert [table.name for table in tables.list()] == ["t"]


def test_leftovers_go_once_they_are_old_and_tables_stay(tmp_path):
    _create(tmp_path, "kept", pa.record_batch({"id": [1]}))
    lost = tmp_path / ".tables" / "rows" / ("c" * 32)
    lost.mkdir()
    (lost / "half.parquet").write_bytes(b"")
    (tmp_path / ".tables" / ".cut.tmp").write_bytes(b"")
    tables = UserTables(tmp_path)
    before = (lost / "half.parquet").stat().st_mtime

    tables.remove_stale_files(modified_before=before - 10)
    assert lost.exists()
    tables.remove_stale_files(modified_before=before + 10)
    assert not lost.exists()
    (snapshot,) = [table for table in Lake(tmp_path).snapshot() if table.name == "kept"]
    assert len(snapshot.files) == 1


def test_a_table_made_meanwhile_with_other_columns_is_not_written_to(tmp_path):
    rows = pa.record_batch({"id": [1]})
    request = WriteRequest(table="t", mode=WriteMode.CREATE_OR_APPEND)
    write = Lake(tmp_path).sink().open_write(request, rows.schema)
    write.write(rows)
    _create(tmp_path, "t", pa.record_batch({"other": [1]}))
    before = sorted(path for path in tmp_path.rglob("*.parquet"))

    with pytest.raises(UsageError, match="created by another call"):
        write.commit()
    write.abandon()

    assert sorted(path for path in tmp_path.rglob("*.parquet")) == before


def test_a_required_column_stays_required():
    stored = stored_schema(SCHEMA)

    with pytest.raises(UsageError, match="'id' is missing"):
        check_fits(pa.schema({"name": pa.utf8()}), stored)
    with pytest.raises(UsageError, match="'id' lacks a value"):
        convert_rows(pa.record_batch({"id": pa.nulls(1)}), stored)


@pytest.mark.parametrize(
    ("zone", "is_kept"),
    [
        ("UTC", True),
        ("Europe/Paris", True),
        ("+02:00", True),
        ("+24:00", False),
        ("../UTC", False),
        ("Not/There", False),
    ],
)
def test_time_zones_are_known_ones(zone, is_kept):
    schema = pa.schema({"t": pa.timestamp("us", zone)})

    if is_kept:
        assert stored_schema(schema).field("t").type == pa.timestamp("ns", zone)
    else:
        with pytest.raises(UsageError, match="cannot be stored"):
            stored_schema(schema)


@pytest.mark.parametrize("kind", [pa.decimal128(10, -2), pa.decimal256(50, -1), pa.list_(pa.decimal128(3, 5))])
def test_decimals_that_parquet_does_not_have_are_refused_and_not_taken_for_a_full_disk(kind):
    with pytest.raises(UsageError, match=r"'n' has the type .*cannot be stored"):
        stored_schema(pa.schema([("n", kind)]))


ROWS = pa.record_batch({"id": [1]})
HIDDEN = pa.schema([pa.field("id", pa.int64()), pa.field("salary", pa.float64(), nullable=False)])


def _make(root, name, maker, *, most=2, mode=WriteMode.CREATE):
    request = WriteRequest(table=name, mode=mode, maker=maker, most_tables=most)
    write = Lake(root).sink().open_write(request, ROWS.schema)
    write.write(ROWS)
    return write.commit()


def test_a_caller_makes_so_many_tables_and_still_adds_to_them(tmp_path):
    _make(tmp_path, "first", "a1")
    _make(tmp_path, "second", "a1", mode=WriteMode.CREATE_OR_APPEND)

    for mode in (WriteMode.CREATE, WriteMode.CREATE_OR_APPEND):
        with pytest.raises(ResourcesExhausted, match="You have created 2 tables") as caught:
            _make(tmp_path, "third", "a1", mode=mode)

    assert caught.value.limit == "ingest"
    assert _make(tmp_path, "first", "a1", mode=WriteMode.APPEND) == 1
    assert _make(tmp_path, "third", "b2") == 1
    assert _make(tmp_path, "fourth", "a1", most=None) == 1


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (pa.schema({"id": pa.int64(), "other": pa.int64()}), "has no column 'other'"),
        (pa.schema({"id": pa.utf8(), "salary": pa.float64()}), "'id' has the type string, and the table's has another"),
        (pa.schema({"id": pa.int64()}), "A column that needs a value is missing"),
    ],
)
def test_what_is_wrong_is_said_of_ones_own_columns_only(tmp_path, sent, words):
    Lake(tmp_path).sink().open_write(WriteRequest(table="pay", mode=WriteMode.CREATE), HIDDEN).commit()

    def refused(*, may_read):
        request = WriteRequest(table="pay", mode=WriteMode.APPEND, may_read=may_read)
        with pytest.raises(UsageError) as caught:
            Lake(tmp_path).sink().open_write(request, sent)
        return str(caught.value)

    told, hidden = refused(may_read=True), refused(may_read=False)

    assert words in hidden
    assert ("salary" in hidden, "int64" in hidden) == (False, False)
    assert "salary" in told or "int64" in told


def test_a_value_that_does_not_fit_does_not_tell_the_columns_type(tmp_path):
    Lake(tmp_path).sink().open_write(
        WriteRequest(table="small", mode=WriteMode.CREATE), pa.schema({"n": pa.int8()})
    ).commit()
    rows = pa.record_batch({"n": pa.array([1000], pa.int64())})

    def refused(*, may_read):
        request = WriteRequest(table="small", mode=WriteMode.APPEND, may_read=may_read)
        with pytest.raises(MicromegasError) as caught:
            Lake(tmp_path).sink().open_write(request, rows.schema).write(rows)
        return str(caught.value)

    assert "int8" in refused(may_read=True)
    assert "int8" not in refused(may_read=False)
