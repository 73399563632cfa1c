"""What the server tells about itself in answer to `CommandGetSqlInfo`.

Source: FlightSql.proto, enum `SqlInfo`, and the schema in the comment on `CommandGetSqlInfo`.
"""

from typing import Final

import pyarrow as pa

import micromegas_jupyter

_STRING: Final = 0
_BOOL: Final = 1
_INT32: Final = 3
_STRING_LIST: Final = 4

_VALUE_FIELDS: Final = (
    pa.field("string_value", pa.string()),
    pa.field("bool_value", pa.bool_()),
    pa.field("bigint_value", pa.int64()),
    pa.field("int32_bitmask", pa.int32()),
    pa.field("string_list", pa.list_(pa.string())),
    pa.field("int32_to_int32_list_map", pa.map_(pa.int32(), pa.list_(pa.int32()))),
)
SQL_INFO_SCHEMA: Final = pa.schema(
    [
        pa.field("info_name", pa.uint32(), nullable=False),
        pa.field("value", pa.dense_union(list(_VALUE_FIELDS)), nullable=False),
    ]
)

# Grafana's editor reads 508 to 512 and needs all five lists.
_KEYWORDS: Final = (
    "ALL AND ANY AS ASC BETWEEN BY CASE CAST CROSS CURRENT_DATE CURRENT_TIMESTAMP DESC DISTINCT ELSE END EXCEPT "
    "EXISTS EXPLAIN EXTRACT FALSE FILTER FROM FULL GROUP HAVING IN INNER INTERSECT INTERVAL IS JOIN LEFT LIKE LIMIT "
    "NATURAL NOT NULL NULLS OFFSET ON OR ORDER OUTER OVER PARTITION RECURSIVE RIGHT ROWS SELECT SHOW SOME TABLE THEN "
    "TRUE UNION UNNEST USING VALUES WHEN WHERE WINDOW WITH"
)
_NUMERIC_FUNCTIONS: Final = (
    "abs acos asin atan atan2 ceil cos degrees exp floor ln log log10 log2 pi power radians random round signum sin "
    "sqrt tan trunc"
)
_STRING_FUNCTIONS: Final = (
    "ascii bit_length btrim char_length chr concat concat_ws contains encode ends_with initcap left length lower lpad "
    "ltrim md5 regexp_like regexp_match regexp_replace repeat replace reverse right rpad rtrim sha256 split_part "
    "starts_with strpos substr to_hex translate trim upper uuid"
)
_SYSTEM_FUNCTIONS: Final = "array arrow_typeof struct"
_DATE_FUNCTIONS: Final = (
    "current_date current_time current_timestamp date_bin date_part date_trunc datepart datetrunc from_unixtime "
    "make_date now to_date to_timestamp to_timestamp_micros to_timestamp_millis to_timestamp_nanos "
    "to_timestamp_seconds to_unixtime"
)

_FACTS: Final[dict[int, tuple[int, object]]] = {
    0: (_STRING, "micromegas_jupyter"),
    1: (_STRING, micromegas_jupyter.__version__),
    2: (_STRING, pa.__version__),
    3: (_BOOL, True),  # read only
    4: (_BOOL, True),  # takes SQL
    5: (_BOOL, False),  # takes Substrait
    8: (_INT32, 0),  # no transactions
    9: (_BOOL, False),  # CancelQuery; cancelling the gRPC call is how a query is stopped
    10: (_BOOL, False),  # bulk ingestion
    504: (_STRING, '"'),  # quotes identifiers
    508: (_STRING_LIST, _KEYWORDS.split()),
    509: (_STRING_LIST, _NUMERIC_FUNCTIONS.split()),
    510: (_STRING_LIST, _STRING_FUNCTIONS.split()),
    511: (_STRING_LIST, _SYSTEM_FUNCTIONS.split()),
    512: (_STRING_LIST, _DATE_FUNCTIONS.split()),
}


def build_sql_info(info_ids: tuple[int, ...]) -> pa.RecordBatch:
    """Return the facts with these ids, all of them when none is named; ids that are not known are left out."""
    wanted = sorted(set(info_ids) & _FACTS.keys()) if info_ids else sorted(_FACTS)
    columns: list[list[object]] = [[] for _ in _VALUE_FIELDS]
    types, offsets = [], []
    for info_id in wanted:
        type_code, value = _FACTS[info_id]
        types.append(type_code)
        offsets.append(len(columns[type_code]))
        columns[type_code].append(value)
    values = pa.UnionArray.from_dense(
        pa.array(types, pa.int8()),
        pa.array(offsets, pa.int32()),
        [pa.array(column, field.type) for column, field in zip(columns, _VALUE_FIELDS, strict=True)],
        [field.name for field in _VALUE_FIELDS],
    )
    return pa.RecordBatch.from_arrays([pa.array(wanted, pa.uint32()), values], schema=SQL_INFO_SCHEMA)
