"""Reads a plan's counters (files, bytes, and rows) during and after its run, and totals from the table's log."""

from collections.abc import Sequence
from dataclasses import replace

import pyarrow.compute as pc
from datafusion.plan import ExecutionPlan, MetricsSet

from micromegas_jupyter.core.file_list import FileList
from micromegas_jupyter.core.protocols import TableSnapshot
from micromegas_jupyter.engine.contract import QueryStatistics, ScanProgress, VisibleTable


def with_counts(statistics: QueryStatistics, plan: ExecutionPlan) -> QueryStatistics:
    """Return `statistics` with the counters of a plan's steps."""
    steps = [plan]
    scans: list[MetricsSet] = []
    others: list[MetricsSet] = []
    for step in steps:
        below = step.children()
        steps.extend(below)
        if (counters := step.metrics()) is not None:
            (others if below else scans).append(counters)
    files = [(opened, one) for one in scans if (opened := one.sum_by_name("files_opened")) is not None]
    return replace(
        statistics,
        # A file that is read in several pieces, or by several scans, is opened several times.
        files_read=min(sum(opened for opened, _ in files), statistics.files_total or 0),
        rows_scanned=sum((one.output_rows or 0) + (one.sum_by_name("pushdown_rows_pruned") or 0) for _, one in files),
        bytes_scanned=sum(one.sum_by_name("bytes_scanned") or 0 for _, one in files),
        spilled_bytes=sum(one.spilled_bytes or 0 for one in others),
        spill_count=sum(one.spill_count or 0 for one in others),
    )


def without_counts(statistics: QueryStatistics) -> QueryStatistics:
    """Return `statistics` for a plan with unreadable counters."""
    return replace(
        statistics, files_read=None, rows_scanned=None, bytes_scanned=None, spilled_bytes=None, spill_count=None
    )


def find_progress(plan: ExecutionPlan, tables: Sequence[VisibleTable]) -> ScanProgress | None:
    """Return the fraction of the files of `tables` that a running plan has scanned, or None if it doesn't scan any.

    DataFusion has no cheap way to report the number of pieces, so it is estimated: tables may be read several times,
    and each partition of a scan except the first begins within a file. The result is therefore never too high for plans
    that read each of their tables equally often.
    """
    steps, done, pieces, scans = [plan], 0, 0, 0
    for step in steps:
        below = step.children()
        steps.extend(below)
        counters = None if below else step.metrics()
        if counters is not None and (processed := counters.sum_by_name("files_processed")) is not None:
            done += processed
            pieces += step.partition_count - 1
            scans += 1
    files = sum(len(one.needed) for one in tables)
    if not files or not scans:
        return None
    pieces += max(files, round(files * scans / sum(_scan_count(one) for one in tables)))
    return ScanProgress(files, min(1.0, done / pieces))


def _scan_count(table: VisibleTable) -> int:
    """Return the number of scans that `TableBuilder.read` plans to read a table's needed files once."""
    is_split = not set(table.snapshot.partition_columns).isdisjoint(table.snapshot.schema.names)
    return len({file.partition for file in table.needed}) if is_split else bool(table.needed)


def find_total(snapshot: TableSnapshot, files: FileList, name: str) -> int | None:
    """Return the byte or row count of some of a table's files, or None if the log lacks the count for a file."""
    if snapshot.bounds is None or name not in snapshot.bounds.column_names:
        return None
    paths = FileList.of(snapshot.files).columns.column("path")
    known = snapshot.bounds.column(name).filter(pc.is_in(paths, files.columns.column("path")))
    return None if known.null_count else int(pc.sum(known, min_count=0).as_py())
