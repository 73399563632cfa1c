"""PEP 249's cursor with ADBC's extensions: the batches of one query at a time, as rows or as Arrow data."""

import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TypeAlias

import pyarrow as pa

from micromegas_jupyter.client.query_reader import QueryReader
from micromegas_jupyter.core.jsonb import is_declared_jsonb, json_texts
from micromegas_jupyter.core.text import TimeArgument
from micromegas_jupyter.errors import UnsupportedRequest, UsageError
from micromegas_jupyter.flightsql.parameters import Params

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

Parameters: TypeAlias = Mapping[str, object] | Sequence[object] | None
Description: TypeAlias = tuple[str, pa.DataType, None, None, None, None, bool]
Row: TypeAlias = tuple[Any, ...]

_HINT: Final = (
    "pandas and Polars read row by row, which loses the nanoseconds of times and the sizes of numbers. "
    "To have them read Arrow data, run: pip install 'micromegas_jupyter[dbapi]'"
)


class Statements(Protocol):
    """The connection methods that a cursor uses."""

    def open_query(  # noqa: D102
        self, sql: str, begin: TimeArgument = None, end: TimeArgument = None, params: Params = None
    ) -> QueryReader: ...

    def bulk_ingest(self, table_name: str, table: pa.Table, *, mode: str = "append") -> Any: ...  # noqa: D102


class Cursor:
    """Runs one statement at a time, with `?` for each parameter; created by `FlightSQLClient.cursor`, for one thread.

    Binary JSON (JSONB) becomes JSON text. Errors are those of `query`; each is also a PEP 249 error.
    """

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.arraysize = 1
        self.rowcount = -1
        self.description: list[Description] | None = None
        self._statements: Statements = connection
        self._reader: QueryReader | None = None
        self._schema = pa.schema([])
        self._rows: Iterator[Row] = iter(())
        self._is_closed = False

    def execute(
        self,
        operation: str,
        parameters: Parameters = None,
        *,
        begin: TimeArgument = None,
        end: TimeArgument = None,
    ) -> Self:
        """Run a statement; `begin` and `end` are its time range, as for `query`."""
        self._end()
        if self._is_closed:
            raise UsageError("The cursor is closed.", remedy="Create a new one.")
        self._reader = self._statements.open_query(operation, begin, end, parameters or None)
        self._schema = _shown_schema(self._reader.schema)
        columns: list[Description] = [
            (field.name, field.type, None, None, None, None, field.nullable) for field in self._schema
        ]
        self.description = columns or None
        self._rows = _rows(self._batches())
        return self

    def executemany(self, operation: str, seq_of_parameters: Iterable[Parameters]) -> None:
        """Run a statement once per row of parameters; only the last result can be fetched."""
        for parameters in seq_of_parameters:
            self.execute(operation, parameters)

    def fetchone(self) -> Row | None:
        """Return the next row, or None after the last one."""
        return next(self._fetched(), None)

    def fetchmany(self, size: int | None = None) -> list[Row]:
        """Return the next `size` rows (default: `arraysize`)."""
        return list(islice(self._fetched(), self.arraysize if size is None else size))

    def fetchall(self) -> list[Row]:
        """Return all remaining rows."""
        return list(self._fetched())

    def __iter__(self) -> Iterator[Row]:
        return self._fetched()

    def fetch_arrow_table(self) -> pa.Table:
        """Return the remaining batches as an Arrow table."""
        return pa.Table.from_batches(list(self._batches()), self._schema)

    fetch_arrow = fetch_arrow_table

    def fetch_record_batch(self) -> pa.RecordBatchReader:
        """Return a reader of the remaining batches, which arrive as they are read."""
        return pa.RecordBatchReader.from_batches(self._schema, self._batches())

    def fetch_df(self) -> "pd.DataFrame":
        """Return the remaining rows as a pandas DataFrame."""
        frame: pd.DataFrame = self.fetch_arrow_table().to_pandas()
        return frame

    def fetch_polars(self) -> "pl.DataFrame":
        """Return the remaining rows as a Polars DataFrame."""
        import polars as pl

        return pl.DataFrame(self.fetch_arrow_table())

    def adbc_ingest(self, table_name: str, data: Any, mode: str = "create", **options: Any) -> int:
        """Add rows of Arrow data to a table and return the row count; `mode` is the same as for `bulk_ingest`.

        ADBC's options `catalog_name`, `db_schema_name`, and `temporary` only accept their defaults.
        """
        if named := [name for name, option in options.items() if option]:
            raise UnsupportedRequest(f"The server doesn't support {named[0]}.", remedy="Leave it out.")
        table = data if isinstance(data, pa.Table) else pa.table(data)
        self._statements.bulk_ingest(table_name, table, mode=mode)
        return int(table.num_rows)

    def adbc_cancel(self) -> None:
        """Cancel the query, here and on the server; callable from any thread."""
        if self._reader is not None:
            self._reader.cancel()

    def setinputsizes(self, sizes: object) -> None:
        """Do nothing, as PEP 249 permits."""

    def setoutputsize(self, size: object, column: object = None) -> None:
        """Do nothing, as PEP 249 permits."""

    def close(self) -> None:
        """End the query; the cursor cannot be used again."""
        self._end()
        self._is_closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _end(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader = self.description = None

    def _fetched(self) -> Iterator[Row]:
        self._check_result()
        if any(map(pa.types.is_timestamp, self._schema.types)):
            _show_hint()
        return self._rows

    def _batches(self) -> Iterator[pa.RecordBatch]:
        return map(_shown, self._check_result())

    def _check_result(self) -> QueryReader:
        if self._reader is None:
            raise UsageError("There is no result to fetch.", remedy="Run execute() first.")
        return self._reader


def _shown_schema(schema: pa.Schema) -> pa.Schema:
    return pa.schema([field.with_type(pa.string()) if is_declared_jsonb(field) else field for field in schema])


def _shown(batch: pa.RecordBatch) -> pa.RecordBatch:
    columns = [
        json_texts(pa.chunked_array([column])).cast(pa.string()).combine_chunks()
        if is_declared_jsonb(field)
        else column
        for field, column in zip(batch.schema, batch.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=_shown_schema(batch.schema))


def _rows(batches: Iterator[pa.RecordBatch]) -> Iterator[Row]:
    for batch in batches:
        yield from zip(*map(_values, batch.columns), strict=True)


def _values(column: pa.Array) -> list[Any]:
    """Return Python values, which have no nanoseconds."""
    kind = column.type
    if getattr(kind, "unit", None) == "ns":
        zone = {"tz": kind.tz} if pa.types.is_timestamp(kind) else {}
        make = pa.timestamp if zone else pa.duration if pa.types.is_duration(kind) else pa.time64
        column = column.cast(make("us", **zone), safe=False)
    values: list[Any] = column.to_pylist()
    return values


def _show_hint() -> None:
    """Warn once about what row-by-row reading loses, if pandas or Polars may be reading and lacks a package."""
    if sys.modules.keys() & {"pandas", "polars"} and find_spec("adbc_driver_manager") is None:
        _warn_once()


@cache
def _warn_once() -> None:
    warnings.warn(_HINT, stacklevel=5)  # points to the line that calls pandas or Polars
