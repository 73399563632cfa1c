"""What the server tells about itself in answer to `CommandGetSqlInfo`.

Source: FlightSql.proto, enum `SqlInfo`, and the schema in the comment on `CommandGetSqlInfo`.
"""

from dataclasses import dataclass
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

_NO: Final = (_BOOL, False)
_YES: Final = (_BOOL, True)
_NONE: Final = (_INT32, 0)

_FACTS: Final[dict[int, tuple[int, object]]] = {
    0: (_STRING, "micromegas_jupyter"),
    1: (_STRING, micromegas_jupyter.__version__),
    2: (_STRING, pa.__version__),
    4: _YES,  # takes SQL
    5: _NO,  # takes Substrait
    8: _NONE,  # transactions
    9: _YES,  # cancels queries on request
    11: _NO,  # bulk ingestion in a transaction
    101: _NONE,  # how long a transaction may last
    500: _NO,  # CREATE and DROP of catalogs,
    501: _NO,  # of schemas,
    502: _NO,  # of tables
    503: (_INT32, 3),  # names without quotes are read in lower case;
    504: (_STRING, '"'),  # names in these quotes
    505: _NONE,  # are taken as written, for which the protocol has no value
    506: _YES,  # every table that is listed can be selected from
    507: _NONE,  # nulls sort as the highest values
    508: (_STRING_LIST, _KEYWORDS.split()),
    509: (_STRING_LIST, _NUMERIC_FUNCTIONS.split()),
    510: (_STRING_LIST, _STRING_FUNCTIONS.split()),
    511: (_STRING_LIST, _SYSTEM_FUNCTIONS.split()),
    512: (_STRING_LIST, _DATE_FUNCTIONS.split()),
    513: (_STRING, "\\"),  # escapes % and _ in a pattern of names
    515: _YES,  # AS for columns
    516: _YES,  # null || text is null
    518: _YES,  # AS for tables,
    519: _NO,  # also with the name of a table
    520: _YES,  # expressions in ORDER BY
    521: _YES,  # ORDER BY columns that are not selected
    522: (_INT32, 0b11),  # GROUP BY columns that are not selected, and beyond those selected
    523: _NO,  # LIKE … ESCAPE
    524: _YES,  # columns without nulls
    527: _NO,  # integrity enhancement facility
    528: (_INT32, 2),  # full outer joins
    529: (_STRING, "schema"),
    531: (_STRING, ""),  # no catalogs
    533: _NONE,  # schemas in procedure calls, indexes, privileges
    534: _NONE,  # catalogs in these
    535: _NONE,  # positioned updates
    536: _NO,  # SELECT … FOR UPDATE
    537: _NO,  # stored procedures
    538: (_INT32, 0b1111),  # subqueries in comparisons, EXISTS, IN, ANY and ALL
    539: _YES,  # correlated subqueries
    540: (_INT32, 0b11),  # UNION and UNION ALL
    562: _NONE,  # isolation of transactions: there are none
    563: _NO,
    564: (_INT32, 0b1),
    565: _NO,
    566: _NO,
    567: (_INT32, 0b10),  # results are read forwards
    568: _NONE,
    569: (_INT32, 0b10),  # and only read
    570: _NONE,
    571: _NONE,
    572: _NO,  # updates in batches
    573: _NO,  # savepoints
    574: _NO,  # named parameters of procedures
    576: _NO,  # functions by procedure syntax
}
_MOST_MILLISECONDS: Final = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """What depends on how a server was set up.

    Attributes:
        takes_rows: Whether rows can be written by bulk ingestion; a server without is read only.
        prepared_idle_seconds: How long an unused prepared statement is kept.
    """

    takes_rows: bool = False
    prepared_idle_seconds: float = 0

    def by_id(self) -> dict[int, tuple[int, object]]:
        """Return these facts as Flight SQL numbers them."""
        return {
            3: (_BOOL, not self.takes_rows),
            10: (_BOOL, self.takes_rows),
            100: (_INT32, min(round(self.prepared_idle_seconds * 1000), _MOST_MILLISECONDS)),
        }


def build_sql_info(info_ids: tuple[int, ...], facts: ServerFacts) -> pa.RecordBatch:
    """Return the facts with these ids, all of them when none is named; ids that are not known are left out."""
    known = _FACTS | facts.by_id()
    wanted = sorted(set(info_ids) & known.keys()) if info_ids else sorted(known)
    columns: list[list[object]] = [[] for _ in _VALUE_FIELDS]
    types, offsets = [], []
    for info_id in wanted:
        type_code, value = known[info_id]
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
