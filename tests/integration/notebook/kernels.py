"""A real kernel, as a front end with a person drives it, and a notebook, as nbclient runs it without one."""

from __future__ import annotations

import json
import os
import queue
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from traitlets.config import Config

REPOSITORY = Path(__file__).parents[3]
LOAD = "%load_ext tests.fakes.notebook_extension"
TIMEOUT_SECONDS = 120


@dataclass(kw_only=True)
class Cell:
    """What one execute request brought."""

    reply: dict[str, Any] = field(default_factory=dict)
    messages: list[dict[str, Any]] = field(default_factory=list)

    def of(self, kind):
        return [message["content"] for message in self.messages if message["msg_type"] == kind]

    @property
    def printed(self):
        """What the cell printed; a kernel sends it in as many messages as it likes."""
        return "".join(content["text"] for content in self.of("stream"))


def card_views(messages):
    """Return what the sign-in card showed, in order."""
    return [view for data in _of_widgets(messages) if "mark" in (view := data.get("state", {}).get("view", {}))]


def card_address(messages):
    """Return the address to sign in at that the card was sent last."""
    contents = [data.get("content", {}) for data in _of_widgets(messages)]
    return [content["address"] for content in contents if "address" in content][-1]


def _of_widgets(messages):
    return [message["content"]["data"] for message in messages if message["msg_type"] in {"comm_open", "comm_msg"}]


def _is_end_of(request, message):
    is_idle = message["msg_type"] == "status" and message["content"]["execution_state"] == "idle"
    return is_idle and message["parent_header"].get("msg_id") == request


