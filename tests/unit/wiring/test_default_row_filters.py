"""What a server's own log tells of people is kept back from callers who are not administrators."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.core.protocols import TableSnapshot
from micromegas_jupyter.engine.contract import EngineSettings, StatementRequest
from micromegas_jupyter.engine.datafusion_engine import DataFusionEngine
from micromegas_jupyter.wiring.server import DEFAULT_ROW_FILTERS
from tests.fakes.fixed_tables import CALLER, FixedTables

if TYPE_CHECKING:
    from pathlib import Path

_OF_OTHERS = [
    "micromegas_jupyter.access",
    "micromegas_jupyter.audit",
    "micromegas_jupyter.audit.access",
    "micromegas_jupyter.engine.security",
    "micromegas_jupyter.executors",
    "micromegas_jupyter.server",
    "micromegas_jupyter.supervisor",
    "micromegas_jupyter.supervisor.worker",
]
_OF_EVERYBODY = [None, "game", "micromegas_jupyter", "micromegas_jupyter.client", "micromegas_jupyter.supervisors"]


@pytest.mark.parametrize(("is_admin", "expected"), [(False, _OF_EVERYBODY), (True, [*_OF_OTHERS, *_OF_EVERYBODY])])
def test_lines_about_other_people_are_for_administrators(
    tmp_path: Path, is_admin: bool, expected: list[str | None]
) -> None:
    rows = pa.table({"target": pa.array([*_OF_OTHERS, *_OF_EVERYBODY], pa.string())})
    pq.write_table(rows, tmp_path / "rows.parquet")
    table = TableSnapshot(name="log_entries", schema=rows.schema, files=(str(tmp_path / "rows.parquet"),))
    settings = EngineSettings(default_conditions=DEFAULT_ROW_FILTERS)
    engine = DataFusionEngine(FixedTables([table]), settings)

    request = StatementRequest(sql="SELECT target FROM log_entries")
    planned = engine.plan(request, replace(CALLER, is_admin=is_admin))
    seen = [row["target"] for batch in planned.batches() for row in batch.to_pylist()]

    engine.close()
    assert seen == expected
