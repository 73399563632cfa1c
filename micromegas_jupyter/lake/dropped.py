"""Dropped tables: hidden immediately, kept as long as the drop can be undone, then removed by maintenance.

A directory is renamed to one among the dropped tables, which hides it in one step. A bucket's objects cannot be
renamed, so a marker in the table's log hides them in place. They move only when a new table takes the name.
"""

import json
import re
import shutil
import threading
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from micromegas_jupyter.core.storage import Entry, Storage, storage_errors
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import Unavailable
from micromegas_jupyter.lake.delta_log import (
    CONTROL_FOLDER,
    DROPPED_MARKER,
    LOG_FOLDER,
    MAX_ENTRY_BYTES,
    TableGone,
    log_path,
)
from micromegas_jupyter.lake.lease import TAKE_OVER_SECONDS, Lease, try_acquire

UNDO_HOURS: Final = 24
"""How long a drop or another change of a table can be undone."""
MAX_UNDO_HOURS: Final = 24 * 365
UNDO_WINDOW: Final = timedelta(hours=UNDO_HOURS)
UNDO_LIMIT: Final = UNDO_WINDOW + timedelta(minutes=5)
"""The tolerance for a time that was within the window when a user chose it, but is older when the server checks it."""
DROPPED_FOLDER: Final = f"{CONTROL_FOLDER}/dropped"
"""Dropped tables, and local ones that were never finished; the latter are as old as their directory."""
_LEASE: Final = f"{CONTROL_FOLDER}/dropped-lease.json"
VIEWS_LEASE: Final = f"{CONTROL_FOLDER}/views-lease.json"
"""The lease of the process that adds a materialized view."""
_FOLDER: Final = re.compile(r"([a-z][a-z0-9_]{0,62})\.([0-9]{1,15})\.([0-9a-f]{32})(?:\.([0-9]{1,4}))?", re.ASCII)
_LEASE_SECONDS: Final = TAKE_OVER_SECONDS + 15.0
_POLL_SECONDS: Final = 0.2
_MOVED_AT_ONCE: Final = 32
_MAX_LISTINGS: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class DroppedTable:
    """A dropped table; `path` is the current location of its log."""

    name: str
    dropped_at: datetime
    id: str
    path: str
    undo_hours: int = UNDO_HOURS

    @property
    def restorable_since(self) -> datetime:
        """The drop time that would give the same deadline with the default undo period."""
        return self.dropped_at + timedelta(hours=self.undo_hours - UNDO_HOURS)

    @property
    def folder(self) -> str:
        """Where the table is moved when another table takes its name."""
        return _folder(self)


def new_dropped(name: str, dropped_at: datetime, *, undo_hours: int) -> DroppedTable:
    """Return the record of a table that is about to be dropped and still has its name."""
    return DroppedTable(name=name, dropped_at=dropped_at, id=uuid.uuid4().hex, path=name, undo_hours=undo_hours)


def list_dropped(storage: Storage, name: str) -> list[DroppedTable]:
    """Return the dropped tables that had this name and haven't been removed yet, least recently dropped first."""
    found = {one.id: one for one in _list_moved(storage) if one.name == name}
    marked = None if storage.is_local else read_marker(storage, name)
    if marked is not None and marked.id not in found:  # otherwise, it is being moved
        found[marked.id] = marked
    return sorted(found.values(), key=lambda one: one.dropped_at)


def read_marker(storage: Storage, name: str) -> DroppedTable | None:
    """Return the dropped table that a marker in a bucket hides, or None. Earlier versions' markers had no time."""
    found = storage.read(log_path(name, DROPPED_MARKER))
    if found is None:
        return None
    try:
        members = json.loads(found[0])
        dropped_at, dropped_id = datetime.fromtimestamp(members["dropped_at"] / 1000, UTC), members["id"]
        hours = int(members.get("undo_hours", UNDO_HOURS))
    except (ValueError, KeyError, TypeError):
        dropped_at, dropped_id, hours = datetime.fromtimestamp(0, UTC), uuid.uuid4().hex, UNDO_HOURS
    return DroppedTable(name=name, dropped_at=dropped_at, id=dropped_id, path=name, undo_hours=hours)


def mark_dropped(storage: Storage, record: DroppedTable) -> None:
    """Hide a table in a bucket; raises `TableGone` if it is already hidden."""
    if not storage.create(log_path(record.name, DROPPED_MARKER), _marker(record)):
        raise TableGone


def postpone_drop(storage: Storage, dropped: DroppedTable, dropped_at: datetime) -> datetime:
    """Record a later drop time, and return the recorded time; a table that has been moved keeps its time."""
    marker = log_path(dropped.name, DROPPED_MARKER)
    with hold_names(storage) as lease:
        found = storage.read(marker)
        if found is None or found[0] != _marker(dropped) or any(one.id == dropped.id for one in _list_moved(storage)):
            return dropped.dropped_at
        check_held(lease)
        is_recorded = storage.replace(marker, _marker(replace(dropped, dropped_at=dropped_at)), mark=found[1])
    return dropped_at if is_recorded else dropped.dropped_at


def free_name(storage: Storage, name: str, *, lease: Lease, before: datetime) -> None:
    """Move a dropped table in a bucket out of the way of a new one, or remove it if it was dropped before a time."""
    marked = read_marker(storage, name)
    if marked is None:
        return
    marker = log_path(name, DROPPED_MARKER)
    _move(storage, name, None if marked.restorable_since < before else marked.folder, lease, spared=marker)
    storage.delete(marker)


