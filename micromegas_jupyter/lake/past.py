"""Earlier versions of a table, as SQL reads them by `table_at` and `table_history`.

A version is readable while the log can rebuild it and its files are there. Rows that retention deleted since do not
come back, as with a restore.
"""

import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

import numpy as np
import pyarrow as pa

from micromegas_jupyter.core.file_list import FileList
from micromegas_jupyter.core.protocols import TableSnapshot
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.errors import InvalidStatement, Unavailable
from micromegas_jupyter.lake.delta_log import (
    TIME,
    Action,
    NotInLog,
    TableGone,
    TableLog,
    TableState,
    commit_info,
    file_key,
    read_entry,
    replay,
    time_of,
)
from micromegas_jupyter.lake.snapshot import DeltaSnapshots, Unreadable, vector_path
from micromegas_jupyter.lake.tables import DEFINITIONS, retention_days
from micromegas_jupyter.lake.types import PARTITION_DATE

MAX_LISTED: Final = 1000
_MAX_COMMITS: Final = 20_000
_MILLISECOND: Final = timedelta(milliseconds=1)
_MAX_SHOWN: Final = 3
_TIME: Final = "time"
HISTORY: Final = pa.schema(
    [
        pa.field("version", pa.int64(), nullable=False),
        pa.field("time", TIME, nullable=False),
        pa.field("operation", pa.string()),
        pa.field("user", pa.string()),
        pa.field("files_added", pa.int64(), nullable=False),
        pa.field("files_removed", pa.int64(), nullable=False),
        pa.field("rows_added", pa.int64()),
        pa.field("rows_removed", pa.int64()),
        pa.field("is_readable", pa.bool_(), nullable=False),
    ]
)


class PastTable(NamedTuple):
    """A table at a version, and a condition in SQL that excludes the rows past its retention, if there may be any."""

    snapshot: TableSnapshot
    condition: str | None


def read_past(storage: Storage, name: str, to: datetime | int | None, *, clock: Clock = SYSTEM_CLOCK) -> PastTable:
    """Return a table at a version or time, by default as it stands; raises `InvalidStatement`, or `TableGone`."""
    log = TableLog(storage, name)
    if log.newest < 0:
        raise TableGone
    to = log.newest if to is None else to
    if isinstance(to, int) and to > log.newest:
        raise InvalidStatement(f"The table {name} has no version {to}.", remedy=f"Its latest one is {log.newest}.")
    if isinstance(to, int) and to < log.first:
        raise _removed(name, to, "log entries", f"The earliest possible version is {log.first}.")
    try:
        found = replay(storage, name, to, max_commits=_MAX_COMMITS, is_durable=False)
        version = found.then.version
        snapshot = DeltaSnapshots(storage, definitions=DEFINITIONS).at(name, version)
        there = {entry.path for entry in storage.list(name)}
        gone = sorted({path for add in found.then.files.values() for path in _paths(storage, name, add)} - there)
    except NotInLog as error:
        what = f"version {to}" if isinstance(to, int) else f"version as early as {_iso(to)}"
        remedy = f"The earliest one known is of {_iso(error.earliest)}."
        raise InvalidStatement(f"The table {name} has no {what}.", remedy=remedy) from None
    except Unreadable as error:
        raise Unavailable(
            f"Version {version} of the table {name} cannot be read: {error}.",
            remedy="Tell the server's administrator.",
            retryable=False,
        ) from error
    if isinstance(to, datetime) and any(dropped_at <= to for dropped_at in found.drops):
        raise InvalidStatement(f"The table {name} was dropped at {_iso(to)}, and restored later.")
    if gone:
        shown = ", ".join(path.rpartition("/")[2] for path in gone[:_MAX_SHOWN])
        more = f" and {len(gone) - _MAX_SHOWN:,} more" if len(gone) > _MAX_SHOWN else ""
        remedy = f"table_history('{name}') shows the versions that can be read."
        raise _removed(name, version, f"files ({shown}{more})", remedy)
    days, first = retention_days(found.now.properties), found.expired_before
    if days is not None and version < found.now.version and found.now.properties.get("delta.appendOnly") != "true":
        kept = (clock.now() - timedelta(days=days)).date()
        first = kept if first is None else max(first, kept)
    return PastTable(snapshot, None) if first is None else _without_expired(snapshot, first)


