"""SQL to Arrow batches: DataFusion over the tables that a caller may see.

Storage provides lists of files (`protocols.TableSource`). Each name loads its module when it is first used: code that
only describes queries loads no DataFusion.
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
_MODULES = {
    "DataFusionEngine": "datafusion_engine",
    "fingerprints": "planning.fingerprint",
    "sql_hash": "planning.fingerprint",
}


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'contract')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
