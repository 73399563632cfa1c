"""Runs a followed statement over the files that are added to its table, one after another.

Over one file and in one partition, a statement without joins, sorts, and aggregates returns its rows in the file's
order. The number of returned rows is therefore the position where the follow continues.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

import pyarrow as pa

from micromegas_jupyter.core.file_list import FileList
from micromegas_jupyter.core.protocols import TableSnapshot
from micromegas_jupyter.engine.contract import (
    PlannedQuery,
    QueryStatistics,
    ScanProgress,
    StatementRequest,
    TableFiles,
    Tail,
    VisibleTable,
)
from micromegas_jupyter.engine.errors import file_gone
from micromegas_jupyter.engine.scanner import Mention
from micromegas_jupyter.errors import CursorExpired, InternalError, Unavailable, UnsupportedStatement

_STEPS: Final = frozenset({"Projection", "Filter", "SubqueryAlias", "TableScan"})
#: With these functions, reading a file again could return different rows.
_VOLATILE: Final = frozenset({"random", "uuid"})
_REMEDY: Final = "Follow SELECT … FROM one table, perhaps with WHERE."
_BATCH_ROWS: Final = 8192


def read_instead(tables: Sequence[VisibleTable], tail: Tail) -> list[VisibleTable]:
    """Return tables for a followed statement: the followed one with the tail's files, the others without files."""
    return [replace(one, snapshot=_with_files(one.snapshot, tail)) for one in tables]


def _with_files(snapshot: TableSnapshot, tail: Tail) -> TableSnapshot:
    files = tail.files if snapshot.name == tail.table else ()
    return replace(snapshot, files=FileList.of(files), bounds=None)


def check_followable(
    text: str, scans: Sequence[VisibleTable], mentions: Mention, *, is_plain: bool, table: str
) -> None:
    """Check that a statement's plan only filters and computes rows of one table, so that the table can be followed."""
    steps = [line.strip().partition(":")[0] for line in text.splitlines()]
    snapshots = [one.snapshot for one in scans]
    computed = next((one for one in snapshots if one.source is not None or one.merge_sql is not None), None)
    if computed is not None:
        raise UnsupportedStatement(
            f"{computed.name} cannot be followed because its rows are computed when it is read.", remedy=_REMEDY
        )
    is_known = is_plain and [one.name for one in snapshots] == [table] and not mentions.among(_VOLATILE)
    if not is_known or steps.count("TableScan") != 1 or not _STEPS.issuperset(steps):
        raise UnsupportedStatement(
            "This statement cannot be followed because it does more than filter and compute rows of one table.",
            remedy=_REMEDY,
        )


class FileByFile:
    """A `PlannedQuery` over the files of a `Tail`; plans each file after the previous one has been read."""

    def __init__(self, plan: Callable[[StatementRequest], PlannedQuery], request: StatementRequest, tail: Tail) -> None:
        self._plan = plan
        self._request = request
        self._tail = tail
        self._current = self._plan_file(0, tail.max_rows)
        self.schema = self._current.schema
        self.parameter_schema = self._current.parameter_schema
        self.reads = self._current.reads
        self.reads_tables = True
        self.hides_rows = self._current.hides_rows
        self.explained: Sequence[TableFiles] = ()
        self.change = self._current.change
        self.reached: tuple[int, int] | None = (0, tail.offset)
        self._ended = QueryStatistics()  # total for the files before the current one

    @property
    def statistics(self) -> QueryStatistics:
        """The query's resource usage so far."""
        return self._ended.plus(self._current.statistics)

    def progress(self) -> ScanProgress | None:
        """Return None, because each read of a followed table is short."""
        return None

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Run the statement over each file; can be called once."""
        return self._rows(self._current.batches())

    def _plan_file(self, index: int, rows: int) -> PlannedQuery:
        tail = self._tail
        part = replace(tail, files=tail.files[index : index + 1], offset=0 if index else tail.offset, max_rows=rows)
        try:
            return self._plan(replace(self._request, tail=part))
        except Unavailable as error:
            if error.what != file_gone().what:
                raise
            what = f"The follow of the table {tail.table} cannot continue: a file that was not yet read was removed."
            raise CursorExpired(what) from error

    def _rows(self, current: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        tail, count = self._tail, len(self._tail.files)
        rows, size, has_rows = tail.max_rows, tail.max_bytes, False
        for index in range(count):
            taken = 0 if index else tail.offset
            for found in current:
                for begin in range(0, found.num_rows, _BATCH_ROWS):
                    batch = found.slice(begin, _BATCH_ROWS)
                    fitting = batch.slice(0, min(rows, _rows_that_fit(batch, size, takes_one=not has_rows)))
                    rows, size, taken = rows - fitting.num_rows, size - fitting.nbytes, taken + fitting.num_rows
                    self.reached = index, taken
                    if fitting.num_rows:
                        has_rows = True
                        yield fitting
                    if fitting.num_rows < batch.num_rows or not rows:
                        return
            self.reached = index + 1, 0
            if index + 1 == count:
                return
            planned = self._plan_file(index + 1, rows)
            if not planned.schema.equals(self.schema, check_metadata=True):
                raise InternalError("The files of a followed table have different columns.")
            self._ended, self._current = self._ended.plus(self._current.statistics), planned
            current = planned.batches()


def _rows_that_fit(batch: pa.RecordBatch, size: int, *, takes_one: bool) -> int:
    """Return how many rows of a batch fit in this many bytes, assuming that all rows have about the same size."""
    rows, taken = int(batch.num_rows), int(batch.nbytes)
    return rows if taken <= size else max(int(takes_one), max(size, 0) * rows // taken)
