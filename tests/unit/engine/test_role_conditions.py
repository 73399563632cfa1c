"""Conditions of roles are held against the tables without waiting for statements."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.engine.security.conditions import check_role_conditions
from micromegas_jupyter.errors import ConfigurationError, Unavailable
from tests.fakes.fixed_tables import FixedTables, empty_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from micromegas_jupyter.core.protocols import TableSnapshot


class NoTables:
    """A source that fails as no class of the package does."""

    def snapshot(self) -> Sequence[TableSnapshot]:
        raise OSError("/srv/lake is gone")


def test_a_condition_that_fits_no_column_is_told() -> None:
    with pytest.raises(ConfigurationError, match="names tenant"):
        check_role_conditions(FixedTables([empty_table()]), {"measures": ("tenant = 'acme'",)})


def test_tables_that_cannot_be_listed_are_unavailable(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Unavailable) as caught:
        check_role_conditions(NoTables(), {"measures": ("level = 1",)})

    assert "/srv" not in str(caught.value)
    assert "/srv" not in str([record.__dict__ for record in caplog.records])


def test_a_failure_of_the_engine_is_a_condition_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(condition: str, schema: object) -> str | None:
        raise ValueError(f"DataFusion error: {condition} {schema}")

    monkeypatch.setattr("micromegas_jupyter.engine.security.conditions.condition_problem", fail)

    with pytest.raises(ConfigurationError, match="the engine fails on it"):
        check_role_conditions(FixedTables([empty_table()]), {"measures": ("level = 1",)})
