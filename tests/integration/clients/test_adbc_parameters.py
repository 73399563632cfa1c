"""ADBC's dbapi binds parameters: values of each type, several, and what is refused."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import TYPE_CHECKING

import adbc_driver_manager
import pyarrow as pa
import pytest

if TYPE_CHECKING:
    from adbc_driver_flightsql.dbapi import Cursor

pytestmark = pytest.mark.integration

NOON = dt.datetime(2026, 11, 24, 12, 0, 0, 123456, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (-(2**63), "Int64"),
        (float("inf"), "Float64"),
        ("it's; DROP TABLE x -- naïve 日本語", "Utf8"),
        (b"\x00\xff", "Binary"),
        (True, "Boolean"),
        (dt.date(1969, 12, 31), "Date32"),
        (dt.time(23, 59, 59, 1), "Time64(µs)"),
        (dt.timedelta(days=-1, microseconds=1), "Duration(µs)"),
        (Decimal("-1.25"), "Decimal128(3, 2)"),
        (None, "Null"),
        ([1, None], "List(Int64)"),
    ],
)
def test_a_value_arrives_as_what_it_is(cursor: Cursor, value: object, kind: str) -> None:
    cursor.execute("SELECT ? AS a, arrow_typeof(?) AS kind", (value, value))

    assert cursor.fetchall() == [(value, kind)]


def test_numbered_placeholders_may_be_used_twice(cursor: Cursor) -> None:
    cursor.execute("SELECT $2 AS a, $1 AS b, $2 AS c", (1, "x"))

    assert cursor.fetchall() == [("x", 1, "x")]


@pytest.mark.parametrize(
    ("sql", "values", "text"),
    [
        ("SELECT ? + 1 AS a", None, "parameter"),
        ("SELECT ? AS a, ? AS b", (1,), "parameter"),
        ("SELECT ? AS a", (1, 2), "parameter"),
        ("SELECT n FROM many WHERE n = ?", ("not a number",), "SQL001"),
    ],
)
def test_values_that_do_not_fit_are_refused(
    cursor: Cursor, sql: str, values: tuple[object, ...] | None, text: str
) -> None:
    with pytest.raises(adbc_driver_manager.ProgrammingError, match=text):
        cursor.execute(sql, values).fetchall()


def test_several_rows_of_values_run_a_statement_once_for_each(cursor: Cursor) -> None:
    cursor.execute("SELECT n, text FROM many WHERE n = ?", pa.table({"0": [5, -1, 7]}))

    assert cursor.fetchall() == [(5, "row 5"), (7, "row 7")]


def test_executemany_is_for_statements_that_write_and_refused(cursor: Cursor) -> None:
    with pytest.raises(adbc_driver_manager.ProgrammingError, match=r"only reads.*SQL002"):
        cursor.executemany("INSERT INTO many VALUES (?, ?)", [(1, "a"), (2, "b")])
