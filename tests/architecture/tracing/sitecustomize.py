"""Write which of the package's files had functions called, into the folder that `MICROMEGAS_TEST_TRACE` names.

`import sitecustomize; sitecustomize.start()` begins; the list is written when the process ends, or by `write()`. In an
executor, which may be killed at any moment, each file is written when it is used first after a request has come in.
"""

import atexit
import inspect
import os
import sys
import threading
from pathlib import Path

FOLDER = os.environ.get("MICROMEGAS_TEST_TRACE", "")
#: Named like a locale, since executors get no other variables.
EXECUTOR_FOLDER = os.environ.get("LC_MICROMEGAS_TEST_TRACE", "")
_REQUESTS = frozenset({"Worker._take_tables", "_Call._store_export"})
ROOT = f"{Path(__file__).parents[3] / 'micromegas_jupyter'}{os.sep}"
_codes = set()


def _note(frame, event, _argument):
    if event == "call":
        _codes.add(frame.f_code)


def start():
    _codes.clear()
    threading.setprofile(_note)
    sys.setprofile(_note)


def write():
    sys.setprofile(None)
    threading.setprofile(None)
    names = {
        Path(code.co_filename).relative_to(ROOT).as_posix()
        for code in tuple(_codes)
        if code.co_filename.startswith(ROOT) and code.co_flags & inspect.CO_OPTIMIZED  # no class bodies and modules
    }
    (Path(FOLDER) / f"{os.getpid()}.txt").write_text("\n".join(sorted(names)), encoding="utf-8")


def trace_executor():
    names = set()

    def note(frame, event, _argument):
        code = frame.f_code
        if event != "call" or not (names or code.co_qualname in _REQUESTS) or not code.co_filename.startswith(ROOT):
            return
        name = Path(code.co_filename).relative_to(ROOT).as_posix()
        if name not in names and code.co_flags & inspect.CO_OPTIMIZED:
            names.add(name)
            (Path(EXECUTOR_FOLDER) / f"{os.getpid()}.txt").write_text("\n".join(sorted(names)), encoding="utf-8")

    threading.setprofile(note)
    sys.setprofile(note)


if FOLDER:
    atexit.register(write)
    if os.environ.get("MICROMEGAS_TEST_TRACE_START") == "1":
        start()
