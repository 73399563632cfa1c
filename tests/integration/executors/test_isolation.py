"""A statement that crashes, grows, spills or runs for hours ends alone and leaves room for others."""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from grpc import StatusCode

from micromegas_jupyter import FlightSQLClient
from micromegas_jupyter.auth import StaticTokenAuthProvider
from micromegas_jupyter.executors.settings import count_processors
from micromegas_jupyter.wiring.server import make_spill_folder
from tests.integration.executors.callers import OTHERS, BackgroundCall, Caller
from tests.integration.executors.conftest import ATTACKER, KEYS, MEMORY_MIB, OPTIONS
from tests.integration.executors.server_process import MIB, ServerProcess, wait_until
from tests.integration.executors.statements import BUSY, CRASHING, GROWING

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

# What the server has without any statement: its front and what waits for statements.
BASE_MIB = 768
COMPARED_CHARACTERS = 2048  # a long statement is cut in the audit
ABOUT_THE_STATEMENT = {StatusCode.RESOURCE_EXHAUSTED, StatusCode.DEADLINE_EXCEEDED, StatusCode.INVALID_ARGUMENT}
AT_ONCE = 4
PROCESSORS = count_processors()


def check_told(server, sql, answers):
    """Check that the caller and the audit were told about this statement, once for each time that it was run."""
    assert [answer for answer in answers if answer.code not in ABOUT_THE_STATEMENT or not answer.is_from_server] == []

    def lines_of(**fields):
        lines = server.audit_lines(user=ATTACKER, **fields)
        return [line for line in lines if line.get("sql", "")[:COMPARED_CHARACTERS] == sql[:COMPARED_CHARACTERS]]

    wait_until(lambda: len(lines_of(status="error")) >= len(answers), f"{len(answers)} audit lines of {sql[:80]}")
    lines = lines_of()
    assert len(lines) == len(answers)
    assert all(line["error"] for line in lines)


# One step, one step for each row, and the one that ends by another signal.
ONE_OF_EACH_KIND = ("fixed-size list", "repeat for each row", "stack overflow")


def pytest_generate_tests(metafunc):
    if "name" in metafunc.fixturenames:
        # Those that grow run in `test_statements_that_grow_at_once…` anyway.
        is_long = metafunc.config.getoption("--long")
        metafunc.parametrize("name", [*CRASHING, *GROWING] if is_long else ONE_OF_EACH_KIND)


def test_a_statement_that_ends_its_process_ends_alone(  # noqa: PLR0917
    server, others, memory, attacker, name, pytestconfig
):
    sql = (CRASHING | GROWING)[name]

    answers = [attacker.run(sql) for _ in range(20 if pytestconfig.getoption("--long") else 1)]
    others.wait_for_all()

    assert not others.failures, others.report
    check_told(server, sql, answers)
    assert memory.peak_bytes < (MEMORY_MIB + BASE_MIB) * MIB


