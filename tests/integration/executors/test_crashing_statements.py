"""A statement that ends its process, or takes all memory, ends alone: its caller is told, all others notice nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from grpc import StatusCode

from tests.integration.executors.callers import Caller
from tests.integration.executors.conftest import ATTACKER, KEYS, MEMORY_MIB
from tests.integration.executors.server_process import MIB, wait_until
from tests.integration.executors.statements import CRASHING, GROWING

if TYPE_CHECKING:
    from tests.integration.executors.callers import Answer, SmallStatements
    from tests.integration.executors.server_process import MemoryWatch, ServerProcess

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

# What the server has without any statement: its front and what waits for statements.
BASE_MIB = 768
AUDITED_BYTES = 2048
ABOUT_THE_STATEMENT = {StatusCode.RESOURCE_EXHAUSTED, StatusCode.DEADLINE_EXCEEDED, StatusCode.INVALID_ARGUMENT}
AT_ONCE = 4


def check_told(server: ServerProcess, sql: str, answers: list[Answer]) -> None:
    """Check that the caller and the audit were told about this statement, once for each time that it was run."""
    assert [answer for answer in answers if answer.code not in ABOUT_THE_STATEMENT or not answer.is_from_server] == []
    sql = sql.encode()[:AUDITED_BYTES].decode()
    wait_until(
        lambda: len(server.audit_lines(user=ATTACKER, sql=sql, status="error")) >= len(answers),
        f"{len(answers)} audit lines of {sql[:80]}",
        seconds=10,
    )
    lines = server.audit_lines(user=ATTACKER, sql=sql)
    assert len(lines) == len(answers)
    assert all(line["error"] for line in lines)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "name" in metafunc.fixturenames:
        # Those that grow run in `test_statements_that_grow_at_once…` anyway.
        is_long = metafunc.config.getoption("--long")
        metafunc.parametrize("name", [*CRASHING, *GROWING] if is_long else [*CRASHING])


def test_a_statement_that_ends_its_process_ends_alone(  # noqa: PLR0917
    server: ServerProcess,
    others: SmallStatements,
    memory: MemoryWatch,
    attacker: Caller,
    name: str,
    pytestconfig: pytest.Config,
) -> None:
    sql = (CRASHING | GROWING)[name]

    answers = [attacker.run(sql) for _ in range(20 if pytestconfig.getoption("--long") else 1)]
    others.wait_for_all()

    assert not others.failures, others.report
    check_told(server, sql, answers)
    assert memory.peak_bytes < (MEMORY_MIB + BASE_MIB) * MIB


def test_statements_that_grow_at_once_stay_below_the_servers_memory(
    server: ServerProcess, others: SmallStatements, memory: MemoryWatch
) -> None:
    callers = [Caller(server, KEYS[ATTACKER]) for _ in range(AT_ONCE)]
    statements = list(GROWING.values())
    share = -(-len(statements) // AT_ONCE)

    def run(number: int) -> list[Answer]:
        return [callers[number].run(sql) for sql in statements[number * share : (number + 1) * share]]

    with ThreadPoolExecutor(AT_ONCE) as threads:
        answers = [answer for found in threads.map(run, range(AT_ONCE)) for answer in found]
    others.wait_for_all()

    assert not others.failures, others.report
    assert [answer for answer in answers if answer.code not in ABOUT_THE_STATEMENT] == []
    assert memory.peak_bytes < (MEMORY_MIB + BASE_MIB) * MIB
    for caller in callers:
        caller.close()
