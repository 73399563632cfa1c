"""A plain folder of Parquet files as tables: each file is one, and each sub-folder of files, by its name.

What the recorder writes is `lake`'s business; running queries is the engine's.
"""

import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet

from micromegas_jupyter.core.protocols import TableSnapshot
from micromegas_jupyter.errors import Unavailable, UsageError
from micromegas_jupyter.lake.finest_units import UNITS, coarser_units, finest_units
from micromegas_jupyter.lake.folder_kind import check_servable, is_delta_table
from micromegas_jupyter.lake.wider_types import wider_type

_SUFFIX: Final = ".parquet"
_HIDDEN: Final = (".", "_")
_TIME: Final = "time"
_MAX_FILES: Final = 10_000
_LONGEST_NAME: Final = 100
_CONTROL_CHARACTER: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class _Unusable(Exception):
    """A file or sub-folder that makes no table; its text says why, and names no path outside of the folder."""


class _Footer(NamedTuple):
    changed_ns: int
    size_bytes: int
    schema: pa.Schema
    finest_units: dict[str, str]


class _Joined(NamedTuple):
    """The columns of the files so far, the finest units that hold their times, and whether types differed."""

    schema: pa.Schema
    finest_units: dict[str, str]
    has_mixed_types: bool = False


class ParquetFolder:
    """The tables of one folder, looked at afresh for each query; implements `contracts.TableSource`.

    Links are not followed, so that nothing outside of the folder is read, and what begins with a dot or an underscore
    is passed over. What makes no table is left out and told by `problems`. Safe to use from several threads: a schema
    that was read twice replaces itself.

    Args:
        root: The folder; it may itself be named by a link.

    Raises:
        UsageError: It is no folder, cannot be listed or holds too many files; it is a Delta table or holds one.
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
        """Return all tables as they stand now, by name.

        Raises:
            Unavailable: The folder cannot be listed any more, or holds too many files by now.
        """
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
                problems.append(f"{entry.name} is left out: there is a table of that name already.")
            if len(footers) > _MAX_FILES:
                raise UsageError(
                    f"The folder holds more than {_MAX_FILES:,} Parquet files.", remedy="Name a folder below it."
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
                known = _Footer(found.st_mtime_ns, found.st_size, schema, finest_units(metadata, schema))
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
        raise UsageError("That is a file, not a folder.", remedy="Name the folder that it lies in.") from None
    except OSError as error:
        if inner:
            raise _Unusable("is left out: this account may not list it") from None
        raise UsageError(
            f"The folder cannot be listed: {error.strerror}.", remedy="Name a folder that this account may read."
        ) from None


def _kind(path: Path) -> int:
    """Return the file's type.

    Raises:
        _Unusable: It is a link to what would be read.
    """
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
        raise _Unusable("is left out: its name holds a control character")
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
    units = coarser_units(joined.finest_units, footer.finest_units)
    has_mixed_types = joined.has_mixed_types
    for field in footer.schema:
        known = kinds.get(field.name, field.type)
        kind = wider_type(known, field.type)
        if kind is None or not _holds(kind, units.get(field.name)):
            raise _Unusable(
                f"is left out: its column {field.name[:_LONGEST_NAME]!r} has another type than in the files before it"
            )
        kinds[field.name] = kind
        has_mixed_types = has_mixed_types or known != field.type
    return _Joined(pa.schema([pa.field(name, kind) for name, kind in kinds.items()]), units, has_mixed_types)


def _holds(kind: pa.DataType, finest_unit: str | None) -> bool:
    return finest_unit is None or not pa.types.is_timestamp(kind) or UNITS.index(kind.unit) <= UNITS.index(finest_unit)


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
