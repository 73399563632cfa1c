"""Reads an explicit list of Parquet files as one native scan of DataFusion, with a schema that is given.

DataFusion-Python can read one path or a folder, not a list of files. Its logical plans travel as protobuf, though, and
a listing scan's paths are a repeated field: to the plan for the first path the others are appended, as protobuf merges
messages that follow one another, and the whole is loaded back. That format is internal to DataFusion, so a reader
proves itself on a sample before it is used (`choose_reader`) and pyarrow's dataset stands in otherwise.
"""

from __future__ import annotations

import functools
import logging
import urllib.parse
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.parquet
from datafusion import DataFrame, SessionContext, col, lit
from datafusion.catalog import Table
from datafusion.plan import LogicalPlan

from micromegas_jupyter.engine.errors import is_engine_failure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_log = logging.getLogger(__name__)

# Tags of `LogicalPlanNode.listing_scan` (field 1) and `ListingTableScanNode.paths` (field 2), both length-delimited, in
# DataFusion's datafusion.proto.
_LISTING_SCAN: Final = b"\x0a"
_PATHS: Final = b"\x12"
_MAX_SCANS: Final = 64


class NativeReader:
    """The native scan.

    It keeps the last scan of each schema, in which DataFusion keeps what the files' footers said.
    """

    def __init__(self) -> None:
        self._first = functools.lru_cache(maxsize=256)(_plan_of_one)
        self._scans: dict[pa.Schema, tuple[tuple[str, ...], LogicalPlan]] = {}

    def read(self, context: SessionContext, files: Sequence[str], schema: pa.Schema) -> DataFrame:
        """Return the plan of one scan over all files."""
        names = tuple(files)
        kept, scan = self._scans.pop(schema, (None, None))
        if scan is None or kept != names:
            scan = self._decode(context, files, schema)
        self._scans[schema] = names, scan  # the least recently used stands first
        if len(self._scans) > _MAX_SCANS:
            del self._scans[next(iter(self._scans))]
        return context.create_dataframe_from_logical_plan(scan)

    def _decode(self, context: SessionContext, files: Sequence[str], schema: pa.Schema) -> LogicalPlan:
        others = b"".join(_delimited(_PATHS, file_url(file).encode()) for file in files[1:])
        return LogicalPlan.from_bytes(context, self._first(schema, files[0]) + _delimited(_LISTING_SCAN, others))


class DatasetReader:
    """The stand-in: pyarrow reads the files, with fewer filters pushed down."""

    def read(self, context: SessionContext, files: Sequence[str], schema: pa.Schema) -> DataFrame:
        """Return the plan of a scan over a pyarrow dataset."""
        import pyarrow.dataset  # loads pandas, which the native reader does not need

        return context.read_table(Table(pyarrow.dataset.dataset(list(files), schema=schema, format="parquet")))


FileReader = NativeReader | DatasetReader


def choose_reader(folder: Path) -> FileReader:
    """Return the native reader if it reads a sample that is written below `folder` correctly, else the stand-in."""
    try:
        passed = _reads_sample(NativeReader(), folder)
    except BaseException as error:
        if not is_engine_failure(error):
            raise
        _log.warning("the native scan failed its self-test", exc_info=error)
        passed = False
    if passed:
        return NativeReader()
    _log.warning("files are read through pyarrow datasets, which is slower than the native scan")
    return DatasetReader()


def file_url(file: str) -> str:
    """Return the URL of an absolute path, so that no character of it is a pattern; a URL stays as it is."""
    return file if "://" in file else "file://" + urllib.parse.quote(file)


def _plan_of_one(schema: pa.Schema, file: str) -> bytes:
    plan: bytes = SessionContext().read_parquet(file_url(file), schema=schema).logical_plan().to_bytes()
    return plan


def _delimited(tag: bytes, value: bytes) -> bytes:
    """Return a length-delimited field (protobuf encoding guide, "Length-Delimited Records")."""
    length, written = len(value), bytearray()
    while length > 0x7F:  # noqa: PLR2004 - seven bits of a varint
        written.append(length & 0x7F | 0x80)
        length >>= 7
    return b"".join((tag, written, bytes([length]), value))


def _reads_sample(reader: FileReader, folder: Path) -> bool:
    """Return whether three files give their rows, through a filter and with the declared schema."""
    dictionary = pa.dictionary(pa.int32(), pa.string())
    schema = pa.schema([pa.field("time", pa.timestamp("ns", "+00:00"), nullable=False), pa.field("name", dictionary)])
    files = []
    for index in range(3):
        rows = pa.table({"time": [index, index + 10], "name": ["a", "b"]}).cast(schema)
        path = folder / f"sample {index}.parquet"
        pyarrow.parquet.write_table(rows, path)
        files.append(str(path))
    context = SessionContext()
    found = reader.read(context, files, schema)
    late = found.filter(col("time") >= lit(pa.scalar(10, pa.timestamp("ns", "+00:00"))))
    return bool(found.count() == 6 and late.count() == 3 and found.schema().equals(schema))  # noqa: PLR2004 - the sample's
