"""Statements that would take hours leave room for those of others, heavy ones too."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.integration.executors.callers import OTHERS, BackgroundCall
from tests.integration.executors.conftest import ATTACKER, KEYS
from tests.integration.executors.server_process import wait_until
from tests.integration.executors.statements import BUSY

if TYPE_CHECKING:
    from tests.integration.executors.callers import SmallStatements
    from tests.integration.executors.server_process import ServerProcess

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

HOUR_LONG = [BUSY["series"], BUSY["quantile"], BUSY["unions"]]
# As heavy, but it gives some rows all the time.
HEAVY = "SELECT value FROM generate_series(1, 100000000000000) WHERE value % 499 = 3"
WORK_SECONDS = 3.0
MESSAGES = 10


def test_a_heavy_statement_gets_its_share_beside_hour_long_ones(server: ServerProcess, others: SmallStatements) -> None:
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
