"""Moves the batches of one answer from a thread that blocks to a bounded queue, so that whoever reads can leave.

What an answer is and who reads it, is the reader's and the transport's business. The thread is needed because the
Flight library blocks for as long as the server says nothing, and a thread inside it never sees Ctrl-C.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import pyarrow as pa

from micromegas_jupyter.client.threads import WAIT_SLICE_SECONDS, start_thread

_MAX_WAITING_EVENTS: Final = 4
_MAX_WAITING_BYTES: Final = 2 * 1024 * 1024


class BatchStream(Protocol):
    """Batches that arrive one after another. `cancel` may be called from any thread, the rest from one."""

    @property
    def schema(self) -> pa.Schema:
        """The schema of every batch."""
        ...

    def read_batch(self) -> pa.RecordBatch | None:
        """Return the next batch, None at the end."""
        ...

    def cancel(self) -> None:
        """Tell the server to stop."""
        ...

    def close(self) -> None:
        """Let go of what the stream holds on the server."""
        ...


@dataclass(frozen=True, slots=True)
class Opened:
    """The server has begun to answer."""

    schema: pa.Schema


@dataclass(frozen=True, slots=True)
class Arrived:
    """A batch is here."""

    batch: pa.RecordBatch


@dataclass(frozen=True, slots=True)
class Ended:
    """There are no more batches."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The call failed; nothing follows."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class Stopped:
    """Somebody called `stop`; nothing follows."""


Event = Opened | Arrived | Ended | Failed | Stopped


class BatchPump:
    """Reads one stream on a thread of its own. The queue and the stream's handle sit behind one lock.

    Args:
        open_stream: Starts the call; blocks until the server begins to answer.
    """

    def __init__(self, open_stream: Callable[[], BatchStream]) -> None:
        self._open_stream = open_stream
        self._changed = threading.Condition()
        self._events: deque[tuple[Event, int]] = deque()  # with their sizes in bytes
        self._waiting_bytes = 0
        self._stream: BatchStream | None = None
        self._is_stopped = False
        try:
            start_thread(self._run, name="micromegas-query")
        except BaseException:  # Ctrl-C, while the thread runs already
            self.stop()
            raise

    def take(self) -> Event:
        """Return the next event; waits for it for as long as the call may last, and Ctrl-C ends the wait."""
        with self._changed:
            while not self._events:
                if self._is_stopped:
                    return Stopped()
                self._changed.wait(WAIT_SLICE_SECONDS)
            event, size = self._events.popleft()
            self._waiting_bytes -= size
            self._changed.notify_all()
            return event

    def stop(self) -> None:
        """Cancel the call, also one whose server has not begun to answer; returns at once, from any thread."""
        with self._changed:
            if self._is_stopped:
                return
            self._is_stopped = True
            self._events.clear()
            stream = self._stream
            self._changed.notify_all()
        if stream is not None:
            stream.cancel()

    def _run(self) -> None:
        try:
            stream = self._open_stream()
        except BaseException as error:  # noqa: BLE001 - handed to the reader
            self._put(Failed(error))
            return
        try:
            self._read(stream)
        except BaseException as error:  # noqa: BLE001 - handed to the reader
            self._put(Failed(error))
        finally:
            with self._changed:
                self._stream = None  # nothing is left that `stop` could cancel
            stream.close()

    def _read(self, stream: BatchStream) -> None:
        if not self._adopt(stream):
            # Stopped while the server had not begun to answer: only now is there something to cancel.
            stream.cancel()
            return
        is_wanted = self._put(Opened(stream.schema))
        while is_wanted:
            is_wanted = self._read_next(stream)

    def _read_next(self, stream: BatchStream) -> bool:
        """Hand over the next batch, or the end; no batch is held here while the one after it is waited for."""
        batch = stream.read_batch()
        if batch is None:
            self._put(Ended())
            return False
        return self._put(Arrived(batch), pa.ipc.get_record_batch_size(batch))

    def _adopt(self, stream: BatchStream) -> bool:
        with self._changed:
            self._stream = None if self._is_stopped else stream
            return self._stream is not None

    def _put(self, event: Event, size: int = 0) -> bool:
        """Hand over an event of `size` bytes, when there is room; False when nobody wants it any more."""
        with self._changed:
            while self._is_full() and not self._is_stopped:
                self._changed.wait(WAIT_SLICE_SECONDS)
            if not self._is_stopped:
                self._events.append((event, size))
                self._waiting_bytes += size
                self._changed.notify_all()
            return not self._is_stopped

    def _is_full(self) -> bool:
        return len(self._events) >= _MAX_WAITING_EVENTS or self._waiting_bytes >= _MAX_WAITING_BYTES
