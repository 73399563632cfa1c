"""Times as stored: microseconds stay microseconds, and years 1 and 9999 work wherever the engine can do it."""

from datetime import UTC, date, datetime

import datafusion
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.core.protocols import TableSnapshot
from micromegas_jupyter.errors import InvalidStatement
from tests.fakes.fixed_tables import data_files, write_log_entries
from tests.unit.engine.conftest import asking

SCHEMA = pa.schema(
    {"n": pa.int64(), "z": pa.timestamp("us", "UTC"), "local": pa.timestamp("us"), "d": pa.date32(), "name": pa.utf8()}
)
FIRST, LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)
TIMES = [FIRST, datetime(2026, 11, 25, tzinfo=UTC), LAST, None]


@pytest.fixture
def ask(tmp_path):
    rows = [
        {
            "n": number,
            "z": time,
            "local": time and time.replace(tzinfo=None),
            "d": time and time.date(),
            "name": "9999-12-31",
        }
        for number, time in enumerate(TIMES, start=1)
    ]
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), tmp_path / "far.parquet")
    far = TableSnapshot(name="far", schema=SCHEMA, files=data_files(str(tmp_path / "far.parquet")))
    with asking([far, write_log_entries(tmp_path, 1)]) as one:
        yield one


@pytest.mark.parametrize(
    "condition",
    [
        "z = TIMESTAMP '9999-12-31'",
        "z = TIMESTAMP '9999-12-31T00:00:00Z'",
        "z = timestamptz '9999-12-31'",
        "z = TIMESTAMP WITH TIME ZONE '9999-12-31 00:00:00+00:00'",
        "local = TIMESTAMP '9999-12-31 00:00:00'",
        "z = CAST('9999-12-31' AS TIMESTAMP)",
        "z = TRY_CAST('9999-12-31' AS TIMESTAMP WITH TIME ZONE)",
        "z = '9999-12-31'::TIMESTAMP",
        "z = CAST(DATE '9999-12-31' AS TIMESTAMP)",
        "z = DATE '9999-12-31'",
        "f.z = '9999-12-31'::DATE",
        "z = CAST('9999-12-31' AS DATE)",
        "DATE '9999-12-31' = f.z",
        "'9999-12-31' <= z",
        "z = '9999-12-31'",
        "d = DATE '9999-12-31'",
        "d = '9999-12-31'",
        "CAST(z AS DATE) = DATE '9999-12-31'",
        "z BETWEEN TIMESTAMP '2026-12-31' AND TIMESTAMP '9999-12-31'",
        "z BETWEEN '2026-12-31' AND DATE '9999-12-31' AND name = '9999-12-31'",
        "z BETWEEN now() AND TIMESTAMP '9999-12-31'",
        "z NOT BETWEEN TIMESTAMP '0001-01-01' AND current_timestamp",
        "z NOT BETWEEN '0001-01-01' AND now() + INTERVAL '1 day'",
        "z IN (TIMESTAMP '2020-01-01', TIMESTAMP '9999-12-31')",
        "z IN ('2020-01-01', DATE '9999-12-31')",
        "z NOT IN ('0001-01-01', '2026-11-25')",
        "z > TIMESTAMP '9999-12-31' - INTERVAL '1 day'",
        "z > now()",
        "z = (SELECT max(z) FROM far)",
        "extract(year from z) = 9999",
    ],
)
def test_a_time_of_the_year_9999_is_found_in_each_spelling(ask, condition):
    assert ask.rows(f"SELECT n FROM far AS f WHERE {condition}") == [{"n": 3}]


@pytest.mark.parametrize(
    ("condition", "value"),
    [
        ("z = $1", pa.scalar(LAST, pa.timestamp("us", "UTC"))),
        ("z = ?", pa.scalar(date(9999, 12, 31))),
        ("d = $1", pa.scalar(date(9999, 12, 31))),
        ("z IN (TIMESTAMP '2020-01-01', $1)", pa.scalar(LAST, pa.timestamp("us", "UTC"))),
        ("z BETWEEN now() AND $1", pa.scalar(LAST, pa.timestamp("us", "UTC"))),
    ],
)
def test_a_parameter_may_be_of_the_year_9999(ask, condition, value):
    parameters = pa.record_batch([pa.array([value.as_py()], value.type)], names=["0"])

    assert ask.rows(f"SELECT n FROM far WHERE {condition}", parameters=parameters) == [{"n": 3}]


def test_years_1_and_9999_are_returned_compared_sorted_and_joined(ask):
    found = ask.table("SELECT min(z) AS low, max(z) AS high FROM far")
    assert found.to_pylist() == [{"low": FIRST, "high": LAST}]
    assert found.schema.types == [pa.timestamp("us", "UTC")] * 2
    assert [row["n"] for row in ask.rows("SELECT n FROM far ORDER BY z DESC NULLS LAST")] == [3, 2, 1, 4]
    assert ask.rows("SELECT a.n FROM far a JOIN far b ON a.z = b.local WHERE a.n <> 2 ORDER BY a.n") == [
        {"n": 1},
        {"n": 3},
    ]
    assert ask.rows("SELECT TIMESTAMP '9999-12-31' AS t") == [{"t": LAST.replace(tzinfo=None)}]
    assert ask.rows("SELECT name, '9999-12-31' AS text FROM far LIMIT 1") == [
        {"name": "9999-12-31", "text": "9999-12-31"}
    ]


def test_own_tables_have_nanoseconds_and_others_as_stored(ask):
    def unit(sql):
        return ask.table(sql).schema.field(0).type.unit

    assert unit("SELECT time FROM log_entries") == "ns"
    assert unit("SELECT max(time) FROM log_entries") == "ns"
    assert unit("SELECT z FROM far") == "us"
    assert unit("SELECT f.z, l.time FROM log_entries l CROSS JOIN far f") == "us"
    assert unit("SELECT now()") == "ns"
    assert {
        name: schema.field(1 if name == "far" else "time").type.unit for name, schema in ask.engine.tables(ask.caller)
    } == {
        "far": "us",
        "log_entries": "ns",
    }


@pytest.mark.parametrize(
    "value",
    [
        "date_trunc('day', z)",
        "to_char(z, '%Y')",
        "coalesce(z, now())",
        "z - now()",
        "CAST(z AS TIMESTAMP)",
        "to_timestamp(z)",
    ],
)
def test_what_the_engine_cannot_do_with_such_times_names_the_range(ask, value):
    with pytest.raises(InvalidStatement, match="1677 to 2262"):
        ask.rows(f"SELECT {value} FROM far WHERE n = 3")


def test_the_engine_still_reads_literals_as_nanoseconds():
    with pytest.raises(Exception, match="Nanosecond"):
        datafusion.SessionContext().sql("SELECT TIMESTAMP '9999-12-31'").collect()
