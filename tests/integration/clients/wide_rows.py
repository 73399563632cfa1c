"""A table with a column of every type that a Parquet file gives back, and what its rows are in Python."""

import datetime as dt
from decimal import Decimal

import pyarrow as pa

NOON = dt.datetime(2026, 11, 24, 12, 0, 0, 123456, tzinfo=dt.UTC)
PLAIN_NOON = NOON.replace(tzinfo=None)

# Name, type, and two values; a third row is null in every column.
COLUMNS = (
    ("flag", pa.bool_(), True, False),
    ("i8", pa.int8(), -128, 127),
    ("i16", pa.int16(), -32768, 32767),
    ("i32", pa.int32(), -(2**31), 2**31 - 1),
    ("i64", pa.int64(), -(2**63), 2**63 - 1),
    ("u8", pa.uint8(), 0, 255),
    ("u16", pa.uint16(), 0, 65535),
    ("u32", pa.uint32(), 0, 2**32 - 1),
    ("u64", pa.uint64(), 0, 2**64 - 1),
    ("f32", pa.float32(), 0.5, -2.25),
    ("f64", pa.float64(), 0.1, -1e300),
    ("price", pa.decimal128(12, 2), Decimal("1.25"), Decimal("-9999999999.99")),
    ("word", pa.string(), "naïve 日本語 \U0001f600", ""),
    ("long_word", pa.large_string(), "long", "'; DROP TABLE x --"),
    ("blob", pa.binary(), b"\x00\xff", b""),
    ("uuid", pa.binary(4), b"abcd", b"\x00\x00\x00\x00"),
    ("day", pa.date32(), dt.date(2026, 11, 24), dt.date(1969, 12, 31)),
    ("clock", pa.time64("us"), dt.time(23, 59, 59, 999999), dt.time(0, 0)),
    ("ms", pa.timestamp("ms"), PLAIN_NOON.replace(microsecond=123000), dt.datetime(1970, 1, 1)),  # noqa: DTZ001
    ("us", pa.timestamp("us"), PLAIN_NOON, dt.datetime(1900, 1, 1)),  # noqa: DTZ001
    ("ns_utc", pa.timestamp("ns", "UTC"), NOON, dt.datetime(1970, 1, 1, tzinfo=dt.UTC)),
    ("numbers", pa.list_(pa.int64()), [1, None, 3], []),
    ("pair", pa.struct([("a", pa.int32()), ("b", pa.string())]), {"a": 1, "b": "x"}, {"a": None, "b": None}),
    ("tags", pa.map_(pa.string(), pa.string()), [("k", "v")], []),
    ("level", pa.dictionary(pa.int32(), pa.string()), "info", "warn"),
)
NAMES = tuple(name for name, *_ in COLUMNS)


def wide_table():
    """Return three rows with an `id`, the last of nulls."""
    columns = {name: pa.array([first, second, None], kind) for name, kind, first, second in COLUMNS}
    return pa.table({"id": pa.array([1, 2, 3], pa.int64()), **columns})


def sent_table():
    """Return the rows as they are sent without `preserve_dictionary`: dictionaries flat."""
    table = wide_table()
    return table.cast(pa.schema([pa.field(field.name, _sent(field.type)) for field in table.schema]))


def _sent(kind):
    return kind.value_type if pa.types.is_dictionary(kind) else kind
