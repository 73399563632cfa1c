"""Upstream's ready-made queries on processes, streams, blocks, spans and partitions, with quoting done right.

How a statement is run is the client's job; what the tables hold, the server's.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

import pyarrow as pa

from micromegas_jupyter.client.sql_text import quote_literal
from micromegas_jupyter.client.times import TimeArgument, format_time
from micromegas_jupyter.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd


class TelemetryQueries(ABC):
    """The ready-made queries of a client; every one raises what `query` raises."""

    @abstractmethod
    def query(self, sql: str, begin: TimeArgument = None, end: TimeArgument = None) -> "pd.DataFrame":
        """Run a statement and return its rows."""

    @abstractmethod
    def query_stream(self, sql: str, begin: TimeArgument = None, end: TimeArgument = None) -> Iterator[pa.RecordBatch]:
        """Run a statement and yield its batches."""

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
