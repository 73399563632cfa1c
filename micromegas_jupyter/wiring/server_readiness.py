"""What makes a server ready: it takes calls, and its tables can be read."""

import os
from pathlib import Path

from micromegas_jupyter.core.protocols import TableSource
from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.server import NotReady, ServerThread


def find_readiness(source: TableSource, root: Path, *, server: ServerThread) -> NotReady | None:
    """Return why calls make no sense now, None when they do; may block as long as the storage does.

    Args:
        source: The tables.
        root: The folder that they lie in.
        server: What takes the calls.
    """
    if not server.is_serving:
        return NotReady.DRAINING if server.has_started else NotReady.STARTING
    return find_storage_problem(source, root)


def find_storage_problem(source: TableSource, root: Path) -> NotReady | None:
    """Return `STORAGE` when the tables cannot be read, None when they can."""
    try:
        # A lake without a folder is one without rows, but one whose folder went away has lost them.
        with os.scandir(root):
            pass
        source.snapshot()
    except (OSError, MicromegasError):
        return NotReady.STORAGE
    return None
