"""The front end's side of the ingest process, and the lake's maintenance rounds."""

import asyncio
import base64
import itertools
import logging
import pickle
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self

from micromegas_jupyter.core.protocols import TableSnapshot
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.engine.contract import EngineSettings
from micromegas_jupyter.errors import InternalError, MicromegasError, ResourcesExhausted, ServerUnavailable
from micromegas_jupyter.executors import protocol
from micromegas_jupyter.executors.launcher import Channel, Executor, ExecutorEnded, await_shared
from micromegas_jupyter.executors.pool import Pool, log_records
from micromegas_jupyter.executors.protocol import Upload
from micromegas_jupyter.executors.scheduling import LONG_NICENESS, CallerKey, RunningLimit
from micromegas_jupyter.otlp.exchange import ExportReport, ExportRequest
from micromegas_jupyter.telemetry.view_definitions import ViewDefinition

_LOG: Final = logging.getLogger("micromegas_jupyter.executors")
_START_SECONDS: Final = 60.0
_CHECK_INTERVAL_SECONDS: Final = 10.0
_CHECK_SECONDS: Final = 30.0
_MAINTENANCE_SECONDS: Final = 15.0
_MAX_ROUND_SECONDS: Final = 3600.0
_FULL_SECONDS: Final = 60.0
_REFRESH_SECONDS: Final = 60
_MAX_REFRESH_SECONDS: Final = 600
_MAX_REFRESH_FAILURES: Final = 10


class StorageSpace:
    """Whether the lake's storage was full at the last write, because free-space figures don't include quotas.

    It counts as full for a minute, so that a server without further writes becomes ready again.
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._full_until = float("-inf")
        self._is_reported = False

    @property
    def is_full(self) -> bool:
        """Whether a write failed within the last minute because the storage was full, and none has succeeded since."""
        return self._clock.monotonic() < self._full_until

    def note_error(self, error: BaseException) -> None:
        """Record an error if it means that the storage is full; other write errors are ignored."""
        if not isinstance(error, ResourcesExhausted) or error.limit != "storage":
            return
        self._full_until = self._clock.monotonic() + _FULL_SECONDS
        if not self._is_reported:
            self._is_reported = True
            _LOG.error("The lake's storage is full: all rows sent to this server are rejected until there is space.")

    def note_write(self) -> None:
        """Record a successful write, which proves that the storage isn't full."""
        if self._is_reported:
            self._is_reported, self._full_until = False, float("-inf")
            _LOG.warning("The lake's storage has space again: rows are stored.")


