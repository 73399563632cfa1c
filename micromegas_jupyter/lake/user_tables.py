"""Tables that callers make: their names, columns and folders, kept beside the data model's in the lake's folder.

A table is one small file that is written once and never changed, so that every process that uses the lake sees it from
the moment it is there. Its name in SQL never becomes a name on disk: the file is named by a digest, the folder of its
rows at random. What rows are put in is `ingest`'s job.
"""

import hashlib
import logging
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pyarrow as pa

from micromegas_jupyter.core.protocols import TableSnapshot
from micromegas_jupyter.errors import UsageError
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
    """One table that a caller made.

    Attributes:
        name: Its name in SQL.
        schema: The columns of its stored rows.
        folder: Where its rows lie.
        write_id: The id of the write that made it, when that had one.
        maker: Names the caller who made it; None when that is not known.
    """

    name: str
    schema: pa.Schema = field(repr=False)
    folder: Path = field(repr=False)
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

    def remove_stale_files(self, *, modified_before: float) -> int:
        """Remove what writers that ended in the middle left, if nobody has touched it since; return how much."""
        with storage_errors("Files that are no longer needed could not be removed."):
            removed = remove_old_temporaries(self._folder, modified_before=modified_before)
            kept = {table.folder for table in self.list()}
            for folder in (self._folder / _ROWS_FOLDER).glob("*"):
                removed += remove_old_temporaries(folder, modified_before=modified_before)
                if folder not in kept and _was_left(folder, modified_before):
                    shutil.rmtree(folder, ignore_errors=True)
                    removed += 1
        return removed

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
