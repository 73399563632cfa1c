"""Gathers what programs left behind (files, telemetry, logs) and what others can read of them meanwhile."""

import contextlib
import gc
import json
import logging
import os
import threading
from pathlib import Path

from micromegas_jupyter.demo.provider.scripted_person import ScriptedPerson
from micromegas_jupyter.telemetry.tables import TABLES
from micromegas_jupyter.wiring import client_side
from micromegas_jupyter.wiring import sign_in as signing_in
from tests.integration.system.escapes.secrets_in_play import Place, Text

# The provider runs in this process, too, and may know what it issued.
_SERVER_PACKAGES = tuple(f"micromegas_jupyter.{room}" for room in ("access", "wiring", "engine", "server"))


def noted_texts(folder):
    """Return what the watches inside of the programs noted (`inside/sitecustomize.py`)."""
    found = []
    for notes in sorted(folder.glob("*.jsonl")):
        for line in notes.read_text().splitlines():
            note = json.loads(line)
            assert note["place"] != "failure", f"the watch itself failed: {note}"
            found.append(Text(place=Place(note["place"]), name=note["name"], text=note["text"], mode=note["mode"]))
    return found


def file_texts(folder, *, leave_out=()):
    """Return every file below a folder; what shells and notebooks keep of a session is history."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and not set(leave_out) & set(path.parents):
            place = Place.HISTORY if "history" in path.name else Place.FILE
            text = path.read_bytes().decode("latin-1")
            found.append(Text(place=place, name=str(path), text=text, mode=path.stat().st_mode & 0o777))
    return found


def telemetry_texts(stack):
    """Return every row of every table of a running demo, as its administrator sees them."""
    settings = client_side.load_client_settings(environ=stack.process_environment())
    with ScriptedPerson(person="alice") as browser:
        administrator = signing_in.login(settings, browser=browser, store=False)
    found = []
    with client_side.open_client(settings, administrator) as client:
        for table in TABLES:
            rows = client.query_arrow(f"SELECT * FROM {table.name}").to_pylist()
            found.append(Text(place=Place.TELEMETRY, name=table.name, text="\n".join(map(str, rows))))
    return found


def server_objects():
    found = []
    for item in gc.get_objects():
        if str(getattr(type(item), "__module__", "")).startswith(_SERVER_PACKAGES):
            with contextlib.suppress(Exception):  # another test's, half taken apart
                found.append(Text(place=Place.REPR, name=f"server: {type(item).__qualname__}", text=repr(item)))
    return found


@contextlib.contextmanager
def everything_logged(texts):
    """Add to `texts` what this process logs meanwhile, from DEBUG on."""
    handler = _KeepingHandler(texts)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


class _KeepingHandler(logging.Handler):
    def __init__(self, texts):
        super().__init__()
        self._texts = texts
        self._kept = set()

    def emit(self, record):
        text = f"{record.getMessage()} {vars(record)!r}"
        if text not in self._kept:
            self._kept.add(text)
            self._texts.append(Text(place=Place.LOG, name=f"server: {record.name}", text=text))


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
