"""A plain folder of Parquet files as tables: each file is one, and each sub-folder of files, by its name."""

import json
import os
import re
import stat
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet

from micromegas_jupyter.core.protocols import TableSnapshot
from micromegas_jupyter.errors import Unavailable, UsageError
from micromegas_jupyter.lake.files import WRITERS_FOLDER, make_private_folder, parse_segment, storage_errors
from micromegas_jupyter.lake.user_tables import TABLES_FOLDER

_SUFFIX: Final = ".parquet"
_HIDDEN: Final = (".", "_")
_TIME: Final = "time"
_MAX_FILES: Final = 10_000
_MAX_NAME: Final = 100
_CONTROL_CHARACTER: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class _Unusable(Exception):
    """A file or sub-folder that makes no table; its text says why, and names no path outside of the folder."""


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


class ParquetFolder:
    """The tables of one folder, looked at afresh for each query; implements `core.protocols.TableSource`.

    Links are not followed, so that nothing outside of the folder is read, and what begins with a dot or an underscore
    is passed over. What makes no table is left out and told by `problems`. Safe to use from several threads: a schema
    that was read twice replaces itself.
    """

    def __init__(self, root: Path) -> None:
        check_servable(root)
        self._root = root.absolute()
        self._footers: dict[str, _Footer] = {}
        self._problems: tuple[str, ...] = ()
        self._look()

    @property
    def problems(self) -> tuple[str, ...]:
        """What was left out when the folder was last looked at, a sentence for each."""
        return self._problems

    def snapshot(self) -> tuple[TableSnapshot, ...]:
        """Return all tables as they stand now, by name."""
        try:
            return self._look()
        except UsageError as error:
            raise Unavailable(error.what, remedy=error.remedy) from error

    def _look(self) -> tuple[TableSnapshot, ...]:
        if is_delta_table(self._root):  # it became one
            raise UsageError("The folder is a Delta table, and these cannot be read yet.")
        problems: list[str] = []
        tables: dict[str, TableSnapshot] = {}
        footers: dict[str, _Footer] = {}
        for entry in _entries(self._root):
            try:
                found = self._table(entry, footers, problems)
            except _Unusable as why:
                problems.append(f"{entry.name} {why}.")
                continue
            if found is not None and tables.setdefault(found.name, found) is not found:
                problems.append(f"{entry.name} is left out: a table of that name already exists.")
            if len(footers) > _MAX_FILES:
                raise UsageError(
                    f"The folder contains more than {_MAX_FILES:,} Parquet files.", remedy="Name a folder below it."
                )
        self._footers = footers
        self._problems = tuple(problems)
        return tuple(tables[name] for name in sorted(tables))

    def _table(self, entry: Path, footers: dict[str, _Footer], problems: list[str]) -> TableSnapshot | None:
        kind = _kind(entry)
        if kind == stat.S_IFREG and _is_parquet(entry):
            return _build(_plain_name(entry.stem), [entry], _Joined(self._footer(entry, footers).schema, {}))
        if kind != stat.S_IFDIR:
            if kind and _is_parquet(entry):
                raise _Unusable("is left out: it is not a file")
            return None
        if is_delta_table(entry):  # it came later
            raise _Unusable("is left out: it is a Delta table, and these cannot be read yet")
        inner = _entries(entry, inner=True)
        files = [file for file in inner if _is_parquet(file)]
        if not files:
            if any(file.is_dir() for file in inner):
                raise _Unusable("is left out: it holds no Parquet file itself, and folders below it are not read")
            return None
        joined = _Joined(pa.schema([]), {})
        kept = []
        for file in files:
            try:
                _check_is_file(file)
                joined = _join(joined, self._footer(file, footers))
            except _Unusable as why:
                problems.append(f"{entry.name}/{file.name} {why}.")
            else:
                kept.append(file)
        return _build(_plain_name(entry.name), kept, joined) if kept else None

    def _footer(self, file: Path, footers: dict[str, _Footer]) -> _Footer:
        key = _plain_name(str(file.relative_to(self._root)))
        try:
            found = file.stat()
            known = self._footers.get(key)
            if known is None or (known.changed_ns, known.size_bytes) != (found.st_mtime_ns, found.st_size):
                metadata = pyarrow.parquet.read_metadata(file)
                schema = _plain(metadata.schema.to_arrow_schema())
                _check_names(schema)
                known = _Footer(found.st_mtime_ns, found.st_size, schema, lossless_units(metadata, schema))
        except PermissionError:
            raise _Unusable("is left out: this account may not read it") from None
        except (OSError, pa.ArrowException):
            raise _Unusable("is left out: it cannot be read as a Parquet file") from None
        footers[key] = known
        return known


def _entries(folder: Path, *, inner: bool = False) -> list[Path]:
    """Return what is in a folder, in the order of its names, without what is hidden."""
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith(_HIDDEN))
    except FileNotFoundError:
        if inner:
            return []
        raise UsageError("There is no such folder.", remedy="Name a folder of Parquet files.") from None
    except NotADirectoryError:
        raise UsageError("That is a file, not a folder.", remedy="Name the folder that contains it.") from None
    except OSError as error:
        if inner:
            raise _Unusable("is left out: this account may not list it") from None
        raise UsageError(
            f"The folder cannot be listed: {error.strerror}.", remedy="Name a folder that this account may read."
        ) from None


def _kind(path: Path) -> int:
    """Return the file's type."""
    try:
        mode = path.lstat().st_mode
        is_wanted_link = stat.S_ISLNK(mode) and (_is_parquet(path) or path.is_dir())
    except OSError:
        return 0  # it went away, or cannot be looked at
    if is_wanted_link:
        raise _Unusable("is left out: it is a link, and links are not followed")
    return stat.S_IFMT(mode)


