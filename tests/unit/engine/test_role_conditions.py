"""Conditions of roles are held against the tables without waiting for statements."""

from __future__ import annotations

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
    engine = DataFusionEngine(FixedTables([empty_table()]), EngineSettings())
    yield engine
    engine.close()


def test_a_condition_that_fits_no_column_is_told(engine: DataFusionEngine) -> None:
    with pytest.raises(ConfigurationError, match="names tenant"):
        engine.check_conditions({"measures": ("tenant = 'acme'",)})


def test_tables_are_not_listed_for_roles_without_conditions() -> None:
    engine = DataFusionEngine(NoTables(), EngineSettings())

    engine.check_conditions({"measures": (), "*": ()})

    engine.close()


def test_tables_that_cannot_be_listed_are_unavailable(caplog: pytest.LogCaptureFixture) -> None:
    engine = DataFusionEngine(NoTables(), EngineSettings())

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
