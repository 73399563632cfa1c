"""What a folder holds: a lake that this package wrote, plain Parquet files of somebody else, or nothing yet."""

import enum
import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from micromegas_jupyter.errors import Unavailable, UsageError
from micromegas_jupyter.lake.files import make_private_folder, parse_segment, storage_errors
from micromegas_jupyter.lake.user_tables import TABLES_FOLDER
from micromegas_jupyter.lake.writer import WRITERS_FOLDER

_PASSED_OVER = (".", "_", "lost+found")  # the last is there on each new file system
_MAX_SHOWN_CHARACTERS: Final = 100
_DELTA_LOG: Final = "_delta_log"
# `Path` makes one slash of several. On Windows a single letter is a drive.
_SCHEME: Final = re.compile(r"([^/\\]{2,}):(?:[/\\]|\Z)" if sys.platform == "win32" else r"([^/]*):(?:/|\Z)")


class FolderKind(enum.Enum):
    """What a folder holds.

    Attributes:
        LAKE: Tables that this package wrote, or nothing yet.
        OTHER: Something else; Parquet files perhaps.
    """

    LAKE = "lake"
    OTHER = "other"


def check_servable(root: Path) -> None:
    """Refuse what would be served wrongly: an address of storage elsewhere, and Delta tables."""
    if scheme := _SCHEME.match(str(root)):
        is_local = scheme[1].lower() == "file"
        raise UsageError(
            f"{_shown(scheme[1])}:// is not supported: tables are read from a folder of this machine.",
            remedy="Name the folder without file://." if is_local else "Name a folder, such as one that is mounted.",
        )
    if any(map(is_delta_table, (root, *root.absolute().parents))):
        raise _delta_error("The folder")
    with suppress(OSError):  # whoever reads the folder says what is wrong with it
        for table in filter(is_delta_table, root.iterdir()):
            raise _delta_error(_shown(table.name))


def is_delta_table(folder: Path) -> bool:
    """Whether a folder is a Delta table: its files alone would bring deleted rows back."""
    return os.path.lexists(folder / _DELTA_LOG)


def _delta_error(name: str) -> UsageError:
    return UsageError(
        f"{name} is a Delta table (there is a {_DELTA_LOG}), and Delta tables cannot be read yet.",
        remedy="Name a folder of plain *.parquet files; write the table's current rows into one.",
    )


def _shown(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name[:_MAX_SHOWN_CHARACTERS])


def find_folder_kind(root: Path) -> FolderKind:
    """Return what a folder holds; one that is not there holds nothing yet."""
    check_servable(root)
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
    """Make the folder of a lake when it is not there, and mark it as one, whatever else comes to lie in it."""
    with storage_errors("The folder of the tables cannot be made."):
        make_private_folder(root / WRITERS_FOLDER)


def _holds_segment(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(parse_segment(entry.name) is not None for entry in entries)
    except OSError:
        return False
