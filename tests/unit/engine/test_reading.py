"""What the text of a statement alone tells; texts that come again are not read again."""

from __future__ import annotations

import pytest

from micromegas_jupyter.engine.reading import Reading, read_statement
from micromegas_jupyter.errors import InvalidStatement, StatementRefused


def read(sql: str) -> Reading:
    return read_statement(sql, max_bytes=65536, knows_denials=False)


@pytest.mark.parametrize("sql", ["SELECT 1", "SELECT upper('x')", "SELECT now()"])
def test_a_statement_without_from_may_stand_alone(sql: str) -> None:
    assert read(sql).may_stand_alone


@pytest.mark.parametrize(
    "sql", ["SELECT 1 FROM t", "SELECT current_user", "SELECT is_admin()", "SHOW TABLES", "SELECT 1 UNION SELECT 2"]
)
def test_a_statement_that_needs_tables_or_its_caller_does_not_stand_alone(sql: str) -> None:
    assert not read(sql).may_stand_alone


def test_a_short_text_is_read_once_and_a_long_one_each_time() -> None:
    long = f"SELECT '{'x' * 5000}'"

    assert read("SELECT 1") is read("SELECT 1")
    assert read(long) is not read(long)


def test_limits_hold_each_time() -> None:
    for _ in range(2):
        with pytest.raises(StatementRefused):
            read("SELECT 1; SELECT 2")
        with pytest.raises(InvalidStatement):
            read(" ; ")
    read("SELECT 100")
    with pytest.raises(StatementRefused):
        read_statement("SELECT 100", max_bytes=5, knows_denials=False)
