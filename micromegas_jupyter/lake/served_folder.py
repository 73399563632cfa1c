"""A directory of external files as tables: Delta tables, and Parquet, CSV, JSON lines, or Arrow files.

A file is a table by its name. So is a subdirectory of files with one format, optionally in `key=value` directories (as
in Hive). Everything else is skipped and reported. Links are not followed, so nothing outside the directory is read.
"""

import contextlib
import functools
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from micromegas_jupyter.core.file_list import FileList
from micromegas_jupyter.core.protocols import DataFile, FileFormat, TableSnapshot
from micromegas_jupyter.core.storage import Storage, storage_errors
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.core.text import cut, printable
from micromegas_jupyter.errors import ResourcesExhausted, UsageError
from micromegas_jupyter.lake.delta_log import LOG_FOLDER
from micromegas_jupyter.lake.snapshot import DeltaSnapshots, Unreadable, range_columns

_FORMATS: Final = {
    ".parquet": FileFormat.PARQUET,
    ".csv": FileFormat.CSV,
    ".json": FileFormat.JSON_LINES,
    ".jsonl": FileFormat.JSON_LINES,
    ".ndjson": FileFormat.JSON_LINES,
    ".arrow": FileFormat.ARROW,
    ".feather": FileFormat.ARROW,
}
_HIDDEN: Final = (".", "_", "lost+found")
_MAX_FILES: Final = 10_000
_MAX_NAME: Final = 100
_MAX_DEPTH: Final = 16
_INFERRED_ROWS: Final = 100_000
_LISTING_SECONDS: Final = 1.0
_CONTROL_CHARACTER: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NULL_FOLDER: Final = "__HIVE_DEFAULT_PARTITION__"
_UTC: Final = frozenset({"UTC", "Etc/UTC", "Z", "+00:00"})

_Partition = tuple[tuple[str, str | None], ...]


class ServedFolder:
    """The tables in one directory or prefix; a `TableSource`. Safe to use from several threads.

    Delta tables are checked for each statement, plain files once a second.
    """

    def __init__(self, storage: Storage) -> None:
        check_servable(storage)
        self._storage = storage
        self._deltas = DeltaSnapshots(storage, is_foreign=True)
        self._lock = threading.Lock()
        self._found: _Listing | None = None
        self._looked_at = float("-inf")
        self.snapshot()

    @property
    def problems(self) -> tuple[str, ...]:
        """The items skipped when the directory was last checked, as sentences."""
        refused = (f"{name} is left out: {why}." for name, why in sorted(self._deltas.refused.items()))
        return (*refused, *(() if self._found is None else self._found.problems))

    def snapshot(self, sql: str | None = None) -> tuple[TableSnapshot, ...]:
        """Return all tables, ordered by name; refresh the Delta tables that `sql` references, or all if it is None."""
        tables = self._deltas.list(sql)
        if self._storage.is_local:
            with self._lock, storage_errors("The folder could not be listed.", self._storage):
                now = SYSTEM_CLOCK.monotonic()
                if self._found is None or sql is None or now >= self._looked_at + _LISTING_SECONDS:
                    self._found = _Listing(self._storage.uri)
                    self._looked_at = now
                tables = {**self._found.tables, **tables}
        return tuple(tables[name] for name in sorted(tables))


def check_servable(storage: Storage) -> None:
    """Reject a path that isn't a directory or is in a Delta table, because the table's files include deleted rows."""
    if not storage.is_local:
        return
    if not Path(storage.uri).is_dir():
        raise UsageError(
            f"The folder {cut(printable(storage.uri), 200)} does not exist.",
            remedy="Use a folder that contains tables.",
        )
    if any(os.path.lexists(above / LOG_FOLDER) for above in Path(storage.uri).parents):
        raise UsageError(
            f"The folder is inside a Delta table (there is a {LOG_FOLDER} above it).",
            remedy="Use the table's own folder, or the one that contains it.",
        )


