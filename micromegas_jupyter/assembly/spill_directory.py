"""Where the processes of a server keep what is temporary: each in a folder of its own, which goes with its process.

DataFusion takes a cap on what it spills, or a folder for it, not both; so the cap is its own, and the folder is the
process's, by the variable that says where temporary files go.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.settings.server_limits import SPILL_DIRECTORY_VARIABLE
from micromegas_jupyter.temporary_folders import TemporaryFolder, remove_abandoned

_PREFIX: Final = "micromegas-server-"
_VARIABLE: Final = "TMPDIR"


def check_spill_directory(folder: str | None) -> None:
    """Check that a server can write below the folder that an administrator names.

    Raises:
        ConfigurationError: It cannot.
    """
    if folder is not None and not (Path(folder).is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        raise _unusable()


def make_process_folder(spill_directory: str | None) -> TemporaryFolder:
    """Return a new folder for one process.

    Raises:
        OSError: It cannot be made.
    """
    return TemporaryFolder(_PREFIX, parent=spill_directory)


def process_folder_variables(folder: TemporaryFolder) -> dict[str, str]:
    """Return the variables that have a process keep in this folder what is temporary."""
    return {_VARIABLE: str(folder.path)}


def remove_spilled_by_the_dead(spill_directory: str | None) -> int:
    """Remove the folders of processes that have ended without their being removed; return how many.

    Never raises, and touches nothing of a process that lives, whichever server's it is.
    """
    return remove_abandoned(_PREFIX, parent=spill_directory)


@contextmanager
def own_temporaries(spill_directory: str | None) -> Iterator[None]:
    """Have this process keep what is temporary in a folder of its own while the body runs.

    For a program that is nothing but a server: the variable and the folder are the whole process's.

    Raises:
        ConfigurationError: The folder cannot be made.
    """
    remove_spilled_by_the_dead(spill_directory)
    try:
        folder = make_process_folder(spill_directory)
    except OSError:
        raise _unusable() from None
    before = os.environ.get(_VARIABLE), tempfile.tempdir
    os.environ[_VARIABLE] = tempfile.tempdir = str(folder.path)
    try:
        yield
    finally:
        variable, tempfile.tempdir = before
        os.environ.pop(_VARIABLE)
        if variable is not None:
            os.environ[_VARIABLE] = variable
        folder.close()


def _unusable() -> ConfigurationError:
    return ConfigurationError(
        "The spill directory is not a folder that this server may write to.",
        key=SPILL_DIRECTORY_VARIABLE,
        remedy="Make it, and let the server's user write to it.",
    )