def test_statements_that_grow_at_once_stay_below_the_servers_memory(server, others, memory, pytestconfig):
    callers = [Caller(server, KEYS[ATTACKER]) for _ in range(AT_ONCE)]
    statements = list(GROWING.values())[:: 1 if pytestconfig.getoption("--long") else 5]
    share = -(-len(statements) // AT_ONCE)

    def run(number):
        return [callers[number].run(sql) for sql in statements[number * share : (number + 1) * share]]

    with ThreadPoolExecutor(AT_ONCE) as threads:
        answers = [answer for found in threads.map(run, range(AT_ONCE)) for answer in found]
    others.wait_for_all()

    assert not others.failures, others.report
    assert [answer for answer in answers if answer.code not in ABOUT_THE_STATEMENT] == []
    assert memory.peak_bytes < (MEMORY_MIB + BASE_MIB) * MIB
    for caller in callers:
        caller.close()


HOUR_LONG = [BUSY["series"], BUSY["quantile"], BUSY["unions"]]
# As heavy, but it gives some rows all the time.
HEAVY = "SELECT value FROM generate_series(1, 100000000000000) WHERE value % 97 = 3"
WORK_SECONDS = 3.0
MESSAGES = 4


def test_a_heavy_statement_gets_its_share_beside_hour_long_ones(server, others):
    with ExitStack() as stack:
        hours = [stack.enter_context(BackgroundCall(server, KEYS[ATTACKER], sql)) for sql in HOUR_LONG]
        before = server.cpu_seconds()
        wait_until(lambda: server.cpu_seconds() - before > WORK_SECONDS, "they run, and count as long by now")

        heavy = stack.enter_context(BackgroundCall(server, KEYS[OTHERS[0]], HEAVY))

        # The schema comes before any rows.
        wait_until(lambda: heavy.messages > MESSAGES or heavy.answer is not None, "rows come")
        assert heavy.answer is None
        assert [hour.answer for hour in hours] == [None] * len(hours)
        others.wait_for_all()
    assert not others.failures, others.report


def _executors(server):
    """Return the niceness and the state of each executor."""
    found = []
    for process in server.zygote().children():
        with suppress(psutil.NoSuchProcess), process.oneshot():
            found.append((process.nice(), process.status()))
    return found


def test_the_statements_of_a_caller_who_uses_much_make_way_for_others(server, others):
    with ExitStack() as stack:
        for _ in range(AT_ONCE):
            stack.enter_context(BackgroundCall(server, KEYS[ATTACKER], BUSY["series"]))

        def are_long():
            long = [status for niceness, status in _executors(server) if niceness == 10]
            return len(long) == AT_ONCE and long.count(psutil.STATUS_STOPPED) == max(0, AT_ONCE - PROCESSORS)

        wait_until(are_long, "as many of them run as there are processors")
        others.wait_for_all()
        assert 0 in {niceness for niceness, _ in _executors(server)}
    assert not others.failures, others.report


FILES = 4000


@pytest.mark.long
def test_reading_thousands_of_files_ends_no_executor(tmp_path):
    folder = tmp_path / "lake" / "small"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"id": [1, 2]}), folder / "0.parquet")
    content = (folder / "0.parquet").read_bytes()
    for number in range(1, FILES):
        (folder / f"{number}.parquet").write_bytes(content)

    with (
        ServerProcess(tmp_path / "server", lake=tmp_path / "lake", keys=KEYS, options=OPTIONS) as server,
        FlightSQLClient(server.uri, auth_provider=StaticTokenAuthProvider(KEYS[ATTACKER])) as client,
    ):
        found = [client.query_arrow("SELECT count(*) AS n, count(DISTINCT id) AS m FROM small") for _ in range(3)]

    assert [one.to_pylist() for one in found] == [[{"n": 2 * FILES, "m": 2}]] * 3


# It spills and spills, and comes to no end.
SPILLING = "SELECT value * 7919 % 100003 AS n FROM generate_series(1, 100000000000) ORDER BY n"
LITTLE_MEMORY_MIB = 256


def _spilled(place):
    """Return the files with rows; a statement may remove one at any moment."""
    found = [Path(folder, name) for folder, _, names in os.walk(place) for name in names]
    return [path for path in found if path.name != "stderr" and path.exists()]


def _kill_executor(server, _call):
    executor = server.busiest_child()
    assert executor != server.front
    executor.kill()


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(_kill_executor, id="executor killed"),
        pytest.param(lambda _server, call: call.call.cancel(), id="call cancelled", marks=pytest.mark.long),
    ],
)
def test_what_a_statement_spilled_is_removed_when_it_ends(tmp_path, end):
    place = tmp_path / "spill"
    place.mkdir()
    other = make_spill_folder(place)
    (other.path / "rows").write_bytes(b"of another server")
    with (
        ServerProcess(
            tmp_path / "server",
            lake=tmp_path / "lake",
            keys=KEYS,
            options=[*OPTIONS, "--spill-directory", str(place)],
            memory_mib=LITTLE_MEMORY_MIB,
        ) as server,
        BackgroundCall(server, KEYS[ATTACKER], SPILLING) as call,
    ):
        wait_until(lambda: len(_spilled(place)) > 1 or call.answer is not None, "it has spilled")

        assert call.answer is None, call.answer
        end(server, call)

        wait_until(lambda: _spilled(place) == [other.path / "rows"], "what it spilled is removed")
    assert list(place.iterdir()) == [other.path]
    other.close()