class _Listing:
    """The tables from plain files at one point in time."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._file_count = 0
        self.tables: dict[str, TableSnapshot] = {}
        self.problems: list[str] = []
        names: set[str] = set()
        for entry in [] if os.path.lexists(f"{root}/{LOG_FOLDER}") else _entries(root):
            with self._leaving_out(entry.path):
                is_folder = entry.is_dir(follow_symlinks=False)
                is_delta = is_folder and os.path.lexists(f"{entry.path}/{LOG_FOLDER}")
                files = [] if is_delta else list(self._walk(entry))
                name = entry.name if is_folder else Path(entry.name).stem
                if files and name in names:
                    raise Unreadable("a table with that name already exists")
                if files or is_delta:
                    names.add(name)  # a directory takes precedence over a file with the same name
                if files and (table := self._table(name, files)) is not None:
                    self.tables[name] = table

    @contextlib.contextmanager
    def _leaving_out(self, path: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            return  # it was removed
        except Unreadable as error:
            why = str(error)
        except UnicodeError:
            why = "its name is not UTF-8 text"
        except PermissionError:
            why = "this account may not read it"
        except (OSError, pa.ArrowException):
            why = f"it cannot be read as a {Path(path).suffix.lower()} file"
        else:
            return
        self.problems.append(f"{path[len(self._root) + 1 :].replace(os.sep, '/')} is left out: {why}.")

    def _walk(self, entry: os.DirEntry[str], partition: _Partition = ()) -> Iterator[tuple[str, _Partition]]:
        """Yield a table's files with the keys and values of their directories."""
        if entry.is_symlink():
            raise Unreadable("it is a symbolic link, which is not followed")
        if _CONTROL_CHARACTER.search(entry.name.encode().decode()):
            # The engine rejects such a path, and would then also reject queries that use other tables.
            raise Unreadable("its name contains a control character")
        if entry.is_file():
            _format(entry.name)
            self._file_count += 1
            if self._file_count > _MAX_FILES:
                raise ResourcesExhausted(
                    f"The folder contains more than {_MAX_FILES:,} files.", remedy="Serve one of its subfolders."
                )
            yield entry.path, partition
            return
        if not entry.is_dir():
            raise Unreadable("it is not a file")
        for inner in _entries(entry.path):
            with self._leaving_out(inner.path):
                is_folder = inner.is_dir(follow_symlinks=False)
                yield from self._walk(inner, (*partition, _key(inner, partition)) if is_folder else partition)

    def _table(self, name: str, files: list[tuple[str, _Partition]]) -> TableSnapshot | None:
        formats = {_format(path) for path, _ in files}
        keys = {tuple(key for key, _ in partition) for _, partition in files}
        if len(formats) > 1:
            raise Unreadable(f"it has files in several formats ({', '.join(sorted(one.value for one in formats))})")
        if len(keys) > 1:
            raise Unreadable("its files are in folders with different keys")
        (file_format,), (by,) = formats, keys
        schema, kept, schemas = None, [], []
        for path, partition in files:
            with self._leaving_out(path):
                status = os.stat(path)  # noqa: PTH116 - of each file, each second
                found = _read_schema(path, file_format, (status.st_mtime_ns, status.st_size))
                if both := set(by) & set(found.names):
                    raise Unreadable(f"{min(both)[:_MAX_NAME]!r} is both a column and a key of its folder")
                schema = found if schema is None else _join(schema, found, file_format)
                schemas.append(found)
                kept.append(DataFile(path, tuple(value for _, value in partition)))
        if schema is None:
            return None
        return TableSnapshot(
            name=name,
            schema=pa.schema([*schema, *(pa.field(key, pa.string()) for key in by)]),
            files=FileList.of(kept),
            partition_columns=by,
            file_format=file_format,
            range_columns=range_columns(schema),
            has_mixed_types=any(
                not found.equals(schema) and any(one.type != schema.field(one.name).type for one in found)
                for found in schemas
            ),
        )


