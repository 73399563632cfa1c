"""The ways to run a statement at once, on top of the one way to start it; starting it is each client's own matter."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from micromegas_jupyter.client.binding import Params
from micromegas_jupyter.client.frames import build_frame, check_dtype_backend
from micromegas_jupyter.client.query_reader import QueryReader
from micromegas_jupyter.client.times import TimeArgument

if TYPE_CHECKING:
    import pandas as pd


class QueryMethods(ABC):
    """What every client offers that can start a statement."""

    @abstractmethod
    def open_query(
        self,
        sql: str,
        begin: TimeArgument = None,
        end: TimeArgument = None,
        params: Params = None,
    ) -> QueryReader:
        """Start a statement and return a reader of its batches."""

    def query(
        self,
        sql: str,
        begin: TimeArgument = None,
        end: TimeArgument = None,
        params: Params = None,
        *,
        dtype_backend: str | None = None,
    ) -> "pd.DataFrame":
        """Run a statement and return its rows as a DataFrame.

        Args:
            sql: The statement; `:name`, `$name`, `?` or `$1` stands for a value of `params`.
            begin: Start of the time range (aware `datetime`, `pandas.Timestamp` or RFC 3339 text).
            end: End of the time range; now when only `begin` is given.
            params: Values, which never become part of the SQL: a mapping for `:name` or `$name`, a list or tuple for
                `?` in order, or for `$1`, `$2`, ….
            dtype_backend: `"pyarrow"` for columns of `pandas.ArrowDtype`, which keep the rows as they came; without it
                columns have NumPy's types.

        Raises:
            UsageError: `dtype_backend` is something else.
            MicromegasError: The class says what went wrong; see `errors`.
        """
        check_dtype_backend(dtype_backend)
        with self.open_query(sql, begin, end, params) as reader:
            return build_frame(reader.schema, reader, dtype_backend=dtype_backend)

    def query_arrow(
        self,
        sql: str,
        begin: TimeArgument = None,
        end: TimeArgument = None,
        params: Params = None,
    ) -> pa.Table:
        """Run a statement and return its rows as an Arrow table; arguments and errors as for `query`."""
        with self.open_query(sql, begin, end, params) as reader:
            return reader.read_all()

    def query_stream(
        self,
        sql: str,
        begin: TimeArgument = None,
        end: TimeArgument = None,
        params: Params = None,
    ) -> Iterator[pa.RecordBatch]:
        """Run a statement and yield its batches; nothing is sent before the first is asked for."""
        with self.open_query(sql, begin, end, params) as reader:
            yield from reader
