"""Where a server keeps what is temporary: a folder of its own, with one in it for each executor."""

import os
from pathlib import Path
from typing import Final

from micromegas_jupyter.config.server_limits import SPILL_DIRECTORY_VARIABLE
from micromegas_jupyter.core.files import TemporaryFolder, remove_abandoned
from micromegas_jupyter.errors import ConfigurationError

_PREFIX: Final = "micromegas-server-"


def check_spill_directory(folder: str | None) -> None:
    """Check that a server can write below the folder that an administrator names.

    Raises:
        ConfigurationError: It cannot.
    """
    if folder is not None and not (Path(folder).is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        raise unusable_spill_directory()


def make_process_folder(spill_directory: str | None) -> TemporaryFolder:
    """Return a new folder for one server.

    Raises:
        OSError: It cannot be made.
    """
    return TemporaryFolder(_PREFIX, parent=spill_directory)


def remove_spilled_by_the_dead(spill_directory: str | None) -> int:
    """Remove the folders of processes that have ended without their being removed; return how many.

    Never raises, and touches nothing of a process that lives, whichever server's it is.
    """
    return remove_abandoned(_PREFIX, parent=spill_directory)


def unusable_spill_directory() -> ConfigurationError:
    """Return the error for a spill directory that cannot be used."""
    return ConfigurationError(
        "The spill directory is not a folder that this server may write to.",
        key=SPILL_DIRECTORY_VARIABLE,
        remedy="Make it, and let the server's user write to it.",
    )
