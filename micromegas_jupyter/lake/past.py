"""Earlier versions of a table, as SQL reads them by `table_at` and `table_history`.

A version is readable while the log can rebuild it and its files are there. Rows that retention deleted since do not
come back, as with a restore.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote

import numpy as np
import pyarrow as pa

from micromegas_jupyter.core.file_list import FileList
from micromegas_jupyter.core.protocols import TableSnapshot
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.errors import InvalidStatement, ResourcesExhausted, Unavailable
from micromegas_jupyter.lake.delta_log import (
    DROPPED_AT,
    EXPIRED_BEFORE,
    TIME,
    Action,
    TableGone,
    TableLog,
    TableState,
    commit_info,
    file_key,
    read_entry,
    time_of,
)
from micromegas_jupyter.lake.snapshot import DeltaSnapshots, Unreadable, vector_path
from micromegas_jupyter.lake.tables import DEFINITIONS
from micromegas_jupyter.lake.types import PARTITION_DATE

MAX_LISTED: Final = 1000
_MAX_COMMITS: Final = 20_000
_LOOK_BACK: Final = 8  # times of commits increase with their versions, also where the clocks that made them differ
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
    """A table at a version, and a condition in SQL that excludes the rows that retention deleted since, if any."""

    version: int
    snapshot: TableSnapshot
    condition: str | None


class _Commit(NamedTuple):
    version: int
    made_at: datetime
    info: Action


def read_past(storage: Storage, name: str, to: datetime | int | None) -> PastTable:
    """Return a table at a version or time, by default as it stands; raises `InvalidStatement`, or `TableGone`."""
    log = TableLog(storage, name)
    if log.newest < 0:
        raise TableGone
    to = log.newest if to is None else to
    if isinstance(to, int) and to > log.newest:
        raise InvalidStatement(f"The table {name} has no version {to}.", remedy=f"Its latest one is {log.newest}.")
    commits = _commits_since(storage, name, log, to)
    version = to if isinstance(to, int) else _version_at(name, commits, to)
    if version < log.first:
        raise _removed(name, version, "log entries", log.first)
    try:
        snapshot = DeltaSnapshots(storage, definitions=DEFINITIONS).at(name, version)
    except Unreadable as error:
        raise Unavailable(
            f"Version {version} of the table {name} cannot be read: {error}.",
            remedy="Tell the server's administrator.",
            retryable=False,
        ) from error
    _check_files(storage, name, version, snapshot)
    days = [one.info[EXPIRED_BEFORE] for one in commits if one.version > version and EXPIRED_BEFORE in one.info]
    first = max(map(date.fromisoformat, days), default=None)
    return PastTable(version, *((snapshot, None) if first is None else _without_expired(snapshot, first)))


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
        made_at = time_of(commit_info(actions), log.entries.get(version, 0.0))
        last = made_at if last is None else max(made_at, last + _MILLISECOND)
        is_known = version > base
        removes, adds = ([one[what] for one in actions if what in one] for what in ("remove", "add"))
        gone = [state.files.get(file_key(one)) if is_known else None for one in removes]
        row = {
            "version": version,
            "time": last,
            "operation": commit_info(actions).get("operation"),
            "user": commit_info(actions).get("userName"),
            "files_added": len(adds),
            "files_removed": len(removes),
            "rows_added": _count_rows(adds),
            "rows_removed": _count_rows(gone),
        }
        if is_known:
            state.apply(actions, version, last)
            missing = (missing - {*map(file_key, removes)}) | {
                file_key(one) for one in adds if _is_missing(storage, name, one, there)
            }
        elif version == base:
            row["is_readable"] = not missing
        if version >= shown:
            rows.append({"is_readable": is_known and not missing} | row)
    return pa.Table.from_pylist(rows[::-1], schema=HISTORY)


def _commits_since(storage: Storage, name: str, log: TableLog, to: datetime | int) -> list[_Commit]:
    """Return the commits of a version or time, and all later ones; at a time, some before it, too."""
    found: list[_Commit] = []
    before = 0
    for version in range(log.newest, -1, -1):
        if version < to if isinstance(to, int) else before > _LOOK_BACK:
            break
        if len(found) >= _MAX_COMMITS:
            raise ResourcesExhausted(
                f"The table {name} has more than {_MAX_COMMITS:,} later versions.", remedy="Read a later one."
            )
        if (actions := read_entry(storage, name, version, is_durable=False)) is None:
            break
        info = commit_info(actions)
        found.append(_Commit(version, time_of(info, log.entries.get(version, 0.0)), info))
        before += isinstance(to, datetime) and found[-1].made_at <= to
    return found[::-1]


def _version_at(name: str, commits: Iterable[_Commit], time: datetime) -> int:
    """Return the version that was in force at a time."""
    version, first, last = None, None, None
    for one in commits:
        last = one.made_at if last is None else max(one.made_at, last + _MILLISECOND)
        first = first or one
        if last <= time:
            version = one.version
        elif one.info.get(DROPPED_AT, math.inf) <= time.timestamp() * 1000:
            raise InvalidStatement(f"The table {name} was dropped at {_iso(time)}, and restored later.")
    if version is None:
        known = (
            "" if first is None else f"Version {first.version}, the earliest one known, is of {_iso(first.made_at)}."
        )
        raise InvalidStatement(f"The table {name} has no version as early as {_iso(time)}.", remedy=known or None)
    return version


def _iso(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _removed(name: str, version: int, what: str, first: int | None = None) -> InvalidStatement:
    remedy = f"The earliest possible version is {first}." if first is not None else None
    return InvalidStatement(
        f"Version {version} of the table {name} can no longer be read: {what} were removed.",
        remedy=remedy or f"table_history('{name}') shows the versions that can be read.",
    )


def _check_files(storage: Storage, name: str, version: int, snapshot: TableSnapshot) -> None:
    """Check that all files of a version are there, whichever of them a statement needs."""
    files = FileList.of(snapshot.files)
    there = {storage.child_uri(entry.path) for entry in storage.list(name)}
    if not storage.is_local:
        there = {f"{scheme}{mark}{quote(rest)}" for scheme, mark, rest in (one.partition("://") for one in there)}
    vectors = (one.location for one in files.vectors.values() if one.offset is not None)
    wanted = {*files.paths, *vectors}
    if gone := sorted(wanted - there):
        shown = ", ".join(path.rpartition("/")[2] for path in gone[:_MAX_SHOWN])
        more = f" and {len(gone) - _MAX_SHOWN:,} more" if len(gone) > _MAX_SHOWN else ""
        raise _removed(name, version, f"files ({shown}{more})")


def _without_expired(snapshot: TableSnapshot, first: date) -> tuple[TableSnapshot, str | None]:
    """Return a table without the files, and a condition without the rows, of before a day."""
    files = FileList.of(snapshot.files)
    if snapshot.partition_columns == (PARTITION_DATE,):
        kept = np.array([(one.partition[0] or "9") >= first.isoformat() for one in files], np.bool_)
        bounds = None if snapshot.bounds is None else snapshot.bounds.filter(pa.array(kept))
        return replace(snapshot, files=files.where(kept), bounds=bounds), None
    kind = snapshot.schema.field(_TIME).type if _TIME in snapshot.schema.names else None
    if kind is None or not pa.types.is_timestamp(kind):
        return snapshot, None
    return snapshot, f"{_TIME} IS NULL OR {_TIME} >= arrow_cast('{first.isoformat()}T00:00:00Z', '{_arrow_name(kind)}')"


def _arrow_name(kind: pa.TimestampType) -> str:
    unit = {"s": "Second", "ms": "Millisecond", "us": "Microsecond", "ns": "Nanosecond"}[kind.unit]
    zone = "None" if kind.tz is None else f'Some("{kind.tz}")'
    return f"Timestamp({unit}, {zone})"


def _is_missing(storage: Storage, name: str, add: Action, there: set[str]) -> bool:
    paths, vector = [unquote(add["path"])], add.get("deletionVector")
    if vector is not None and vector["storageType"] != "i":
        try:
            paths.append(vector_path(storage, name, vector))
        except Unreadable:
            return True
    return any(f"{name}/{path}" not in there for path in paths)


def _count_rows(adds: Iterable[Action | None]) -> int | None:
    """Return how many rows files have that are not deleted; None if a file does not say."""
    count = 0
    for add in adds:
        rows = None if add is None else json.loads(add.get("stats") or "{}").get("numRecords")
        if add is None or rows is None:
            return None
        count += rows - (add.get("deletionVector") or {"cardinality": 0})["cardinality"]
    return count
