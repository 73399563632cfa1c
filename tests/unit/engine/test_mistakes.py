"""Typical mistakes: each message shows the place, says what to do, and where it can, corrects the statement."""

import pytest

from micromegas_jupyter.errors import QueryError
from tests.fakes.fixed_tables import write_log_entries, write_processes
from tests.unit.engine.conftest import asking

#: A statement, its column with the caret, a part of the message, and the statement after the correction.
MISTAKES = (
    ("SELECT 1 FROM log_entries WHERE (level = 2", 33, "never closed", "SELECT 1 FROM log_entries WHERE (level = 2)"),
    ("SELECT count(* FROM log_entries", 13, 'Add ")", probably before FROM', "SELECT count(*) FROM log_entries"),
    ("SELECT n FROM (SELECT 1 AS n", 15, "probably at the end", "SELECT n FROM (SELECT 1 AS n)"),
    ("SELECT abs(1)) FROM log_entries", 14, '")" matches no opening one', "SELECT abs(1) FROM log_entries"),
    ("SELECT abs(1] FROM log_entries", 13, '"]" does not match "("', "SELECT abs(1) FROM log_entries"),
    ("SELECT msg target level FROM log_entries", 19, "comma missing", "SELECT msg target, level FROM log_entries"),
    ("SELECT msg FORM log_entries", 12, "Did you mean FROM?", "SELECT msg FROM log_entries"),
    ("SELECT msg FROM log_entries WERE level = 2", 29, "WHERE?", "SELECT msg FROM log_entries WHERE level = 2"),
    ("SELECT msg FROM log_entries LIMIT 1 ORDER BY 1", 37, "ORDER BY must come after WHERE and before LIMIT", None),
    ("SELECT msg FROM log_entries LIMIT 1 WHERE level = 2", 37, "The clauses must be in this order", None),
    ("SELECT CASE WHEN level = 2 THEN 1 FROM log_entries", 8, "CASE has no END", None),
    ("SELECT msg FROM log_entries WHERE msg = 'x", 41, "quotation mark is never closed", None),
    ("SELECT msg FROM log_entries WHERE level BETWEEN 1, 2", 50, 'AND is expected here, not ","', None),
    ("SELECT msg FROM log_entries # all", 29, "Begin a comment with --", None),
    ("SELECT 1; as one", 11, "Only a comment can follow the semicolon", None),
    ("SELECT 1;; # one", 12, "Remove this text, or turn it into a comment with --", None),
    ("SELECT 1; SELECT 2", 11, "several statements. Send one", None),
    ("SELECT message FROM log_entries", 8, "Did you mean msg?", "SELECT msg FROM log_entries"),
    ("SELECT * FROM logs", 15, "Did you mean log_entries?", "SELECT * FROM log_entries"),
    ("SELECT averge(level) FROM log_entries", 8, "Did you mean avg?", "SELECT avg(level) FROM log_entries"),
    ('SELECT 1 FROM log_entries WHERE msg = "x"', 39, "single quotes", "SELECT 1 FROM log_entries WHERE msg = 'x'"),
    ("SELECT 1 FROM log_entries WHERE msg = x", 39, "single quotes", "SELECT 1 FROM log_entries WHERE msg = 'x'"),
    ("SELECT level * 2 AS n FROM log_entries WHERE n > 1", 46, "alias of SELECT cannot be used here", None),
    ("SELECT nothing FROM log_entries", 8, "Known here: exe, level,", None),
    ("SELECT if(true, 1, 2)", 8, "CASE WHEN condition", None),
    ("SELECT sum(msg) FROM log_entries", 8, "sum does not take VARCHAR", None),
    ("SELECT date_trunc(time) FROM log_entries", 8, "date_trunc(VARCHAR, TIMESTAMP)", None),
    ("SELECT date_trunc('x', time) FROM log_entries", 19, "has no unit x", None),
    (
        "SELECT process_id FROM log_entries l JOIN processes p ON true",
        8,
        "More than one of the tables",
        "SELECT l.process_id FROM log_entries l JOIN processes p ON true",
    ),
    ("SELECT msg, count(*) FROM log_entries", 8, "GROUP BY", "SELECT msg, count(*) FROM log_entries GROUP BY msg"),
    ("SELECT msg FROM log_entries WHERE count(*) > 1", 35, "Move this condition to HAVING", None),
    ("SELECT 1 FROM log_entries HAVING level > 1", 34, "Move conditions on rows to WHERE", None),
    ("SELECT max(count(*)) FROM log_entries", None, "Aggregate in a subquery first", None),
    ("SELECT msg FROM log_entries WHERE level", 35, "A condition is needed here, but log_entries.level is INT", None),
    ("SELECT msg FROM log_entries WHERE 'x'", 35, "but 'x' is VARCHAR", None),
    ("SELECT msg FROM log_entries WHERE level AND true", 41, "conditions on both sides, but they are INT", None),
    ("SELECT NOT msg FROM log_entries", 8, "NOT needs a condition, not VARCHAR", None),
    ("SELECT msg FROM log_entries WHERE time > 5", 40, "TIMESTAMP WITH TIME ZONE > BIGINT", None),
    (
        "SELECT msg FROM log_entries WHERE time > 2026-11-25",
        40,
        "Write times in quotes",
        "SELECT msg FROM log_entries WHERE time > '2026-11-25'",
    ),
    ("SELECT msg FROM log_entries WHERE time > 'today'", 42, "now() - INTERVAL '1 hour'", None),
    ("SELECT msg + 1 FROM log_entries", 12, "VARCHAR + BIGINT", None),
    ("SELECT now() - '1 hour'", 14, "TIMESTAMP - VARCHAR", "SELECT now() - INTERVAL '1 hour'"),
    ("SELECT INTERVAL '1 fortnight'", 17, "not an interval: 1 fortnight", None),
    ("SELECT 1 FROM log_entries WHERE level = 'error'", 41, "2 error", "SELECT 1 FROM log_entries WHERE level = 2"),
    ("SELECT CAST('abc' AS INT)", 13, "Cannot cast string 'abc' to value of INT", None),
    ("SELECT CAST(msg AS INT) FROM log_entries", 8, "to value of INT", None),
    ("SELECT level FROM log_entries WHERE level LIKE '2%'", 43, "LIKE needs text on both sides", None),
    ("SELECT 1 UNION SELECT 1, 2", 10, "different numbers of columns", None),
    ("SELECT 1 IN (SELECT 1, 2)", 13, "returns several columns", None),
    ("SELECT (SELECT msg FROM log_entries)", None, "returned more than one row", None),
    ("SELECT msg FROM log_entries ORDER BY 5", 38, "SELECT has fewer columns", None),
    ("SELECT DISTINCT msg FROM log_entries ORDER BY level", 38, "With DISTINCT", None),
    ("SELECT msg, msg FROM log_entries", None, "Rename one of them with AS", None),
    ("SELECT TOP 5 msg FROM log_entries", 8, "Write LIMIT at the end", None),
    ("SELECT max(*) FROM log_entries", None, "Only count takes *", None),
    ("SELECT 1 FROM log_entries WHERE row_number() OVER (ORDER BY time) = 1", None, "Compute it in a subquery", None),
)  # fmt: skip


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mistakes")
    with asking([write_log_entries(folder, 2), write_processes(folder)]) as asker:
        yield asker


