"""A constant that can't be evaluated fails before data is read, whatever is in the tables."""

from dataclasses import replace

import pytest

from micromegas_jupyter.errors import InvalidStatement, MicromegasError
from tests.fakes.fixed_tables import data_files
from tests.unit.engine.conftest import asking
from tests.unit.engine.hidden_worlds import FAILING_CONSTANTS, LONG, write_world

#: Each of these fails also if it's guarded, as in `CASE WHEN level = 99 THEN … END`.
CONSTANTS = [one.format(**LONG) for one in FAILING_CONSTANTS if "{list}" not in one]
SHAPES = (
    "SELECT count(*) FROM logs WHERE {}",
    "SELECT count(*) FROM logs WHERE level = 99 AND {}",
    "SELECT id, {} AS c FROM logs ORDER BY id LIMIT 1",
    "SELECT count(*) FILTER (WHERE {}) FROM logs",
    "SELECT array_agg(id ORDER BY {}, id) FROM logs",
    "SELECT id, sum(id) OVER (PARTITION BY {}) FROM logs",
)


@pytest.fixture(scope="module")
def askers(tmp_path_factory):
    """Those who ask about an empty table, one with rows, and one whose files are gone."""
    (logs, _) = write_world(1, tmp_path_factory.mktemp("world"))
    gone = data_files(*(f"/nowhere/{number}.parquet" for number in range(len(logs.files))))
    tables = [replace(logs, files=(), bounds=None), logs, replace(logs, files=gone)]
    engines = [asking([table]) for table in tables]
    found = [engine.__enter__() for engine in engines]
    filtered = [asker.seeing({"logs": ("exe = 'x'",)}) for asker in found]
    yield [*found[:2], *filtered[:2]], [found[2], filtered[2]]
    for engine in engines:
        engine.__exit__(None, None, None)


def failure(ask, sql):
    try:
        return ask.table(sql).num_rows
    except MicromegasError as error:
        return type(error), error.what


@pytest.mark.parametrize("number", range(len(CONSTANTS)))
def test_it_fails_in_the_same_way_over_an_empty_a_pruned_and_a_full_table(askers, number, pytestconfig):
    for shape in SHAPES if pytestconfig.getoption("--long") else [SHAPES[number % len(SHAPES)]]:
        sql = shape.format(CONSTANTS[number])
        outcomes = [failure(ask, sql) for ask in askers[0]]

        assert len(set(outcomes)) == 1, (sql[:200], outcomes)
        assert isinstance(outcomes[0], tuple)


def test_it_fails_in_a_subquery_for_callers_who_see_some_rows(askers):
    sql = "SELECT (SELECT count(*) FROM logs WHERE level = 99 AND make_date(2024, 13, 45) = day) AS n"
    outcomes = [failure(ask, sql) for ask in askers[0][2:]]

    assert len(set(outcomes)) == 1
    assert isinstance(outcomes[0], tuple)


def test_it_fails_before_files_are_opened(askers):
    for ask in askers[1]:
        with pytest.raises(InvalidStatement, match="divides by zero"):
            ask.table("SELECT count(*) FROM logs WHERE level = 1 AND 1 / 0 = 1")


def test_what_fails_on_no_row_does_not_fail_early(askers):
    empty = askers[0][0]

    for sql in (
        "SELECT 10 / x FROM logs",
        "SELECT 10 / coalesce(x, 0), CASE WHEN x <> 0 THEN 1 / x END FROM logs",
        "SELECT CAST(msg AS INT), TRY_CAST('x' AS INT), 1 / 1, date_trunc('day', at) FROM logs WHERE msg ~ 'a+$'",
        "SELECT regexp_replace(msg, '(a)', '\\1', 'g'), split_part(msg, 'a', 1) FROM logs",
        "SELECT date_bin(INTERVAL '5 minutes', at), digest(msg, 'md5') FROM logs",
        "SELECT regexp_match(msg, '([0-9]+)'), regexp_count(msg, 'a', 1, 'i'), encode(msg, 'hex') FROM logs",
        "SELECT split_part(msg, ',', level), split_part('a,b', msg, 1) FROM logs",
        "SELECT regexp_like(msg, 'a', NULL), regexp_replace(msg, 'a', exe), regexp_like('abc', msg) FROM logs",
        "SELECT date_bin(INTERVAL '1 day', at, TIMESTAMP '2024-01-01'), date_bin(CAST(NULL AS INTERVAL), at) FROM logs",
        "SELECT date_part('dow', day), extract(epoch FROM at), to_timestamp(msg), random() FROM logs",
    ):
        assert empty.rows(sql) == []


@pytest.mark.parametrize(
    ("condition", "count"),
    [
        ("day < make_date(20000, 1, 1)", 180),
        ("day < arrow_cast(2000000000, 'Date32') AND lower(exe) = 'x'", 180),
        ("at < arrow_cast(9000000000000000000, 'Timestamp(Microsecond, Some(\"UTC\"))') AND lower(exe) = 'x'", 180),
        ("date_bin(INTERVAL '1 hour', at, TIMESTAMP '1970-01-01 00:00:00.000000001') = at", 0),
        ("at > TIMESTAMP '2023-12-31 23:59:59.999999999' AND lower(exe) = 'x'", 180),
    ],
)
def test_a_constant_may_be_a_time_that_python_does_not_have(askers, condition, count):
    filtered = askers[0][3]

    assert filtered.rows(f"SELECT count(*) AS n FROM logs WHERE {condition}") == [{"n": count}]
