"""What is shown of rows that went into a DataFrame as they came is what is shown of a table of them."""

from __future__ import annotations

import pyarrow as pa
import pytest

from micromegas_jupyter.notebook.results.rows import RowsSeen
from micromegas_jupyter.notebook.results.table import result_bundle

TABLE = pa.table(
    {
        "n": pa.array([None if number % 3 else number for number in range(5000)], pa.int64()),
        "word": pa.array(["a", "b", None, "d", "e"] * 1000).dictionary_encode(),
        "list": [[number] for number in range(5000)],
    }
)


def seen(table: pa.Table, *, max_rows: int) -> RowsSeen:
    rows = RowsSeen(table.schema, max_rows=max_rows)
    for batch in table.to_batches(max_chunksize=700):
        assert rows.note(batch) is batch
    return rows


@pytest.mark.parametrize("table", [TABLE, TABLE.slice(0, 30), TABLE.slice(0, 0)], ids=["many", "few", "none"])
def test_the_display_is_that_of_the_table(table: pa.Table) -> None:
    rows = seen(table, max_rows=1000)

    assert result_bundle(rows, max_rows=1000) == result_bundle(table, max_rows=1000)


def test_rows_behind_the_first_are_not_kept() -> None:
    rows = seen(TABLE, max_rows=100)

    assert rows.num_rows == 5000
    assert rows.slice(0, 5000).num_rows == 100
    assert rows.slice(0, 5000).get_total_buffer_size() < 4000
