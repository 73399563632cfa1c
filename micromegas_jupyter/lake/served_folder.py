"""A folder that others filled, as tables: Delta tables, and files of Parquet, CSV, JSON lines or Arrow.

A file is a table by its name, and so is a sub-folder of files of one format, perhaps in folders `key=value` (as Hive
has them). What makes no table is left out and told; links are not followed, so nothing outside of the folder is read.
"""

import json
import os
import re
import stat
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from micromegas_jupyter.core.protocols import DataFile, FileFormat, TableSnapshot
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.errors import Unavailable, UsageError
from micromegas_jupyter.lake.delta_log import LOG_FOLDER, TableGone
from micromegas_jupyter.lake.snapshot import DeltaSnapshots, Unreadable

_FORMATS: Final = {
    ".parquet": FileFormat.PARQUET,
    ".csv": FileFormat.CSV,
    ".json": FileFormat.JSON_LINES,
    ".jsonl": FileFormat.JSON_LINES,
    ".ndjson": FileFormat.JSON_LINES,
    ".arrow": FileFormat.ARROW,
    ".feather": FileFormat.ARROW,
}
_HIDDEN: Final = (".", "_")
_PASSED_OVER: Final = "lost+found"  # it is there on each new file system
_TIME: Final = "time"
_MAX_FILES: Final = 10_000
_MAX_NAME: Final = 100
_MAX_DEPTH: Final = 16
_INFERRED_ROWS: Final = 100_000
_LISTING_SECONDS: Final = 1.0
_CONTROL_CHARACTER: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NULL_FOLDER: Final = "__HIVE_DEFAULT_PARTITION__"

_Partition = tuple[tuple[str, str | None], ...]


class _Footer(NamedTuple):
    changed_ns: int
    size_bytes: int
    schema: pa.Schema
    lossless_units: dict[str, str]


class _Joined(NamedTuple):
    """The columns of the files so far, the finest units that hold their times, and whether types differed."""

    schema: pa.Schema
    lossless_units: dict[str, str]
    has_mixed_types: bool = False


