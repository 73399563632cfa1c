"""The directory that the demo keeps between starts: notebooks, and its lake in a hidden subdirectory."""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import resources
from pathlib import Path
from shutil import rmtree
from typing import Self

from micromegas_jupyter.core.files import (
    FileProblem,
    ensure_private_folder,
    file_beside,
    lock_folder,
    remove_temporaries,
)
from micromegas_jupyter.errors import ConfigurationError

DEFAULT_FOLDER = "micromegas-demo"
NOTEBOOK = "quickstart.ipynb"
JOB_NOTEBOOK = "service-account.ipynb"
# A kernel with a job's environment; its notebooks sign in as the demo's service account.
JOB_KERNEL = "micromegas-service-account"
JOB_KERNEL_NAME = "Service account (demo)"

_STATE = ".micromegas-demo"  # never the configuration directory, which may contain a lake (`--notebooks ~`)
_KEY = "--notebooks"
_ANOTHER = "Choose a different directory with --notebooks DIR."


class DemoFolder:
    """A directory of notebooks with the demo's lake, for one demo at a time: a context manager that releases it.

    If a process is killed, the next one can still use the directory. Raises ConfigurationError if another demo uses
    it, or if it isn't writable.
    """

    def __init__(self, path: Path, *, is_fresh: bool = False) -> None:
        self._path = path
        self.notebooks = path.expanduser().absolute()
        self._state = self.notebooks / _STATE
        self.lake = self._state / "lake"
        self.jupyter_settings = self._state / "jupyter"
        with self._translated(), ExitStack() as opened:
            self.notebooks.mkdir(parents=True, exist_ok=True)
            ensure_private_folder(self._state)
            lock = lock_folder(self._state)
            if lock is not None:
                opened.callback(os.close, lock)
            self._remove_lake(is_fresh=is_fresh)
            self._opened = opened.pop_all()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except BlockingIOError:
            raise ConfigurationError(
                f"Another demo is using the directory {self._path}.", key=_KEY, remedy=f"Stop it first. {_ANOTHER}"
            ) from None
        except OSError as error:
            raise ConfigurationError(
                f"The directory {self._path} is not writable: {error.strerror}.", key=_KEY, remedy=_ANOTHER
            ) from None
        except FileProblem as problem:
            raise ConfigurationError(
                f"The directory {self._path / _STATE} {problem}.", key=_KEY, remedy=_ANOTHER
            ) from None

    def add_notebooks(self) -> int:
        """Copy the package's missing notebooks, and return how many already existed; existing ones are not changed."""
        with self._translated():
            return copy_notebooks(self.notebooks)

    def _remove_lake(self, *, is_fresh: bool) -> None:
        """Finish an interrupted removal, and if `is_fresh`, remove the current lake."""
        removed = self.lake.with_suffix(".removed")
        _remove(removed)
        if is_fresh and os.path.lexists(self.lake):
            # Renamed first, because a demo that is killed during the removal would leave half a lake behind.
            self.lake.rename(removed)
            _remove(removed)

    def close(self) -> None:
        """Let another demo use the directory; repeated calls do nothing."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def _remove(path: Path) -> None:
    """Remove a directory, or only the link to one that the user moved elsewhere."""
    if path.is_dir() and not path.is_symlink():
        rmtree(path)
    else:
        path.unlink(missing_ok=True)


def copy_notebooks(target: Path) -> int:
    """Copy the notebooks missing from `target` without overwriting any, and return how many already existed."""
    packaged = Path(str(resources.files("micromegas_jupyter"))) / "demo" / "notebooks"
    source = packaged if packaged.is_dir() else Path(__file__).parents[2] / "notebooks"
    count = 0
    for path in sorted(source.glob("*.ipynb")):
        copy = target / path.name
        remove_temporaries(copy)
        content = path.read_bytes()
        if path.name == JOB_NOTEBOOK:
            content = in_job_kernel(content)
        try:
            with file_beside(copy, is_exclusive=True) as file:
                file.write(content)
        except FileExistsError:
            count += 1
    return count


def in_job_kernel(notebook: bytes) -> bytes:
    """Return a notebook's content with its kernel replaced by the job's."""
    content = json.loads(notebook)
    content["metadata"]["kernelspec"] = {"display_name": JOB_KERNEL_NAME, "language": "python", "name": JOB_KERNEL}
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()
