"""What the tables of the data model hold, in words for a person who has not seen them before.

Names and types are `tables`' part.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import pyarrow as pa

REMARKS_KEY: Final = b"ARROW:FLIGHT:SQL:REMARKS"
"""The metadata key of a remark (Flight SQL, column metadata of `CommandGetTables`)."""

TABLE_REMARKS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "log_entries": "What programs logged, one row for each entry.",
        "measures": "What programs measured, one row for each value of a metric.",
        "processes": "The programs that sent telemetry, one row for each run of a program.",
        "streams": "The channels through which programs sent telemetry, one row each.",
        "__processes__partitions": "The partial states that the rows of processes are merged from.",
        "__streams__partitions": "The partial states that the rows of streams are merged from.",
    }
)

_ORIGIN: Final = {
    "process_id": "The run of a program that sent it; see processes.",
    "stream_id": "The channel that it came through; see streams.",
    "block_id": "The batch that it came in.",
    "insert_time": "When it reached the lake.",
    "exe": "The program.",
    "username": "The account that the program ran under.",
    "computer": "The machine that the program ran on.",
    "time": "When it happened, by the program's clock.",
    "target": "The module or logger that it comes from.",
    "properties": "Key and value pairs of this row.",
    "process_properties": "Key and value pairs of the program's run.",
}

COLUMN_REMARKS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "log_entries": {
            **_ORIGIN,
            "level": "How severe: 1 fatal, 2 error, 3 warning, 4 info, 5 debug, 6 trace.",
            "msg": "The message.",
        },
        "measures": {
            **_ORIGIN,
            "name": "The metric.",
            "unit": "What the value is counted in.",
            "value": "The measured value.",
        },
        "processes": {
            "process_id": "Identifies this run of the program.",
            "exe": "The program.",
            "username": "The account that it ran under.",
            "realname": "The name of that account's owner.",
            "computer": "The machine that it ran on.",
            "distro": "The machine's operating system.",
            "cpu_brand": "The machine's processor.",
            "tsc_frequency": "Ticks of the program's clock in a second.",
            "start_time": "When the program started.",
            "start_ticks": "The program's clock when it started.",
            "insert_time": "When the lake first heard of it.",
            "parent_process_id": "The run that started this one.",
            "properties": "Key and value pairs of this run.",
            "last_update_time": "When the lake last heard of it.",
            "last_block_end_ticks": "The program's clock at the end of its latest batch.",
            "last_block_end_time": "When its latest batch ended.",
        },
        "streams": {
            "stream_id": "Identifies the channel.",
            "process_id": "The run of a program that it belongs to; see processes.",
            "dependencies_metadata": "How the objects are laid out that its events refer to.",
            "objects_metadata": "How its events are laid out.",
            "tags": "What it carries, for example log or metrics.",
            "properties": "Key and value pairs of the channel.",
            "insert_time": "When the lake first heard of it.",
            "format": "How its events are written down.",
            "last_update_time": "When the lake last heard of it.",
        },
    }
)


def with_remarks(table: str, schema: pa.Schema) -> pa.Schema:
    """Return the schema with what is known about a table and its columns in their metadata; else as it is."""
    if table not in TABLE_REMARKS:
        return schema
    columns = COLUMN_REMARKS.get(table, {})
    fields = [
        field.with_metadata({**(field.metadata or {}), REMARKS_KEY: columns[field.name]})
        if field.name in columns
        else field
        for field in schema
    ]
    return pa.schema(fields, metadata={**(schema.metadata or {}), REMARKS_KEY: TABLE_REMARKS[table]})