class ServedFolder:
    """The tables of one folder or prefix; a `TableSource`. Safe to use from several threads.

    Delta tables are looked at for each statement, plain files once a second.
    """

    def __init__(self, storage: Storage, *, clock: Clock = SYSTEM_CLOCK) -> None:
        check_servable(storage)
        self._storage = storage
        self._clock = clock
        self._root = Path(storage.uri) if storage.is_local else None
        self._deltas = DeltaSnapshots(storage, is_foreign=True)
        self._lock = threading.Lock()
        self._footers: dict[str, _Footer] = {}
        self._plain: dict[str, TableSnapshot] = {}
        self._plain_problems: tuple[str, ...] = ()
        self._looked_at = float("-inf")
        self.snapshot()

    @property
    def problems(self) -> tuple[str, ...]:
        """What was left out when the folder was last looked at, a sentence for each."""
        refused = (f"{name or 'The table'} is left out: {why}." for name, why in sorted(self._deltas.refused.items()))
        return (*refused, *self._plain_problems)

    def snapshot(self, sql: str | None = None) -> tuple[TableSnapshot, ...]:
        """Return all tables by name, Delta tables that `sql` names as they stand now; None is for all of them."""
        try:
            if _is_delta(self._storage):
                return (self._deltas.refresh(""),)
            tables = dict(self._deltas.list(sql))
            with self._lock:
                if self._root is not None and (
                    sql is None or self._clock.monotonic() >= self._looked_at + _LISTING_SECONDS
                ):
                    self._look(self._root, set(tables))
                    self._looked_at = self._clock.monotonic()
                tables = {**self._plain, **tables}
        except TableGone:
            return ()
        except Unreadable as error:
            raise Unavailable(f"The table cannot be read: {error}.") from error
        except UsageError as error:
            if self._looked_at == float("-inf"):
                raise
            raise Unavailable(error.what, remedy=error.remedy) from error
        return tuple(tables[name] for name in sorted(tables))

    def _look(self, root: Path, deltas: set[str]) -> None:
        problems: list[str] = []
        tables: dict[str, TableSnapshot] = {}
        footers: dict[str, _Footer] = {}
        for entry in _entries(root):
            try:
                found = self._table(root, entry, footers, problems)
            except Unreadable as why:
                problems.append(f"{entry.name} is left out: {why}.")
                continue
            if found is not None and (found.name in deltas or tables.setdefault(found.name, found) is not found):
                problems.append(f"{entry.name} is left out: a table of that name already exists.")
            if len(footers) > _MAX_FILES:
                raise UsageError(
                    f"The folder contains more than {_MAX_FILES:,} files.", remedy="Name a folder below it."
                )
        self._footers, self._plain, self._plain_problems = footers, tables, tuple(problems)

    def _table(self, root: Path, entry: Path, footers: dict[str, _Footer], problems: list[str]) -> TableSnapshot | None:
        kind = _kind(entry)
        if kind == stat.S_IFREG:
            footer = self._footer(root, entry, (), footers)
            return _build(_plain_name(entry.stem), [(entry, ())], _Joined(footer.schema, {}), _format(entry))
        if kind == stat.S_IFDIR:
            files = [] if os.path.lexists(entry / LOG_FOLDER) else list(_walk(entry, (), problems, root))
            return self._join_files(root, entry, files, footers, problems) if files else None
        if kind:
            raise Unreadable("it is not a file")
        return None

    def _join_files(
        self,
        root: Path,
        folder: Path,
        files: list[tuple[Path, _Partition]],
        footers: dict[str, _Footer],
        problems: list[str],
    ) -> TableSnapshot | None:
        file_format, by = _common(files)
        joined = _Joined(pa.schema([]), {})
        kept = []
        for file, partition in files:
            try:
                joined = _join(joined, self._footer(root, file, by, footers), file_format)
            except Unreadable as why:
                problems.append(f"{file.relative_to(root).as_posix()} is left out: {why}.")
            else:
                kept.append((file, partition))
        return _build(_plain_name(folder.name), kept, joined, file_format, by) if kept else None

    def _footer(self, root: Path, file: Path, by: tuple[str, ...], footers: dict[str, _Footer]) -> _Footer:
        key = _plain_name(str(file.relative_to(root)))
        file_format = _format(file)
        try:
            found = file.stat()
            known = self._footers.get(key)
            if known is None or (known.changed_ns, known.size_bytes) != (found.st_mtime_ns, found.st_size):
                schema, units = _read_schema(file, file_format)
                _check_names(schema)
                known = _Footer(found.st_mtime_ns, found.st_size, schema, units)
        except PermissionError:
            raise Unreadable("this account may not read it") from None
        except (OSError, pa.ArrowException):
            raise Unreadable(f"it cannot be read as {_NAMES[file_format]}") from None
        footers[key] = known
        if both := set(by) & set(known.schema.names):
            raise Unreadable(f"{min(both)[:_MAX_NAME]!r} is a column in it and a key of its folder")
        return known


_NAMES: Final = {
    FileFormat.PARQUET: "a Parquet file",
    FileFormat.CSV: "CSV with a header line",
    FileFormat.JSON_LINES: "JSON lines",
    FileFormat.ARROW: "an Arrow file",
}


def check_servable(storage: Storage) -> None:
    """Refuse a folder inside of a Delta table, whose files alone would bring deleted rows back."""
    if storage.is_local and any(os.path.lexists(above / LOG_FOLDER) for above in Path(storage.uri).parents):
        raise UsageError(
            f"The folder lies in a Delta table (there is a {LOG_FOLDER} above it).",
            remedy="Name the table's own folder, or the one that contains it.",
        )


def _is_delta(storage: Storage) -> bool:
    if storage.is_local:
        return os.path.lexists(Path(storage.uri, LOG_FOLDER))
    return LOG_FOLDER in storage.list_folders()


