import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.core.protocols import TableSource
from micromegas_jupyter.errors import Unavailable, UsageError
from micromegas_jupyter.lake import ParquetFolder, parquet_folder

NUMBERS = pa.table({"n": [1, 2]})


def write(path: Path, rows: pa.Table = NUMBERS) -> Path:
    path.parent.mkdir(exist_ok=True)
    pq.write_table(rows, path)
    return path


def names(folder: ParquetFolder) -> list[str]:
    return [snapshot.name for snapshot in folder.snapshot()]


def test_each_file_and_each_sub_folder_is_a_table_by_its_name(tmp_path: Path) -> None:
    write(tmp_path / "events.parquet")
    write(tmp_path / "My Table.PARQUET")
    write(tmp_path / "trips" / "1.parquet")
    write(tmp_path / "trips" / "2.parquet")
    (tmp_path / "notes.txt").write_text("no table")

    folder = ParquetFolder(tmp_path)

    assert isinstance(folder, TableSource)
    assert [(found.name, found.files) for found in folder.snapshot()] == [
        ("My Table", (str(tmp_path / "My Table.PARQUET"),)),
        ("events", (str(tmp_path / "events.parquet"),)),
        ("trips", (str(tmp_path / "trips" / "1.parquet"), str(tmp_path / "trips" / "2.parquet"))),
    ]
    assert folder.problems == ()


def test_a_column_that_not_every_file_of_a_table_has_may_be_null(tmp_path: Path) -> None:
    needed = pa.schema([pa.field("n", pa.int64(), nullable=False)])
    write(tmp_path / "trips" / "1.parquet", NUMBERS.cast(needed))
    write(tmp_path / "trips" / "2.parquet", pa.table({"n": [3], "name": ["c"]}))

    (trips,) = ParquetFolder(tmp_path).snapshot()

    assert trips.schema == pa.schema([("n", pa.int64()), ("name", pa.string())])
    assert all(field.nullable for field in trips.schema)


def test_a_file_whose_columns_contradict_the_others_is_left_out_and_told(tmp_path: Path) -> None:
    write(tmp_path / "trips" / "1.parquet")
    write(tmp_path / "trips" / "2.parquet", pa.table({"n": ["text"]}))

    folder = ParquetFolder(tmp_path)

    (trips,) = folder.snapshot()
    assert trips.files == (str(tmp_path / "trips" / "1.parquet"),)
    assert folder.problems == (
        "trips/2.parquet is left out: its column 'n' has another type than in the files before it.",
    )


def test_a_table_with_a_time_can_be_cut_to_a_range(tmp_path: Path) -> None:
    write(tmp_path / "events.parquet", pa.table({"time": pa.array([0], pa.timestamp("us"))}))
    write(tmp_path / "texts.parquet", pa.table({"time": ["noon"]}))

    events, texts = ParquetFolder(tmp_path).snapshot()

    assert events.range_columns == ("time", "time")
    assert texts.range_columns is None


def test_the_notes_of_whoever_wrote_a_file_are_no_part_of_the_schema(tmp_path: Path) -> None:
    noted = pa.schema([pa.field("id", pa.uuid(), metadata={"note": "x"})], metadata={"pandas": "{}"})
    write(tmp_path / "ids.parquet", pa.table({"id": [b"0" * 16]}, schema=noted))

    (ids,) = ParquetFolder(tmp_path).snapshot()

    assert ids.schema == pa.schema([("id", pa.binary(16))])
    assert ids.schema.metadata is None
    assert ids.schema.field("id").metadata is None


