"""The ways to run a statement on top of the one way to start it, and upstream's ready-made queries, quoted right."""

import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Self

import pyarrow as pa

from micromegas_jupyter.client.frames import build_frame, check_dtype_backend
from micromegas_jupyter.client.parameters import Params
from micromegas_jupyter.client.query_reader import QueryReader
from micromegas_jupyter.client.sql_text import quote_literal
from micromegas_jupyter.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd


# RFC 3339 section 5.6, with a space allowed as its note says and any fraction up to nanoseconds.
_RFC3339: Final = re.compile(
    r"(?P<date>\d{4}-\d{2}-\d{2})[Tt ](?P<time>\d{2}:\d{2}:\d{2})(?:\.(?P<fraction>\d{1,9}))?"
    r"(?P<offset>[Zz]|[+-]\d{2}:\d{2})",
    re.ASCII,
)
_MICROSECOND_DIGITS: Final = 6
_EPOCH: Final = "1970-01-01T00:00:00+00:00"
_REMEDY: Final = (
    "Give a datetime with a time zone, a pandas.Timestamp with one, or RFC 3339 text such as 2026-11-24T12:00:00Z."
)

TimeArgument = datetime | str | None


def format_time(value: TimeArgument, *, name: str = "time") -> str | None:
    """Return RFC 3339 text with an offset in upstream's format; nanoseconds are kept.

    Args:
        value: An aware `datetime` (or a subclass, such as `pandas.Timestamp`), RFC 3339 text, or None.
        name: What the argument is called in a message.

    Raises:
        UsageError: There is no time zone, or it is not a time.
    """
    if value is None:
        return None
    if isinstance(value, str):
        return _format_text(value, name)
    if not isinstance(value, datetime):
        raise UsageError(f"{name} is not a time: {type(value).__name__}.", remedy=_REMEDY)
    try:
        offset = value.utcoffset()
    except ValueError:  # pandas.NaT is a datetime that has none
        offset = None
    if offset is None:
        raise UsageError(f"{name} has no time zone.", remedy=_REMEDY)
    if offset.total_seconds() % 60:
        # RFC 3339 offsets end at minutes; historic local times have seconds.
        value = value.astimezone(UTC)
    return value.isoformat()


def format_time_range(begin: TimeArgument, end: TimeArgument, *, now: datetime) -> tuple[str | None, str | None]:
    """Return both ends of a time range, or neither.

    A server applies a range only when it is told both ends, and would silently give all rows otherwise: a missing
    begin becomes 1970, a missing end becomes `now`.

    Raises:
        UsageError: An end is not a time, or the range ends before it begins.
    """
    begin_text, end_text = format_time(begin, name="begin"), format_time(end, name="end")
    if begin_text is None and end_text is None:
        return None, None
    begin_text, end_text = begin_text or _EPOCH, end_text or now.isoformat()
    if _to_sort_key(begin_text) > _to_sort_key(end_text):
        raise UsageError("begin is after end.", remedy="Exchange them; without an end, the range ends now.")
    return begin_text, end_text


def _format_text(text: str, name: str) -> str:
    found = _RFC3339.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"{name} is not RFC 3339 text with an offset.", remedy=_REMEDY)
    fraction = found["fraction"] or ""
    offset = "+00:00" if found["offset"] in {"Z", "z"} else found["offset"]
    try:
        base = datetime.fromisoformat(f"{found['date']}T{found['time']}{offset}")
        if len(fraction) <= _MICROSECOND_DIGITS:
            microsecond = int(fraction.ljust(_MICROSECOND_DIGITS, "0"))
            return base.replace(microsecond=microsecond).isoformat()
    except ValueError:
        raise UsageError(f"{name} is not a time that exists.", remedy=_REMEDY) from None
    return f"{base.replace(tzinfo=None).isoformat()}.{fraction}{offset}"


