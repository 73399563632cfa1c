"""Queues log lines for a destination that may hang; a thread writes them.

A pipe without a reader, a full disk, or a hanging mount blocks only that thread.
"""

import asyncio
import io
import logging
import os
import threading
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import islice
from typing import Final, Protocol, TextIO

from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.errors import ServerUnavailable

#: Records with this field report the end of a call. The handler replaces the value with a `Receipt`.
RECEIPT_FIELD: Final = "log_receipt"
MAX_LINES: Final = 10_000
MAX_BYTES: Final = 16 * 1024 * 1024
STALL_SECONDS: Final = 2.0
#: The share of the queue that is available to ordinary lines, and the share up to which new calls are accepted. Running
#: calls can use the rest.
_ORDINARY_SHARE: Final = 0.8
_ACCEPTING_SHARE: Final = 0.9
_MAX_MESSAGE_CHARACTERS: Final = 64 * 1024
_MAX_FIELD_CHARACTERS: Final = 1024
_LINE_OVERHEAD_BYTES: Final = 128
_BATCH_LINES: Final = 256
_BATCH_BYTES: Final = 256 * 1024
_BATCH_SECONDS: Final = 0.02
_RETRY_SECONDS: Final = 0.5
_DELIVERY_SECONDS: Final = 10.0
# POSIX writes to a pipe are atomic up to this size. Larger writes would conceal that a slow reader is still reading.
_PIPE_BYTES: Final = 4096
_FORMATTER: Final = logging.Formatter()


class Destination(Protocol):
    """A destination for lines. If it `is_durable`, calls return only after their line is written."""

    name: str
    is_durable: bool

    def lost_line(self, count: int) -> str:
        """Return the line that reports how many lines were dropped."""

    def report_failure(self, error: OSError) -> None:
        """Report that writing is failing; called once per period of failures."""

    def write(self, lines: list[bytes]) -> int:
        """Write lines in order, and return how many were completely written; may block and raise OSError."""


class StreamDestination:
    """An open text stream, usually standard error. `on_progress` is set by the writer."""

    name = "log"
    is_durable = False

    def __init__(self, stream: TextIO, *, lost_line: Callable[[int], str]) -> None:
        self._stream = stream
        self._lost_line = lost_line
        self._written_bytes = 0  # how much of the first line has been written
        self.on_progress: Callable[[], None] = lambda: None
        try:
            self._descriptor = stream.fileno()
        except (OSError, ValueError):
            self._descriptor = -1

    def lost_line(self, count: int) -> str:
        """Return the line that reports how many lines were dropped."""
        return self._lost_line(count)

    def report_failure(self, error: OSError) -> None:
        """Do nothing, because there is nowhere else to report it."""

    def write(self, lines: list[bytes]) -> int:
        """Write lines; after a failure, the next call resumes within the line where writing stopped."""
        if self._descriptor < 0:
            self._stream.write(b"".join(lines).decode("utf-8", "replace"))
            self._stream.flush()
            return len(lines)
        # Bypasses the stream: a thread that hangs while holding the stream's lock would prevent the interpreter from
        # exiting.
        for count, line in enumerate(lines):
            while self._written_bytes < len(line):
                piece = line[self._written_bytes : self._written_bytes + _PIPE_BYTES]
                try:
                    self._written_bytes += os.write(self._descriptor, piece)
                except OSError:
                    if count:
                        return count
                    raise
                self.on_progress()
            self._written_bytes = 0
        return len(lines)


class Receipt:
    """The state of a queued line; `wait` returns once the call that the line reports may return."""

    def __init__(self, writer: "LogWriter", number: int | None) -> None:
        self._writer = writer
        self._number = number

    def wait(self) -> Awaitable[None]:
        """Return once the line is queued or, if the destination is durable, written.

        Raises:
            ServerUnavailable: The queue was full, or the line could not be written within ten seconds.
        """
        return self._writer.wait_for(self._number)


