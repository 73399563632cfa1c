"""Statements with random changes that Sail runs give rows or a clear error, never an internal one."""

import random
from collections import Counter

import deltalake
import grpc
import pytest

from tests.fuzz.mutated_statements import Mutator
from tests.integration.flight_harness import ALICE, BOB
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
    filters = {name: ACCESS.filters[name] for name in READABLE}
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
    assert (answer.error.line, answer.error.column) == (1, 16)
