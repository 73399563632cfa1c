"""A caller makes so many tables, and learns of a table that they may not read only what they sent themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from micromegas_jupyter.core.protocols import WriteMode, WriteRequest
from micromegas_jupyter.errors import MicromegasError, ResourcesExhausted, UsageError
from micromegas_jupyter.lake import Lake

if TYPE_CHECKING:
    from pathlib import Path

ROWS = pa.record_batch({"id": [1]})
HIDDEN = pa.schema([pa.field("id", pa.int64()), pa.field("salary", pa.float64(), nullable=False)])


def _make(root: Path, name: str, maker: str, *, most: int | None = 2, mode: WriteMode = WriteMode.CREATE) -> int:
    request = WriteRequest(table=name, mode=mode, maker=maker, most_tables=most)
    write = Lake(root).sink().open_write(request, ROWS.schema)
    write.write(ROWS)
    return write.commit()


def test_a_caller_makes_so_many_tables_and_still_adds_to_them(tmp_path: Path) -> None:
    _make(tmp_path, "first", "a1")
    _make(tmp_path, "second", "a1", mode=WriteMode.CREATE_OR_APPEND)

    for mode in (WriteMode.CREATE, WriteMode.CREATE_OR_APPEND):
        with pytest.raises(ResourcesExhausted, match="You have made 2 tables") as caught:
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
def test_what_is_wrong_is_said_of_ones_own_columns_only(tmp_path: Path, sent: pa.Schema, words: str) -> None:
    Lake(tmp_path).sink().open_write(WriteRequest(table="pay", mode=WriteMode.CREATE), HIDDEN).commit()

    def refused(*, may_read: bool) -> str:
        request = WriteRequest(table="pay", mode=WriteMode.APPEND, may_read=may_read)
        with pytest.raises(UsageError) as caught:
            Lake(tmp_path).sink().open_write(request, sent)
        return str(caught.value)

    told, hidden = refused(may_read=True), refused(may_read=False)

    assert words in hidden
    assert ("salary" in hidden, "int64" in hidden) == (False, False)
    assert "salary" in told or "int64" in told


def test_a_value_that_does_not_fit_does_not_tell_the_columns_type(tmp_path: Path) -> None:
    Lake(tmp_path).sink().open_write(
        WriteRequest(table="small", mode=WriteMode.CREATE), pa.schema({"n": pa.int8()})
    ).commit()
    rows = pa.record_batch({"n": pa.array([1000], pa.int64())})

    def refused(*, may_read: bool) -> str:
        request = WriteRequest(table="small", mode=WriteMode.APPEND, may_read=may_read)
        with pytest.raises(MicromegasError) as caught:
            Lake(tmp_path).sink().open_write(request, rows.schema).write(rows)
        return str(caught.value)

    assert "int8" in refused(may_read=True)
    assert "int8" not in refused(may_read=False)
