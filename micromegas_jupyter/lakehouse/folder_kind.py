"""What a folder holds: a lake that this package wrote, plain Parquet files of somebody else, or nothing yet."""

import enum
import os
from pathlib import Path

from micromegas_jupyter.errors import Unavailable, UsageError
from micromegas_jupyter.lakehouse.files import make_private_folder, storage_errors
from micromegas_jupyter.lakehouse.segments import parse_segment
from micromegas_jupyter.lakehouse.user_tables import TABLES_FOLDER
from micromegas_jupyter.lakehouse.writer_lock import WRITERS_FOLDER

_PASSED_OVER = (".", "_", "lost+found")  # the last is there on each new file system


class FolderKind(enum.Enum):
    """What a folder holds.

    Attributes:
        LAKE: Tables that this package wrote, or nothing yet.
        OTHER: Something else; Parquet files perhaps.
    """

    LAKE = "lake"
    OTHER = "other"


def find_folder_kind(root: Path) -> FolderKind:
    """Return what a folder holds; one that is not there holds nothing yet.

    Raises:
        UsageError: It is a file, or lies below one.
        Unavailable: It cannot be listed.
    """
    try:
        if any((root / mark).is_dir() for mark in (WRITERS_FOLDER, TABLES_FOLDER)):
            return FolderKind.LAKE
        entries = [entry for entry in root.iterdir() if not entry.name.startswith(_PASSED_OVER)]
    except FileNotFoundError:
        return FolderKind.LAKE
    except NotADirectoryError:
        raise UsageError(
            "The folder of the tables is a file, or lies below one.",
            remedy="Name a folder: an empty one, that of a lake, or one of *.parquet files.",
        ) from None
    except OSError as error:
        raise Unavailable(
            f"The folder of the tables cannot be read: {os.strerror(error.errno or 0)}.",
            remedy="Name a folder that this account may read.",
        ) from None
    return FolderKind.LAKE if not entries or any(map(_holds_segment, entries)) else FolderKind.OTHER


def make_lake_folder(root: Path) -> None:
    """Make the folder of a lake when it is not there, and mark it as one, whatever else comes to lie in it.

    Raises:
        Unavailable: It cannot be made.
    """
    with storage_errors("The folder of the tables cannot be made."):
        make_private_folder(root / WRITERS_FOLDER)


def _holds_segment(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(parse_segment(entry.name) is not None for entry in entries)
    except OSError:
        return False
