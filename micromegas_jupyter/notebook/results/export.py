"""Exports of a result's rows: a thread writes each file while a page tracks, cancels, or downloads it."""

from __future__ import annotations

import logging
import tempfile
from contextlib import suppress
from datetime import UTC
from pathlib import Path
from threading import Event, Lock
from typing import IO, TYPE_CHECKING, Any, Final

from micromegas_jupyter.core.system import SYSTEM_CLOCK, start_thread
from micromegas_jupyter.errors import MicromegasError, QueryCancelled, UsageError
from micromegas_jupyter.notebook.results.view import EXPORT_FORMATS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from micromegas_jupyter.notebook.results.view import RowQuery, RowsView

PART_BYTES: Final = 2 * 1024 * 1024
"""The size of the messages in which a page downloads a file; a kernel sends one at a time."""

_MAX_NAMES: Final = 1000
_log = logging.getLogger(__name__)


class Export:
    """A file of rows. A page downloads it with `read` if `is_download`; otherwise it is in the notebook's directory."""

    def __init__(
        self, view: RowsView, order: RowQuery, *, file_format: str, columns: Sequence[int], is_download: bool
    ) -> None:
        self._type = EXPORT_FORMATS[file_format]
        self._view, self._order, self._columns, self._format = view, order, columns, file_format
        self._is_canceled = Event()
        self._is_download = is_download
        self._lock = Lock()  # guards the file
        # Unnamed, so that nothing remains if the kernel is killed.
        self._file: IO[bytes] | None = tempfile.TemporaryFile() if is_download else None  # noqa: SIM115 - until `close`
        self._progress = (0, 0)
        self._size: int | None = None
        self._problem = ""
        self.name = f"result-{SYSTEM_CLOCK.now().astimezone(UTC):%Y%m%d-%H%M%S}.{file_format}"
        start_thread(self._write, name="micromegas-export")

    def state(self) -> dict[str, object]:
        """Return the progress: rows, total rows, and the name, type, and size (once complete) of the file.

        Raises:
            UsageError: The file could not be written.
        """
        if self._problem:
            raise UsageError(self._problem)
        rows, total = self._progress
        return {"rows": rows, "total": total, "name": self.name, "type": self._type, "size": self._size}

    def read(self, first: int) -> bytes:
        """Return the next bytes of a complete file."""
        with self._lock:
            if self._file is None or self._size is None:
                raise UsageError("This file is no longer available.", remedy="Export the rows again.")
            self._file.seek(first)
            return self._file.read(PART_BYTES)

    def cancel(self) -> None:
        """Stop and leave no file, even if the last row was written before the page was notified."""
        with self._lock:
            if self._size is not None and not self._is_download:
                Path(self.name).unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Cancel the export unless it is complete, and delete a download's file."""
        with self._lock:
            if self._size is None:
                self._is_canceled.set()
            elif self._file is not None:
                self._file.close()
                self._file = None

    def _write(self) -> None:
        try:
            if self._file is None:
                self._write_new_file()
            else:
                self._view.write(self._order, self._file, **self._options())
                self._file.flush()
            with self._lock:
                if not self._is_canceled.is_set():
                    self._size = self._file.tell() if self._file else 0
                elif self._file is None:
                    Path(self.name).unlink()  # the last rows were being written when the user canceled
        except MicromegasError as error:
            self._problem = f"{error.what} {error.remedy}".strip()
        except Exception as error:  # noqa: BLE001 - the page must be notified
            _log.error("An export failed.", extra={"kind": type(error).__name__})
            self._problem = "The file could not be written. Check the folder and the free space."
        if self._size is None:
            with self._lock:
                if self._file is not None:
                    self._file.close()
                    self._file = None

    def _options(self) -> dict[str, Any]:
        return {"file_format": self._format, "columns": self._columns, "on_rows": self._note}

    def _write_new_file(self) -> None:
        """Write to a file with the first unused name."""
        stem = self.name.removesuffix(f".{self._format}")
        for number in range(2, _MAX_NAMES):
            with suppress(FileExistsError):
                return self._view.write_new_file(self._order, Path(self.name), **self._options())
            self.name = f"{stem}-{number}.{self._format}"
        raise FileExistsError

    def _note(self, rows: int, total: int) -> None:
        self._progress = rows, total
        if self._is_canceled.is_set():
            raise QueryCancelled("Export canceled.")
