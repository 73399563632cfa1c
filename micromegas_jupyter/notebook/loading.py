"""Loads libraries where no interrupt reaches: one within a first import leaves a half that never works again.

Python takes the module away, but not the parts of it that had come already, so that the next import finds them
without their whole. Only ending the kernel mends that.
"""

from __future__ import annotations

import sys
from importlib import import_module


def load_libraries(*names: str) -> None:
    """Import modules that are not there yet on another thread; Ctrl-C leaves at once and lets it come to its end."""
    missing = [name for name in names if name not in sys.modules]
    if missing:
        from micromegas_jupyter.client.threads import run_interruptibly

        run_interruptibly(lambda: [import_module(name) for name in missing])
