"""The tables that a server serves: a lake that it also writes to, or plain Parquet files that it only reads."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from micromegas_jupyter.core.protocols import TableSource
from micromegas_jupyter.errors import ConfigurationError, UsageError
from micromegas_jupyter.lake import CachedListing, FolderKind, Lake, ParquetFolder, find_folder_kind

_LOG: Final = logging.getLogger("micromegas_jupyter.server")
_SHOWN_TABLES: Final = 20
_REMEDY: Final = (
    "Name a folder of *.parquet files, or of folders of them; or an empty one, which becomes a lake of the "
    "server's own telemetry."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedTables:
    """What a server serves.

    Attributes:
        source: The tables.
        lake: The same as a place to write to; None when the folder is only read.
    """

    source: TableSource
    lake: Lake | None = None


def open_tables(root: Path) -> ServedTables:
    """Return what a folder holds; one that is empty or not there becomes a lake.

    Raises:
        ConfigurationError: It is a file, or holds something else than tables.
        Unavailable: It cannot be read.
    """
    try:
        if find_folder_kind(root) is FolderKind.LAKE:
            lake = Lake(root)
            return ServedTables(source=lake, lake=lake)
        parquet = ParquetFolder(root)
    except UsageError as error:
        raise ConfigurationError(error.what, key="--lake", remedy=error.remedy) from None
    for problem in parquet.problems:
        _LOG.warning("%s", problem)
    if not parquet.snapshot():
        raise ConfigurationError(
            "The folder is not empty, and holds no Parquet file that can be read.", key="--lake", remedy=_REMEDY
        )
    return ServedTables(source=CachedListing(parquet))


def describe_tables(tables: ServedTables, root: Path) -> str:
    """Return what is served, for people."""
    if tables.lake is not None:
        return f"lake: {root}"
    names = [snapshot.name for snapshot in tables.source.snapshot()]
    shown = ", ".join("".join(c if c.isprintable() else "?" for c in name) for name in names[:_SHOWN_TABLES])
    more = f" and {len(names) - _SHOWN_TABLES} more" if len(names) > _SHOWN_TABLES else ""
    return f"Parquet files in {root}, read only, without telemetry · tables: {shown}{more}"
