"""Tables that callers make: their names, columns and folders, kept beside the data model's in the lake's folder.

A table is one small file that is written once and never changed, so that every process sees it from the moment it is
there. Its name in SQL never becomes a name on disk: the file is named by a digest, the folder of its rows at random.
"""

import hashlib
import logging
import os
import re
import shutil
import zoneinfo
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field as data_field
from pathlib import Path
from typing import Final

import pyarrow as pa

from micromegas_jupyter.core.protocols import TableSnapshot
from micromegas_jupyter.errors import ResourcesExhausted, UsageError
from micromegas_jupyter.lake.files import (
    TEMPORARY_SUFFIX,
    make_private_folder,
    name_once,
    remove_old_temporaries,
    storage_errors,
)

_LOG: Final = logging.getLogger(__name__)

MAX_TABLES: Final = 1000
TABLES_FOLDER: Final = ".tables"
_ROWS_FOLDER: Final = "rows"
_FILE_NAME: Final = re.compile(r"[0-9a-f]{32}\.table", re.ASCII)
_FOLDER_NAME: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}", re.ASCII)
_MAX_FILE_BYTES: Final = 4 * 1024 * 1024
_TIME: Final = "time"
_NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
# Names that upstream's data model has for tables and views which are not kept here yet.
_RESERVED: Final = frozenset(
    {
        "async_events", "blocks", "images", "information_schema", "log_stats", "net_spans", "otel_spans", "payloads",
        "thread_spans",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class UserTable:
    """One table that a caller made: its name in SQL, and the columns and the folder of its rows.

    `write_id` is the id of the write that made it, when that had one, and `maker` names the caller, when that is known.
    """

    name: str
    schema: pa.Schema = data_field(repr=False)
    folder: Path = data_field(repr=False)
    write_id: str | None = None
    maker: str | None = None

    def snapshot(self, files: tuple[str, ...]) -> TableSnapshot:
        """Return the table with these files of rows."""
        has_time = _TIME in self.schema.names and pa.types.is_timestamp(self.schema.field(_TIME).type)
        return TableSnapshot(
            name=self.name, schema=self.schema, files=files, range_columns=(_TIME, _TIME) if has_time else None
        )


class UserTables:
    """The tables that callers made in one lake; safe to use from several threads and processes.

    What was read of a table is kept: it does not change. A file that cannot be read makes no table, and is logged once.
    """

    def __init__(self, root: Path) -> None:
        self._folder = root / TABLES_FOLDER
        self._known: dict[str, UserTable | None] = {}

    def list(self) -> tuple[UserTable, ...]:
        """Return all tables, by name."""
        with storage_errors("The tables could not be listed."):
            try:
                with os.scandir(self._folder) as entries:
                    names = {entry.name for entry in entries if _FILE_NAME.fullmatch(entry.name)}
            except FileNotFoundError:
                names = set()
            known = {name: self._known[name] if name in self._known else self._read(name) for name in names}
        self._known = known
        return tuple(sorted((table for table in known.values() if table is not None), key=lambda table: table.name))

    def find(self, name: str) -> UserTable | None:
        """Return the table of this name, None when there is none."""
        return next((table for table in self.list() if table.name == name), None)

    def rows_folder(self, folder_id: str) -> Path:
        """Return where a new table's rows lie; `folder_id` is 32 hexadecimal digits that nobody else has drawn."""
        return self._folder / _ROWS_FOLDER / folder_id

    def add(self, table: UserTable) -> bool:
        """Make a table, durably; return False when there is one of that name already."""
        make_private_folder(self._folder)
        facts = {
            "name": table.name,
            "folder": table.folder.name,
            "write_id": table.write_id or "",
            "maker": table.maker or "",
        }
        temporary = self._folder / f".{table.folder.name}{TEMPORARY_SUFFIX}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(table.schema.with_metadata(facts).serialize())
            stream.flush()
            os.fsync(stream.fileno())
        return name_once(temporary, self._folder / _file_name(table.name))

    def remove_stale_files(self, *, modified_before: float) -> None:
        """Remove what writers that ended in the middle left, if nobody has touched it since."""
        with storage_errors("Files that are no longer needed could not be removed."):
            remove_old_temporaries(self._folder, modified_before=modified_before)
            kept = {table.folder for table in self.list()}
            for folder in (self._folder / _ROWS_FOLDER).glob("*"):
                remove_old_temporaries(folder, modified_before=modified_before)
                if folder not in kept and _was_left(folder, modified_before):
                    shutil.rmtree(folder, ignore_errors=True)

    def _read(self, file_name: str) -> UserTable | None:
        with (self._folder / file_name).open("rb") as stream:
            data = stream.read(_MAX_FILE_BYTES)
        try:
            schema = pa.ipc.read_schema(pa.py_buffer(data))
            facts = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
            name, folder = facts["name"], facts["folder"]
        except (pa.ArrowException, ValueError, KeyError) as error:
            _LOG.warning("a table's description cannot be read: %s", file_name, exc_info=error)
            return None
        if _file_name(name) != file_name or _FOLDER_NAME.fullmatch(folder) is None:
            _LOG.warning("a table's description is another's: %s", file_name)
            return None
        return UserTable(
            name=name,
            schema=schema.remove_metadata(),
            folder=self.rows_folder(folder),
            write_id=facts.get("write_id") or None,
            maker=facts.get("maker") or None,
        )


def check_name(name: str) -> None:
    """Check that a table may have this name."""
    if _NAME.fullmatch(name) is None:
        raise UsageError(
            f"{name[:80]!r} is not a valid table name.",
            remedy="Use a lower-case letter, then at most 62 lower-case letters, digits and underscores.",
        )
    if name in _RESERVED:
        raise UsageError(f"The name {name} is reserved for the data model.", remedy="Choose another name.")


def _was_left(folder: Path, modified_before: float) -> bool:
    try:
        return all(path.lstat().st_mtime < modified_before for path in (folder, *folder.iterdir()))
    except OSError:
        return False


def _file_name(name: str) -> str:
    return f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.table"


MAX_COLUMNS: Final = 512
_MAX_NAME_BYTES: Final = 128
_MAX_SHOWN: Final = 80
_ZONE: Final = re.compile(r"[+-][0-9]{2}:[0-9]{2}|[A-Za-z][A-Za-z0-9_+/-]{0,63}")

_OTHER_REMEDY: Final = "Ask somebody who may read the table for its columns and their types."

_IsKind = Callable[[pa.DataType], bool]
_AS_THEY_ARE: Final[tuple[_IsKind, ...]] = (
    pa.types.is_boolean,
    pa.types.is_integer,
    pa.types.is_time,
    pa.types.is_duration,
)
_BECOME: Final[tuple[tuple[_IsKind, pa.DataType], ...]] = (
    (pa.types.is_string, pa.utf8()),
    (pa.types.is_large_string, pa.utf8()),
    (pa.types.is_string_view, pa.utf8()),
    (pa.types.is_binary, pa.binary()),
    (pa.types.is_large_binary, pa.binary()),
    (pa.types.is_binary_view, pa.binary()),
    (pa.types.is_float64, pa.float64()),
    (pa.types.is_floating, pa.float32()),
    (pa.types.is_date, pa.date32()),
)
# Of these a column may come in another width or scale than it is kept in.
_FAMILIES: Final[tuple[_IsKind, ...]] = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)


def stored_schema(schema: pa.Schema) -> pa.Schema:
    """Return the columns that a table made for `schema` has."""
    if len(schema) > MAX_COLUMNS:
        raise ResourcesExhausted(f"A table has at most {MAX_COLUMNS} columns.", remedy="Send fewer.")
    fields = []
    for field in schema:
        if not field.name or len(field.name.encode()) > _MAX_NAME_BYTES:
            raise UsageError(
                f"The column name {shown(field.name)} is empty or longer than {_MAX_NAME_BYTES} bytes.",
                remedy="Rename the column.",
            )
        kept = _stored_type(field.type)
        if kept is None:
            raise UsageError(
                f"The column {shown(field.name)} has the type {str(field.type)[:_MAX_SHOWN]}, which cannot be stored.",
                remedy="Cast it before sending, to numbers, text, bytes, times, or lists and structs of those.",
            )
        fields.append(pa.field(field.name, kept, field.nullable))
    return pa.schema(fields)


def check_fits(schema: pa.Schema, stored: pa.Schema, *, is_known: bool = True) -> None:
    """Check that rows of `schema` can become rows of the table."""
    for field in schema:
        if field.name not in stored.names:
            raise UsageError(
                f"The table has no column {shown(field.name)}.",
                remedy=f"Send the columns {_listed(stored.names)}." if is_known else _OTHER_REMEDY,
            )
        wanted = stored.field(field.name).type
        if not (pa.types.is_null(field.type) or _is_convertible(field.type, wanted)):
            theirs = str(wanted)[:_MAX_SHOWN] if is_known else "another"
            raise UsageError(
                f"The column {shown(field.name)} has the type {str(field.type)[:_MAX_SHOWN]}, and the table's has "
                f"{theirs}.",
                remedy="Cast it before sending." if is_known else _OTHER_REMEDY,
            )
    for field in stored:
        if field.name not in schema.names and not field.nullable:
            if not is_known:
                raise UsageError("A column that needs a value is missing.", remedy=_OTHER_REMEDY)
            raise UsageError(f"The column {shown(field.name)} is missing.", remedy="Every row needs a value in it.")


def convert_rows(rows: pa.RecordBatch, stored: pa.Schema, *, is_known: bool = True) -> pa.RecordBatch:
    """Return rows, whose columns `check_fits` accepted, with the table's columns; those that are missing are null."""
    columns = []
    for field in stored:
        column = rows.column(field.name) if field.name in rows.schema.names else pa.nulls(rows.num_rows)
        try:
            fitted = _convert(column, field.type)
        except (pa.ArrowException, ValueError) as error:
            theirs = str(field.type)[:_MAX_SHOWN] if is_known else "the table's type"
            raise UsageError(
                f"The column {shown(field.name)} contains a value that does not fit {theirs}.",
                remedy="Correct the value.",
            ) from error
        if fitted.null_count and not field.nullable:
            raise UsageError(f"The column {shown(field.name)} lacks a value.", remedy="Every row needs a value in it.")
        columns.append(fitted)
    return pa.RecordBatch.from_arrays(columns, schema=stored)


def shown(name: str) -> str:
    """Return a name that a caller sent so that it can stand in a sentence."""
    return repr(name[:_MAX_SHOWN])


def _stored_type(kind: pa.DataType) -> pa.DataType | None:
    if pa.types.is_dictionary(kind):
        return _stored_type(kind.value_type)
    for is_kind, kept in _BECOME:
        if is_kind(kind):
            return kept
    if pa.types.is_timestamp(kind):
        # Answers count nanoseconds, so a time that does not fit is told to the sender instead of to every reader.
        return pa.timestamp("ns", kind.tz) if kind.tz is None or _is_zone(kind.tz) else None
    if pa.types.is_fixed_size_binary(kind):
        return kind if kind.byte_width else None
    if pa.types.is_decimal(kind):
        return _stored_decimal(kind)
    return kind if any(is_kind(kind) for is_kind in _AS_THEY_ARE) else _stored_nested(kind)


def _stored_decimal(kind: pa.DataType) -> pa.DataType | None:
    if not 0 <= kind.scale <= kind.precision:
        return None  # Arrow has such scales, Parquet does not
    return kind if pa.types.is_decimal256(kind) else pa.decimal128(kind.precision, kind.scale)


def _stored_nested(kind: pa.DataType) -> pa.DataType | None:
    children = [_stored_type(kind.field(index).type) for index in range(kind.num_fields)]
    kept = [child for child in children if child is not None]
    if not kept or len(kept) < len(children):
        return None
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(kept[0])
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kept[0], kind.list_size) if kind.list_size else None
    if pa.types.is_map(kind):
        key, item = _stored_type(kind.key_type), _stored_type(kind.item_type)
        return None if key is None or item is None else pa.map_(key, item)
    names = [kind.field(index).name for index in range(kind.num_fields)]
    if not pa.types.is_struct(kind) or len(set(names)) < len(names) or "" in names:
        return None
    return pa.struct(list(zip(names, kept, strict=True)))


def _is_zone(zone: str) -> bool:
    if _ZONE.fullmatch(zone) is None:
        return False
    if zone[0] in "+-":
        return int(zone[1:3]) <= 23 and int(zone[4:]) <= 59  # noqa: PLR2004 - a clock's hours and minutes
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return zone == "UTC"
    return True


def _is_convertible(found: pa.DataType, wanted: pa.DataType) -> bool:
    if pa.types.is_dictionary(found):
        found = found.value_type
    if any(is_kind(found) and is_kind(wanted) for is_kind in _FAMILIES):
        return True
    return bool(_stored_type(found) == wanted)


def _convert(column: pa.Array, wanted: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column if column.type == wanted else column.cast(wanted)


def _listed(names: list[str]) -> str:
    text = ", ".join(names)
    return text if len(text) <= 4 * _MAX_SHOWN else f"{text[: 4 * _MAX_SHOWN]}…"
