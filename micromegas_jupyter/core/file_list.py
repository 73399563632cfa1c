"""The files of a table version as columns, and the differences between two versions.

A table may have tens of thousands of files. Statements look at all of them in a few array operations, and executors
receive only what a commit changed.
"""

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple, Self, cast

import numpy as np
import pyarrow as pa

from micromegas_jupyter.core.protocols import DataFile, DeletionVector, TableSnapshot

#: Selects files; has one value per file.
Mask = np.ndarray[Any, np.dtype[np.bool_]]
Int64s = np.ndarray[Any, np.dtype[np.int64]]

_INT64: Final = np.iinfo(np.int64)
_lists: Final = itertools.count(1)
_DELETED: Final = "deleted"
#: The column type of a `DeletionVector`.
VECTOR: Final = pa.struct(
    [("location", pa.string()), *((name, pa.int64()) for name in ("offset", "size", "cardinality", "rows"))]
)


class FileList(Sequence[DataFile]):
    """An immutable list of a table's files, with cached values computed from them.

    `columns` are `path`, `begin`, `end`, the partition values as dictionaries `0`, `1`, …, and perhaps `deleted`.
    """

    def __init__(self, columns: pa.Table, numbers: Int64s | None = None) -> None:
        self.columns = columns
        # A file keeps its number in later versions within one process.
        self._numbers = (next(_lists) << 32) + np.arange(len(columns)) if numbers is None else numbers

    @classmethod
    def of(cls, files: Iterable[DataFile]) -> "FileList":
        """Return a list of files."""
        if isinstance(files, FileList):
            return files
        files = list(files)
        values = zip(*(file.partition for file in files), strict=True)
        return cls.build(
            pa.array([file.path for file in files], pa.string()),
            [pa.array(one, pa.string()) for one in values],
            pa.array([file.begin for file in files], pa.int64()),
            pa.array([file.end for file in files], pa.int64()),
            [file.deleted for file in files],
        )

    @classmethod
    def build(
        cls,
        paths: pa.Array,
        partitions: Sequence[pa.Array],
        begins: pa.Array,
        ends: pa.Array,
        deleted: Sequence[DeletionVector | None] = (),
    ) -> "FileList":
        """Return a list of files from the fields of `DataFile`, one array per field."""
        values = {str(position): one.dictionary_encode() for position, one in enumerate(partitions)}
        if any(deleted):
            values[_DELETED] = pa.array([one and one._asdict() for one in deleted], VECTOR)
        return cls(pa.table({"path": paths, "begin": begins, "end": ends, **values}).combine_chunks())

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self._numbers)

    def __getitem__(self, at: Any) -> Any:
        """Return one or more files."""
        return tuple(self)[at]

    def __iter__(self) -> Iterator[DataFile]:
        """Iterate over the files."""
        columns = self.columns.drop_columns(_DELETED) if self.has_vectors else self.columns
        path, begin, end, *values = (column.to_pylist() for column in columns.columns)
        partitions = zip(*values, strict=True) if values else itertools.repeat(())
        deleted = map(self.vectors.get, path)
        return itertools.starmap(DataFile, zip(path, partitions, begin, end, deleted, strict=False))

    def __eq__(self, other: object) -> bool:
        """Whether all known properties of the files are equal."""
        return isinstance(other, FileList) and self.columns.equals(other.columns)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[type[Self], tuple[pa.Table]]:
        """Omit the file numbers from pickles, because they are meaningless in other processes."""
        return type(self), (self.columns,)

    @functools.cached_property
    def paths(self) -> list[str]:
        """The file paths."""
        return cast("list[str]", self.columns.column("path").to_pylist())

    @property
    def has_vectors(self) -> bool:
        """Whether any of the files may have deleted rows."""
        return _DELETED in self.columns.column_names

    @functools.cached_property
    def vectors(self) -> dict[str, DeletionVector]:
        """The deletion vectors by file path."""
        if not self.has_vectors:
            return {}
        found = zip(self.paths, self.columns.column(_DELETED).to_pylist(), strict=True)
        return {path: DeletionVector(**vector) for path, vector in found if vector is not None}

    def partition(self, position: int) -> pa.DictionaryArray:
        """Return the values of one partition column as strings."""
        return self.columns.column(str(position)).combine_chunks()

    def in_range(self, begin: int, end: int) -> Mask:
        """Return which files may have rows in a time range, given in microseconds."""
        begins, ends = self._times
        return (ends >= begin) & (begins <= end)

    @functools.cached_property
    def _times(self) -> tuple[Int64s, Int64s]:
        begins, ends = (self.columns.column(name) for name in ("begin", "end"))
        return begins.fill_null(_INT64.min).to_numpy(), ends.fill_null(_INT64.max).to_numpy()

    def where(self, mask: Mask) -> "FileList":
        """Return the selected files."""
        return self if mask.all() else FileList(self.columns.filter(pa.array(mask)), self._numbers[mask])

    def plus(self, added: "FileList") -> "FileList":
        """Return these files followed by the others."""
        numbers = np.concatenate([self._numbers, added._numbers])  # noqa: SLF001 - of this class
        return FileList(_concatenated(self.columns, added.columns), numbers)

    def find_common(self, later: "FileList") -> Mask | None:
        """Return which files remain in a later version, or None unless it starts with them in the same order."""
        numbers = later._numbers  # noqa: SLF001 - of this class
        mask = np.isin(self._numbers, numbers, assume_unique=True)
        kept = self._numbers[mask]
        return mask if np.array_equal(kept, numbers[: len(kept)]) else None


NO_FILES: Final = FileList.of(())


class TableChange(NamedTuple):
    """The changes between two versions of a table.

    Attributes:
        table: The later version without its files and their bounds.
        removed: The positions of removed files.
        added: Files that were appended.
        bounds: The bounds of the added files.
    """

    table: TableSnapshot
    removed: Int64s
    added: FileList
    bounds: pa.Table | None

    @classmethod
    def between(cls, earlier: TableSnapshot, later: TableSnapshot) -> "TableChange | None":
        """Return the changes, or None if most files changed."""
        before, after, bounds = FileList.of(earlier.files), FileList.of(later.files), later.bounds
        columns = [None if one is None else one.schema for one in (earlier.bounds, bounds)]
        mask = before.find_common(after)
        if mask is None or columns[0] != columns[1] or before.columns.schema != after.columns.schema:
            return None
        kept = int(mask.sum())
        if 2 * kept < len(after):
            return None
        is_added = np.arange(len(after)) >= kept
        table = replace(later, files=(), bounds=None)
        removed = np.flatnonzero(~mask)
        return cls(table, removed, after.where(is_added), None if bounds is None else bounds.filter(pa.array(is_added)))

    def apply(self, earlier: TableSnapshot) -> TableSnapshot:
        """Apply the changes to the earlier version, and return the later one."""
        files, bounds = FileList.of(earlier.files), earlier.bounds
        if len(self.removed):
            mask = np.ones(len(files), dtype=np.bool_)
            mask[self.removed] = False
            files, bounds = files.where(mask), None if bounds is None else bounds.filter(pa.array(mask))
        if bounds is not None and self.bounds is not None:
            bounds = _concatenated(bounds, self.bounds)
        return replace(self.table, files=files.plus(self.added), bounds=bounds)


def _concatenated(first: pa.Table, second: pa.Table) -> pa.Table:
    return pa.concat_tables([first, second], promote_options="default").unify_dictionaries().combine_chunks()