def test_a_broken_file_is_left_out_and_told(tmp_path: Path) -> None:
    write(tmp_path / "events.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "nothing.parquet").write_bytes(b"")

    folder = ParquetFolder(tmp_path)

    assert names(folder) == ["events"]
    assert folder.problems == (
        "broken.parquet is left out: it cannot be read as a Parquet file.",
        "nothing.parquet is left out: it cannot be read as a Parquet file.",
    )


@pytest.mark.parametrize("odd", ["odd.parquet", "trips/2.parquet"])
def test_a_file_with_two_columns_of_one_name_which_the_engine_takes_for_no_table_is_left_out(
    tmp_path: Path, odd: str
) -> None:
    write(tmp_path / "events.parquet")
    write(tmp_path / odd, pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["n", "n"]))

    folder = ParquetFolder(tmp_path)

    assert names(folder) == ["events"]
    assert folder.problems == (f"{odd} is left out: two of its columns have the same name.",)


def test_a_pipe_is_left_out_and_not_waited_for(tmp_path: Path) -> None:
    write(tmp_path / "events.parquet")
    os.mkfifo(tmp_path / "pipe.parquet")

    folder = ParquetFolder(tmp_path)

    assert names(folder) == ["events"]
    assert folder.problems == ("pipe.parquet is left out: it is not a file.",)


def test_links_are_not_followed_wherever_they_lead(tmp_path: Path) -> None:
    write(tmp_path / "outside" / "secret.parquet")
    served = tmp_path / "served"
    write(served / "events.parquet")
    (served / "trips").mkdir()
    (served / "trips" / "1.parquet").symlink_to(tmp_path / "outside" / "secret.parquet")
    (served / "file.parquet").symlink_to(tmp_path / "outside" / "secret.parquet")
    (served / "inner.parquet").symlink_to(served / "events.parquet")
    (served / "folder").symlink_to(tmp_path / "outside")
    (served / "gone.txt").symlink_to(tmp_path / "nowhere")

    folder = ParquetFolder(served)

    assert names(folder) == ["events"]
    told = "is left out: it is a link, and links are not followed."
    assert folder.problems == (
        f"file.parquet {told}",
        f"folder {told}",
        f"inner.parquet {told}",
        f"trips/1.parquet {told}",
    )


def test_a_link_or_a_folder_among_the_files_of_a_table_leaves_the_others(tmp_path: Path) -> None:
    write(tmp_path / "trips" / "1.parquet")
    (tmp_path / "trips" / "2.parquet").symlink_to("1.parquet")
    (tmp_path / "trips" / "3.parquet").mkdir()

    folder = ParquetFolder(tmp_path)

    (trips,) = folder.snapshot()
    assert trips.files == (str(tmp_path / "trips" / "1.parquet"),)
    assert folder.problems == (
        "trips/2.parquet is left out: it is a link, and links are not followed.",
        "trips/3.parquet is left out: it is not a file.",
    )


def test_the_folder_itself_may_be_named_by_a_link(tmp_path: Path) -> None:
    write(tmp_path / "data" / "events.parquet")
    (tmp_path / "link").symlink_to(tmp_path / "data")

    assert names(ParquetFolder(tmp_path / "link")) == ["events"]


def test_what_is_hidden_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path / ".hidden.parquet")
    write(tmp_path / "_temporary" / "1.parquet")
    write(tmp_path / "trips" / "_metadata.parquet")

    folder = ParquetFolder(tmp_path)

    assert names(folder) == []
    assert folder.problems == ()


def test_two_of_one_name_are_told_and_the_first_counts(tmp_path: Path) -> None:
    write(tmp_path / "trips" / "1.parquet")
    write(tmp_path / "trips.parquet")

    folder = ParquetFolder(tmp_path)

    (trips,) = folder.snapshot()
    assert trips.files == (str(tmp_path / "trips" / "1.parquet"),)
    assert folder.problems == ("trips.parquet is left out: there is a table of that name already.",)


def test_files_below_a_sub_folder_are_not_read_and_told(tmp_path: Path) -> None:
    (tmp_path / "trips").mkdir()
    write(tmp_path / "trips" / "year=2026" / "1.parquet")

    folder = ParquetFolder(tmp_path)

    assert names(folder) == []
    assert folder.problems == (
        "trips is left out: it holds no Parquet file itself, and folders below it are not read.",
    )


