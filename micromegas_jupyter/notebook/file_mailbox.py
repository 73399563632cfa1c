"""Takes a Jupyter server's requests from a folder, for kernels whose control channel takes no messages of extensions.

The folder is in Jupyter's runtime folder and closed to others. What requests are answered with is the desk's.
"""

from __future__ import annotations

import atexit
import json
import shutil
from pathlib import Path
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING

from micromegas_jupyter.private_files import (
    FileProblem,
    ensure_private_folder,
    read_private_file,
    remove_file,
    write_private_file,
)
from micromegas_jupyter.redirect.mailbox import (
    FOLDER,
    MAX_MESSAGE_BYTES,
    REQUEST_SUFFIX,
    is_request_file,
    reply_file,
)
from micromegas_jupyter.seams import SYSTEM_CLOCK, Clock

if TYPE_CHECKING:
    from micromegas_jupyter.auth.redirect_desk import RedirectDesk

POLL_SECONDS = 0.05


class FileMailbox:
    """The folder of one kernel, looked at by a thread of its own while there is something to wait for.

    Its lock covers until when that is.

    Args:
        desk: Answers; its kernel id is the folder's name.
        clock: Tells the time.
    """

    def __init__(self, desk: RedirectDesk, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.desk = desk
        self._clock = clock
        self._lock = Lock()
        self._until = 0.0
        self._thread: Thread | None = None
        self._stopped = Event()

    @property
    def folder(self) -> Path:
        """Where requests and replies lie."""
        from jupyter_core.paths import jupyter_runtime_dir

        return Path(jupyter_runtime_dir()) / FOLDER / self.desk.kernel_id

    def listen(self, seconds: float) -> None:
        """Look into the folder for so long, at least.

        Raises:
            FileProblem: The folder cannot be made.
        """
        ensure_private_folder(self.folder)
        with self._lock:
            self._until = max(self._until, self._clock.monotonic() + seconds)
            if self._thread is None:
                atexit.register(self.close)
                self._thread = Thread(target=self._work, args=(self.folder,), name="micromegas-mailbox", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Stop looking, and take the folder away; safe to call twice."""
        self._stopped.set()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _work(self, folder: Path) -> None:
        while not self._stopped.wait(POLL_SECONDS):
            with self._lock:
                if self._clock.monotonic() >= self._until:
                    self._thread = None
                    return
            for path in folder.glob(f"*{REQUEST_SUFFIX}"):
                if is_request_file(path.name):
                    self._answer(path)

    def _answer(self, path: Path) -> None:
        try:
            text, _ = read_private_file(path, max_bytes=MAX_MESSAGE_BYTES)
            remove_file(path)
            reply = self.desk.reply_to(json.loads(text))
            write_private_file(path.with_name(reply_file(path.stem)), json.dumps(reply).encode())
        except (FileProblem, ValueError):
            return  # the server has given up on it and taken it away, or it is not one
