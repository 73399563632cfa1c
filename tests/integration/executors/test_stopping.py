"""When a server is stopped, short calls end and long ones are told to come again."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from grpc import StatusCode

from tests.integration.executors.callers import BackgroundCall
from tests.integration.executors.conftest import ATTACKER, KEYS, OPTIONS
from tests.integration.executors.server_process import ServerProcess, is_running, wait_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration

# Little to send, however many rows.
ENDLESS_ROWS = "SELECT value % 2 = 0 AS is_even FROM generate_series(1, 100000000000)"
SHORT_ROWS = "SELECT value % 2 = 0 AS is_even FROM generate_series(1, 1000000)"
CALLS = 12


def test_calls_end_or_are_told_to_come_again_when_the_server_is_stopped(tmp_path: Path) -> None:
    options = [*OPTIONS, "--no-http", "--drain-timeout", "2"]
    with (
        ServerProcess(tmp_path / "server", lake=tmp_path / "lake", keys=KEYS, options=options) as server,
        ExitStack() as stack,
    ):
        calls = [
            stack.enter_context(BackgroundCall(server, KEYS[ATTACKER], ENDLESS_ROWS if number % 2 else SHORT_ROWS))
            for number in range(CALLS)
        ]
        wait_until(lambda: all(call.messages for call in calls), "rows of each call")
        processes = server.processes()

        server.front.send_signal(signal.SIGTERM)

        wait_until(lambda: all(call.answer is not None for call in calls), "each call has ended")
        answers = [call.answer for call in calls if call.answer is not None]
        assert {answer.code for answer in answers[::2]} <= {StatusCode.OK, StatusCode.UNAVAILABLE}
        assert {answer.code for answer in answers[1::2]} == {StatusCode.UNAVAILABLE}
        assert all(answer.is_from_server for answer in answers)
        wait_until(lambda: not any(is_running(process) for process in processes), "no process is left")
