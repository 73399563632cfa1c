"""Reads an explicit list of Parquet files as one native scan of DataFusion, with a schema that is given.

DataFusion-Python can read one path or a folder, not a list of files. Its logical plans travel as protobuf, though, and
a listing scan's paths are a repeated field: the plan for one path is taken apart, gets all the paths, and is loaded
back. That format is internal to DataFusion, so a reader proves itself on a sample before it is used (`choose_reader`)
and pyarrow's dataset stands in otherwise. Which files belong to a table is the storage's answer.
"""

from __future__ import annotations

import functools
import logging
import urllib.parse
from typing import TYPE_CHECKING, Final, Protocol

import pyarrow as pa
import pyarrow.parquet
from datafusion import DataFrame, SessionContext, col, lit
from datafusion.catalog import Table
from datafusion.plan import LogicalPlan

from micromegas_jupyter.engine.errors import is_engine_failure
from micromegas_jupyter.engine.protobuf import Field, WireType, read_fields, write_fields

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_log = logging.getLogger(__name__)

# `LogicalPlanNode.listing_scan` and `ListingTableScanNode.paths` in DataFusion's datafusion.proto.
_LISTING_SCAN: Final = 1
_PATHS: Final = 2
_ANY_PATH: Final = "/any.parquet"
_MAX_SCANS: Final = 64


class FileReader(Protocol):
    """Makes a DataFrame of files."""

    def read(self, context: SessionContext, files: Sequence[str], schema: pa.Schema) -> DataFrame:
        """Return all rows of `files` (at least one; absolute paths or URLs) as `schema`; touches no file."""
        ...


class NativeReader:
    """The native scan.

    It keeps the last scan of each schema, in which DataFusion keeps what the files' footers said.
    """

    def __init__(self) -> None:
        self._template = functools.lru_cache(maxsize=256)(_make_template)
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
        before, after = self._template(schema)
        paths = [Field(_PATHS, WireType.LENGTH_DELIMITED, file_url(file).encode()) for file in files]
        scan = write_fields([*before, *paths, *after])
        plan = write_fields([Field(_LISTING_SCAN, WireType.LENGTH_DELIMITED, scan)])
        return LogicalPlan.from_bytes(context, plan)


class DatasetReader:
    """The stand-in: pyarrow reads the files, with fewer filters pushed down."""

    def read(self, context: SessionContext, files: Sequence[str], schema: pa.Schema) -> DataFrame:
        """Return the plan of a scan over a pyarrow dataset."""
        import pyarrow.dataset  # loads pandas, which the native reader does not need

        return context.read_table(Table(pyarrow.dataset.dataset(list(files), schema=schema, format="parquet")))


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


def _make_template(schema: pa.Schema) -> tuple[list[Field], list[Field]]:
    plan = SessionContext().read_parquet(_ANY_PATH, schema=schema).logical_plan()
    (scan,) = read_fields(plan.to_bytes())
    if scan.number != _LISTING_SCAN:
        raise ValueError("the plan of a Parquet file is not a listing scan")
    fields = read_fields(scan.value)
    places = [index for index, field in enumerate(fields) if field.number == _PATHS]
    if len(places) != 1 or fields[places[0]].value != file_url(_ANY_PATH).encode():
        raise ValueError("the path of a listing scan is not where it was")
    return fields[: places[0]], fields[places[0] + 1 :]


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
