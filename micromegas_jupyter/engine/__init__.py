"""SQL to Arrow batches: DataFusion over the tables that a caller may see.

Storage hands over file lists (`contracts.TableSource`). Each name loads its parts when it is first used: what only
speaks of queries loads no DataFusion.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from micromegas_jupyter.engine.contract import (
        EngineSettings,
        PlannedQuery,
        QueryStatistics,
        StatementRequest,
        TimeRange,
    )
    from micromegas_jupyter.engine.datafusion_engine import DataFusionEngine
    from micromegas_jupyter.engine.planning.fingerprint import fingerprints, sql_hash

_HOME = {
    "DataFusionEngine": "datafusion_engine",
    "EngineSettings": "contract",
    "PlannedQuery": "contract",
    "QueryStatistics": "contract",
    "StatementRequest": "contract",
    "TimeRange": "contract",
    "fingerprints": "planning.fingerprint",
    "sql_hash": "planning.fingerprint",
}

__all__ = [
    "DataFusionEngine",
    "EngineSettings",
    "PlannedQuery",
    "QueryStatistics",
    "StatementRequest",
    "TimeRange",
    "fingerprints",
    "sql_hash",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