@pytest.mark.parametrize(("sql", "column", "part", "corrected"), MISTAKES)
def test_a_mistake_has_a_place_a_remedy_and_where_possible_a_correction(ask, sql, column, part, corrected):
    with pytest.raises(QueryError) as failed:
        ask.rows(sql)

    error = failed.value
    assert part in f"{error.what} {error.remedy}"
    assert (error.line, error.column) == (None if column is None else 1, column)
    assert (error.correction and error.correction.apply(sql)) == corrected
    if corrected is not None:
        ask.rows(corrected)


def test_a_correction_finds_its_place_on_any_line(ask):
    sql = "SELECT 'ü',\n  mesage\nFROM log_entries"

    with pytest.raises(QueryError) as failed:
        ask.rows(sql)

    assert failed.value.correction.apply(sql) == "SELECT 'ü',\n  msg\nFROM log_entries"


def test_where_rows_are_hidden_a_failed_value_has_neither_place_nor_correction(tmp_path):
    tables = [write_log_entries(tmp_path, 1)]
    with asking(tables, default_conditions={"log_entries": "level > 1"}) as ask, pytest.raises(QueryError) as failed:
        ask.rows("SELECT CAST(msg AS INT) FROM log_entries")

    assert (failed.value.line, failed.value.correction) == (None, None)
