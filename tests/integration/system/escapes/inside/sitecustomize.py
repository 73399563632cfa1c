"""Python loads this at the start of each process of the run. It writes down what may show a secret.

That is: every log record from DEBUG on, the package's objects as text at moments when tokens are in use, tracebacks
with the values of variables of every error that is shown, what child processes are given, and files that are about
to go. Whether a secret is in it is the test's to find out.
"""

import contextlib
import functools
import gc
import json
import logging
import os
import sys
import threading
import traceback
from pathlib import Path

FOLDER_VARIABLE = "ESCAPES_FOLDER"
PACKAGE = "micromegas_jupyter"

_MAX_FILE_BYTES = 4_000_000
_STANDARD = frozenset(vars(logging.makeLogRecord({})))


class Notes:
    """Appends lines to a file of this process's own; the same text is written once."""

    def __init__(self, folder):
        self._descriptor = os.open(
            Path(folder) / f"{os.getpid()}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        self._written = set()

    def add(self, place, name, text, *, mode=None):
        mark = hash((place, name, text, mode))
        if mark not in self._written:
            self._written.add(mark)
            line = json.dumps({"place": place, "name": name, "text": text, "mode": mode})
            os.write(self._descriptor, line.encode() + b"\n")


class Everything(logging.Handler):
    """Notes records with all that hangs on them, whoever would write them and however."""

    def __init__(self, notes):
        super().__init__()
        self._notes = notes

    def emit(self, record):
        extras = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        self._notes.add("log", record.name, f"{record.getMessage()} {record.args!r} {extras!r}")
        if record.exc_info and record.exc_info[1] is not None:
            self._notes.add("traceback", f"logged by {record.name}", traceback_text(record.exc_info[1]))


def traceback_text(error):
    """Return a traceback with the values of variables, without the program's own frames: they hold what they hold."""
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    lines = []
    while told is not None:
        lines += list(told.format_exception_only())
        frames = [frame for frame in told.stack if shows(frame)]
        lines += [f"{frame.filename}:{frame.lineno} {frame.name} {frame.locals}" for frame in frames]
        told = told.__cause__ or (None if told.__suppress_context__ else told.__context__)
    return "\n".join(lines)


def shows(frame):
    package = str(Path(str(sys.modules[PACKAGE].__file__)).parent)
    return "site-packages" in frame.filename or frame.filename.startswith(package)


class Watch:
    """Hears of what the process does (`sys.addaudithook`) and notes what goes with it."""

    def __init__(self, notes):
        self._notes = notes
        self._own = threading.local()
        self._watched, self._others = set(), set()
        self._handlers = {
            "os.exec": lambda _path, arguments, environ: self._child(arguments, environ),
            "os.posix_spawn": lambda _path, arguments, environ: self._child(arguments, environ),
            "os.remove": self._file_goes,
            "os.rename": lambda source, _target, folder, _other: self._file_goes(source, folder),
            "os.system": lambda command: self._child([command], None),
            "socket.connect": lambda *_: self.look_at_objects(),
            "subprocess.Popen": lambda _program, arguments, _folder, environ: self._child(arguments, environ),
        }

    def hear(self, event, arguments):
        handler = self._handlers.get(event)
        if handler is not None:
            self.undisturbed(event, lambda: handler(*arguments))

    def undisturbed(self, name, action):
        """Do something of the watch's own: it is not watched, and its failure is noted and nothing else."""
        if getattr(self._own, "is_busy", False):
            return
        self._own.is_busy = True
        try:
            action()
        except Exception as error:  # noqa: BLE001 - the process must not notice
            self._notes.add("failure", name, f"{type(error).__name__}: {error}")
        finally:
            self._own.is_busy = False

    def look_at_objects(self):
        others = self._others
        for item in gc.get_objects():  # hundreds of thousands, nearly all of them of other types
            kind = type(item)
            if kind in others or not self._is_of_interest(kind):
                continue
            for show in (repr,) if isinstance(item, str) else (repr, str):
                try:
                    text = show(item)
                except Exception:  # noqa: BLE001 - it may be half made at this moment
                    continue
                self._notes.add("repr", f"{kind.__module__}.{kind.__qualname__}", text)

    def note_error(self, error):
        self.undisturbed("traceback", lambda: self._notes.add("traceback", type(error).__name__, traceback_text(error)))

    def _is_of_interest(self, kind):
        if kind in self._watched:
            return True
        module = str(getattr(kind, "__module__", ""))
        found = module.partition(".")[0] in {PACKAGE, "_asyncio", "asyncio"} or kind is functools.partial
        (self._watched if found else self._others).add(kind)
        return found

    def _child(self, arguments, environ):
        words = [arguments] if isinstance(arguments, str | bytes) else arguments
        name = f"child of a program: {Path(os.fsdecode(words[0])).name}"
        self._notes.add("process arguments", name, "\n".join(os.fsdecode(word) for word in words))
        given = os.environ if environ is None else environ
        told = "\n".join(f"{os.fsdecode(key)}={os.fsdecode(value)}" for key, value in dict(given).items())
        self._notes.add("environment", name, told)
        self.look_at_objects()

    def _file_goes(self, path, folder=None):
        place = Path(os.fsdecode(path))
        if folder not in {None, -1}:
            place = Path(f"/proc/self/fd/{folder}").readlink() / place
        with contextlib.suppress(FileNotFoundError):  # another process may take it away at the same moment
            if place.is_file() and (found := place.stat()).st_size <= _MAX_FILE_BYTES:
                text = place.read_bytes().decode("latin-1")
                self._notes.add("file", str(place), text, mode=found.st_mode & 0o777)
        self.look_at_objects()


def watch_errors(watch):
    """Note each error of the package when it is about to be shown: when its text is asked for."""
    from micromegas_jupyter.errors import MicromegasError

    text_of = MicromegasError.__str__

    def noted_text(error):
        watch.note_error(error)
        return text_of(error)

    def noted_what(error):
        watch.note_error(error)
        return str(vars(error)["what"])

    def set_what(error, what):
        vars(error)["what"] = what

    MicromegasError.__str__ = noted_text
    MicromegasError.what = property(noted_what, set_what)


def start(folder):
    import atexit

    notes = Notes(folder)
    watch = Watch(notes)
    root = logging.getLogger()
    root.addHandler(Everything(notes))
    root.setLevel(logging.DEBUG)
    show_thread_error = threading.excepthook

    def note_thread_error(told):
        if told.exc_value is not None:
            watch.note_error(told.exc_value)
        show_thread_error(told)

    threading.excepthook = note_thread_error
    atexit.register(lambda: watch.undisturbed("exit", watch.look_at_objects))
    watch_errors(watch)
    sys.addaudithook(watch.hear)


if os.environ.get(FOLDER_VARIABLE):
    start(os.environ[FOLDER_VARIABLE])
