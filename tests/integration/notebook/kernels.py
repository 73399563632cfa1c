"""A real kernel, as a front end with a person drives it, and a notebook, as nbclient runs it without one."""

from __future__ import annotations

import queue
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPOSITORY = Path(__file__).parents[3]
LOAD = "%load_ext tests.fakes.notebook_extension"
TIMEOUT_SECONDS = 60


@dataclass(kw_only=True)
class Cell:
    """What one execute request brought."""

    reply: dict[str, Any] = field(default_factory=dict)
    messages: list[dict[str, Any]] = field(default_factory=list)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [message["content"] for message in self.messages if message["msg_type"] == kind]


def widget_states(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what the identity widget was told, in order."""
    contents = [message["content"]["data"] for message in messages if message["msg_type"] in {"comm_open", "comm_msg"}]
    return [data["state"] for data in contents if "as_of" in data.get("state", {})]


class AttendedKernel:
    """Runs cells as a front end with a person: `allow_stdin` is true."""

    def __init__(self, manager: KernelManager) -> None:
        self.all_messages: list[dict[str, Any]] = []
        self._manager = manager
        self._client = manager.client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=TIMEOUT_SECONDS)

    def run(self, source: str, *, while_running: Callable[[dict[str, Any]], None] = lambda _: None) -> Cell:
        """Run a cell; `while_running` is told of each message on the way."""
        cell = Cell()
        request = self._client.execute(source, allow_stdin=True)
        while True:
            message = self._client.get_iopub_msg(timeout=TIMEOUT_SECONDS)
            self.all_messages.append(message)
            if message["parent_header"].get("msg_id") != request:
                continue
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                break
            cell.messages.append(message)
            while_running(message)
        cell.reply = self._client.get_shell_msg(timeout=TIMEOUT_SECONDS)["content"]
        return cell

    def later_messages(self, seconds: float) -> list[dict[str, Any]]:
        """Return what arrives outside any cell, until nothing has for `seconds`."""
        found = []
        while True:
            try:
                found.append(self._client.get_iopub_msg(timeout=seconds))
            except queue.Empty:
                self.all_messages += found
                return found

    def interrupt(self) -> None:
        self._manager.interrupt_kernel()

    def close(self) -> None:
        self._client.stop_channels()


@contextmanager
def attended_kernel() -> Iterator[AttendedKernel]:
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(REPOSITORY))
    kernel = AttendedKernel(manager)
    try:
        yield kernel
    finally:
        kernel.close()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


@dataclass(frozen=True, kw_only=True)
class UnattendedRun:
    """A notebook as it would be saved, and why its run stopped; None when it did not."""

    notebook: nbformat.NotebookNode
    stopped_by: CellExecutionError | None

    @property
    def saved(self) -> str:
        return nbformat.writes(self.notebook)

    def outputs(self, cell: int) -> list[Any]:
        return list(self.notebook.cells[cell].outputs)


def run_unattended(*sources: str) -> UnattendedRun:
    """Run cells as nbclient, nbconvert and papermill do."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    place = {"metadata": {"path": str(REPOSITORY)}}
    client = NotebookClient(notebook, timeout=TIMEOUT_SECONDS, kernel_name="python3", resources=place)
    try:
        client.execute()
    except CellExecutionError as error:
        return UnattendedRun(notebook=notebook, stopped_by=error)
    return UnattendedRun(notebook=notebook, stopped_by=None)
