"""The life of one statement, or one upload: a slot, an executor, its answers, its end.

However a call ends, cancelled at whatever moment included, its executor is released when it waits for the next request,
and killed otherwise.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import signal
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from micromegas_jupyter.errors import InternalError
from micromegas_jupyter.executors import protocol
from micromegas_jupyter.executors.launcher import CachedPlan, Executor, ExecutorEnded
from micromegas_jupyter.executors.protocol import Output, Statement, Upload, encode_listing, encode_statement
from micromegas_jupyter.executors.scheduling import CHARGED, Cause, build_error, find_cause

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from types import TracebackType

    from micromegas_jupyter.core.protocols import AuthContext, TableSnapshot
    from micromegas_jupyter.executors.launcher import Ended
    from micromegas_jupyter.executors.pool import Pool
    from micromegas_jupyter.executors.scheduling import CallerKey, RunningLimit

_LOG: Final = logging.getLogger("micromegas_jupyter.executors")
_PLAN_SECONDS: Final = 2.0
_REPORTED: Final = (
    "planning_seconds",
    "context_init_seconds",
    "execution_seconds",
    "cpu_seconds",
    "peak_memory_bytes",
    "bytes_scanned",
    "spilled_bytes",
    "spill_count",
)
_MAX_LOGGED_STDERR: Final = 300
_LOGGED: Final = frozenset({"micromegas_jupyter.engine", "micromegas_jupyter.lake", "micromegas_jupyter.server"})
_MAX_CACHED_SQL_CHARACTERS: Final = 16 * 1024


class ClientGone(Exception):
    """The client has left while rows were sent to it."""


@dataclass(slots=True, kw_only=True)
class StatementReport:
    """What a statement took, as far as it came. What is not known is None.

    Attributes:
        waiting_seconds: Until it had an executor.
        planning_seconds: Until it was planned, making the session included.
        context_init_seconds: Listing and registering tables.
        execution_seconds: Physical planning and starting the streams.
        peak_memory_bytes: The executor's memory at its peak, beyond what it had when it started.
        cause: Why it was ended; None when it was not.
    """

    rows: int = 0
    waiting_seconds: float = 0.0
    planning_seconds: float | None = None
    context_init_seconds: float = 0.0
    execution_seconds: float = 0.0
    cpu_seconds: float | None = None
    peak_memory_bytes: int | None = None
    bytes_scanned: int | None = None
    spilled_bytes: int | None = None
    spill_count: int | None = None
    cause: Cause | None = None


class RunningStatement:
    """One call's use of the pool; an async context manager. Belongs to one event loop.

    Args:
        pool: Lends the executor.
        caller_key: Who calls: issuer and subject.
        query_id: The call's id, for the log.
        slots: An upload's limit of how many run at once; the pool's of statements when left out.

    Attributes:
        report: What it took; complete after the end of the `async with`.
    """

    def __init__(
        self, pool: Pool, caller_key: CallerKey, *, query_id: str = "", slots: RunningLimit | None = None
    ) -> None:
        self.caller_key = caller_key
        self.executor: Executor | None = None
        self.report = StatementReport()
        self.has_ended = asyncio.Event()
        self.started_at = self.slice_at = pool.clock.monotonic()
        self.waits_for_client_since: float | None = None
        self.is_stopped = False
        self.is_upload = slots is not None
        self.peak_bytes = 0
        self._pool = pool
        self._query_id = query_id
        self._created_at = self.started_at
        self._has_slot = False
        self._is_idle = False
        self._private_bytes = 0
        self._cause: Cause | None = None
        self._slots = slots or pool.slots
        self._timeout = asyncio.timeout(None if self.is_upload else pool.settings.statement_timeout_seconds)

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        executor, pool = self.executor, self._pool
        pool.running.discard(self)
        try:
            if executor is not None and self._is_idle:
                pool.release(executor, private_bytes=self._private_bytes)
            elif executor is not None:
                pool.discard(executor, holds_upload=self.is_upload)
            await self._finish(kind, error, traceback)
        finally:
            if self._has_slot:
                self._slots.release(self.caller_key)
            self.has_ended.set()

    async def _finish(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Raise the caller's error, when that is not `error` itself."""
        timed_out = False
        try:
            await self._timeout.__aexit__(kind, error, traceback)
        except TimeoutError:
            timed_out = True
        if timed_out:
            self._cause = self._cause or Cause.DEADLINE
        elif isinstance(error, asyncio.CancelledError | ClientGone):
            self._cause = self._cause or Cause.DISCONNECTED
        elif not isinstance(error, ExecutorEnded):
            return
        if self.executor is None:
            # It has not run, so nothing was ended and nobody is charged.
            cause = self._cause or Cause.LOST
            self.report.waiting_seconds = self._pool.clock.monotonic() - self._created_at
        elif not self.executor.is_gone:
            cause = self._cause or Cause.LOST  # it was done, and another statement has its executor
        else:
            ended = await self._pool.await_end(self.executor)
            used_bytes = (ended.max_resident_bytes or 0) - self.executor.baseline_bytes
            cause = find_cause(ended, self._cause, is_large=used_bytes > self._pool.options.large_bytes)
            self._note_end(cause, ended, self.executor)
        if timed_out or isinstance(error, ExecutorEnded):
            raise build_error(cause, settings=self._pool.settings, options=self._pool.options) from None

    def _note_end(self, cause: Cause, ended: Ended, executor: Executor) -> None:
        pool, report = self._pool, self.report
        pool.on_end(cause)
        report.cause = cause
        report.cpu_seconds = report.peak_memory_bytes = None
        if ended.cpu_seconds is not None:
            report.cpu_seconds = max(0.0, ended.cpu_seconds - executor.cpu_seconds)
        if ended.max_resident_bytes is not None:
            report.peak_memory_bytes = max(self.peak_bytes, ended.max_resident_bytes - executor.baseline_bytes)
        if cause in CHARGED:
            pool.ended_limit.note(self.caller_key)
        if cause in CHARGED or cause is Cause.LOST:
            _LOG.warning(
                "A statement's executor was ended.",
                extra={
                    "query_id": self._query_id,
                    "cause": cause.value,
                    "caller": self.caller_key[1],
                    "exit_code": ended.code,
                    "stderr": ended.error[-_MAX_LOGGED_STDERR:].strip(),
                },
            )

    def end(self, cause: Cause) -> None:
        """End the statement, wherever it is; its call raises the error for the cause."""
        if self._cause is not None or self.has_ended.is_set():
            return
        self._cause = cause
        if self.executor is not None:
            self.executor.kill()
        # The call may wait for a slot, an executor or its client; the timeout reaches it anywhere.
        with suppress(RuntimeError):  # it has just ended by itself
            self._timeout.reschedule(asyncio.get_running_loop().time())

    def set_stopped(self, now: float, *, is_stopped: bool) -> None:
        """Stop the executor's process, or continue it."""
        if is_stopped == self.is_stopped or self.executor is None:
            return
        self.is_stopped = is_stopped
        self.slice_at = now
        self.executor.process.signal(signal.SIGSTOP if is_stopped else signal.SIGCONT)

    async def begin(self, *, plan: CachedPlan | None = None) -> Executor:
        """Wait for a slot and an executor; ResourcesExhausted when none is free in time, or the caller has to wait."""
        pool = self._pool
        pool.ended_limit.check(self.caller_key)
        await self._slots.acquire(self.caller_key)
        self._has_slot = True
        executor = await pool.take(plan)
        self.executor = executor
        self.started_at = self.slice_at = pool.clock.monotonic()
        self.report.waiting_seconds = self.started_at - self._created_at
        pool.running.add(self)
        return executor

    async def request(self, kind: bytes, body: bytes) -> None:
        """Send a request to the executor."""
        assert self.executor is not None  # noqa: S101 - `begin` came before
        self._is_idle = False
        await self.executor.send(kind, body)

    async def read(self) -> tuple[bytes, bytes]:
        """Return the kind and body of the executor's next answer; an error that it answers is raised."""
        assert self.executor is not None  # noqa: S101 - `begin` came before
        kind, body = await self.executor.read()
        if kind in protocol.LAST:
            self._is_idle = True
            if kind == protocol.ERROR:
                facts = protocol.parse_json(body)
                self._is_idle = not facts.get("is_broken")
                self._take_statistics(facts)
                raise protocol.parse_error(facts)
            if kind == protocol.END:
                self._take_statistics(protocol.parse_json(body))
        return kind, body

    def _take_statistics(self, facts: dict[str, Any]) -> None:
        executor = self.executor
        assert executor is not None  # noqa: S101 - it has answered
        executor.cpu_seconds = float(facts.get("process_cpu_seconds", 0.0))
        self._private_bytes = int(facts.get("private_bytes", 0))
        report = self.report
        report.rows = int(facts.get("rows", 0))
        for name in _REPORTED:
            if name in facts:
                setattr(report, name, facts[name])
        for level, name, text in facts.get("log", ())[: protocol.MAX_LOG_RECORDS]:
            # An executor that a statement has taken over cannot write other parts' records, such as the audit's.
            part = ".".join(str(name).split(".")[:2])
            log = logging.getLogger(part if part in _LOGGED else "micromegas_jupyter.executors")
            log.log(int(level), "%s", str(text)[: protocol.MAX_LOG_CHARACTERS])
        if facts.get("has_changed_denials"):
            self._pool.on_denials_changed()

    async def write(self, write: Callable[[bytes], Awaitable[None]], frame: bytes) -> None:
        """Send a frame to the client, and note since when it is waiting for the client."""
        self.waits_for_client_since = self._pool.clock.monotonic()
        await write(frame)
        self.waits_for_client_since = None