def _entries(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted((one for one in entries if not one.name.startswith(_HIDDEN)), key=lambda one: one.name)


def _format(name: str) -> FileFormat:
    found = _FORMATS.get(name[name.rfind(".") :].lower())
    if found is None:
        raise Unreadable(f"its name doesn't end in one of {', '.join(_FORMATS)}")
    return found


def _key(folder: os.DirEntry[str], above: _Partition) -> tuple[str, str | None]:
    """Return the key and value in a directory's name."""
    name, _, text = folder.name.partition("=")
    if not name or not text:
        raise Unreadable("it is neither a file nor a folder named key=value")
    if os.path.lexists(f"{folder.path}/{LOG_FOLDER}"):
        raise Unreadable("it is a Delta table inside a folder of files")
    key = unquote(name, errors="strict")
    if key in dict(above) or len(above) >= _MAX_DEPTH:
        raise Unreadable("its key appears twice, or it is nested too deeply")
    return key, None if text == _NULL_FOLDER else unquote(text, errors="strict")


@functools.lru_cache(maxsize=_MAX_FILES)
def _read_schema(path: str, file_format: FileFormat, _mark: tuple[int, int]) -> pa.Schema:
    """Return a file's columns without the writer's metadata; a changed file has a different mark."""
    if file_format is FileFormat.PARQUET:
        found = pyarrow.parquet.read_schema(path)
    elif file_format is FileFormat.ARROW:
        with pa.memory_map(path) as source:
            found = pyarrow.ipc.open_file(source).schema
    else:
        found = _infer_schema(Path(path), file_format)
    # Arrow allows this, but the engine doesn't, and would also reject queries that use other tables.
    if len(set(found.names)) < len(found.names):
        raise Unreadable("two of its columns have the same name")
    return pa.schema([pa.field(field.name, _storage_type(field.type), field.nullable) for field in found])


def _infer_schema(file: Path, file_format: FileFormat) -> pa.Schema:
    from datafusion import SessionContext  # slow to load and seldom needed here

    session = SessionContext()
    read = session.read_csv if file_format is FileFormat.CSV else session.read_json
    try:
        found = read(file.as_uri(), schema_infer_max_records=_INFERRED_ROWS, file_extension=file.suffix).schema()
    except Exception as error:
        raise pa.ArrowInvalid("its rows don't have a common schema") from error
    if not found.names:
        raise pa.ArrowInvalid("it doesn't contain any columns")
    # A column without values gets the string type, which can represent any later value.
    return pa.schema([one.with_type(pa.string()) if pa.types.is_null(one.type) else one for one in found])


def _storage_type(kind: pa.DataType) -> pa.DataType:
    return _storage_type(kind.storage_type) if isinstance(kind, pa.BaseExtensionType) else kind


def _join(schema: pa.Schema, found: pa.Schema, file_format: FileFormat) -> pa.Schema:
    """Return the combined columns of all files; a column that is missing from a file is null in the file's rows."""
    if found.equals(schema):
        return schema
    is_same = (found.names, found.types) == (schema.names, schema.types)
    if file_format in {FileFormat.CSV, FileFormat.ARROW} and not is_same:
        # The engine identifies the columns of these formats by position.
        raise Unreadable("its columns or their order differ from those of the preceding files")
    kinds = dict(zip(schema.names, schema.types, strict=True))
    for name, kind in zip(found.names, found.types, strict=True):
        known = kinds.get(name, kind)
        wider = wider_type(known, kind) if file_format is FileFormat.PARQUET or known == kind else None
        if wider is None:
            raise Unreadable(f"its column {name[:_MAX_NAME]!r} has a different type than in the preceding files")
        kinds[name] = wider
    return pa.schema(kinds)


def wider_type(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    """Return a type that can hold all values of both, or None."""
    if first == second or pa.types.is_null(second):
        return first
    if pa.types.is_null(first):
        return second
    pair = [_plainest_type(first), _plainest_type(second)]
    if pair[0] == pair[1]:
        return pair[0]
    are_decimals = all(map(pa.types.is_decimal128, pair))
    if not are_decimals and not all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in pair):
        return None
    wider = pa.unify_schemas([pa.schema({"": kind}) for kind in pair], promote_options="permissive").field(0).type
    # Otherwise, int64 would be rounded to float64, and half of the uint64 values would not fit.
    is_exact = all(kind == wider or kind.bit_width < wider.bit_width for kind in pair)
    return wider if (pa.types.is_decimal128(wider) if are_decimals else is_exact) else None


def _plainest_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _plainest_type(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    return pa.timestamp(kind.unit, "UTC") if pa.types.is_timestamp(kind) and kind.tz in _UTC else kind
