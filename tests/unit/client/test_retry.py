"""When a call is made again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from micromegas_jupyter.client.calls import CallRecord, Credential, CredentialSource
from micromegas_jupyter.client.parameters import is_read
from micromegas_jupyter.client.query_reader import RETRY_SECONDS, Attempts
from micromegas_jupyter.errors import ResourcesExhausted, ServerUnavailable
from tests.fakes.known_server import KnownServer
from tests.fakes.pause import FakePause

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fakes.clock import FakeClock


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "  -- a note\n SELECT count(*) FROM log_entries WHERE msg LIKE '%update%' AND level < 3;\n",
        "WITH recent AS (SELECT * FROM log_entries) SELECT * FROM recent",
        "EXPLAIN SELECT 1",
        "SELECT delete_count, created, set_size, update_time FROM t",
        "SELECT * FROM list_partitions()",
        "",
        "--",
        "/* without an end",
        "/* a */ SELECT 1 /* b */",
    ],
)
def test_a_statement_that_reads_is_read(sql):
    assert is_read(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t VALUES (1)",
        "insert\n into t select 1",
        "-- a note\n/* and one */ DELETE FROM t",
        "UPDATE t SET a = 1",
        "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x",
        "CREATE TABLE t AS SELECT 1",
        "  drop table t",
        "ALTER TABLE t ADD COLUMN a INT",
        "TRUNCATE t",
        "COPY t TO 'file'",
        "SET a = 1",
        "SELECT 1; DROP TABLE t",
        "SELECT time, msg FROM retire_partitions('a', 'b', 'c', 'd')",
        "SELECT * FROM \"retire_partitions\" ('a')",
        "SELECT retire_partition_by_metadata('a', 'b', 'c', 'd')",
        "SELECT * FROM Materialize_Partitions('v', 'a', 'b', 60)",
        "SELECT * FROM regenerate_partitions('v', 'a', 'b', 60)",
        "SELECT * FROM deny_queries('sql', 'reason')",
        "SELECT retire_partitions/**/(1)",
        "SELECT retire_partitions -- now\n (1)",
        "INSERT/* a */INTO t SELECT 1",
        "SELECT '--', retire_partitions(1)",
        "EXECUTE p",
        "DO $$ x $$",
    ],
)
def test_a_statement_that_writes_may_not_be_repeated(sql):
    assert not is_read(sql)


@pytest.fixture
def pause(clock: FakeClock) -> FakePause:
    return FakePause(clock)


@pytest.fixture
def build(clock: FakeClock, pause: FakePause) -> Callable[..., Attempts]:
    def build_attempts(**options: Any) -> Attempts:
        given = {"may_repeat": True, "server": KnownServer(), "jitter": lambda: 0.5, **options}
        return Attempts(CredentialSource(None), clock=clock, stopped=pause, **given)

    return build_attempts


def _fail_until_the_end(attempts: Attempts, *, pushback: str | None = None) -> ServerUnavailable:
    """Let every attempt fail, and return the last error."""
    while True:
        error = ServerUnavailable("No.", remedy="Wait.")
        record = CallRecord()
        record.note({} if pushback is None else {"grpc-retry-pushback-ms": [pushback]})
        if attempts.next_credential(error, Credential(), record) is None:
            return error


def test_pauses_grow_and_the_last_error_says_how_often_it_was_tried(build, pause: FakePause) -> None:
    error = _fail_until_the_end(build())

    assert pause.waited == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 4.0, 4.0, 4.0])
    assert error.remedy == "Wait. Tried 10 times in 18 s."


@pytest.mark.parametrize(("drawn", "first"), [(0.0, 0.08), (1.0, 0.12)])
def test_pauses_are_drawn(build, pause: FakePause, drawn: float, first: float) -> None:
    _fail_until_the_end(build(jitter=lambda: drawn))

    assert pause.waited[0] == pytest.approx(first)
    assert sum(pause.waited) < RETRY_SECONDS


def test_every_attempt_is_made_over_another_connection(build, pause: FakePause) -> None:
    server = KnownServer()

    _fail_until_the_end(build(server=server))

    assert server.connections == len(pause.waited) + 1


def test_the_calls_own_deadline_ends_the_attempts(build, clock: FakeClock, pause: FakePause) -> None:
    attempts = build(timeout_seconds=10.0)
    clock.advance(8.0)

    error = _fail_until_the_end(attempts)

    assert sum(pause.waited) == pytest.approx(1.5)
    assert error.remedy == "Wait. Tried 5 times in 10 s."


def test_later_attempts_get_what_is_left_of_the_deadline(build, clock: FakeClock) -> None:
    attempts = build(timeout_seconds=10.0)
    assert attempts.remaining_seconds() == 10.0
    clock.advance(4.0)

    attempts.next_credential(ServerUnavailable("No."), Credential(), CallRecord())

    assert attempts.remaining_seconds() == 5.9


def test_a_long_query_that_loses_its_server_is_tried_again(build, clock: FakeClock, pause: FakePause) -> None:
    attempts = build()
    clock.advance(600.0)

    _fail_until_the_end(attempts)

    assert len(pause.waited) == 9


def test_a_server_that_never_answered_is_given_up_soon(build, pause: FakePause) -> None:
    error = _fail_until_the_end(build(server=KnownServer(has_answered=False)))

    assert sum(pause.waited) == pytest.approx(1.5)
    assert error.remedy == "Wait. Tried 5 times in 2 s."


def test_the_servers_own_pause_is_kept(build, pause: FakePause) -> None:
    _fail_until_the_end(build(), pushback="6000")

    assert pause.waited == [6.0, 6.0, 6.0]


@pytest.mark.parametrize("pushback", ["-1", "20000", "soon", "", "1e3"])
def test_a_pause_beyond_the_deadline_or_none_at_all_ends_the_attempts(build, pause: FakePause, pushback: str) -> None:
    error = _fail_until_the_end(build(), pushback=pushback)

    assert pause.waited == []
    assert error.remedy == "Wait."


def test_a_server_that_asks_for_no_pause_is_not_asked_more_often(build, pause: FakePause) -> None:
    _fail_until_the_end(build(), pushback="0")

    assert len(pause.waited) == 9


@pytest.mark.parametrize("options", [{"may_repeat": False}, {"server": None}])
def test_a_write_and_anothers_client_are_asked_once(build, pause: FakePause, options: dict[str, Any]) -> None:
    assert build(**options).next_credential(ServerUnavailable("No."), Credential(), CallRecord()) is None
    assert pause.waited == []


def test_a_limit_is_not_tried_again(build, pause: FakePause) -> None:
    assert build().next_credential(ResourcesExhausted("Full."), Credential(), CallRecord()) is None
    assert pause.waited == []


def test_a_failure_that_lasts_is_not_tried_again(build, pause: FakePause) -> None:
    error = ServerUnavailable("The certificate has ended.")
    error.retryable = False

    assert build().next_credential(error, Credential(), CallRecord()) is None
    assert pause.waited == []


def test_stopping_ends_the_attempts(build, pause: FakePause) -> None:
    attempts = build()
    pause.meanwhile[2] = attempts.stop

    _fail_until_the_end(attempts)

    assert len(pause.waited) == 2