class IngestProcess:
    """The process that stores callers' rows; it is started on the first call and restarted if it exits.

    It is killed if it doesn't respond. Belongs to one event loop, and stops with its pool.
    """

    def __init__(self, pool: Pool, *, space: StorageSpace | None = None) -> None:
        self._pool = pool
        self.space = space or StorageSpace()
        self._executor: Executor | None = None
        self._starting: asyncio.Task[Executor] | None = None
        self._has_ended = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def open_channel(self) -> Channel:
        """Return a channel for one call, which closes it."""
        executor = self._executor
        if executor is None or executor.is_gone:
            if self._starting is None:
                self._starting = asyncio.get_running_loop().create_task(self._start())
                self._starting.add_done_callback(self._note_start)
            # Shielded, because an abandoned call must not leak an unregistered process.
            executor = await await_shared(self._starting)
        return executor.open_channel()

    def another(self) -> "IngestProcess":
        """Return a separate process from the same pool, for work that may crash it."""
        return IngestProcess(self._pool, space=self.space)

    def end(self) -> None:
        """Kill the process, even while it is working or starting."""
        self._has_ended = True
        if self._executor is not None:
            self._pool.discard(self._executor)

    async def _start(self) -> Executor:
        executor = await self._pool.detach()
        try:
            async with asyncio.timeout(_START_SECONDS):
                await executor.send(protocol.SERVE, b"")
                await executor.read()  # from here on, it reads channels
        except TimeoutError:
            self._pool.discard(executor)
            raise ExecutorEnded from None
        except BaseException:
            self._pool.discard(executor)
            raise
        self.run_in_background(self._watch(executor))
        return executor

    def _note_start(self, starting: asyncio.Task[Executor]) -> None:
        self._starting = None
        if not starting.cancelled() and starting.exception() is None:
            self._executor = starting.result()
            if self._has_ended:
                self.end()

    async def _watch(self, executor: Executor) -> None:
        """Kill the process if it is suspended or has locked up; otherwise, its calls would wait for hours."""
        while not executor.is_gone:
            await asyncio.sleep(_CHECK_INTERVAL_SECONDS)
            with suppress(ExecutorEnded):
                channel = executor.open_channel()
                try:
                    async with asyncio.timeout(_CHECK_SECONDS):
                        await channel.send(protocol.CHECK, b"")
                        await channel.read()
                except TimeoutError:
                    _LOG.error("The process that stores rows doesn't respond; it is stopped and replaced.")
                    self._pool.discard(executor)
                finally:
                    channel.close()

    def run_in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run until the work finishes or the event loop stops."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class IngestCall:
    """One upload or series of table operations; an async context manager. Belongs to one event loop.

    With `is_alone`, it has its own process, which exits with it.
    """

    def __init__(
        self, process: IngestProcess, caller_key: CallerKey, *, slots: RunningLimit, is_alone: bool = False
    ) -> None:
        self._process = process.another() if is_alone else process
        self._is_alone = is_alone
        self._caller_key = caller_key
        self._slots = slots
        self._channel: Channel | None = None
        self._is_waiting = False  # for a response
        self._is_committing = False
        self._is_operating = False

    async def __aenter__(self) -> Self:
        await self._slots.acquire(self._caller_key)
        try:
            self._channel = await self._process.open_channel()
        except BaseException as error:
            if self._is_alone:
                self._process.end()
            self._slots.release(self._caller_key)
            if isinstance(error, ExecutorEnded):
                raise _lost(is_committing=False) from None
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # An uncommitted upload is dropped when its channel closes.
        is_at_work = self._channel is not None and self._is_waiting and not isinstance(error, ExecutorEnded)
        if self._is_alone:
            self._process.end()
        if self._channel is not None and is_at_work and not self._is_alone:
            # The process is still working although no caller is waiting for it, so the slot stays taken.
            self._process.run_in_background(self._close_when_done(self._channel))
        else:
            if self._channel is not None:
                self._channel.close()
            self._slots.release(self._caller_key)
        if isinstance(error, ExecutorEnded):
            raise _lost(is_committing=self._is_committing, is_operating=self._is_operating) from None

    async def _close_when_done(self, channel: Channel) -> None:
        try:
            await channel.await_end()
        finally:
            channel.close()
            self._slots.release(self._caller_key)

    async def begin_upload(self, upload: Upload) -> None:
        """Announce an upload."""
        await self._request(protocol.INGEST, pickle.dumps((upload,)))

    async def send_rows(self, frame: bytes) -> int:
        """Send one serialized `FlightData`, and return its number of rows; an error drops all of them."""
        return int((await self._request(protocol.ROWS, frame)).get("rows", 0))

    async def commit_upload(self) -> int:
        """Make all rows durable and visible; return their number."""
        return int((await self._request(protocol.COMMIT, b"")).get("rows", 0))

    async def operate(self, operation: str, arguments: dict[str, object]) -> Any:
        """Create, change, or describe a table; return the operation's result."""
        self._is_operating = True
        return (await self._request(protocol.OPERATE, pickle.dumps((operation, arguments)))).get("result")

    async def _request(self, kind: bytes, body: bytes) -> dict[str, Any]:
        if self._channel is None:
            raise InternalError("An ingest call was used outside of its context.")
        self._is_waiting = True
        await self._channel.send(kind, body)
        self._is_committing = kind == protocol.COMMIT  # an incompletely sent commit has no effect
        kind, body = await self._channel.read()
        self._is_waiting = False
        try:
            facts = _facts_of(kind, body)
        except ResourcesExhausted as error:
            self._process.space.note_error(error)
            raise
        if self._is_committing:
            self._process.space.note_write()
        return facts