class AttendedKernel:
    """Runs cells as a front end with a person: `allow_stdin` is true."""

    _has_ended = False

    def __init__(self, manager):
        self.all_messages = []
        self._manager = manager
        self._client = manager.client()
        self._client.start_channels()
        self.wait_until_ready()

    def wait_until_ready(self):
        """Wait until the kernel answers and is heard."""
        self._client.wait_for_ready(timeout=TIMEOUT_SECONDS)

    def run(self, source, *, metadata=None, while_running=lambda _: None, answer=lambda _: None):
        """Run a cell; `while_running` is told of each message, `answer` gives what the person answers, or None."""
        cell = Cell()
        message = self._client.session.msg("execute_request", {"code": source, "allow_stdin": True}, metadata=metadata)
        self._client.shell_channel.send(message)
        request = message["header"]["msg_id"]
        while True:
            message = self._next_message(answer)
            self.all_messages.append(message)
            if message["parent_header"].get("msg_id") != request:
                continue
            if _is_end_of(request, message):
                break
            cell.messages.append(message)
            while_running(message)
        cell.reply = self._reply_to(request)
        return cell

    def run_until_signed_in(self, source, person, address):
        """Run a cell, and have the person open the address of the sign-in once the cell waits for it."""

        def open_when_it_waits(message):
            if "interrupt to stop waiting" in message["content"].get("data", {}).get("text/plain", ""):
                person.open(address)

        return self.run(source, while_running=open_when_it_waits)

    def _reply_to(self, request):
        # A slow kernel answers the questions with which the client found out that it is ready only later.
        while (reply := self._client.get_shell_msg(timeout=TIMEOUT_SECONDS))["parent_header"].get("msg_id") != request:
            continue
        return reply["content"]

    def _next_message(self, answer):
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            # A request for input has a channel of its own and overtakes what the cell showed before it.
            with suppress(queue.Empty):
                return self._client.get_iopub_msg(timeout=0.5)
            if self._client.stdin_channel.msg_ready():
                text = answer(self._client.get_stdin_msg(timeout=TIMEOUT_SECONDS)["content"])
                if text is not None:
                    self._client.input(text)
        raise AssertionError(f"the kernel said nothing for {TIMEOUT_SECONDS} seconds")

    def complete(self, marked):
        """Return what the kernel offers at the `|` in a cell, as a front end asks for it: the text and its type."""
        before, after = marked.split("|")
        reply = self._reply_to(self._client.complete(before + after, len(before)))
        return [(found["text"], found["type"]) for found in reply["metadata"]["_jupyter_types_experimental"]]

    def saved(self):
        """Return the outputs of all cells as a notebook holds them when it is saved now, with its widgets' state."""
        shown = {}
        widgets = {}
        for number, message in enumerate(self.all_messages):
            content = message["content"]
            match message["msg_type"]:
                case "display_data":
                    shown[content["transient"].get("display_id", str(number))] = content["data"]
                case "update_display_data":
                    shown[content["transient"]["display_id"]] = content["data"]
                case "stream" | "error" | "execute_result":
                    shown[str(number)] = content
                case "comm_open" | "comm_msg":
                    widgets.setdefault(content["comm_id"], {}).update(content["data"].get("state", {}))
        return json.dumps([shown, widgets])

    def shut_down(self):
        """End the kernel in good order, as a front end does, and take in what it says last."""
        self._manager.request_shutdown()
        self.wait_until(lambda: not self._manager.is_alive())
        self._take_in(0.5)  # what is still between the processes
        self._has_ended = True

    def later_messages(self, seconds=0.0):
        """Return what arrives outside any cell within `seconds`, and what the kernel had sent by then."""
        before = len(self.all_messages)
        self._take_in(seconds)
        if self._has_ended:
            return self.all_messages[before:]
        request = self._client.kernel_info()
        self.wait_until(lambda: self.all_messages[before:] and _is_end_of(request, self.all_messages[-1]))
        self._reply_to(request)
        found = [each for each in self.all_messages[before:] if each["parent_header"].get("msg_id") != request]
        self.all_messages[before:] = found
        return found

    def _take_in(self, seconds):
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            with suppress(queue.Empty):
                self.all_messages.append(self._client.get_iopub_msg(timeout=left))

    def wait_until(self, condition):
        """Take in what arrives outside any cell until the condition holds, which looks at it."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"it did not come in {TIMEOUT_SECONDS} seconds"
            with suppress(queue.Empty):
                self.all_messages.append(self._client.get_iopub_msg(timeout=0.2))

    def wait_until_saved(self, text, *, times=1):
        """Take in what arrives until a saved notebook would hold a text so often."""
        self.wait_until(lambda: self.saved().count(text) >= times)

    def press(self, action):
        """Press a button of the sign-in card, as its browser half does; returns at once."""
        opened = (message["content"] for message in self.all_messages if message["msg_type"] == "comm_open")
        comm_id = next(content["comm_id"] for content in opened if "IdentityCard" in str(content["data"]))
        self.send_to_widget(comm_id, {"action": action})

    def send_to_widget(self, comm_id, content, *, subshell_id=None):
        """Send a widget what its browser half sends; on a subshell, as JupyterLab does, even while a cell runs."""
        data = {"method": "custom", "content": content}
        message = self._client.session.msg("comm_msg", {"comm_id": comm_id, "data": data})
        message["header"]["subshell_id"] = subshell_id
        self._client.shell_channel.send(message)

    def open_subshell(self):
        """Open a subshell of the kernel and return its id."""
        self._client.control_channel.send(self._client.session.msg("create_subshell_request", {}))
        return self._client.get_control_msg(timeout=TIMEOUT_SECONDS)["content"]["subshell_id"]

    def interrupt(self):
        self._manager.interrupt_kernel()

    def close(self):
        self._client.stop_channels()


@contextmanager
def _own_sockets():
    """Give the configuration of a kernel that is reached over files of its own.

    Ports are chosen before the kernel starts: until it listens there, any other program may.
    """
    with tempfile.TemporaryDirectory(prefix="k") as folder:
        yield Config({"KernelManager": {"transport": "ipc", "ip": f"{folder}/k"}})


@contextmanager
def attended_kernel(variables=None):
    """Run a kernel; `variables` are added to this process's environment."""
    with _own_sockets() as config:
        manager = KernelManager(kernel_name="python3", config=config)
        manager.start_kernel(cwd=str(REPOSITORY), env={**os.environ, **(variables or {})})
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
    def saved(self):
        return nbformat.writes(self.notebook)

    def outputs(self, cell):
        return list(self.notebook.cells[cell].outputs)


def run_unattended(*sources, allow_errors=False):
    """Run cells as nbclient, nbconvert and papermill do; what a cell prints is one output, however it was sent."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    place = {"metadata": {"path": str(REPOSITORY)}}
    with _own_sockets() as config:
        client = NotebookClient(
            notebook,
            timeout=TIMEOUT_SECONDS,
            kernel_name="python3",
            resources=place,
            config=config,
            coalesce_streams=True,
            allow_errors=allow_errors,
        )
        try:
            client.execute()
        except CellExecutionError as error:
            return UnattendedRun(notebook=notebook, stopped_by=error)
        return UnattendedRun(notebook=notebook, stopped_by=None)