def _common(files: list[tuple[Path, _Partition]]) -> tuple[FileFormat, tuple[str, ...]]:
    """Return what the files of a table must have in common: their format, and the keys of their folders."""
    formats = {_format(file) for file, _ in files}
    keys = {tuple(key for key, _ in partition) for _, partition in files}
    if len(formats) > 1:
        raise Unreadable(f"it has files of several formats ({', '.join(sorted(one.value for one in formats))})")
    if len(keys) > 1:
        raise Unreadable("its files lie in folders of different keys")
    (file_format,), (by,) = formats, keys
    if len(set(by)) < len(by):
        raise Unreadable("a key comes twice in the folders of its files")
    return file_format, by


def _walk(folder: Path, partition: _Partition, problems: list[str], root: Path) -> Iterator[tuple[Path, _Partition]]:
    """Yield the files of a table with the keys and values of the folders they are in."""
    for entry in _entries(folder, inner=True):
        try:
            key = _key(entry, depth=len(partition))
            if key is not None:
                yield from _walk(entry, (*partition, key), problems, root)
            elif _kind(entry):
                _format(entry)
                yield entry, partition
        except Unreadable as why:
            problems.append(f"{entry.relative_to(root).as_posix()} is left out: {why}.")


def _key(entry: Path, *, depth: int) -> tuple[str, str | None] | None:
    """Return the key and the value that a folder's name has; None for a file."""
    kind = _kind(entry)
    if kind in {0, stat.S_IFREG}:
        return None
    if kind != stat.S_IFDIR:
        raise Unreadable("it is not a file")
    if os.path.lexists(entry / LOG_FOLDER):
        raise Unreadable("it is a Delta table below a folder of files")
    name, sign, text = _plain_name(entry.name).partition("=")
    if not sign or not name or not text:
        raise Unreadable("it is not a file, and as a folder its name is not key=value")
    if depth >= _MAX_DEPTH:
        raise Unreadable("it lies too deep")
    try:
        return unquote(name, errors="strict"), None if text == _NULL_FOLDER else unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise Unreadable("its name is not UTF-8 text") from None


def _read_schema(file: Path, file_format: FileFormat) -> tuple[pa.Schema, dict[str, str]]:
    if file_format is FileFormat.PARQUET:
        metadata = pyarrow.parquet.read_metadata(file)
        schema = _plain(metadata.schema.to_arrow_schema())
        return schema, lossless_units(metadata, schema)
    if file_format is FileFormat.ARROW:
        with pa.memory_map(str(file)) as source:
            return _plain(pyarrow.ipc.open_file(source).schema), {}
    from datafusion import SessionContext  # slow to load, and seldom needed here

    session = SessionContext()
    read = session.read_csv if file_format is FileFormat.CSV else session.read_json
    try:
        found = read(file.as_uri(), schema_infer_max_records=_INFERRED_ROWS, file_extension=file.suffix).schema()
    except Exception as error:
        raise pa.ArrowInvalid("the rows do not fit together") from error
    if not found.names:
        raise pa.ArrowInvalid("there is no column")
    # A column without any value: text has room for whatever comes.
    return pa.schema([one.with_type(pa.string()) if pa.types.is_null(one.type) else one for one in found]), {}


def _format(file: Path) -> FileFormat:
    found = _FORMATS.get(file.suffix.lower())
    if found is None:
        raise Unreadable(f"its name ends in none of {', '.join(_FORMATS)}")
    return found


def _entries(folder: Path, *, inner: bool = False) -> list[Path]:
    """Return what is in a folder, in the order of its names, without what is hidden."""
    try:
        return sorted(
            entry for entry in folder.iterdir() if not entry.name.startswith(_HIDDEN) and entry.name != _PASSED_OVER
        )
    except FileNotFoundError:
        if inner:
            return []
        raise UsageError("There is no such folder.", remedy="Name a folder of tables.") from None
    except NotADirectoryError:
        raise UsageError("That is a file, not a folder.", remedy="Name the folder that contains it.") from None
    except OSError as error:
        if inner:
            raise Unreadable("this account may not list it") from None
        raise UsageError(
            f"The folder cannot be listed: {error.strerror}.", remedy="Name a folder that this account may read."
        ) from None


