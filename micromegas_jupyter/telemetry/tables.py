"""The tables of the data model: columns, types and descriptions, how rows relate to time, how partial states merge.

Names, order and types are upstream's, so that one query runs on either implementation.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import pyarrow as pa

DICTIONARY = pa.dictionary(pa.int32(), pa.utf8())
TIMESTAMP = pa.timestamp("ns", tz="+00:00")
PROPERTIES = pa.map_(pa.utf8(), pa.utf8())
_POSITION = "__position"
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
_ORIGIN_REMARKS: Final = {
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
            **_ORIGIN_REMARKS,
            "level": "How severe: 1 fatal, 2 error, 3 warning, 4 info, 5 debug, 6 trace.",
            "msg": "The message.",
        },
        "measures": {
            **_ORIGIN_REMARKS,
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


def build_dictionary(values: Iterable[str]) -> pa.Array:
    """Return dictionary-encoded text, one entry for each value."""
    return pa.array(values, pa.utf8()).dictionary_encode()


def build_constant_dictionary(value: str, length: int) -> pa.Array:
    """Return dictionary-encoded text that is `value` in all `length` rows."""
    return pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), length), pa.array([value], pa.utf8()))


def build_properties(rows: Iterable[Mapping[str, str]]) -> pa.Array:
    """Return one property set for each row."""
    return pa.array([list(properties.items()) for properties in rows], PROPERTIES)


def build_constant_properties(properties: Mapping[str, str], length: int) -> pa.Array:
    """Return the same property set in all `length` rows."""
    return build_properties([properties]).take(pa.repeat(pa.scalar(0, pa.int32()), length))


def build_constant_timestamp(time_ns: int, length: int) -> pa.Array:
    """Return the same time (nanoseconds since 1970 UTC) in all `length` rows."""
    return pa.repeat(pa.scalar(time_ns, TIMESTAMP), length)


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeRule:
    """How the partial states of one key are merged.

    Attributes:
        key: The column that tells whose state a row is.
        order_by: The columns that order the states of one key; attributes come from the first state.
        latest: The columns of which the greatest value counts; all others are attributes.
    """

    key: str
    order_by: tuple[str, ...]
    latest: tuple[str, ...]


def build_merge_sql(rule: MergeRule, *, column_names: list[str], raw_name: str) -> str:
    """Return the SELECT (DataFusion SQL) that merges the raw rows, with `column_names` in their order."""
    order = ", ".join(f'"{name}"' for name in rule.order_by)

    def expression(name: str) -> str:
        if name == rule.key:
            return f'"{name}"'
        if name in rule.latest:
            return f'max("{name}") AS "{name}"'
        return f'first_value("{name}" ORDER BY {order}) AS "{name}"'

    columns = ", ".join(expression(name) for name in column_names)
    # Every name comes from a table definition of this package.
    return f'SELECT {columns} FROM "{raw_name}" GROUP BY "{rule.key}"'  # noqa: S608


def merge_rows(rows: pa.Table, rule: MergeRule) -> pa.Table:
    """Merge the partial states in `rows`; the result is a state of the same schema, one row for each key."""
    ordered = rows.sort_by([(name, "ascending") for name in rule.order_by])
    numbered = ordered.append_column(_POSITION, pa.array(range(ordered.num_rows), pa.int64()))
    grouped = numbered.group_by(rule.key, use_threads=False).aggregate(
        [(_POSITION, "min"), *((name, "max") for name in rule.latest)]
    )
    merged = ordered.take(grouped.column(f"{_POSITION}_min"))
    for name in rule.latest:
        index = merged.schema.get_field_index(name)
        merged = merged.set_column(index, merged.schema.field(index), grouped.column(f"{name}_max"))
    return merged


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