def _to_sort_key(text: str) -> tuple[datetime, str]:
    found = _RFC3339.fullmatch(text)
    if found is None:  # a datetime before the year 1000 or an offset that RFC 3339 cannot say
        raise UsageError("The time range cannot be sent.", remedy=_REMEDY)
    at = datetime.fromisoformat(f"{found['date']}T{found['time']}{found['offset']}")
    try:
        return at.astimezone(UTC), (found["fraction"] or "").ljust(9, "0")
    except OverflowError:
        raise UsageError("The time range cannot be sent.", remedy=_REMEDY) from None


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

    @abstractmethod
    def close(self) -> None:
        """Give up the connection."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

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


class TelemetryQueries(QueryMethods):
    """Upstream's ready-made queries; every one raises what `query` raises."""

    def find_process(self, process_id: str) -> "pd.DataFrame":
        """Return the row of a process; empty when there is none."""
        return self.query(f"SELECT * FROM processes WHERE process_id = {quote_literal(process_id)}")  # noqa: S608 - quoted

    def query_streams(
        self,
        begin: TimeArgument,
        end: TimeArgument,
        limit: int,
        process_id: str | None = None,
        tag_filter: str | None = None,
    ) -> "pd.DataFrame":
        """Return up to `limit` streams, perhaps only those of a process or with a tag (`log`, `metrics`, `trace`)."""
        conditions = []
        if process_id is not None:
            conditions.append(f"process_id = {quote_literal(process_id)}")
        if tag_filter is not None:
            conditions.append(f"array_position(tags, {quote_literal(tag_filter)}) IS NOT NULL")
        where = f"WHERE {' AND '.join(conditions)} " if conditions else ""
        return self.query(f"SELECT * FROM streams {where}LIMIT {_count(limit)}", begin, end)  # noqa: S608 - quoted

    def query_blocks(self, begin: TimeArgument, end: TimeArgument, limit: int, stream_id: str) -> "pd.DataFrame":
        """Return up to `limit` blocks of a stream."""
        where = f"stream_id = {quote_literal(stream_id)}"
        return self.query(f"SELECT * FROM blocks WHERE {where} LIMIT {_count(limit)}", begin, end)  # noqa: S608 - quoted

    def query_spans(self, begin: TimeArgument, end: TimeArgument, limit: int, stream_id: str) -> "pd.DataFrame":
        """Return up to `limit` spans of a stream's thread."""
        view = f"view_instance('thread_spans', {quote_literal(stream_id)})"
        return self.query(f"SELECT * FROM {view} LIMIT {_count(limit)}", begin, end)  # noqa: S608 - quoted

    def retire_partitions(self, view_set_name: str, view_instance_id: str, begin: datetime, end: datetime) -> None:
        """Remove partitions of a view and print the server's messages as they come; for administrators."""
        texts = (view_set_name, view_instance_id, _time(begin), _time(end))
        self._print_messages(f"retire_partitions({', '.join(map(quote_literal, texts))})")

    def materialize_partitions(
        self, view_set_name: str, begin: datetime, end: datetime, partition_delta_seconds: int
    ) -> None:
        """Make partitions of a view and print the server's messages as they come; for administrators."""
        self._change_partitions("materialize_partitions", (view_set_name, begin, end), partition_delta_seconds)

    def regenerate_partitions(
        self, view_set_name: str, begin: datetime, end: datetime, partition_delta_seconds: int
    ) -> None:
        """Make existing partitions anew and print the server's messages as they come; for administrators."""
        self._change_partitions("regenerate_partitions", (view_set_name, begin, end), partition_delta_seconds)

    def _change_partitions(self, function: str, target: tuple[str, datetime, datetime], delta_seconds: int) -> None:
        view_set_name, begin, end = target
        texts = ", ".join(map(quote_literal, (view_set_name, _time(begin), _time(end))))
        self._print_messages(f"{function}({texts}, {_count(delta_seconds)})")

    def _print_messages(self, source: str) -> None:
        for batch in self.query_stream(f"SELECT time, msg FROM {source}"):  # noqa: S608 - quoted
            for row in batch.to_pylist():
                sys.stdout.write(f"{row['time']} {row['msg']}\n")


def _count(number: int) -> int:
    if type(number) is not int or number < 0:
        raise UsageError("A count is not a whole number of 0 or more.")
    return number


def _time(value: datetime) -> str:
    text = format_time(value)
    if text is None:
        raise UsageError("A partition's time is missing.")
    return text