def read_history(storage: Storage, name: str) -> pa.Table:
    """Return the latest 1,000 commits that the log has, the newest first, with the columns of `HISTORY`."""
    log = TableLog(storage, name)
    if log.newest < 0:
        raise TableGone
    shown = max(log.newest - MAX_LISTED + 1, 0)
    while shown not in log.entries and shown < log.newest:
        shown += 1
    base = max((one for one in log.checkpoints if one < shown), default=-1)
    if base < log.first:  # the state before the first one that is shown cannot be rebuilt
        base = -1 if log.first == 0 else log.first
    state = TableState() if base < 0 else log.read_checkpoint(base, datetime.min.replace(tzinfo=UTC))
    there = {entry.path for entry in storage.list(name)}
    missing = {key for key, add in state.files.items() if _is_missing(storage, name, add, there)}
    rows: list[dict[str, Any]] = []
    last: datetime | None = None
    for version in range(min(shown, base + 1), log.newest + 1):
        if (actions := read_entry(storage, name, version, is_durable=False)) is None:
            continue
        info = commit_info(actions)
        made_at = time_of(info, log.entries.get(version, 0.0))
        last = made_at if last is None else max(made_at, last + _MILLISECOND)
        is_known = version > base
        removes, adds = ([one[what] for one in actions if what in one] for what in ("remove", "add"))
        gone = [state.files.get(file_key(one)) if is_known else None for one in removes]
        if is_known:
            state.apply(actions, version, last)
            added = {file_key(one) for one in adds if _is_missing(storage, name, one, there)}
            missing = (missing - {*map(file_key, removes)}) | added
        if version >= shown:
            row = version, last, info.get("operation"), info.get("userName"), len(adds), len(removes)
            counts = _count_rows(adds), _count_rows(gone)
            rows.append(dict(zip(HISTORY.names, (*row, *counts, version >= base and not missing), strict=True)))
    return pa.Table.from_pylist(rows[::-1], schema=HISTORY)


def _iso(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _removed(name: str, version: int, what: str, remedy: str) -> InvalidStatement:
    return InvalidStatement(
        f"Version {version} of the table {name} can no longer be read: {what} were removed.", remedy=remedy
    )


def _without_expired(snapshot: TableSnapshot, first: date) -> PastTable:
    """Return a table without the files, and a condition without the rows, of before a day."""
    files = FileList.of(snapshot.files)
    if snapshot.partition_columns == (PARTITION_DATE,):
        kept = np.array([(one.partition[0] or "9") >= first.isoformat() for one in files], np.bool_)
        bounds = None if snapshot.bounds is None else snapshot.bounds.filter(pa.array(kept))
        return PastTable(replace(snapshot, files=files.where(kept), bounds=bounds), None)
    kind = snapshot.schema.field(_TIME).type if _TIME in snapshot.schema.names else None
    if kind is None or not pa.types.is_timestamp(kind):
        return PastTable(snapshot, None)
    return PastTable(snapshot, f"{_TIME} IS NULL OR {_TIME} >= '{first.isoformat()}T00:00:00Z'")


def _paths(storage: Storage, name: str, add: Action) -> list[str]:
    """Return where a file and its deletion vector are; raises `Unreadable`."""
    parts, vector = [unquote(add["path"])], add.get("deletionVector")
    if vector is not None and vector["storageType"] != "i":
        parts.append(vector_path(storage, name, vector))
    return [f"{name}/{path}" for path in parts]


def _is_missing(storage: Storage, name: str, add: Action, there: set[str]) -> bool:
    try:
        return not there.issuperset(_paths(storage, name, add))
    except Unreadable:
        return True


def _count_rows(adds: Iterable[Action | None]) -> int | None:
    """Return how many rows files have that are not deleted; None if a file does not say."""
    count = 0
    for add in adds:
        rows = None if add is None else json.loads(add.get("stats") or "{}").get("numRecords")
        if add is None or rows is None:
            return None
        count += rows - (add.get("deletionVector") or {"cardinality": 0})["cardinality"]
    return count
