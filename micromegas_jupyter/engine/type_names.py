"""Writes the engine's names of types, and its constants, as they are written in SQL."""

import re
from collections.abc import Callable
from typing import Final

_NAMES: Final = {
    "Boolean": "BOOLEAN",
    "Int8": "TINYINT",
    "Int16": "SMALLINT",
    "Int32": "INT",
    "Int64": "BIGINT",
    "UInt8": "TINYINT UNSIGNED",
    "UInt16": "SMALLINT UNSIGNED",
    "UInt32": "INT UNSIGNED",
    "UInt64": "BIGINT UNSIGNED",
    "Float16": "REAL",
    "Float32": "REAL",
    "Float64": "DOUBLE",
    "Utf8": "VARCHAR",
    "LargeUtf8": "VARCHAR",
    "Utf8View": "VARCHAR",
    "Binary": "BYTEA",
    "LargeBinary": "BYTEA",
    "BinaryView": "BYTEA",
    "Date32": "DATE",
    "Date64": "DATE",
}
_PLAIN: Final = "|".join(sorted(_NAMES, key=len, reverse=True))
# Constants first: `Int64(1)` is one, and `Decimal128(10, 2)` is a type.
_PARTS: Final[tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...]] = (
    (re.compile(r"\b(?:U?Int(?:8|16|32|64)|Float(?:32|64))\((-?[\d.]+(?:e[+-]?\d+)?)\)"), r"\1"),
    (re.compile(r"\bBoolean\((true|false)\)"), r"\1"),
    (re.compile(r'\b(?:Large)?Utf8(?:View)?\("((?:[^"\\]|\\.)*)"\)'), r"'\1'"),
    (re.compile(rf"\bDictionary\(\w+, ({_PLAIN})\)"), r"\1"),
    (re.compile(r"\bTimestamp\((?:\w+|µs), (?!None\b)[^)]*\)"), "TIMESTAMP WITH TIME ZONE"),
    (re.compile(r"\bTimestamp\((?:ns|µs|us|ms|s|\w+second)(?:, None)?\)"), "TIMESTAMP"),
    (re.compile(r"\bTime(?:32|64)\([^)]*\)"), "TIME"),
    (re.compile(r"\bInterval\(\w+\)"), "INTERVAL"),
    (re.compile(r"\bDuration\([^)]*\)"), "DURATION"),
    (re.compile(r"\bDecimal(?:32|64|128|256)\("), "DECIMAL("),
    (re.compile(r"\bFixedSizeBinary\(\d+\)"), "BYTEA"),
    (re.compile(rf"(?<![\w.\"'])({_PLAIN})\b(?![(\"'])"), lambda found: _NAMES[found[1]]),
)


def with_sql_names(text: str) -> str:
    """Return a message of the engine with the types and constants of SQL: `Int64 * Utf8` is `BIGINT * VARCHAR`."""
    for pattern, name in _PARTS:
        text = pattern.sub(name, text)
    return text