def finish_move(storage: Storage, name: str, *, before: datetime) -> None:
    """Finish moving away a dropped table in a bucket if a process was stopped during the move."""
    marked = None if storage.is_local else read_marker(storage, name)
    if marked is not None and any(one.id == marked.id for one in _list_moved(storage)):
        with hold_names(storage) as lease:
            free_name(storage, name, lease=lease, before=before)


def move_back(storage: Storage, dropped: DroppedTable, *, lease: Lease) -> None:
    """Move a dropped table in a bucket back to its name, which must be free; a marker keeps the table hidden."""
    storage.create(log_path(dropped.name, DROPPED_MARKER), _marker(dropped))
    _move(storage, dropped.path, dropped.name, lease, spared="")


def remove_dropped(storage: Storage, names: Sequence[str], *, before: datetime) -> int:
    """Remove the tables dropped before a time; return their number. `names` are a bucket's hidden folders."""
    expired = [one for one in _list_moved(storage) if one.restorable_since < before]
    if storage.is_local:
        for one in expired:
            shutil.rmtree(storage.child_uri(one.path), ignore_errors=True)
        return len(expired)
    marked = [found for name in names if (found := read_marker(storage, name)) is not None]
    expired += [one for one in marked if one.restorable_since < before]
    if expired:
        with hold_names(storage) as lease:
            for one in expired:
                if one.path == one.name:
                    free_name(storage, one.name, lease=lease, before=before)
                else:
                    _move(storage, one.path, None, lease, spared="")
    return len(expired)


@contextmanager
def hold_names(storage: Storage, path: str = _LEASE) -> Iterator[Lease]:
    """Hold an exclusive lease, by default the one for moving dropped tables; raises `Unavailable` after a minute."""
    waiting, seen, since = threading.Event(), None, SYSTEM_CLOCK.monotonic()
    while True:
        lease = try_acquire(storage, clock=SYSTEM_CLOCK, seen=seen, path=path)
        if isinstance(lease, Lease):
            break
        seen = lease
        if SYSTEM_CLOCK.monotonic() - since > _LEASE_SECONDS:
            raise Unavailable("Another process is moving or adding tables.", remedy="Try again in a minute.")
        waiting.wait(_POLL_SECONDS)
    try:
        yield lease
    finally:
        lease.release()


def check_held(lease: Lease) -> None:
    """Check that no other process took over the lease."""
    if not lease.is_held():
        raise Unavailable("Another process has taken over this operation.", remedy="Try again.")


def _list_moved(storage: Storage) -> list[DroppedTable]:
    found = []
    for folder in storage.list_folders(DROPPED_FOLDER):
        if match := _FOLDER.fullmatch(folder):
            dropped_at = datetime.fromtimestamp(int(match[2]) / 1000, UTC)
            path = f"{DROPPED_FOLDER}/{folder}"
            hours = int(match[4] or UNDO_HOURS)
            found.append(DroppedTable(name=match[1], dropped_at=dropped_at, id=match[3], path=path, undo_hours=hours))
    return found


def _folder(dropped: DroppedTable) -> str:
    hours = "" if dropped.undo_hours == UNDO_HOURS else f".{dropped.undo_hours}"
    return f"{DROPPED_FOLDER}/{dropped.name}.{_ms(dropped.dropped_at)}.{dropped.id}{hours}"


def _marker(dropped: DroppedTable) -> bytes:
    hours = {} if dropped.undo_hours == UNDO_HOURS else {"undo_hours": dropped.undo_hours}
    return json.dumps({"dropped_at": _ms(dropped.dropped_at), "id": dropped.id, **hours}).encode()


def _ms(time: datetime) -> int:
    return round(time.timestamp() * 1000)


def _move(storage: Storage, source: str, target: str | None, lease: Lease, *, spared: str) -> None:
    """Move all objects in a folder to another folder, or remove them; the log's objects are processed last.

    Each object is copied before it is removed, so nothing is lost if the move is repeated after a crash.
    """
    log = f"{source}/{LOG_FOLDER}/"

    def move(entry: Entry) -> None:
        copy = None if target is None else f"{target}{entry.path.removeprefix(source)}"
        if entry.path.startswith(log):
            _copy_log_object(storage, entry, copy)
        elif copy is not None:
            storage.copy(entry.path, copy)
        storage.delete(entry.path)

    with storage_errors("A dropped table could not be moved.", storage), ThreadPoolExecutor(_MOVED_AT_ONCE) as pool:
        for _ in range(_MAX_LISTINGS):  # a write in progress may have added some objects
            found = [entry for entry in storage.list(source) if entry.path != spared]
            if not found:
                return
            for is_log in (False, True):
                part = [entry for entry in found if entry.path.startswith(log) is is_log]
                for begin in range(0, len(part), _MOVED_AT_ONCE):
                    check_held(lease)
                    list(pool.map(move, part[begin : begin + _MOVED_AT_ONCE]))
    raise Unavailable("The files of a dropped table keep changing.", remedy="Try again.")


def _copy_log_object(storage: Storage, entry: Entry, copy: str | None) -> None:
    """Copy a log object; raises `Unavailable` if its mark has changed, because it may belong to a new table's log."""
    found = storage.read(entry.path, max_bytes=MAX_ENTRY_BYTES)
    if found is not None and found[1] != entry.mark:
        raise Unavailable("The files of a dropped table were changed while they were being moved.", remedy="Try again.")
    if found is not None and copy is not None:
        storage.write(copy, found[0])