def _check_is_file(path: Path) -> None:
    if _kind(path) != stat.S_IFREG:
        raise _Unusable("is left out: it is not a file")


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() == _SUFFIX


def _plain_name(name: str) -> str:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise _Unusable("is left out: its name is not UTF-8 text") from None
    if _CONTROL_CHARACTER.search(name):
        # The engine takes no such path, and one of them would make it refuse queries of other tables, too.
        raise _Unusable("is left out: its name contains a control character")
    return name


def _plain(schema: pa.Schema) -> pa.Schema:
    """Return the columns without the notes of whoever wrote the file."""
    return pa.schema([pa.field(field.name, _storage(field.type), field.nullable) for field in schema])


def _check_names(schema: pa.Schema) -> None:
    # Arrow allows it, the engine does not: it would refuse queries of other tables, too.
    if len(set(schema.names)) < len(schema.names):
        raise _Unusable("is left out: two of its columns have the same name")


def _storage(kind: pa.DataType) -> pa.DataType:
    return _storage(kind.storage_type) if isinstance(kind, pa.BaseExtensionType) else kind


def _join(joined: _Joined, footer: _Footer) -> _Joined:
    """Return the columns of all; one that not every file has is null in the others."""
    kinds = {field.name: field.type for field in joined.schema}
    units = coarser_units(joined.lossless_units, footer.lossless_units)
    has_mixed_types = joined.has_mixed_types
    for field in footer.schema:
        known = kinds.get(field.name, field.type)
        kind = wider_type(known, field.type)
        if kind is None or not _holds(kind, units.get(field.name)):
            raise _Unusable(
                f"is left out: its column {field.name[:_MAX_NAME]!r} has another type than in the files before it"
            )
        kinds[field.name] = kind
        has_mixed_types = has_mixed_types or known != field.type
    return _Joined(pa.schema([pa.field(name, kind) for name, kind in kinds.items()]), units, has_mixed_types)


def _holds(kind: pa.DataType, unit: str | None) -> bool:
    return unit is None or not pa.types.is_timestamp(kind) or UNITS.index(kind.unit) <= UNITS.index(unit)


def _build(name: str, files: Iterable[Path], joined: _Joined) -> TableSnapshot:
    schema = joined.schema
    has_time = _TIME in schema.names and pa.types.is_timestamp(schema.field(_TIME).type)
    return TableSnapshot(
        name=name,
        schema=schema,
        files=tuple(str(file) for file in files),
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


_PASSED_OVER = (".", "_", "lost+found")  # the last is there on each new file system
_MAX_SHOWN_CHARACTERS: Final = 100
_DELTA_LOG: Final = "_delta_log"
# `Path` makes one slash of several. On Windows a single letter is a drive.
_SCHEME: Final = re.compile(r"([^/\\]{2,}):(?:[/\\]|\Z)" if sys.platform == "win32" else r"([^/]*):(?:/|\Z)")


def check_servable(root: Path) -> None:
    """Refuse what would be served wrongly: an address of storage elsewhere, and Delta tables."""
    if scheme := _SCHEME.match(str(root)):
        is_local = scheme[1].lower() == "file"
        raise UsageError(
            f"{_shown(scheme[1])}:// is not supported: tables are read from a folder of this machine.",
            remedy="Name the folder without file://." if is_local else "Name a folder, such as one that is mounted.",
        )
    if any(map(is_delta_table, (root, *root.absolute().parents))):
        raise _delta_error("The folder")
    with suppress(OSError):  # whoever reads the folder says what is wrong with it
        for table in filter(is_delta_table, root.iterdir()):
            raise _delta_error(_shown(table.name))


def is_delta_table(folder: Path) -> bool:
    """Whether a folder is a Delta table: its files alone would bring deleted rows back."""
    return os.path.lexists(folder / _DELTA_LOG)


def _delta_error(name: str) -> UsageError:
    return UsageError(
        f"{name} is a Delta table (there is a {_DELTA_LOG}), and Delta tables cannot be read yet.",
        remedy="Name a folder of plain *.parquet files; write the table's current rows into one.",
    )


def _shown(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name[:_MAX_SHOWN_CHARACTERS])


def is_lake(root: Path) -> bool:
    """Whether a folder holds tables that this package wrote, or nothing yet; else Parquet files perhaps."""
    check_servable(root)
    try:
        if any((root / mark).is_dir() for mark in (WRITERS_FOLDER, TABLES_FOLDER)):
            return True
        entries = [entry for entry in root.iterdir() if not entry.name.startswith(_PASSED_OVER)]
    except FileNotFoundError:
        return True
    except NotADirectoryError:
        raise UsageError(
            "The folder of the tables is a file, or lies below one.",
            remedy="Name a folder: an empty one, that of a lake, or one of *.parquet files.",
        ) from None
    except OSError as error:
        raise Unavailable(
            f"The folder of the tables cannot be read: {os.strerror(error.errno or 0)}.",
            remedy="Name a folder that this account may read.",
        ) from None
    return not entries or any(map(_holds_segment, entries))


def make_lake_folder(root: Path) -> None:
    """Make the folder of a lake when it is not there, and mark it as one, whatever else comes to lie in it."""
    with storage_errors("The folder of the tables cannot be made."):
        make_private_folder(root / WRITERS_FOLDER)


def _holds_segment(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(parse_segment(entry.name) is not None for entry in entries)
    except OSError:
        return False
