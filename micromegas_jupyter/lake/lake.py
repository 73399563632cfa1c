"""The tables of a lake as they stand: a `TableSource` over Delta tables that several processes write."""

from pathlib import Path
from typing import Final

from micromegas_jupyter.core.protocols import TableSnapshot
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.lake.delta_log import CONTROL_FOLDER
from micromegas_jupyter.lake.snapshot import DeltaSnapshots
from micromegas_jupyter.lake.tables import DEFINITIONS
from micromegas_jupyter.telemetry.tables import VIEW_INSTANCE, VIEW_SOURCES

_MARKER: Final = f"{CONTROL_FOLDER}/lake.json"


class Lake:
    """The tables in one storage. Safe to use from several threads."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._snapshots = DeltaSnapshots(storage, definitions=DEFINITIONS)

    def snapshot(self, sql: str | None = None) -> tuple[TableSnapshot, ...]:
        """Return all tables, those that `sql` names as they stand now; None is for all of them."""
        found = self._snapshots.list(None if sql is None else _with_sources(sql))
        missing = [self._snapshots.empty(one) for name, one in DEFINITIONS.items() if name not in found]
        return (*missing, *found.values())


def _with_sources(sql: str) -> str:
    """Return a text that also names the tables which the views in a statement are computed from."""
    lowered = sql.lower()
    if VIEW_INSTANCE in lowered:  # its arguments may be expressions
        return " ".join([sql, *DEFINITIONS])
    return " ".join([sql, *(source for view, source in VIEW_SOURCES.items() if view in lowered)])


def is_lake(storage: Storage) -> bool:
    """Whether a server of ours keeps its tables there, or may: it is a lake, empty, or missing."""
    # Its Parquet files are versions of the same rows: served as files, each row would be there several times.
    if storage.is_local and (Path(storage.uri) / ".writers").is_dir():
        raise UsageError("The directory is a lake from before Delta tables.", remedy="Start with a new directory.")
    if storage.read(_MARKER) is not None:
        return True
    # Another server may be making it one just now: what it writes first is in the folder of the marker.
    has_folders = bool({*storage.list_folders()} - {CONTROL_FOLDER})
    if not has_folders and all(entry.path.startswith(f"{CONTROL_FOLDER}/") for entry in storage.list("")):
        return True
    return storage.read(_MARKER) is not None


def make_lake(storage: Storage) -> None:
    """Mark the storage as a lake."""
    if storage.read(_MARKER) is None:
        storage.replace(_MARKER, b'{"version": 1}\n', mark=None)