async def plan_statement(pool: Pool, statement: Statement, running: RunningStatement) -> tuple[bytes, bytes]:
    """Return the IPC schemas of a statement's result and parameters; the plan is cached for the call that runs it."""
    await pool.listing.refresh_for(statement.sql)
    if (plan := pool.find_plan(statement)) is not None:
        return plan.schemas
    executor = await running.begin()
    plan_id = pool.next_plan_id()
    version = pool.listing.version
    body = encode_statement(
        statement, Output(), plan_id=plan_id, partitions=pool.partitions, tables=_new_tables(pool, executor)
    )
    await running.request(protocol.PLAN, body)
    kind, body = await running.read()
    if kind != protocol.PLANNED:
        raise InternalError("An executor gave an unexpected answer.")
    schemas = protocol.parse_pair(body)
    if len(statement.sql) <= _MAX_CACHED_SQL_CHARACTERS:
        executor.plan = CachedPlan(
            statement=statement,
            version=version,
            plan_id=plan_id,
            schemas=schemas,
            expires_at=pool.clock.monotonic() + _PLAN_SECONDS,
        )
    return schemas


async def run_statement(  # noqa: PLR0913 - what a run needs, and who is told
    pool: Pool,
    statement: Statement,
    running: RunningStatement,
    *,
    output: Output,
    write: Callable[[bytes], Awaitable[None]],
    on_running: Callable[[], None] = lambda: None,
) -> None:
    """Run a statement and pass each frame of its result to `write`.

    Args:
        pool: Lends the executor.
        statement: The statement.
        running: The call's use of the pool, entered.
        output: How the result is sent.
        write: Sends one serialized `FlightData` to the client.
        on_running: Called when an executor has the statement.
    """
    await pool.listing.refresh_for(statement.sql)
    plan = pool.find_plan(statement)
    executor = await running.begin(plan=plan)
    plan_id = plan.plan_id if plan is not None and executor.plan is plan else 0
    executor.plan = None
    on_running()
    body = encode_statement(
        statement, output, plan_id=plan_id, partitions=pool.partitions, tables=_new_tables(pool, executor)
    )
    await running.request(protocol.RUN, body)
    while True:
        kind, body = await running.read()
        if kind == protocol.END:
            return
        if kind != protocol.FRAME:
            raise InternalError("An executor gave an unexpected answer.")
        await running.write(write, body)


