"""The telemetry data model as pure functions: tables, levels, rows, and text that is fit to be stored.

Nothing here touches a file, a socket or a clock; storing rows is `lakehouse`'s job.
"""

from micromegas_jupyter.telemetry.rows import (
    BlockOrigin,
    Level,
    LogRow,
    MeasureRow,
    ProcessInfo,
    StreamInfo,
    build_log_batch,
    build_measure_batch,
    build_process_batch,
    build_stream_batch,
    level_from_logging,
    nanoseconds_since_epoch,
)
from micromegas_jupyter.telemetry.tables import (
    LOG_ENTRIES,
    MEASURES,
    PROCESSES,
    STREAMS,
    TABLES,
    MergeRule,
    TableDefinition,
    build_merge_sql,
    merge_rows,
)
from micromegas_jupyter.telemetry.text import MASK, bound_text, is_secret_property, redact_secrets

__all__ = [
    "LOG_ENTRIES",
    "MASK",
    "MEASURES",
    "PROCESSES",
    "STREAMS",
    "TABLES",
    "BlockOrigin",
    "Level",
    "LogRow",
    "MeasureRow",
    "MergeRule",
    "ProcessInfo",
    "StreamInfo",
    "TableDefinition",
    "bound_text",
    "build_log_batch",
    "build_measure_batch",
    "build_merge_sql",
    "build_process_batch",
    "build_stream_batch",
    "is_secret_property",
    "level_from_logging",
    "merge_rows",
    "nanoseconds_since_epoch",
    "redact_secrets",
]
