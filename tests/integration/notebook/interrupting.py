"""Interrupts cells of a real kernel, times what follows, and looks at what the server made of it."""

from __future__ import annotations

import json
import logging
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.lake.served_folder import ServedFolder
from micromegas_jupyter.server.authentication import AUDIT_LOGGER
from tests.integration.flight_harness import running_server

if TYPE_CHECKING:
    from tests.integration.notebook.kernels import Cell

LOAD = "%load_ext micromegas_jupyter"
FUNCTIONAL_BOUND_SECONDS = 15.0
"""Far above what is aimed at (half a second), so that a busy machine fails no test; the figure itself is printed."""

_AUDIT_SECONDS = 60.0


class AuditLines(logging.Handler):
    """Collects the audit lines of the servers of this process."""

    def __init__(self):
        super().__init__()
        self._changed = threading.Condition()
        self._records = []

    def emit(self, record):
        with self._changed:
            self._records.append(json.loads(record.getMessage()))
            self._changed.notify_all()

    def of(self, sql):
        """Return the newest line of a statement whose text has `sql` in it; waits for it."""
        with self._changed:
            assert self._changed.wait_for(lambda: bool(self._matching(sql)), _AUDIT_SECONDS), f"no audit line of {sql}"
            return self._matching(sql)[-1]

    def _matching(self, sql):
        return [record for record in self._records if sql in record.get("sql", "")]


@dataclass(frozen=True, kw_only=True)
class Interrupted:
    """A cell that was interrupted, and the time from the signal to its error by the machine's clock."""

    cell: Cell
    seconds: float

    @property
    def line(self):
        """The first line of what is shown in place of a traceback."""
        (error,) = self.cell.of("error")
        return str(error["traceback"][0])


def text_of(message):
    """Return what a message shows as text; empty for other messages."""
    content = message["content"]
    return str(content.get("data", {}).get("text/plain", "") or content.get("text", ""))


def says(part):
    """Return whether a message shows a text with `part` in it."""
    return lambda message: message["msg_type"] in {"display_data", "update_display_data"} and part in text_of(message)


RUNNING = says("· query ")
"""Whether a message says that the server has begun to answer."""


def interrupt(kernel, source, *, when=RUNNING):
    """Run a cell and interrupt the kernel once `when` says so of one of its messages."""
    sent_at = []

    def look(message):
        if not sent_at and when(message):
            sent_at.append(datetime.now(UTC))
            kernel.interrupt()

    cell = kernel.run(source, while_running=look)
    assert sent_at, f"the cell ended before it could be interrupted: {cell}"
    errors = [message for message in cell.messages if message["msg_type"] == "error"]
    assert errors, f"the cell was not stopped: {cell}"
    return Interrupted(cell=cell, seconds=(errors[0]["header"]["date"] - sent_at[0]).total_seconds())


def check_stopped(found, *, name):
    """Check that the cell ended with one line and no traceback, and print how long that took."""
    (error,) = found.cell.of("error")
    print(f"{name}: {found.seconds:.3f} s (goal: 0.5 s)")
    assert error["ename"] == "QueryCancelled"
    assert len(error["traceback"]) == 1
    assert 0 <= found.seconds < FUNCTIONAL_BOUND_SECONDS


@contextmanager
def served(folder):
    """Serve a folder of Parquet files to everybody; yields the address and the audit lines."""
    audit = AuditLines()
    logging.getLogger(AUDIT_LOGGER).addHandler(audit)
    try:
        with running_server(tables=ServedFolder(Storage(folder)), is_open=True) as harness:
            yield harness.uri, audit
    finally:
        logging.getLogger(AUDIT_LOGGER).removeHandler(audit)