class Exports:
    """Stores OpenTelemetry exports, any number at a time, over one channel. Belongs to one event loop."""

    def __init__(self, process: IngestProcess) -> None:
        self._process = process
        self._numbers = itertools.count()
        self._connecting = asyncio.Lock()
        self._link: _ExportLink | None = None

    async def store(self, request: ExportRequest) -> ExportReport:
        """Store an export and return the report."""
        try:
            async with self._connecting:
                if self._link is None or self._link.has_ended:
                    self._link = _ExportLink(await self._process.open_channel())
                    self._process.run_in_background(self._link.read())
            report = await self._link.store(next(self._numbers), request)
        except ResourcesExhausted as error:
            self._process.space.note_error(error)
            raise
        except ExecutorEnded:
            raise ServerUnavailable(
                "The process that stores exports exited, so it is unknown whether this export was stored.",
                remedy="Send it again within a few minutes. Stored rows aren't duplicated.",
            ) from None
        self._process.space.note_write()
        return report


class _ExportLink:
    """One channel and the tasks that are waiting for its responses."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._sending = asyncio.Lock()
        self._waiting: dict[int, asyncio.Future[ExportReport]] = {}
        self.has_ended = False

    async def store(self, number: int, request: ExportRequest) -> ExportReport:
        answer: asyncio.Future[ExportReport] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            # A canceled sender must not truncate the request.
            await asyncio.shield(asyncio.ensure_future(self._send(number, request)))
            return await answer
        finally:
            self._waiting.pop(number, None)

    async def read(self) -> None:
        """Pass each response to its waiting task, until the process exits."""
        try:
            while True:
                kind, body = await self._channel.read()
                facts = protocol.parse_json(body)
                log_records(facts)
                answer = self._waiting.get(facts.get("number", -1))
                if answer is None or answer.done():
                    await asyncio.sleep(0)  # a compromised process could otherwise block the event loop
                    continue
                if kind == protocol.ERROR:
                    answer.set_exception(protocol.parse_error(facts))
                else:
                    answer.set_result(_parse_report(facts))
        except (ExecutorEnded, InternalError):
            pass
        finally:
            self._end()

    async def _send(self, number: int, request: ExportRequest) -> None:
        async with self._sending:
            with suppress(ExecutorEnded):
                if not self.has_ended:
                    await self._channel.send(protocol.EXPORT, pickle.dumps((number, request)))
                    return
            self._end()

    def _end(self) -> None:
        if not self.has_ended:
            self.has_ended = True
            self._channel.close()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(ExecutorEnded())


def _parse_report(facts: dict[str, Any]) -> ExportReport:
    try:
        return ExportReport(
            stored=int(facts["stored"]), refused=int(facts["refused"]), answer=base64.b64decode(facts["answer"])
        )
    except (KeyError, TypeError, ValueError):
        raise InternalError("A response from the ingest process is malformed.") from None


def check_view(tables: Sequence[TableSnapshot], settings: EngineSettings, view: ViewDefinition) -> dict[str, str]:
    """Check the definition of a view, in an executor, as `views.check_definition` does."""
    from micromegas_jupyter.executors.views import check_definition  # it loads DataFusion

    return check_definition(tables, settings, view)


async def refresh_view(
    pool: Pool, name: str, rebuilt: tuple[datetime, datetime] | None = None, *, niceness: int = LONG_NICENESS
) -> dict[str, Any]:
    """Refresh a view in its own executor, like `views.refresh_view`."""
    executor = await pool.detach()
    try:
        executor.renice(niceness)
        async with asyncio.timeout(_MAX_ROUND_SECONDS):
            await executor.send(protocol.REFRESH, pickle.dumps((name, rebuilt)))
            return _facts_of(*await executor.read())
    finally:
        pool.discard(executor)


class ViewRefresher:
    """Refreshes materialized views sequentially, each at most once a minute, with increasing delays after failures."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._task: asyncio.Task[None] | None = None
        self._due: dict[str, tuple[float, int]] = {}  # monotonic time, and number of consecutive failures

    def start(self, names: Sequence[str]) -> None:
        """Refresh views that are missing rows, unless a refresh is already running."""
        now = self._pool.clock.monotonic()
        due = [name for name in names if self._due.get(name, (now, 0))[0] <= now]
        if due and (self._task is None or self._task.done()):
            self._task = self._pool.run_in_background(self._refresh(due))

    async def _refresh(self, names: Sequence[str]) -> None:
        for name in names:
            failures = self._due.get(name, (0.0, 0))[1] + 1
            try:
                # Refresh in a separate process, because the view may crash it.
                await refresh_view(self._pool, name)
                failures = 0
            except (ExecutorEnded, TimeoutError):
                _LOG.warning("The process that refreshed the view %s was ended.", name)
            except MicromegasError as error:
                _LOG.warning("The view %s could not be refreshed: %s", name, error.what)
            except Exception as error:  # noqa: BLE001 - the others must be refreshed
                _LOG.warning("The view %s could not be refreshed.", name, exc_info=error)
            seconds = min(_REFRESH_SECONDS << failures, _MAX_REFRESH_SECONDS)
            self._due[name] = self._pool.clock.monotonic() + seconds, min(failures, _MAX_REFRESH_FAILURES)


