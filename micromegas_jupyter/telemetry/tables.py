"""The tables of the data model: names, columns in order, types, and how their rows relate to time.

Names, order and types are upstream's, so that one query runs on either implementation. Where the rows lie
and how they get there is the lakehouse's job.
"""

from dataclasses import dataclass, field

import pyarrow as pa

from micromegas_jupyter.telemetry.columns import DICTIONARY, PROPERTIES, TIMESTAMP
from micromegas_jupyter.telemetry.merging import MergeRule, build_merge_sql


@dataclass(frozen=True, slots=True, kw_only=True)
class TableDefinition:
    """One table.

    Attributes:
        name: The table's name in SQL.
        schema: The columns of the stored rows.
        range_columns: First and last column that a time range filters; see `contracts.TableSnapshot`.
        sort_columns: What stored rows are sorted by, each ascending.
        merge_rule: How stored rows are merged at query time; None when they are the table's rows.
    """

    name: str
    schema: pa.Schema = field(repr=False)
    range_columns: tuple[str, str]
    sort_columns: tuple[str, ...]
    merge_rule: MergeRule | None = None

    @property
    def raw_name(self) -> str | None:
        """The name under which the partial states are visible, None when there are none."""
        return None if self.merge_rule is None else f"__{self.name}__partitions"

    @property
    def merge_sql(self) -> str | None:
        """The SELECT that makes the table of its partial states, None when there are none."""
        if self.merge_rule is None or self.raw_name is None:
            return None
        return build_merge_sql(self.merge_rule, column_names=self.schema.names, raw_name=self.raw_name)


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


_ORIGIN = (
    _required("process_id", DICTIONARY),
    _required("stream_id", DICTIONARY),
    _required("block_id", DICTIONARY),
    _required("insert_time", TIMESTAMP),
    _required("exe", DICTIONARY),
    _required("username", DICTIONARY),
    _required("computer", DICTIONARY),
    _required("time", TIMESTAMP),
    _required("target", DICTIONARY),
)

LOG_ENTRIES = TableDefinition(
    name="log_entries",
    schema=pa.schema(
        [
            *_ORIGIN,
            _required("level", pa.int32()),
            _required("msg", pa.utf8()),
            _required("properties", PROPERTIES),
            _required("process_properties", PROPERTIES),
        ]
    ),
    range_columns=("time", "time"),
    sort_columns=("time",),
)

MEASURES = TableDefinition(
    name="measures",
    schema=pa.schema(
        [
            *_ORIGIN,
            _required("name", DICTIONARY),
            _required("unit", DICTIONARY),
            _required("value", pa.float64()),
            _required("properties", PROPERTIES),
            _required("process_properties", PROPERTIES),
        ]
    ),
    range_columns=("time", "time"),
    sort_columns=("time",),
)

PROCESSES = TableDefinition(
    name="processes",
    schema=pa.schema(
        [
            _required("process_id", pa.utf8()),
            pa.field("exe", pa.utf8()),
            pa.field("username", pa.utf8()),
            pa.field("realname", pa.utf8()),
            pa.field("computer", pa.utf8()),
            pa.field("distro", pa.utf8()),
            pa.field("cpu_brand", pa.utf8()),
            pa.field("tsc_frequency", pa.int64()),
            pa.field("start_time", TIMESTAMP),
            pa.field("start_ticks", pa.int64()),
            pa.field("insert_time", TIMESTAMP),
            pa.field("parent_process_id", pa.utf8()),
            pa.field("properties", PROPERTIES),
            pa.field("last_update_time", TIMESTAMP),
            pa.field("last_block_end_ticks", pa.int64()),
            pa.field("last_block_end_time", TIMESTAMP),
        ]
    ),
    range_columns=("insert_time", "last_update_time"),
    sort_columns=("insert_time", "last_update_time"),
    merge_rule=MergeRule(
        key="process_id",
        order_by=("insert_time", "last_update_time"),
        latest=("last_update_time", "last_block_end_ticks", "last_block_end_time"),
    ),
)

STREAMS = TableDefinition(
    name="streams",
    schema=pa.schema(
        [
            _required("stream_id", pa.utf8()),
            pa.field("process_id", pa.utf8()),
            pa.field("dependencies_metadata", pa.binary()),
            pa.field("objects_metadata", pa.binary()),
            pa.field("tags", pa.list_(pa.utf8())),
            pa.field("properties", PROPERTIES),
            pa.field("insert_time", TIMESTAMP),
            pa.field("format", pa.utf8()),
            pa.field("last_update_time", TIMESTAMP),
        ]
    ),
    range_columns=("insert_time", "last_update_time"),
    sort_columns=("insert_time", "last_update_time"),
    merge_rule=MergeRule(key="stream_id", order_by=("insert_time", "last_update_time"), latest=("last_update_time",)),
)

TABLES = (PROCESSES, STREAMS, LOG_ENTRIES, MEASURES)
