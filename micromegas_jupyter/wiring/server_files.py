"""What a server has on disk: the folder of its tables, the file of denied queries, the folder for spilled data."""

import logging
import os
from pathlib import Path
from typing import Final

from micromegas_jupyter.config.server import ServerSettings
from micromegas_jupyter.core.files import TemporaryFolder, remove_abandoned
from micromegas_jupyter.core.protocols import TableSource
from micromegas_jupyter.errors import ConfigurationError, MicromegasError, UsageError
from micromegas_jupyter.lake.lake import CachedListing, Lake
from micromegas_jupyter.lake.parquet_folder import ParquetFolder, is_lake

_LOG: Final = logging.getLogger("micromegas_jupyter.server")
_DENIALS_FILE: Final = "query_denials.json"
_SPILL_PREFIX: Final = "micromegas-server-"
_MAX_SHOWN_TABLES: Final = 20


def open_tables(root: Path) -> TableSource:
    """Return what a folder holds: a `Lake`, also for one that is empty or missing, or Parquet files, read only.

    Raises:
        ConfigurationError: It is a file, or holds something else than tables.
        Unavailable: It cannot be read.
    """
    try:
        if is_lake(root):
            return Lake(root)
        parquet = ParquetFolder(root)
    except UsageError as error:
        raise ConfigurationError(error.what, key="--lake", remedy=error.remedy) from None
    for problem in parquet.problems:
        _LOG.warning("%s", problem)
    if not parquet.snapshot():
        raise ConfigurationError(
            "The folder is not empty, and holds no Parquet file that can be read.",
            key="--lake",
            remedy="Name a folder of *.parquet files, or of folders of them; or an empty one, which becomes a lake of "
            "the server's own telemetry.",
        )
    return CachedListing(parquet)


def describe_tables(source: TableSource, root: Path) -> str:
    """Return what is served, for people."""
    if isinstance(source, Lake):
        return f"lake: {root}"
    names = [snapshot.name for snapshot in source.snapshot()]
    shown = ", ".join("".join(c if c.isprintable() else "?" for c in name) for name in names[:_MAX_SHOWN_TABLES])
    more = f" and {len(names) - _MAX_SHOWN_TABLES} more" if len(names) > _MAX_SHOWN_TABLES else ""
    return f"Parquet files in {root}, read only, without telemetry · tables: {shown}{more}"


def can_read_tables(source: TableSource, root: Path) -> bool:
    """Whether the tables can be read now; may block as long as the storage does."""
    try:
        # A lake without a folder is one without rows, but one whose folder went away has lost them.
        with os.scandir(root):
            pass
        source.snapshot()
    except (OSError, MicromegasError):
        return False
    return True


def find_denials_file(settings: ServerSettings, source: TableSource) -> Path | None:
    """Return the configured file of denied queries, else the one in the lake; None where there is neither."""
    if settings.query_denials_file is not None:
        return settings.query_denials_file
    return settings.lake.absolute() / _DENIALS_FILE if isinstance(source, Lake) else None


def make_spill_folder(directory: Path | None) -> TemporaryFolder:
    """Return a new folder for one server's spilled data, and remove those of servers that were killed.

    Raises:
        ConfigurationError: It cannot be made there.
    """
    parent = None if directory is None else str(directory)
    remove_abandoned(_SPILL_PREFIX, parent=parent)
    try:
        return TemporaryFolder(_SPILL_PREFIX, parent=parent)
    except OSError:
        raise ConfigurationError(
            "The spill directory is not a folder that this server may write to.",
            key="--spill-directory",
            remedy="Make it, and let the server's user write to it.",
        ) from None
