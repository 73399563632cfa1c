"""A query whose batches nobody reads any more stops working."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.engine.contract import EngineSettings
from micromegas_jupyter.engine.datafusion_engine import DataFusionEngine
from tests.fakes.fixed_tables import FixedTables
from tests.unit.engine.conftest import Asker

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

WAIT_SECONDS = 60
# What two seconds of all processors are.
MAX_COMPUTING_SECONDS = 2.0 * (os.cpu_count() or 1)
ENDLESS = "generate_series(1, 100000000000000)"


@pytest.fixture
def ask() -> Iterator[Asker]:
    engine = DataFusionEngine(FixedTables(), EngineSettings())
    yield Asker(engine, FixedTables())
    engine.close()


def busy_share() -> float:
    """Return the share of one processor that this process takes during a tenth of a second."""
    before, began = time.process_time(), time.monotonic()
    threading.Event().wait(0.1)
    return (time.process_time() - before) / (time.monotonic() - began)


@pytest.mark.parametrize(
    "sql",
    [
        f"SELECT value FROM {ENDLESS}",
        f"SELECT value FROM {ENDLESS} WHERE value % 7 = 3",
    ],
)
def test_closing_the_batches_stops_the_work(ask: Asker, sql: str) -> None:
    batches = ask.plan(sql).batches()
    assert next(batches).num_rows > 0

    batches.close()  # type: ignore[attr-defined]

    deadline, began = time.monotonic() + WAIT_SECONDS, time.process_time()
    while busy_share() > 0.2:
        assert time.monotonic() < deadline, "the query never ended"
    assert time.process_time() - began < MAX_COMPUTING_SECONDS
