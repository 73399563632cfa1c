"""SQL to Arrow batches: the `Engine` protocol and the engine that is embedded in this process.

Storage hands over file lists (`contracts.TableSource`); the wire is the server's. Each name loads its parts when it is
first used: what only speaks of queries loads no DataFusion.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from micromegas_jupyter.engine.contract import Engine, PlannedQuery, StatementRequest, TimeRange
    from micromegas_jupyter.engine.datafusion_engine import DataFusionEngine
    from micromegas_jupyter.engine.figures import QueryFigures
    from micromegas_jupyter.engine.fingerprint import fingerprints, sql_hash
    from micromegas_jupyter.engine.settings import EngineSettings
    from micromegas_jupyter.engine.threads import default_heavy_statements, processor_count
    from micromegas_jupyter.engine.work_class import WorkClass

_HOME = {
    "DataFusionEngine": "datafusion_engine",
    "Engine": "contract",
    "EngineSettings": "settings",
    "PlannedQuery": "contract",
    "QueryFigures": "figures",
    "StatementRequest": "contract",
    "TimeRange": "contract",
    "WorkClass": "work_class",
    "default_heavy_statements": "threads",
    "fingerprints": "fingerprint",
    "processor_count": "threads",
    "sql_hash": "fingerprint",
}

__all__ = [
    "DataFusionEngine",
    "Engine",
    "EngineSettings",
    "PlannedQuery",
    "QueryFigures",
    "StatementRequest",
    "TimeRange",
    "WorkClass",
    "default_heavy_statements",
    "fingerprints",
    "processor_count",
    "sql_hash",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
