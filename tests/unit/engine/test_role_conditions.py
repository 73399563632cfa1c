"""Conditions of roles are held against the tables without waiting for statements."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.engine import DataFusionEngine, EngineSettings
from micromegas_jupyter.errors import ConfigurationError, Unavailable
from tests.fakes.fixed_tables import FixedTables, empty_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from micromegas_jupyter.contracts import TableSnapshot


class NoTables:
    """A source that fails as no class of the package does."""

    def snapshot(self) -> Sequence[TableSnapshot]:
        raise OSError("/srv/lake is gone")


@pytest.fixture
def engine() -> Iterator[DataFusionEngine]:
    engine = DataFusionEngine(FixedTables([empty_table()]), EngineSettings(planning_threads=1))
    yield engine
    engine.close()


def test_conditions_are_checked_while_all_planning_threads_are_busy(engine: DataFusionEngine) -> None:
    begun, released = threading.Event(), threading.Event()

    def occupy() -> bool:
        begun.set()
        return released.wait(60)

    busy = threading.Thread(target=lambda: asyncio.run(engine._pool.run(occupy)), daemon=True)
    busy.start()
    assert begun.wait(60)

    with pytest.raises(ConfigurationError, match="names tenant"):
        engine.check_conditions({"measures": ("tenant = 'acme'",)})

    assert busy.is_alive()
    released.set()
    busy.join(60)


def test_tables_are_not_listed_for_roles_without_conditions() -> None:
    engine = DataFusionEngine(NoTables(), EngineSettings(planning_threads=1))

    engine.check_conditions({"measures": (), "*": ()})

    engine.close()


def test_tables_that_cannot_be_listed_are_unavailable(caplog: pytest.LogCaptureFixture) -> None:
    engine = DataFusionEngine(NoTables(), EngineSettings(planning_threads=1))

    with pytest.raises(Unavailable) as caught:
        engine.check_conditions({"measures": ("level = 1",)})

    assert "/srv" not in str(caught.value)
    assert "/srv" not in str([record.__dict__ for record in caplog.records])
    engine.close()


def test_a_failure_of_the_engine_is_a_condition_that_cannot_be_used(
    engine: DataFusionEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(condition: str, schema: object) -> str | None:
        raise ValueError(f"DataFusion error: {condition} {schema}")

    monkeypatch.setattr(engine._conditions, "problem", fail)

    with pytest.raises(ConfigurationError, match="the engine fails on it"):
        engine.check_conditions({"measures": ("level = 1",)})
