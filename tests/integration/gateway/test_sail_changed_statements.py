"""Statements with random changes give rows or a clear error through Sail; NULL passes no condition that is not true."""

import random
from collections import Counter

import deltalake
import grpc
import pytest

from tests.fuzz.mutated_statements import Mutator
from tests.integration.flight_harness import ALICE, BOB, rows_of
from tests.integration.gateway import sail
from tests.integration.gateway.conftest import gateway
from tests.unit.gateway.worlds import ACCESS, rows_of_world

pytestmark = pytest.mark.integration

STATEMENTS, STATEMENTS_LONG = 40, 5_000
READABLE = ("t", "u")


@pytest.fixture(scope="module")
def front(tmp_path_factory):
    """A server before Sail, with the tables `t` and `u`, of which bob sees some rows."""
    folder = tmp_path_factory.mktemp("changed")
    for name in READABLE:
        deltalake.write_deltalake(str(folder / "lake" / name), rows_of_world(1)[name])
    filters = {"t": ("shown AND (g NOT IN (1, 9) OR g NOT IN (2, 3))",), "u": ACCESS.filters["u"]}
    with sail.running(folder) as engine:
        engine.add_tables(folder / "lake")
        with gateway(engine.uri, dialect="spark", filters=filters) as found:
            yield found


def test_a_changed_statement_gives_rows_or_a_clear_error_through_sail(front, pytestconfig):
    statements = Mutator(random.Random(20261124))
    count = STATEMENTS_LONG if pytestconfig.getoption("--long") else STATEMENTS
    found, codes = [], Counter()
    for number in range(count):
        sql = statements.one()
        answer = front.query(sql, metadata=(ALICE, BOB)[number % 2])
        codes[answer.code.name] += 1
        if answer.code.name in {"INTERNAL", "UNKNOWN", "UNAVAILABLE"}:
            found.append((answer.code, answer.text, sql))
    print(codes)

    assert found == []


def test_a_subquery_in_values_is_not_implemented(front):
    answer = front.query("SELECT * FROM (VALUES ((SELECT max(name) FROM t))) v(x)")

    assert answer.code is grpc.StatusCode.UNIMPLEMENTED
    assert "VALUES" in answer.text


@pytest.mark.parametrize(
    ("condition", "ids"),
    [
        ("true", {1, 2, 3, 4}),
        ("g NOT IN (1) OR g NOT IN (2)", {1, 2, 3, 4}),
        ("(g IN (1) AND g IN (2)) IS NULL", set()),
        ("NOT ((g = 1 OR g = 3) AND (g = 2 OR g = 4))", {1, 2, 3, 4}),
        ("g IN (1, 2) AND g NOT IN (2, NULL)", set()),
        ("g NOT IN (1) AND g NOT IN (3)", {3, 4}),
        ("g NOT IN (SELECT t_id FROM u) OR id = 1", {1}),
        ("NOT (g IN (SELECT t_id FROM u WHERE t_id IS NOT NULL) AND id > 1)", {1, 3, 4}),
        ("g NOT IN (SELECT u.t_id FROM u WHERE u.id = t.id)", {3}),
    ],
)
def test_null_passes_no_condition_that_is_not_true(front, condition, ids):
    answer = front.query(f"SELECT id FROM t WHERE {condition}", metadata=BOB)

    assert set(rows_of(answer).column("id").to_pylist()) == ids
