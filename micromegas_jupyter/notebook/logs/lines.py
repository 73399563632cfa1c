"""The newest lines of a log, and counts of all lines by time, level, and pattern."""

from __future__ import annotations

from collections import deque
from itertools import islice
from threading import RLock
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from micromegas_jupyter.telemetry.log_patterns import LogPattern, LogPatterns

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_LINES: Final = 20_000
MAX_LINES_BYTES: Final = 64 * 1024**2
BARS: Final = 60
LEVELS: Final = 6
_CHUNK_LINES: Final = 1_000
_MICROSECOND: Final = 1_000
_MAX_PATTERN_ROWS: Final = 100
_MAX_PATTERN_CHARACTERS: Final = 300


class LogLines:
    """The newest 20,000 lines; safe to use from several threads.

    Line numbers stay the same when the oldest lines are dropped: the first line that is held has the number `skipped`.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._lock = RLock()
        self._chunks: deque[pa.Table] = deque()
        self.skipped = self.held = 0

    def add(self, table: pa.Table) -> None:
        """Append lines, and drop the oldest ones."""
        if not table.num_rows:
            return
        with self._lock:
            self._schema = table.schema
            self.held += table.num_rows
            # Otherwise, many small commits would result in many small tables.
            if self._chunks and self._chunks[-1].num_rows + table.num_rows <= _CHUNK_LINES:
                table = pa.concat_tables([self._chunks.pop(), table], promote_options="permissive")
                table = table.unify_dictionaries().combine_chunks()
            self._chunks.append(table)
            too_many = self.held - MAX_LINES
            while too_many > 0 or (self.held > 1 and sum(one.nbytes for one in self._chunks) > MAX_LINES_BYTES):
                first = self._chunks.popleft()
                dropped = min(first.num_rows, too_many if too_many > 0 else max(first.num_rows // 2, 1))
                if dropped < first.num_rows:
                    self._chunks.appendleft(first.slice(dropped))
                self.held -= dropped
                self.skipped += dropped
                too_many = self.held - MAX_LINES

    def read(self, first: int, count: int) -> tuple[int, pa.Table]:
        """Return the lines starting at a line number, and the number of the first returned line."""
        with self._lock:
            table = pa.concat_tables(self._chunks, promote_options="permissive") if self._chunks else None
            begin = min(max(first - self.skipped, 0), self.held)
            number = self.skipped + begin
        return number, self._schema.empty_table() if table is None else table.slice(begin, count)


class Volume:
    """The number of lines by time and level; the bar width doubles if there would be too many bars."""

    def __init__(self, begin: int, end: int) -> None:
        self.begin = begin
        # Use whole microseconds, which browsers can represent exactly.
        self.width = max(-(-(end - begin) // (BARS * _MICROSECOND)), 1) * _MICROSECOND
        self._counts = np.zeros((2 * BARS, LEVELS), np.int64)

    def add(self, times: pa.ChunkedArray, levels: pa.ChunkedArray, *, now: int) -> None:
        """Count lines; the first bar includes earlier ones, and the last bar includes those with future times."""
        nanoseconds = np.minimum(_integers(times, pa.timestamp("ns", "UTC"), now), now)
        self._reserve(now)
        bars = np.maximum((nanoseconds - self.begin) // self.width, 0)
        columns = np.clip(_integers(levels, pa.int32(), LEVELS), 1, LEVELS) - 1
        found = np.bincount(bars * LEVELS + columns, minlength=self._counts.size)
        self._counts += found.reshape(self._counts.shape)

    def put(self, bars: Iterable[tuple[int, int, int]]) -> None:
        """Add counts by bar and level."""
        for bar, level, count in bars:
            self._counts[min(max(bar, 0), 2 * BARS - 1), min(max(level, 1), LEVELS) - 1] += count

    def _reserve(self, now: int) -> None:
        while (now - self.begin) // self.width >= 2 * BARS:
            merged = self._counts.reshape(BARS, 2, LEVELS).sum(axis=1)
            self._counts[:BARS], self._counts[BARS:] = merged, 0
            self.width *= 2

    @property
    def total(self) -> int:
        """Return the number of counted lines."""
        return int(self._counts.sum())

    def bars(self, end: int) -> list[list[int]]:
        """Return the per-level counts for each bar up to a given time."""
        used = np.flatnonzero(self._counts.any(axis=1))
        count = max(-(-(end - self.begin) // self.width), int(used[-1]) + 1 if len(used) else 1)
        found: list[list[int]] = self._counts[: min(count, 2 * BARS)].tolist()
        return found


class PatternCounts:
    """The patterns of all lines, with the worst level of each."""

    def __init__(self) -> None:
        self._patterns = LogPatterns()
        self._worst: dict[LogPattern, int] = {}

    def add(self, messages: pa.ChunkedArray, levels: pa.ChunkedArray) -> None:
        """Count lines."""
        found = self._patterns.add_all(pc.fill_null(messages, "").to_pylist())
        for pattern, level in zip(found, levels.fill_null(LEVELS).to_pylist(), strict=True):
            if level < self._worst.get(pattern, LEVELS + 1):
                self._worst[pattern] = level

    def ranked(self) -> tuple[list[tuple[str, int, int]], int]:
        """Return the most frequent patterns with their counts and worst levels, and the total number of patterns."""
        ranked = sorted(self._worst, key=lambda pattern: -pattern.count)
        rows = [
            (one.text[:_MAX_PATTERN_CHARACTERS], one.count, self._worst[one])
            for one in islice(ranked, _MAX_PATTERN_ROWS)
        ]
        return rows, len(ranked)


def _integers(column: pa.ChunkedArray, kind: pa.DataType, default: int) -> np.ndarray:
    found: np.ndarray = pc.fill_null(column.cast(kind, safe=False).cast(pa.int64()), default).to_numpy()
    return found
