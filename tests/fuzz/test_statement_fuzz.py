"""Statements with random changes give rows or a clear error, never an internal one."""

import pytest

from micromegas_jupyter.errors import InternalError, MicromegasError, QueryError
from tests.fuzz.conftest import sizes
from tests.fuzz.mutated_statements import Mutator
from tests.unit.gateway.worlds import ACCESS, embedded

MAX_ROWS = 100
STEP = "SELECT (SELECT max(n) FROM r) + 1 FROM r WHERE n < 3"


@sizes(short=150, long=5_000)
def test_a_changed_statement_gives_rows_or_a_clear_error(fuzzing, tmp_path):
    statements = Mutator(fuzzing.random)
    internal = []
    with embedded(tmp_path) as ask_some:
        some = ask_some.__self__
        askers = [some, some.seeing(dict.fromkeys(ACCESS.filters, ()))]
        for number in range(fuzzing.tries):
            sql = statements.one()
            try:
                askers[number % 2].table(sql, row_limit=MAX_ROWS)
            except MicromegasError as error:
                if not isinstance(error, QueryError) or not error.remedy:
                    internal.append((type(error).__name__, sql))

    assert internal == []


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        ("SELECT id FROM t WHERE name SIMILAR TO 'z%('", "regular expression in the statement is invalid"),
        ("SELECT id FROM t WHERE name ~ '(.{0,1000}){0,900}x'", "regular expression .* too large"),
        ("SELECT * FROM (VALUES ((SELECT max(name) FROM t))) v(x)", "subquery in VALUES"),
        ("SELECT id FROM t WHERE name @> name", "does not implement"),
        (f"WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL {STEP}) SELECT n FROM r", "WITH RECURSIVE"),
    ],
)
def test_an_error_that_the_engine_takes_for_its_own_is_the_statements(tmp_path, sql, what):
    with embedded(tmp_path) as ask_some, pytest.raises(QueryError, match=what) as caught:
        ask_some.__self__.seeing(dict.fromkeys(ACCESS.filters, ())).table(sql)

    assert not isinstance(caught.value, InternalError)
