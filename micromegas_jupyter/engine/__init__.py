"""SQL to Arrow batches: the `Engine` protocol and the engine that is embedded in this process.

Storage hands over file lists (`contracts.TableSource`); the wire is the server's.
"""

from micromegas_jupyter.engine.contract import Engine, PlannedQuery, StatementRequest, TimeRange
from micromegas_jupyter.engine.datafusion_engine import DataFusionEngine
from micromegas_jupyter.engine.figures import QueryFigures
from micromegas_jupyter.engine.fingerprint import fingerprints, sql_hash
from micromegas_jupyter.engine.settings import EngineSettings

__all__ = [
    "DataFusionEngine",
    "Engine",
    "EngineSettings",
    "PlannedQuery",
    "QueryFigures",
    "StatementRequest",
    "TimeRange",
    "fingerprints",
    "sql_hash",
]
