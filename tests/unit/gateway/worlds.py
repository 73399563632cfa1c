"""Two lakes that differ only in rows that their caller must not see."""

from contextlib import contextmanager
from datetime import UTC, date, datetime

import pyarrow as pa
import pyarrow.parquet as pq

from micromegas_jupyter.core.protocols import TableAccess, TableSnapshot
from micromegas_jupyter.errors import MicromegasError
from tests.fakes.fixed_tables import data_files
from tests.unit.engine.conftest import asking

SCHEMAS = {
    "t": pa.schema(
        [
            ("id", pa.int64()),
            ("g", pa.int32()),
            ("name", pa.string()),
            ("secret", pa.string()),
            ("price", pa.float64()),
            ("day", pa.date32()),
            ("at", pa.timestamp("us", "UTC")),
            ("shown", pa.bool_()),
        ]
    ),
    "u": pa.schema([("id", pa.int64()), ("t_id", pa.int64()), ("label", pa.string())]),
    "Odd Name": pa.schema([("Mixed Case", pa.int64())]),
    "hidden": pa.schema([("id", pa.int64())]),
}
ACCESS = TableAccess(
    filters={
        "t": ("shown", "id = 6 AND shown IS NULL"),
        "u": ("label <> 'x' OR label IS NULL",),
        "Odd Name": (),
    }
)


def _t(number, g, name, secret, price, shown):  # noqa: PLR0917 - a row
    moment = datetime(2024, 1, number % 28 + 1, number % 24, 30, tzinfo=UTC)
    return (number, g, name, secret, price, date(2024, 1, number % 28 + 1), moment, shown)


_SEEN = {
    "t": [
        _t(1, 1, "a_b", "1", 1.5, True),
        _t(2, 1, None, "2", 2.25, True),
        _t(3, 2, "a\\b", "3", None, True),
        _t(4, 2, "c", "4", 0.5, True),
        _t(5, None, "aXb", "5", -2.0, True),
        _t(6, 3, "12", "6", 4.0, None),
    ],
    "u": [(1, 1, "a"), (2, 1, "b"), (3, 4, None), (4, None, "a"), (5, 6, "it's")],
    "Odd Name": [(1,), (3,)],
    "hidden": [],
}
_HIDDEN = (
    {"t": [], "u": [], "Odd Name": [], "hidden": [(7,)]},
    {
        "t": [
            _t(7, 9, "zz", "no number", 99.0, False),
            _t(8, 1, "a_b", "no number", 0.0, None),
            _t(9, 9, None, "no", -50.0, False),
            _t(1, 9, "first", "no", 1.0, False),
        ],
        "u": [(6, 2, "x"), (7, 7, "x"), (3, 3, "x")],
        "Odd Name": [],
        "hidden": [(8,), (9,)],
    },
)


def rows_of_world(number):
    """Return the tables of one of the two."""
    return {
        name: pa.Table.from_pylist(
            [dict(zip(schema.names, row, strict=True)) for row in (*_HIDDEN[number][name], *_SEEN[name])], schema=schema
        )
        for name, schema in SCHEMAS.items()
    }


def comparable(table, sql):
    """Return rows as they are compared: in order if the statement has one, numbers of all types alike."""
    rows = [tuple(map(_plain, row)) for row in zip(*(column.to_pylist() for column in table.columns), strict=True)]
    return rows if _is_ordered(sql) else sorted(rows, key=repr)


def _plain(value):
    if isinstance(value, datetime):
        return value.replace(tzinfo=None).isoformat()
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    return str(round(float(value), 9)) if hasattr(value, "__float__") else str(value)


def _is_ordered(sql):
    return "ORDER BY" in sql.rpartition(")")[2]


@contextmanager
def embedded(folder):
    """Ask the embedded engine as a caller with these rights."""
    tables = []
    for name, rows in rows_of_world(1).items():
        files = data_files(folder / f"{name}.parquet")
        pq.write_table(rows, files[0].path)
        tables.append(TableSnapshot(name=name, schema=rows.schema, files=files))
    with asking(tables) as asker:
        yield asker.seeing(dict(ACCESS.filters)).table


def outcome(run, sql):
    """Return the comparable rows, or None when the statement is refused or fails in the engine."""
    try:
        return comparable(run(sql), sql)
    except MicromegasError:
        return None
    except Exception:  # noqa: BLE001 - an engine's own error
        return None
