"""The SQL types of result columns, in answer to `CommandGetXdbcTypeInfo`.

Source: FlightSql.proto, the schema in the comment on the command, and its enums `XdbcDataType`, `XdbcDatetimeSubcode`,
`Nullable` and `Searchable`. Each name can stand in a CAST. Times count nanoseconds, as results have them.
"""

from dataclasses import dataclass
from typing import Final

import pyarrow as pa

TYPE_INFO_SCHEMA: Final = pa.schema(
    [
        pa.field("type_name", pa.string(), nullable=False),
        pa.field("data_type", pa.int32(), nullable=False),
        pa.field("column_size", pa.int32()),
        pa.field("literal_prefix", pa.string()),
        pa.field("literal_suffix", pa.string()),
        pa.field("create_params", pa.list_(pa.field("item", pa.string(), nullable=False))),
        pa.field("nullable", pa.int32(), nullable=False),
        pa.field("case_sensitive", pa.bool_(), nullable=False),
        pa.field("searchable", pa.int32(), nullable=False),
        pa.field("unsigned_attribute", pa.bool_()),
        pa.field("fixed_prec_scale", pa.bool_(), nullable=False),
        pa.field("auto_increment", pa.bool_()),
        pa.field("local_type_name", pa.string()),
        pa.field("minimum_scale", pa.int32()),
        pa.field("maximum_scale", pa.int32()),
        pa.field("sql_data_type", pa.int32(), nullable=False),
        pa.field("datetime_subcode", pa.int32()),
        pa.field("num_prec_radix", pa.int32()),
        pa.field("interval_precision", pa.int32()),
    ]
)

_NULLABLE: Final = 1
_SEARCHABLE_BASIC: Final = 2
_SEARCHABLE_FULL: Final = 3
_DECIMAL: Final = 3
_DATETIME: Final = 9
_INTERVAL: Final = 10
_VARCHAR: Final = 12
_LARGEST_DECIMAL: Final = 76
_NANOSECOND_DIGITS: Final = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class _SqlType:
    """One type; `size` counts digits, bits (radix 2) or characters."""

    name: str
    data_type: int
    size: int | None = None
    quote: str | None = None  # what stands before a literal's apostrophe
    radix: int | None = None
    unsigned: bool | None = None
    scale: tuple[int, int] | None = None
    subcode: int | None = None

    def row(self) -> dict[str, object]:
        is_text, is_decimal = self.data_type == _VARCHAR, self.data_type == _DECIMAL
        return {
            "type_name": self.name,
            "data_type": self.data_type,
            "column_size": self.size,
            "literal_prefix": None if self.quote is None else f"{self.quote}'",
            "literal_suffix": None if self.quote is None else "'",
            "create_params": ["precision", "scale"] if is_decimal else None,
            "nullable": _NULLABLE,
            "case_sensitive": is_text,
            "searchable": _SEARCHABLE_FULL if is_text else _SEARCHABLE_BASIC,
            "unsigned_attribute": self.unsigned,
            "fixed_prec_scale": False,
            "auto_increment": None if self.radix is None else False,
            "minimum_scale": None if self.scale is None else self.scale[0],
            "maximum_scale": None if self.scale is None else self.scale[1],
            "sql_data_type": self.data_type if self.subcode is None else _DATETIME,
            "datetime_subcode": self.subcode,
            "num_prec_radix": self.radix,
        }


def _integer(name: str, data_type: int, digits: int, *, unsigned: bool = False) -> _SqlType:
    return _SqlType(name=name, data_type=data_type, size=digits, radix=10, unsigned=unsigned, scale=(0, 0))


def _time(name: str, data_type: int, characters: int, subcode: int) -> _SqlType:
    scale = None if name == "DATE" else (_NANOSECOND_DIGITS, _NANOSECOND_DIGITS)
    return _SqlType(name=name, data_type=data_type, size=characters, quote=f"{name} ", subcode=subcode, scale=scale)


# In the order of the answer: by data_type, then by name.
_TYPES: Final = (
    _SqlType(name="BOOLEAN", data_type=-7, size=1),
    _integer("TINYINT", -6, 3),
    _integer("TINYINT UNSIGNED", -6, 3, unsigned=True),
    _integer("BIGINT", -5, 19),
    _integer("BIGINT UNSIGNED", -5, 20, unsigned=True),
    _SqlType(name="BYTEA", data_type=-3, quote="X"),
    _SqlType(
        name="DECIMAL",
        data_type=_DECIMAL,
        size=_LARGEST_DECIMAL,
        radix=10,
        unsigned=False,
        scale=(0, _LARGEST_DECIMAL),
    ),
    _integer("INT", 4, 10),
    _integer("INT UNSIGNED", 4, 10, unsigned=True),
    _integer("SMALLINT", 5, 5),
    _integer("SMALLINT UNSIGNED", 5, 5, unsigned=True),
    _SqlType(name="REAL", data_type=7, size=24, radix=2, unsigned=False),
    _SqlType(name="DOUBLE", data_type=8, size=53, radix=2, unsigned=False),
    _SqlType(name="INTERVAL", data_type=_INTERVAL, quote="INTERVAL "),
    _SqlType(name="VARCHAR", data_type=_VARCHAR, quote=""),
    _time("DATE", 91, 10, 1),
    _time("TIME", 92, 18, 2),
    _time("TIMESTAMP", 93, 29, 3),
    _time("TIMESTAMP WITH TIME ZONE", 93, 35, 5),
)


def type_rows(data_type: int | None) -> list[dict[str, object]]:
    """Return the types of this number, all of them for None."""
    return [found.row() for found in _TYPES if data_type in {None, found.data_type}]