def _kind(path: Path) -> int:
    """Return the file's type."""
    try:
        mode = path.lstat().st_mode
        is_link = stat.S_ISLNK(mode)
    except OSError:
        return 0  # it went away, or cannot be looked at
    if is_link:
        raise Unreadable("it is a link, and links are not followed")
    return stat.S_IFMT(mode)


def _plain_name(name: str) -> str:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise Unreadable("its name is not UTF-8 text") from None
    if _CONTROL_CHARACTER.search(name):
        # The engine takes no such path, and one of them would make it refuse queries of other tables, too.
        raise Unreadable("its name contains a control character")
    return name


def _plain(schema: pa.Schema) -> pa.Schema:
    """Return the columns without the notes of whoever wrote the file."""
    return pa.schema([pa.field(field.name, _storage_type(field.type), field.nullable) for field in schema])


def _check_names(schema: pa.Schema) -> None:
    # Arrow allows it, the engine does not: it would refuse queries of other tables, too.
    if len(set(schema.names)) < len(schema.names):
        raise Unreadable("two of its columns have the same name")


def _storage_type(kind: pa.DataType) -> pa.DataType:
    return _storage_type(kind.storage_type) if isinstance(kind, pa.BaseExtensionType) else kind


def _join(joined: _Joined, footer: _Footer, file_format: FileFormat) -> _Joined:
    """Return the columns of all; one that not every file has is null in the others."""
    if file_format in {FileFormat.CSV, FileFormat.ARROW} and joined.schema.names:
        # The engine takes the columns of these by their places.
        if footer.schema.names != joined.schema.names:
            raise Unreadable("its columns are not those of the files before it, in their order")
        if file_format is FileFormat.ARROW and footer.schema.types != joined.schema.types:
            raise Unreadable("its columns have other types than in the files before it")
    kinds = {field.name: field.type for field in joined.schema}
    units = coarser_units(joined.lossless_units, footer.lossless_units)
    has_mixed_types = joined.has_mixed_types
    for field in footer.schema:
        known = kinds.get(field.name, field.type)
        kind = wider_type(known, field.type) if file_format is FileFormat.PARQUET or known == field.type else None
        if kind is None or not _holds(kind, units.get(field.name)):
            raise Unreadable(f"its column {field.name[:_MAX_NAME]!r} has another type than in the files before it")
        kinds[field.name] = kind
        has_mixed_types = has_mixed_types or known != field.type
    return _Joined(pa.schema([pa.field(name, kind) for name, kind in kinds.items()]), units, has_mixed_types)


def _holds(kind: pa.DataType, unit: str | None) -> bool:
    return unit is None or not pa.types.is_timestamp(kind) or UNITS.index(kind.unit) <= UNITS.index(unit)


def _build(
    name: str,
    files: Iterable[tuple[Path, _Partition]],
    joined: _Joined,
    file_format: FileFormat,
    by: tuple[str, ...] = (),
) -> TableSnapshot:
    schema = pa.schema([*joined.schema, *(pa.field(key, pa.string()) for key in by)])
    has_time = _TIME in schema.names and pa.types.is_timestamp(schema.field(_TIME).type)
    return TableSnapshot(
        name=name,
        schema=schema,
        files=tuple(DataFile(str(file), tuple(value for _, value in partition)) for file, partition in files),
        partition_columns=by,
        file_format=file_format,
        range_columns=(_TIME, _TIME) if has_time else None,
        has_mixed_types=joined.has_mixed_types,
    )


#: From coarse to fine; each counts a thousand of the next.
UNITS: Final = ("s", "ms", "us", "ns")
_FINER: Final = 1000
_WRITTEN: Final = {"milliseconds": "ms", "microseconds": "us", "nanoseconds": "ns"}
_INT64: Final = (-(1 << 63), (1 << 63) - 1)


