"""The front's side of the ingest process, and the rounds that keep the lake in order."""

import asyncio
import logging
import pickle
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

from micromegas_jupyter.errors import InternalError, ServerUnavailable
from micromegas_jupyter.executors import protocol
from micromegas_jupyter.executors.launcher import Channel, Executor, ExecutorEnded
from micromegas_jupyter.executors.pool import Pool, log_records
from micromegas_jupyter.executors.protocol import Upload
from micromegas_jupyter.executors.scheduling import CallerKey, RunningLimit

_LOG: Final = logging.getLogger("micromegas_jupyter.executors")
_MAINTENANCE_SECONDS: Final = 15.0
_MAX_ROUND_SECONDS: Final = 3600.0


class IngestProcess:
    """The process that stores what callers send, started at the first call and again when it has ended.

    Belongs to one event loop, and ends with the pool that it comes from.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._executor: Executor | None = None
        self._starting = asyncio.Lock()

    async def open_channel(self) -> Channel:
        """Return a channel for one call, which closes it."""
        async with self._starting:
            if self._executor is None or self._executor.is_gone:
                executor = await self._pool.detach()
                await executor.send(protocol.SERVE, b"")
                await executor.read()  # what it reads from now on are channels
                self._executor = executor
            return self._executor.open_channel()


class IngestCall:
    """One upload, or operations on tables; an async context manager. Belongs to one event loop."""

    def __init__(self, process: IngestProcess, caller_key: CallerKey, *, slots: RunningLimit) -> None:
        self._process = process
        self._caller_key = caller_key
        self._slots = slots
        self._channel: Channel | None = None
        self._has_slot = False
        self._is_committing = False
        self._is_operating = False

    async def __aenter__(self) -> Self:
        await self._slots.acquire(self._caller_key)
        self._has_slot = True
        try:
            self._channel = await self._process.open_channel()
        except BaseException as error:
            self._slots.release(self._caller_key)
            if isinstance(error, ExecutorEnded):
                raise _lost(is_committing=False) from None
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._channel is not None:
            self._channel.close()  # an upload that is not committed is dropped
        self._slots.release(self._caller_key)
        if isinstance(error, ExecutorEnded):
            raise _lost(is_committing=self._is_committing, is_operating=self._is_operating) from None

    async def begin_upload(self, upload: Upload) -> None:
        """Announce an upload."""
        await self._request(protocol.INGEST, pickle.dumps((upload,)))

    async def send_rows(self, frame: bytes) -> int:
        """Send one serialized `FlightData`, and return how many rows there are; an error drops all of them."""
        return int((await self._request(protocol.ROWS, frame)).get("rows", 0))

    async def commit_upload(self) -> int:
        """Make all rows durable and visible; return how many."""
        self._is_committing = True
        return int((await self._request(protocol.COMMIT, b"")).get("rows", 0))

    async def operate(self, operation: str, arguments: dict[str, object]) -> Any:
        """Create, change or describe a table; return the operation's result."""
        self._is_operating = True
        return (await self._request(protocol.OPERATE, pickle.dumps((operation, arguments)))).get("result")

    async def _request(self, kind: bytes, body: bytes) -> dict[str, Any]:
        if self._channel is None:
            raise InternalError("An ingest call was used outside of its context.")
        await self._channel.send(kind, body)
        kind, body = await self._channel.read()
        facts = protocol.parse_json(body)
        log_records(facts)
        if kind == protocol.ERROR:
            raise protocol.parse_error(facts)
        return facts


async def maintain(pool: Pool, on_status: Callable[[dict[str, Any]], None] = lambda _: None) -> None:
    """Have an executor do a round of maintenance every few seconds, until this is cancelled.

    `on_status` gets a `LakeStatus` as JSON holds it, after each round that was this server's.
    """
    seen: object = None
    while True:
        await asyncio.sleep(_MAINTENANCE_SECONDS)
        try:
            facts = await _maintain_once(pool, seen)
            seen = facts.get("seen")
            if facts.get("status"):
                on_status(facts["status"])
        except ExecutorEnded:
            _LOG.warning("The process that maintained the lake has ended; another follows.")
        except Exception as error:  # noqa: BLE001 - the next round must come
            _LOG.warning("A round of maintenance failed.", exc_info=error)


async def _maintain_once(pool: Pool, seen: object) -> dict[str, Any]:
    executor = await pool.detach()
    try:
        executor.renice()
        async with asyncio.timeout(_MAX_ROUND_SECONDS):
            await executor.send(protocol.MAINTAIN, pickle.dumps((seen,)))
            kind, body = await executor.read()
        facts = protocol.parse_json(body)
        log_records(facts)
        if kind == protocol.ERROR:
            raise protocol.parse_error(facts)
        return facts
    finally:
        pool.discard(executor)


def _lost(*, is_committing: bool, is_operating: bool = False) -> ServerUnavailable:
    if is_operating:
        return ServerUnavailable(
            "The process that changes tables has ended, and whether this was done is not known.",
            remedy="Look at the table, and try again.",
        )
    if is_committing:
        return ServerUnavailable(
            "The process that stores rows has ended, and whether these were stored is not known.",
            remedy="Send them again under the same ingest id: what is stored already is not stored twice.",
        )
    return ServerUnavailable(
        "The process that stores rows has ended, and none of these was stored.", remedy="Send them again."
    )
