"""What other people of the machine, or a program in the same account, can read of the run's processes."""

import os
import threading
from pathlib import Path

from tests.integration.system.escapes.scanner import Place, Text

_PROC = Path("/proc")
_MAX_FILE_BYTES = 1_000_000


class ProcessWatch:
    """Looks at all processes below this one each time it is told to; its lock covers what was seen."""

    def __init__(self):
        self._lock = threading.Lock()
        self._seen = {}

    def look(self):
        for process, depth in list(_below(os.getpid(), depth=1)):
            try:
                self._note(process, "program" if depth == 1 else "child of a program")
            except OSError:
                continue  # it has ended meanwhile

    def texts(self):
        with self._lock:
            return list(self._seen.values())

    def _note(self, process, role):
        folder = _PROC / str(process)
        arguments = _words((folder / "cmdline").read_bytes())
        found = [
            (Place.ARGUMENTS, f"{role}", arguments),
            (Place.ENVIRONMENT, f"{role}", _words((folder / "environ").read_bytes())),
            *((Place.FILE, "a file without a name", text) for text in _unnamed_files(folder)),
        ]
        with self._lock:
            for place, name, text in found:
                self._seen[place, name, text] = Text(place=place, name=name, text=text)


def _below(process, *, depth):
    for task in _listed(_PROC / str(process) / "task"):
        try:
            children = (task / "children").read_text().split()
        except OSError:
            continue
        for child in map(int, children):
            yield child, depth
            yield from _below(child, depth=depth + 1)


def _unnamed_files(folder):
    for link in _listed(folder / "fd"):
        try:
            target = str(link.readlink())
            if target.startswith("/") and target.endswith(" (deleted)") and link.stat().st_size <= _MAX_FILE_BYTES:
                yield link.read_bytes().decode("latin-1")
        except OSError:
            continue


def _listed(folder):
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _words(data):
    return data.decode("utf-8", "replace").replace("\0", "\n")