class LogWriter:
    """Writes lines to a destination on a separate thread, through a queue of at most 10,000 lines and 16 MiB.

    Safe to use from any thread. The lock is re-entrant because a destructor or a signal handler may log while it is
    held; it is released while lines are written.
    """

    def __init__(self, destination: Destination, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.name = destination.name
        self.lost_count = 0
        self._destination = destination
        self._clock = clock
        self._lock = threading.RLock()
        self._wake = threading.Lock()  # always held, except to wake up the sleeping thread
        self._wake.acquire()
        self._is_asleep = False
        self._closing = threading.Event()
        self._queue: deque[tuple[Callable[[], str], int]] = deque()
        self._rendered: deque[bytes] = deque()  # the first lines of the queue, which are being written
        self._bytes = 0
        self._number = self._written_number = 0
        self._unreported = 0
        self._progress_at = clock.monotonic()
        self._is_failing = False
        self._waiting: deque[tuple[int, asyncio.AbstractEventLoop, asyncio.Future[bool]]] = deque()
        if isinstance(destination, StreamDestination):
            destination.on_progress = self._note_progress
        self._thread = threading.Thread(target=self._run, name=f"write-{self.name}", daemon=True)
        self._thread.start()

    def put(self, render: Callable[[], str], size: int, *, is_required: bool = False) -> Receipt:
        """Queue a line of about `size` bytes, which `render` returns when called on the writer's thread; never blocks.

        A line with `is_required` reports the end of a call. Other lines are dropped earlier.
        """
        share = 1.0 if is_required else _ORDINARY_SHARE
        with self._lock:
            if not self._fits(size, share):
                self.lost_count += 1
                self._unreported += 1
                return Receipt(self, None)
            if not self._queue:
                self._progress_at = self._clock.monotonic()
            self._queue.append((render, size))
            self._bytes += size
            self._number += 1
            self._wake_up()
            return Receipt(self, self._number)

    @property
    def line_count(self) -> int:
        """The number of unwritten lines."""
        return len(self._queue)

    @property
    def problem(self) -> str | None:
        """Why lines of new calls can't be written right now, or None."""
        if not self._queue:
            return None
        with self._lock:
            if self._clock.monotonic() - self._progress_at > STALL_SECONDS:
                return f"the {self.name} hasn't accepted data for {STALL_SECONDS:g} seconds"
            return None if self._fits(1, _ACCEPTING_SHARE) else f"too many lines are waiting for the {self.name}"

    def check(self) -> None:
        """Raise ServerUnavailable if lines of new calls can't be written right now."""
        if (problem := self.problem) is not None:
            raise _unavailable(problem)

    async def wait_for(self, number: int | None) -> None:
        """Wait for the line with this number; see `Receipt.wait`."""
        if number is None:
            raise _unavailable(f"too many lines are waiting for the {self.name}")
        if not self._destination.is_durable or number <= self._written_number:
            return
        loop = asyncio.get_running_loop()
        written: asyncio.Future[bool] = loop.create_future()
        with self._lock:
            if number <= self._written_number:
                return
            self._waiting.append((number, loop, written))
        # A timer costs a seventh as much as `asyncio.timeout`.
        late = loop.call_later(_DELIVERY_SECONDS, _resolve, [written], False)
        try:
            if not await written:
                raise _unavailable(f"the {self.name} hasn't accepted data for {_DELIVERY_SECONDS:g} seconds")
        finally:
            late.cancel()

    def close(self, timeout_seconds: float) -> bool:
        """Write queued lines for at most this long, and return whether all were written. May be called twice."""
        with self._lock:
            self._closing.set()
            self._wake_up()
        self._thread.join(timeout_seconds)
        return not self._queue

    def _fits(self, size: int, share: float) -> bool:
        return len(self._queue) < MAX_LINES * share and self._bytes + size <= MAX_BYTES * share

    def _note_progress(self) -> None:
        self._progress_at = self._clock.monotonic()

    def _wake_up(self) -> None:
        if self._is_asleep:
            self._is_asleep = False
            self._wake.release()

    def _run(self) -> None:
        while self._await_lines():
            lines = self._next_lines()
            try:
                count = self._destination.write(lines)
            except OSError as error:
                if self._closing.is_set() and self._is_failing:
                    return  # another attempt would not help before the process exits
                if not self._is_failing:
                    self._is_failing = True
                    self._destination.report_failure(error)
                self._closing.wait(_RETRY_SECONDS)
            else:
                self._is_failing = False
                self._note_written(count)

    def _await_lines(self) -> bool:
        """Wait until there is something to write; return False once the writer is closed and everything is written."""
        with self._lock:
            # Don't make calls after checking the queue: a call might run a destructor that logs.
            is_idle = self._is_asleep = not self._closing.is_set() and not self._queue
        if is_idle:
            self._wake.acquire()
        if not self._destination.is_durable:
            # Waking this thread for each line would cost a busy server more than writing the line.
            self._closing.wait(_BATCH_SECONDS)
        with self._lock:
            if self._unreported and (self._closing.is_set() or self._fits(0, _ORDINARY_SHARE)):
                count, self._unreported = self._unreported, 0
                self._queue.append((lambda: self._destination.lost_line(count), 0))
                self._number += 1
            return bool(self._queue)

    def _next_lines(self) -> list[bytes]:
        with self._lock:
            renders = [render for render, _ in islice(self._queue, len(self._rendered), _BATCH_LINES)]
        lines = list(self._rendered)
        size = sum(map(len, lines))
        for render in renders:
            if size > _BATCH_BYTES:
                break
            lines.append(_line_of(render))
            size += len(lines[-1])
        self._rendered = deque(lines)
        return lines

    def _note_written(self, count: int) -> None:
        with self._lock:
            for _ in range(count):
                self._rendered.popleft()
                self._bytes -= self._queue.popleft()[1]
            self._written_number += count
            self._note_progress()
            done = defaultdict(list)
            while self._waiting and self._waiting[0][0] <= self._written_number:
                _, loop, future = self._waiting.popleft()
                done[loop].append(future)
        for loop, futures in done.items():
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(_resolve, futures, True)


def _resolve(futures: "list[asyncio.Future[bool]]", is_written: bool) -> None:  # noqa: FBT001 - of `call_soon`
    for future in futures:
        if not future.done():
            future.set_result(is_written)


def _line_of(render: Callable[[], str]) -> bytes:
    try:
        return f"{render()}\n".encode("utf-8", "backslashreplace")
    except Exception as error:  # noqa: BLE001 - one bad record must not end the log
        return f"a log record could not be formatted: {type(error).__name__}\n".encode()


def _unavailable(problem: str) -> ServerUnavailable:
    return ServerUnavailable(
        f"The server can't write this call to its audit log: {problem}.",
        remedy="Try again later. If the problem persists, contact the server's administrator.",
    )


class LogWriterHandler(logging.Handler):
    """Passes records to a `LogWriter`. They are formatted on its thread. Never blocks and never raises."""

    def __init__(self, writer: LogWriter, *, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self.writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record."""
        try:
            is_required = hasattr(record, RECEIPT_FIELD)
            if is_required and self.formatter is None and isinstance(record.msg, str) and not record.args:
                line = record.msg[:_MAX_MESSAGE_CHARACTERS]  # doesn't need formatting, like audit lines
                receipt = self.writer.put(lambda: line, len(line) + _LINE_OVERHEAD_BYTES, is_required=True)
            else:
                captured = _captured(record)
                size = sum(len(value) for value in captured.__dict__.values() if isinstance(value, str))
                receipt = self.writer.put(lambda: self.format(captured), size, is_required=is_required)
            if is_required:
                setattr(record, RECEIPT_FIELD, receipt)
        except Exception:  # noqa: BLE001 - the caller must continue, whatever a record holds
            self.handleError(record)


def _captured(record: logging.LogRecord) -> logging.LogRecord:
    """Return a copy that doesn't reference anything that could change before it is formatted."""
    fields: dict[str, object] = {}
    for name, value in record.__dict__.items():
        if isinstance(value, str):
            fields[name] = value[:_MAX_FIELD_CHARACTERS]
        elif value is None or isinstance(value, int | float):
            fields[name] = value
        elif name not in {"args", "exc_info", RECEIPT_FIELD}:
            fields[name] = _text(value)
    try:
        message = record.getMessage()
    except Exception:  # noqa: BLE001 - arguments that do not fit the message, or that cannot be shown
        message = _text(record.msg)
    fields |= {"msg": message[:_MAX_MESSAGE_CHARACTERS], "args": None, "exc_info": None}
    if record.exc_text or (record.exc_info and record.exc_info[0] is not None):
        text = record.exc_text or _FORMATTER.formatException(record.exc_info)  # type: ignore[arg-type]
        fields["exc_text"] = text[:_MAX_MESSAGE_CHARACTERS]
    return logging.makeLogRecord(fields)


def _text(value: object) -> str:
    try:
        return str(value)[:_MAX_FIELD_CHARACTERS]
    except Exception:  # noqa: BLE001 - the object's own `__str__`
        return "(a value that cannot be shown)"


class LogWriterStream(io.TextIOBase):
    """A text stream that replaces `sys.stderr` and whose lines are written by a `LogWriter`."""

    def __init__(self, writer: LogWriter) -> None:
        self._writer = writer
        self._lock = threading.RLock()
        self._partial = ""

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str) -> int:
        """Queue each complete line."""
        with self._lock:
            *lines, rest = (self._partial + text).split("\n")
            self._partial = rest[:_MAX_MESSAGE_CHARACTERS]
        for line in lines:
            self._put(line)
        return len(text)

    def flush(self) -> None:
        """Queue the incomplete line, if any."""
        with self._lock:
            line, self._partial = self._partial, ""
        if line:
            self._put(line)

    def _put(self, line: str) -> None:
        self._writer.put(lambda: line, len(line) + _LINE_OVERHEAD_BYTES)