async def list_tables(pool: Pool, caller: AuthContext, running: RunningStatement) -> list[tuple[str, bytes]]:
    """Return the tables that a caller sees, each with the IPC schema of `SELECT *`."""
    await pool.listing.refresh()
    executor = await running.begin()
    await running.request(protocol.TABLES, encode_listing(caller, _new_tables(pool, executor)))
    _, body = await running.read()
    return [(str(name), bytes.fromhex(schema)) for name, schema in protocol.parse_json(body)["tables"]]


class RunningUpload:
    """One upload on one executor; frames go one at a time."""

    def __init__(self, running: RunningStatement) -> None:
        self._running = running
        self.rows = 0

    async def begin(self, upload: Upload) -> None:
        """Get an executor and announce the upload."""
        await self._running.begin()
        await self._running.request(protocol.INGEST, pickle.dumps(upload, pickle.HIGHEST_PROTOCOL))
        await self._running.read()

    async def send(self, frame: bytes) -> None:
        """Send one serialized `FlightData`; when it cannot be used, no row is stored."""
        await self._running.request(protocol.ROWS, frame)
        _, body = await self._running.read()
        self.rows = int(protocol.parse_json(body).get("rows", 0))

    async def commit(self) -> int:
        """Make all rows durable and visible; return how many."""
        await self._running.request(protocol.COMMIT, b"")
        await self._running.read()
        return self._running.report.rows


def _new_tables(pool: Pool, executor: Executor) -> Sequence[TableSnapshot] | None:
    """Return the tables unless the executor knows this version of them."""
    if executor.tables_version == pool.listing.version:
        return None
    executor.tables_version = pool.listing.version
    return pool.listing.tables