async def maintain(pool: Pool, on_status: Callable[[dict[str, Any]], None] = lambda _: None) -> None:
    """Run a maintenance round in an executor every few seconds until canceled.

    `on_status` gets a `LakeStatus` as decoded JSON after each round that this server ran. Views that lack rows are
    refreshed concurrently: maintenance doesn't wait for them.
    """
    seen: object = None
    refresher = ViewRefresher(pool)
    while True:
        await asyncio.sleep(_MAINTENANCE_SECONDS)
        try:
            executor = await pool.detach()
            try:
                executor.renice(LONG_NICENESS)
                async with asyncio.timeout(_MAX_ROUND_SECONDS):
                    await executor.send(protocol.MAINTAIN, pickle.dumps((seen,)))
                    facts = _facts_of(*await executor.read())
            finally:
                pool.discard(executor)
            seen = facts.get("seen")
            if facts.get("status"):
                on_status(facts["status"])
                refresher.start(facts["status"]["views"])
        except ExecutorEnded:
            _LOG.warning("The process that maintained the lake has ended; another follows.")
        except Exception as error:  # noqa: BLE001 - the next round must come
            _LOG.warning("A round of maintenance failed.", exc_info=error)


def _facts_of(kind: bytes, body: bytes) -> dict[str, Any]:
    """Return an executor's response without its log records; raise an error response."""
    facts = protocol.parse_json(body)
    log_records(facts)
    if kind == protocol.ERROR:
        raise protocol.parse_error(facts)
    return facts


def _lost(*, is_committing: bool, is_operating: bool = False) -> ServerUnavailable:
    if is_operating:
        return ServerUnavailable(
            "The process that changes tables exited, so it is unknown whether the change was made.",
            remedy="Check the table, and try again.",
        )
    if is_committing:
        return ServerUnavailable(
            "The process that stores rows exited, so it is unknown whether these rows were stored.",
            remedy="Send them again with the same ingest ID. Stored rows aren't duplicated.",
        )
    return ServerUnavailable(
        "The process that stores rows exited, so none of these rows were stored.", remedy="Send them again."
    )
