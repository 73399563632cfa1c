"""A lake lists what its writers stored."""

import os

import pyarrow as pa
import pytest

from micromegas_jupyter.core.protocols import WriteMode, WriteRequest
from micromegas_jupyter.errors import MicromegasError, ResourcesExhausted, Unavailable, UsageError
from micromegas_jupyter.lake.files import SegmentWriter, parse_segment, publish
from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.lake.user_tables import UserTables, check_fits, convert_rows, stored_schema
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


def test_a_link_in_the_place_of_a_temporary_file_is_not_followed(tmp_path):
    name = "w-000000000000-000000000000"
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / f".{name}.w.tmp").symlink_to(tmp_path / "target")

    with pytest.raises(FileExistsError):
        publish(tmp_path, f"{name}.parquet", owner_id="w", write=lambda stream: stream.write(b"rows"))

    assert (tmp_path / "target").read_bytes() == b"precious"


def test_a_number_is_not_used_again_after_a_failure(tmp_path):
    folder = tmp_path / "log_entries"
    writer = SegmentWriter(folder, LOG_ENTRIES, writer_id="w")
    folder.write_text("a file in the folder's place")
    with pytest.raises(Unavailable):
        writer.append(log_batch([1]))
    folder.unlink()

    writer.append(log_batch([2]))

    assert [path.name for path in folder.iterdir()] == ["w-000000000001-000000000001.parquet"]
    assert writer.settled_sequence == 2


SCHEMA = pa.schema([pa.field("id", pa.int64(), nullable=False), ("name", pa.utf8())])
ROWS = pa.record_batch({"id": [1]})


def _create(root, name, rows, mode=WriteMode.CREATE, **options):
    write = Lake(root).sink().open_write(WriteRequest(table=name, mode=mode, **options), rows.schema)
    write.write(rows)
    return write.commit()


@pytest.mark.parametrize(
    "content", [b"", b"noise", SCHEMA.serialize().to_pybytes()], ids=["empty", "noise", "nameless"]
)
def test_a_description_that_cannot_be_read_makes_no_table_and_hides_no_other(tmp_path, content):
    _create(tmp_path, "t", ROWS)
    (tmp_path / ".tables" / f"{'a' * 32}.table").write_bytes(content)

    assert [table.name for table in UserTables(tmp_path).list()] == ["t"]


def test_leftovers_go_once_they_are_old_and_tables_stay(tmp_path):
    _create(tmp_path, "kept", ROWS)
    lost = tmp_path / ".tables" / "rows" / ("c" * 32)
    lost.mkdir()
    (lost / "half.parquet").write_bytes(b"")
    tables = UserTables(tmp_path)
    before = (lost / "half.parquet").stat().st_mtime

    tables.remove_stale_files(modified_before=before - 10)
    assert lost.exists()
    tables.remove_stale_files(modified_before=before + 10)
    assert not lost.exists()
    (snapshot,) = [table for table in Lake(tmp_path).snapshot() if table.name == "kept"]
    assert len(snapshot.files) == 1


def test_a_table_made_meanwhile_with_other_columns_is_not_written_to(tmp_path):
    request = WriteRequest(table="t", mode=WriteMode.CREATE_OR_APPEND)
    write = Lake(tmp_path).sink().open_write(request, ROWS.schema)
    write.write(ROWS)
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


@pytest.mark.parametrize("zone", ["UTC", "Europe/Paris", "+02:00"])
def test_a_known_time_zone_is_kept(zone):
    assert stored_schema(pa.schema({"t": pa.timestamp("us", zone)})).field("t").type == pa.timestamp("ns", zone)


# Of decimals, those that Parquet does not have are not to be taken for a full disk.
@pytest.mark.parametrize(
    "kind",
    [
        *(pa.timestamp("us", zone) for zone in ("+24:00", "../UTC", "Not/There")),
        pa.decimal128(10, -2),
        pa.decimal256(50, -1),
        pa.list_(pa.decimal128(3, 5)),
    ],
)
def test_what_cannot_be_stored_is_refused(kind):
    with pytest.raises(UsageError, match=r"'n' has the type .*cannot be stored"):
        stored_schema(pa.schema([("n", kind)]))


HIDDEN = pa.schema([pa.field("id", pa.int8()), pa.field("salary", pa.float64(), nullable=False)])


def test_a_caller_makes_so_many_tables_and_still_adds_to_them(tmp_path):
    def make(name, maker, mode=WriteMode.CREATE, most=2):
        return _create(tmp_path, name, ROWS, mode, maker=maker, most_tables=most)

    make("first", "a1")
    make("second", "a1", WriteMode.CREATE_OR_APPEND)

    for mode in (WriteMode.CREATE, WriteMode.CREATE_OR_APPEND):
        with pytest.raises(ResourcesExhausted, match="You have created 2 tables") as caught:
            make("third", "a1", mode)
        assert caught.value.limit == "ingest"
    assert make("first", "a1", WriteMode.APPEND) == 1
    assert make("third", "b2") == 1
    assert make("fourth", "a1", most=None) == 1


@pytest.mark.parametrize(
    ("sent", "words", "secret"),
    [
        ({"id": [1], "other": [1]}, "has no column 'other'", "salary"),
        ({"id": ["a"], "salary": [1.0]}, "'id' has the type string, and the table's has another", "int8"),
        ({"id": [1]}, "A column that needs a value is missing", "salary"),
        ({"id": [1000], "salary": [1.0]}, "'id'", "int8"),
    ],
    ids=["unknown column", "other type", "missing column", "value that does not fit"],
)
def test_what_is_wrong_is_said_of_ones_own_columns_only(tmp_path, sent, words, secret):
    rows = pa.record_batch(sent)
    Lake(tmp_path).sink().open_write(WriteRequest(table="pay", mode=WriteMode.CREATE), HIDDEN).commit()

    def refused(*, may_read):
        with pytest.raises(MicromegasError) as caught:
            _create(tmp_path, "pay", rows, WriteMode.APPEND, may_read=may_read)
        return str(caught.value)

    told, hidden = refused(may_read=True), refused(may_read=False)

    assert words in hidden
    assert secret in told
    assert ("salary" in hidden, "int8" in hidden) == (False, False)
