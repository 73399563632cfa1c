"""One executor as the front sees it: its process, the socket to it, and what it knows and keeps."""

from __future__ import annotations

import asyncio
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.executors import protocol

if TYPE_CHECKING:
    from micromegas_jupyter.executors.processes import Ended, Process
    from micromegas_jupyter.executors.requests import Statement

_RECEIVE_BYTES: Final = 64 * 1024
_LARGE_RECEIVE_BYTES: Final = 1024 * 1024
_LEAVE_SECONDS: Final = 5.0
_SIGKILL: Final = getattr(signal, "SIGKILL", signal.SIGTERM)


class ExecutorEnded(Exception):
    """The executor's process has ended, or says what cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptPlan:
    """A plan that waits in an executor for the call that runs it, once.

    Attributes:
        statement: What was planned.
        version: The tables' version that it was planned with.
        plan_id: Its name in the executor.
        schemas: The IPC schemas of the result and of the parameters.
        until: Monotonic seconds until which it is used.
    """

    statement: Statement
    version: int
    plan_id: int
    schemas: tuple[bytes, bytes] = field(repr=False)
    until: float


class Executor:
    """One process and the socket to it. Belongs to one event loop.

    Attributes:
        process: The process.
        ended: Done when the process has ended and how is known.
        is_ready: Whether it has started.
        is_gone: Whether it has ended, or is about to.
        is_reniced: Whether it has been made less urgent, which cannot be undone.
        tables_version: Which version of the tables it knows; 0 for none.
        cpu_seconds: CPU time of its whole life up to the end of its last statement.
        baseline_bytes: Its resident memory when it was ready.
        baseline_private_bytes: Its anonymous memory when it was ready, most of which it shares with the zygote.
        kept: The plan that it keeps.
    """

    def __init__(self, process: Process, connection: socket.socket) -> None:
        self.process = process
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[Ended] = self._loop.create_future()
        self.is_ready = self.is_gone = self.is_reniced = False
        self.tables_version = 0
        self.cpu_seconds = 0.0
        self.baseline_bytes = self.baseline_private_bytes = 0
        self.kept: KeptPlan | None = None
        self._received = b""
        self._readable: asyncio.Future[None] | None = None
        self._is_watched = False
        connection.setblocking(False)

    @property
    def has_unread(self) -> bool:
        """Whether it has said more than was read."""
        return bool(self._received)

    async def read(self) -> tuple[bytes, bytes]:
        """Return the kind and body of the next answer.

        Raises:
            ExecutorEnded: There is none.
        """
        head = protocol.HEAD
        while len(self._received) < head.size:
            self._received += await self._receive(_RECEIVE_BYTES)
        kind, _, length = head.unpack_from(self._received)
        if length > (protocol.MAX_FRAME_BYTES if kind == protocol.FRAME else protocol.MAX_ANSWER_BYTES):
            raise ExecutorEnded
        end = head.size + length
        if len(self._received) >= end:
            body, self._received = self._received[head.size : end], self._received[end:]
            return kind, body
        parts, missing = [self._received[head.size :]], end - len(self._received)
        self._received = b""
        while missing:
            part = await self._receive(min(missing, _LARGE_RECEIVE_BYTES))
            parts.append(part)
            missing -= len(part)
        return kind, b"".join(parts)

    async def send(self, kind: bytes, body: bytes) -> None:
        """Send a request.

        Raises:
            ExecutorEnded: It cannot be sent.
        """
        try:
            await self._loop.sock_sendall(self._connection, protocol.HEAD.pack(kind, 0, len(body)) + body)
        except OSError:
            raise ExecutorEnded from None

    def kill(self) -> None:
        """End the process at once, also one that is stopped."""
        self.is_gone = True
        self.process.signal(_SIGKILL)

    def leave(self) -> None:
        """Have the process forget its upload and end by itself, as it does when nobody sends anything any more."""
        if self.is_gone:
            return
        self.is_gone = True
        with suppress(OSError):  # it has just ended
            self._connection.shutdown(socket.SHUT_WR)
        self._loop.call_later(_LEAVE_SECONDS, self.kill)

    def close(self) -> None:
        """Close the socket."""
        if self._is_watched:
            self._loop.remove_reader(self._connection)
        if self._readable is not None and not self._readable.done():
            self._readable.set_result(None)
        self._connection.close()

    async def _receive(self, size: int) -> bytes:
        """Return what has come, at most `size` bytes; the socket is watched only while somebody waits for it."""
        try:
            found = self._connection.recv(size)
        except BlockingIOError:
            waiting = self._readable = self._loop.create_future()
            if not self._is_watched:
                self._is_watched = True
                self._loop.add_reader(self._connection, self._note_readable)
            try:
                await waiting
            finally:
                self._readable = None
            return await self._receive(size)
        except OSError:
            found = b""
        if not found:
            raise ExecutorEnded
        return found

    def _note_readable(self) -> None:
        if self._readable is not None and not self._readable.done():
            self._readable.set_result(None)
        elif self._readable is None:
            # Nobody reads now: the executor waits until somebody does.
            self._loop.remove_reader(self._connection)
            self._is_watched = False