def lossless_units(metadata: pyarrow.parquet.FileMetaData, schema: pa.Schema) -> dict[str, str]:
    """Return, for each column of times in `schema`, the finest unit that provably holds all its values.

    Where the footer does not tell which values there are, that is the unit in which they are written.
    """
    times = {field.name: field.type.unit for field in schema if pa.types.is_timestamp(field.type)}
    paths = [metadata.schema.column(position).path for position in range(metadata.num_columns)] if times else []
    counts = Counter(paths)
    return {
        name: _lossless_unit(metadata, paths.index(name), unit) if counts[name] == 1 else unit
        for name, unit in times.items()
    }


def coarser_units(first: Mapping[str, str], second: Mapping[str, str]) -> dict[str, str]:
    """Return the finest units that hold the values of two files."""
    both = {name: min(first[name], second[name], key=UNITS.index) for name in first.keys() & second.keys()}
    return {**first, **second, **both}


def _lossless_unit(metadata: pyarrow.parquet.FileMetaData, position: int, unit: str) -> str:
    column = metadata.schema.column(position)
    written = json.loads(column.logical_type.to_json()).get("timeUnit")
    if column.physical_type != "INT64" or _WRITTEN.get(written) != unit:
        return unit
    ends: list[int] = []
    for index in range(metadata.num_row_groups):
        found = _ends(metadata.row_group(index), position)
        if found is None:
            return unit
        ends.extend(found)
    best = unit
    for finer in UNITS[UNITS.index(unit) + 1 :]:
        ends = [end * _FINER for end in ends]
        if any(not _INT64[0] <= end <= _INT64[1] for end in ends):
            break
        best = finer
    return best


def _ends(group: Any, position: int) -> tuple[int, ...] | None:
    """Return the first and the last time of a row group, nothing where it has none; None when it is not told."""
    statistics = group.column(position).statistics
    if group.num_rows == 0:
        return ()
    if statistics is None:
        return None
    if statistics.has_min_max:
        return statistics.min_raw, statistics.max_raw
    return () if statistics.has_null_count and statistics.null_count == group.num_rows else None


_UTC: Final = frozenset({"UTC", "Etc/UTC", "Z", "+00:00"})
_WIDEST_DECIMAL: Final = 38
_EXACT_IN_DOUBLE_BITS: Final = 32
_MAX_INTEGER_BITS: Final = 64


def wider_type(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    """Return a type that holds all values of both, but for times too far off for the finer unit; None without one."""
    if first == second or pa.types.is_null(second):
        return first
    if pa.types.is_null(first):
        return second
    return _wider(_plain_type(first), _plain_type(second))


def _wider(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    if first == second:
        return first
    if _is_number(first) and _is_number(second):
        return _wider_number(first, second)
    if pa.types.is_timestamp(first) and pa.types.is_timestamp(second) and first.tz == second.tz:
        return pa.timestamp(max(first.unit, second.unit, key=UNITS.index), first.tz)
    if pa.types.is_decimal128(first) and pa.types.is_decimal128(second):
        return _wider_decimal(first, second)
    return None


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the plainest type of the same values."""
    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_timestamp(kind) and kind.tz in _UTC:
        return pa.timestamp(kind.unit, "UTC")
    return kind


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _wider_number(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    if pa.types.is_floating(first) and pa.types.is_floating(second):
        return max(first, second, key=lambda kind: kind.bit_width)
    if pa.types.is_floating(first) or pa.types.is_floating(second):
        integer = second if pa.types.is_floating(first) else first
        return pa.float64() if integer.bit_width <= _EXACT_IN_DOUBLE_BITS else None
    if pa.types.is_signed_integer(first) == pa.types.is_signed_integer(second):
        return max(first, second, key=lambda kind: kind.bit_width)
    unsigned = second if pa.types.is_signed_integer(first) else first
    return pa.int64() if unsigned.bit_width < _MAX_INTEGER_BITS else None


def _wider_decimal(first: pa.Decimal128Type, second: pa.Decimal128Type) -> pa.DataType | None:
    scale = max(first.scale, second.scale)
    precision = max(first.precision - first.scale, second.precision - second.scale) + scale
    return pa.decimal128(precision, scale) if precision <= _WIDEST_DECIMAL else None
