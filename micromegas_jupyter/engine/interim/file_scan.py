"""Reads an explicit list of Parquet files as one native scan of the engine.

The engine's Python interface takes one path. Its logical plans can be written down and read back, and there a scan
holds a list of paths: this module writes that list. The plan's format is internal to the engine, so `self_test` says at
start whether it still is what it was; otherwise `FileScans` reads through a pyarrow dataset, which is slower.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from datafusion.plan import LogicalPlan

if TYPE_CHECKING:
    from datafusion import DataFrame, SessionContext

_LOG: Final = logging.getLogger(__name__)
_LISTING_SCAN_FIELD: Final = 1
_PATHS_FIELD: Final = 2
_LENGTH_DELIMITED: Final = 2
_FIXED_SIZES: Final = {1: 8, 5: 4}
_MAX_TEMPLATES: Final = 256


class FileScans:
    """Makes scans; remembers one plan for each schema.

    Args:
        context: Any context with the settings that scans shall have.
    """

    def __init__(self, context: SessionContext) -> None:
        self._context = context
        self._templates: dict[pa.Schema, list[tuple[int, int, bytes]]] = {}
        self.is_native = self_test(context)
        if not self.is_native:
            _LOG.warning("The engine's plan format is unknown; files are read through a dataset, which is slower.")

    def register(self, context: SessionContext, name: str, schema: pa.Schema, files: Sequence[str]) -> None:
        """Make the files' rows a table of `context`."""
        if not files:
            context.register_record_batches(name, [[_empty_batch(schema)]])
        elif self.is_native:
            context.register_table(name, scan_files(context, self._template(schema), files).into_view())
        else:
            context.register_dataset(name, pads.dataset(list(files), schema=schema, format="parquet"))

    def _template(self, schema: pa.Schema) -> list[tuple[int, int, bytes]]:
        found = self._templates.get(schema)
        if found is None:
            found = scan_template(self._context, schema)
            if len(self._templates) < _MAX_TEMPLATES:
                self._templates[schema] = found
        return found


def scan_template(context: SessionContext, schema: pa.Schema) -> list[tuple[int, int, bytes]]:
    """Return the fields of a scan of one file that need not exist.

    Raises:
        ValueError: The plan is not a listing scan in the known format.
    """
    plan = _to_bytes(context.read_parquet("/placeholder.parquet", schema=schema).logical_plan())
    outer = list(_fields(plan))
    if len(outer) != 1 or outer[0][:2] != (_LISTING_SCAN_FIELD, _LENGTH_DELIMITED):
        raise ValueError("not a listing scan")
    inner = list(_fields(outer[0][2]))
    if not any(number == _PATHS_FIELD and value.endswith(b"/placeholder.parquet") for number, _, value in inner):
        raise ValueError("the scan's paths are not where they were")
    return inner


def scan_files(context: SessionContext, template: list[tuple[int, int, bytes]], files: Sequence[str]) -> DataFrame:
    """Return the template's scan over `files`."""
    parts: list[bytes] = []
    for number, wire, value in template:
        if number == _PATHS_FIELD:
            parts.extend(_field(_PATHS_FIELD, b"file://" + quote(path).encode()) for path in files)
        else:
            parts.append(_key(number, wire) + (_varint(len(value)) if wire == _LENGTH_DELIMITED else b"") + value)
    plan = _field(_LISTING_SCAN_FIELD, b"".join(parts))
    return context.create_dataframe_from_logical_plan(_from_bytes(context, plan))


def self_test(context: SessionContext) -> bool:
    """Whether a scan of two files made this way gives their rows."""
    schema = pa.schema([pa.field("n", pa.int64(), nullable=False)])
    with tempfile.TemporaryDirectory(prefix="micromegas-") as folder:
        paths = [str(Path(folder) / f"a b%20{number}.parquet") for number in range(2)]
        for number, path in enumerate(paths):
            pq.write_table(pa.table({"n": pa.array([number, 10])}, schema=schema), path)
        try:
            frame = scan_files(context, scan_template(context, schema), paths)
            rows = sorted(value for batch in frame.collect() for value in batch.column(0).to_pylist())
        except Exception as error:  # noqa: BLE001 - any failure means that the format is another one
            _LOG.info("The scan's self-test failed.", extra={"kind": type(error).__name__})
            return False
    return rows == [0, 1, 10, 10]


def _empty_batch(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)


def _to_bytes(plan: LogicalPlan) -> bytes:
    return bytes(plan.to_bytes() if hasattr(plan, "to_bytes") else plan.to_proto())


def _from_bytes(context: SessionContext, data: bytes) -> LogicalPlan:
    return (LogicalPlan.from_bytes if hasattr(LogicalPlan, "from_bytes") else LogicalPlan.from_proto)(context, data)


def _fields(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    position = 0
    while position < len(data):
        key, position = _read_varint(data, position)
        number, wire = key >> 3, key & 7
        if wire == _LENGTH_DELIMITED:
            length, position = _read_varint(data, position)
            end = position + length
        elif wire == 0:
            _, end = _read_varint(data, position)
        else:
            end = position + _FIXED_SIZES[wire]
        yield number, wire, data[position:end]
        position = end


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:  # noqa: PLR2004 - the last byte of a varint
            return value, position


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits a byte
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _key(number: int, wire: int) -> bytes:
    return _varint(number << 3 | wire)


def _field(number: int, value: bytes) -> bytes:
    return _key(number, _LENGTH_DELIMITED) + _varint(len(value)) + value
