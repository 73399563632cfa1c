"""Audit lines in a file of their own: appended, open to its owner only, opened again after a rotation.

What the lines say is the business of who writes them.
"""

import logging
import os
import stat
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

from micromegas_jupyter.access.audit_lines import encode_line
from micromegas_jupyter.errors import ConfigurationError

_LOG: Final = logging.getLogger("micromegas_jupyter.access")
_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_MAX_WAITING: Final = 10_000
_GATHER_SECONDS: Final = 0.02
_CLOSE_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 1.0


class AuditFileHandler(logging.Handler):
    """Writes each record's message as one line, on a thread of its own, so that a disk that hangs keeps nobody.

    Several processes may write to one file: a line is appended in one step. What finds no room in the queue is counted,
    and told by a line of its own once there is room; so are lines that the disk did not take. One lock covers queue and
    counts; it is free while the file is written.

    Args:
        path: The file; made when missing, for its owner only.

    Raises:
        ConfigurationError: It is a link or no file, belongs to somebody else, or cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._descriptor: int | None = _open(path)
        self._condition = threading.Condition()
        self._waiting: list[str] = []
        self._left_out = 0
        self._is_closing = False
        self._is_failing = False
        self._thread = threading.Thread(target=self._write_until_closed, name="audit-file", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record's line; never blocks and never raises."""
        try:
            line = record.getMessage()
        except Exception:  # noqa: BLE001 - whatever a record holds, the call goes on
            self.handleError(record)
            return
        with self._condition:
            is_first = not self._waiting
            if len(self._waiting) >= _MAX_WAITING:
                self._left_out += 1
            else:
                self._waiting.append(line)
            if is_first:
                self._condition.notify()

    def close(self) -> None:
        """Write what is queued, within five seconds, and close the file. May be called twice."""
        with self._condition:
            self._is_closing = True
            self._condition.notify()
        self._thread.join(_CLOSE_SECONDS)
        super().close()

    def _write_until_closed(self) -> None:
        while True:
            with self._condition:
                while not self._waiting and not self._left_out and not self._is_closing:
                    self._condition.wait()
                # To wake this thread for each line would cost a busy server more than the line.
                self._condition.wait_for(lambda: self._is_closing, _GATHER_SECONDS)
                lines, self._waiting = self._waiting, []
                left_out, self._left_out = self._left_out, 0
                is_last = self._is_closing
            if left_out:
                lines.insert(0, encode_line({"event": "audit_left_out", "left_out": left_out}))
            if lines and not self._append("".join(f"{line}\n" for line in lines)):
                with self._condition:
                    self._left_out += left_out + len(lines) - bool(left_out)
                    if not is_last:  # a disk that is full is asked again now and then, and once more at the end
                        self._condition.wait_for(lambda: self._is_closing, _RETRY_SECONDS)
            if is_last:
                self._shut()
                return

    def _append(self, text: str) -> bool:
        data = text.encode("utf-8", "replace")
        try:
            self._follow_rotation()
            if self._descriptor is None:
                self._descriptor = _open(self._path)
            written = os.write(self._descriptor, data)
            if written < len(data):
                with suppress(OSError):
                    os.write(self._descriptor, b"\n")  # the next line begins on a line of its own
        except (OSError, ConfigurationError) as error:
            self._tell_once(error)
            return False
        if written < len(data):
            self._tell_once(None)
            return False
        self._is_failing = False
        return True

    def _follow_rotation(self) -> None:
        """Close the file when its name now means another one, or none."""
        if self._descriptor is None:
            return
        try:
            named = self._path.lstat()
        except OSError:
            self._shut()
            return
        mine = os.fstat(self._descriptor)
        if (named.st_dev, named.st_ino) != (mine.st_dev, mine.st_ino):
            self._shut()

    def _shut(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _tell_once(self, error: Exception | None) -> None:
        if not self._is_failing:
            self._is_failing = True
            why = (
                os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "it took part of them only"
            )
            _LOG.error("The audit file cannot be written; lines are being lost.", extra={"why": why})


def _open(path: Path) -> int:
    try:
        descriptor = os.open(path, _FLAGS, 0o600)
    except OSError as error:
        raise ConfigurationError(
            f"The audit file cannot be opened: {os.strerror(error.errno or 0)}.",
            key="--audit-log",
            remedy="Name a file, not a link, in a folder that this account may write to.",
        ) from None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        os.close(descriptor)
        raise ConfigurationError(
            "The audit file is no regular file, or belongs to somebody else.",
            key="--audit-log",
            remedy="Name a file of this account.",
        )
    if found.st_mode & _OTHERS:
        os.fchmod(descriptor, 0o600)
    return descriptor