def test_a_name_that_is_no_text_is_left_out_and_told(tmp_path: Path) -> None:
    write(tmp_path / "events.parquet")
    odd = os.fsencode(tmp_path) + b"/odd\xff.parquet"
    Path(os.fsdecode(odd)).write_bytes((tmp_path / "events.parquet").read_bytes())

    folder = ParquetFolder(tmp_path)

    assert names(folder) == ["events"]
    assert folder.problems == ("odd\udcff.parquet is left out: its name is not UTF-8 text.",)


@pytest.mark.parametrize("odd", ["\x1b[31m.parquet", "a\nb/1.parquet", "trips/\x7f.parquet"])
def test_a_name_with_a_control_character_which_the_engine_takes_for_no_path_is_left_out(
    tmp_path: Path, odd: str
) -> None:
    write(tmp_path / "events.parquet")
    write(tmp_path / odd)

    folder = ParquetFolder(tmp_path)

    assert names(folder) == ["events"]
    assert folder.problems == (f"{odd} is left out: its name holds a control character.",)


def test_a_new_a_changed_and_a_removed_file_count_from_the_next_query_on(tmp_path: Path) -> None:
    write(tmp_path / "events.parquet")
    gone = write(tmp_path / "gone.parquet")
    folder = ParquetFolder(tmp_path)

    write(tmp_path / "new.parquet")
    write(tmp_path / "events.parquet", pa.table({"n": [1], "name": ["a"]}))
    gone.unlink()

    events, new = folder.snapshot()
    assert events.schema.names == ["n", "name"]
    assert new.name == "new"


def test_a_schema_is_read_once_while_the_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "events.parquet")
    folder = ParquetFolder(tmp_path)

    monkeypatch.setattr(parquet_folder.pyarrow.parquet, "read_metadata", None)

    assert names(folder) == ["events"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("missing", "There is no such folder."),
        ("file.parquet", "That is a file, not a folder."),
    ],
)
def test_what_is_no_folder_is_refused(tmp_path: Path, name: str, sentence: str) -> None:
    write(tmp_path / "file.parquet")

    with pytest.raises(UsageError) as caught:
        ParquetFolder(tmp_path / name)

    assert caught.value.what == sentence
    assert caught.value.remedy


def test_a_folder_that_may_not_be_listed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: Path) -> None:
        raise PermissionError(13, "Permission denied")  # root may list everything

    monkeypatch.setattr(Path, "iterdir", refuse)

    with pytest.raises(UsageError) as caught:
        ParquetFolder(tmp_path)

    assert caught.value.what == "The folder cannot be listed: Permission denied."


def test_a_file_that_may_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: Path) -> None:
        raise PermissionError(13, "Permission denied")  # root may read everything

    write(tmp_path / "events.parquet")
    monkeypatch.setattr(parquet_folder.pyarrow.parquet, "read_metadata", refuse)

    folder = ParquetFolder(tmp_path)

    assert folder.problems == ("events.parquet is left out: this account may not read it.",)


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_folder, "_MAX_FILES", 2)
    for name in ("a", "b", "c"):
        write(tmp_path / f"{name}.parquet")

    with pytest.raises(UsageError) as caught:
        ParquetFolder(tmp_path)

    assert caught.value.what == "The folder holds more than 2 Parquet files."


def test_a_folder_that_goes_away_later_is_not_available(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    folder = ParquetFolder(tmp_path / "data")

    (tmp_path / "data").rmdir()

    with pytest.raises(Unavailable, match="no such folder"):
        folder.snapshot()


def test_a_folder_that_becomes_a_delta_table_is_left_out(tmp_path):
    for name in ("events", "orders"):
        write(tmp_path / name / "1.parquet")
    folder = ParquetFolder(tmp_path)
    (tmp_path / "events" / "_delta_log").mkdir()

    assert names(folder) == ["orders"]
    assert "Delta table" in folder.problems[0]

    (tmp_path / "_delta_log").mkdir()
    with pytest.raises(Unavailable, match="Delta table"):
        folder.snapshot()
