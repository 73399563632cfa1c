"""Rows that `micromegas query` writes a column at a time are what Python writes of each value."""

import csv
import io
import json
import math

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from micromegas_jupyter.cli.query_commands import RowOptions, write_rows
from micromegas_jupyter.core.text import cell_text
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.results.view import RowQuery, RowsView
from tests.property.arrow_tables import tables, texts

ROWS = st.lists(
    st.tuples(
        st.none() | st.integers(-(2**63), 2**63 - 1), st.none() | st.booleans(), st.none() | st.floats(),
        st.none() | texts,
    ),
    min_size=1, max_size=4,
)  # fmt: skip
SCHEMA = pa.schema({"n": pa.int64(), "yes": pa.bool_(), "amount": pa.float64(), "text": pa.string()})


def _written(rows, file_format, **options):
    output = io.StringIO(newline="")
    columns = [pa.array(column, kind) for column, kind in zip(zip(*rows, strict=True), SCHEMA.types, strict=True)]
    batch = pa.RecordBatch.from_arrays(columns, schema=SCHEMA)
    write_rows(SCHEMA, [batch], output, RowOptions(file_format=file_format, **options))
    return output.getvalue()


def _is_word(value):
    return isinstance(value, float) and not math.isfinite(value)


def _word(value):
    return value if not _is_word(value) else "NaN" if math.isnan(value) else str(value)


def _cell(value):
    return str(value).lower() if isinstance(value, bool) else str(_word(value))


@given(ROWS)
def test_structs_are_written_to_csv_as_json(rows):
    objects = [None if n == 0 else {"n": n, 'é"': {"yes": yes, "x": x}, "t": text} for n, yes, x, text in rows]
    table = pa.table({"s": pa.array(objects, pa.struct([
        ("n", pa.int64()), ('é"', pa.struct([("yes", pa.bool_()), ("x", pa.float64())])), ("t", pa.string()),
    ]))})  # fmt: skip
    output = io.StringIO(newline="")
    write_rows(table.schema, table.to_batches(), output, RowOptions(file_format="csv"))

    written = ["".join(line) for line in csv.reader(io.StringIO(output.getvalue(), newline=""))]
    for one in filter(None, objects):
        one['é"']["x"] = _word(one['é"']["x"])
    assert written[1:] == ["" if one is None else json.dumps(one, ensure_ascii=False) for one in objects]


@given(ROWS)
def test_whole_columns_are_written_as_their_values_are(rows):
    objects = [dict(zip(SCHEMA.names, (None if _is_word(v) else v for v in row), strict=True)) for row in rows]
    cells = [["" if value is None else _cell(value) for value in row] for row in rows]

    assert _written(rows, "jsonl") == "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in objects)
    assert list(csv.reader(io.StringIO(_written(rows, "csv"), newline="")))[1:] == cells
    lines = _written(rows, "table", max_column_width=0).removesuffix("\n").split("\n")
    for row, line in zip(rows, lines[2:], strict=True):
        *others, text = (cell_text(_word(value)) for value in row)
        assert line.endswith(f"  {text}")
        assert line.removesuffix(text).split() == [cell for cell in others if cell]


@given(tables())
def test_the_grid_downloads_the_csv_that_the_command_prints(table):
    printed, downloaded = io.StringIO(newline=""), io.BytesIO()
    view = RowsView(table)
    columns = range(table.num_columns)
    try:
        write_rows(table.schema, table.to_batches(), printed, RowOptions(file_format="csv"))
    except UsageError:
        with pytest.raises(UsageError):
            view.write(RowQuery(), downloaded, file_format="csv", columns=columns)
    else:
        view.write(RowQuery(), downloaded, file_format="csv", columns=columns)
        assert downloaded.getvalue().decode() == printed.getvalue()


def test_a_table_without_rows_has_its_head():
    output = io.StringIO()

    write_rows(SCHEMA, [], output, RowOptions(file_format="table"))

    assert output.getvalue() == "  n  yes      amount  text\n---  -----  --------  ------\n"
