"""`--format`: what the rows of a statement become."""

from decimal import Decimal

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from IPython.core.interactiveshell import InteractiveShell

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.results import rows
from micromegas_jupyter.notebook.results.rows import RowsSeen
from micromegas_jupyter.notebook.results.table import result_bundle
from tests.fakes.notebook_world import FakeWorld

TABLE = pa.table(
    {
        "n": pa.array([None if number % 3 else number for number in range(5000)], pa.int64()),
        "word": pa.array(["a", "b", None, "d", "e"] * 1000).dictionary_encode(),
        "list": [[number] for number in range(5000)],
    }
)


@pytest.mark.parametrize(
    ("option", "kind", "shown"),
    [
        ("", pd.DataFrame, "DataFrame"),
        ("--format pandas", pd.DataFrame, "DataFrame"),
        ("--format arrow", pa.Table, "pyarrow.Table"),
        ("--format polars", pl.DataFrame, "polars.DataFrame"),
    ],
)
def test_a_variable_takes_the_rows_in_the_format(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str], option: str, kind: type, shown: str
) -> None:
    done = shell.run_cell(f"%%sql errors << {option}\nSELECT n, msg FROM t")

    assert done.result is None
    assert type(shell.user_ns["errors"]) is kind
    assert list(shell.user_ns["errors"]["msg"].to_list() if kind is not pa.Table else ["a", "<b>", "c"]) == [
        "a", "<b>", "c",
    ]  # fmt: skip
    assert f" → errors ({shown})\n" in capsys.readouterr().out


def test_columns_can_be_of_arrows_types(shell: InteractiveShell) -> None:
    shell.run_cell("%sql rows << --dtype pyarrow SELECT n, msg FROM t")

    frame = shell.user_ns["rows"]
    assert frame.dtypes.tolist() == [pd.ArrowDtype(pa.int64()), pd.ArrowDtype(pa.string())]
    assert frame["msg"].tolist() == ["a", "<b>", "c"]


def test_a_reader_fetches_nothing_before_it_is_asked(
    shell: InteractiveShell, world: FakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    done = shell.run_cell("%%sql rows << --format reader --limit 7\nSELECT n, msg FROM t")
    fetched = world.readers[0].rows
    table = shell.user_ns["rows"].read_all()

    assert done.result is None
    assert fetched == 0
    assert table.num_rows == 3
    assert world.asked[0]["limit"] == 7
    assert capsys.readouterr().out == (
        "▸ rows come as you iterate · query 7f3a91c2 → rows (reader)\n"
        "✓ 3 rows in 1.0 s (first after 0.5 s) · 2.0 MB · query 7f3a91c2 → rows (reader)\n"
    )


def test_polars_that_is_not_installed_is_said_before_anything_is_sent(
    shell: InteractiveShell, world: FakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "find_spec", lambda _name: None)

    with pytest.raises(UsageError, match=r"Run %pip install 'micromegas_jupyter\[polars\]'"):
        shell.run_line_magic("sql", "--format polars SELECT 1")

    assert world.asked == []


@pytest.mark.parametrize(
    ("column", "what"),
    [
        (pa.array([Decimal("1" * 50)]), 'The column "x" is of type decimal256'),
        (pa.RunEndEncodedArray.from_arrays([1], [1]), r"polars cannot hold these columns \(run_end_encoded"),
    ],
    ids=["decimal256", "run-end encoded"],
)
def test_columns_that_polars_cannot_hold_are_refused_before_rows_are_fetched(
    shell: InteractiveShell, world: FakeWorld, column: pa.Array, what: str
) -> None:
    world.script = [pa.record_batch({"x": column})]

    with pytest.raises(UsageError, match=what):
        shell.run_line_magic("sql", "--format polars SELECT x")

    assert world.readers[0].is_closed
    assert world.readers[0].rows == 0


def test_two_columns_of_one_name_are_refused_for_polars(shell: InteractiveShell, world: FakeWorld) -> None:
    world.script = [pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])]

    with pytest.raises(UsageError, match="Two columns have the same name"):
        shell.run_line_magic("sql", "--format polars SELECT a, a")


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
