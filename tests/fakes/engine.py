"""An engine that answers a few fixed statements, for tests of the server alone."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from micromegas_jupyter.engine import QueryFigures, WorkClass
from micromegas_jupyter.errors import InvalidStatement, StatementRefused, UnsupportedStatement

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from micromegas_jupyter.contracts import AuthContext
    from micromegas_jupyter.engine import PlannedQuery, StatementRequest

NUMBERS = pa.record_batch({"n": pa.array([1, 2, 3], pa.int64())})
WORDS = pa.record_batch({"word": pa.array(["a", "b", "a"]).dictionary_encode()})
LOG_SCHEMA = pa.schema({"time": pa.timestamp("ns", "+00:00"), "msg": pa.string()})


@dataclass
class FakePlannedQuery:
    """Implements `engine.PlannedQuery`; `stream` makes the batches."""

    schema: pa.Schema
    stream: Callable[[], AsyncIterator[pa.RecordBatch]]
    parameter_schema: pa.Schema = field(default_factory=lambda: pa.schema([]))
    work_class: WorkClass = WorkClass.SMALL
    figures: QueryFigures = field(default_factory=lambda: QueryFigures(bytes_scanned=4096))

    def batches(self) -> AsyncIterator[pa.RecordBatch]:
        return self.stream()


class FakeEngine:
    """Implements `engine.Engine`. The statement's first word, in lower case, chooses the answer.

    `requests` and `callers` hold what was planned; `stream_started`, `stream_closed` tell about endless streams.
    """

    def __init__(self) -> None:
        self.requests: list[StatementRequest] = []
        self.callers: list[AuthContext] = []
        self.stream_started = threading.Event()
        self.stream_closed = threading.Event()

    async def plan(self, request: StatementRequest, caller: AuthContext) -> PlannedQuery:
        self.requests.append(request)
        self.callers.append(caller)
        word = next(iter(request.sql.lower().split()), "")
        if make_error := _FAILURES.get(word):
            raise make_error()
        match word:
            case "slow":
                await asyncio.Event().wait()
                return _fixed_rows(word)
            case "echo":
                echoed = request.parameters or pa.record_batch({"0": pa.array([], pa.int64())})
                return FakePlannedQuery(echoed.schema, lambda: _stream(echoed), pa.schema({"0": pa.int64()}))
            case "endless":
                return FakePlannedQuery(NUMBERS.schema, self._endless)
            case "waiting" | "heavy":
                return FakePlannedQuery(NUMBERS.schema, self._waiting, work_class=_CLASSES.get(word, WorkClass.SMALL))
            case "late":
                return FakePlannedQuery(NUMBERS.schema, _fails_late)
            case _:
                return _fixed_rows(word)

    def tables(self, caller: AuthContext) -> Sequence[tuple[str, pa.Schema]]:
        return [("processes", pa.schema({"exe": pa.string()})), ("log_entries", LOG_SCHEMA)]

    def close(self) -> None:
        """Nothing to release."""

    async def _endless(self) -> AsyncIterator[pa.RecordBatch]:
        batch = pa.record_batch({"n": pa.array(range(100_000), pa.int64())})
        self.stream_started.set()
        try:
            while True:
                yield batch
        finally:
            self.stream_closed.set()

    async def _waiting(self) -> AsyncIterator[pa.RecordBatch]:
        self.stream_started.set()
        try:
            yield NUMBERS
            await asyncio.Event().wait()
        finally:
            self.stream_closed.set()


class Panic(BaseException):
    """What an engine written in Rust raises when it panics: not an `Exception`."""


_CLASSES = {"heavy": WorkClass.HEAVY}
_FAILURES: dict[str, Callable[[], BaseException]] = {
    "wrong": lambda: InvalidStatement('No column "tagret" in log_entries.', line=1, column=14),
    "drop": lambda: StatementRefused("The statement would write."),
    "unsupported": lambda: UnsupportedStatement("MATCH_RECOGNIZE is not implemented."),
    "crash": lambda: RuntimeError("/srv/secret/engine.py:17 went wrong"),
    "cancelled": asyncio.CancelledError,
    "panic": lambda: Panic("/srv/secret/engine.rs:17 went wrong"),
}


def _fixed_rows(word: str) -> FakePlannedQuery:
    match word:
        case "words":
            batches = [WORDS, WORDS]
        case "large":
            batches = [pa.record_batch({"n": pa.array(range(1_000_000), pa.int64())})]
        case "empty":
            batches = []
        case _:
            batches = [NUMBERS]
    return FakePlannedQuery((batches or [NUMBERS])[0].schema, lambda: _stream(*batches))


async def _stream(*batches: pa.RecordBatch) -> AsyncIterator[pa.RecordBatch]:
    for batch in batches:
        yield batch


async def _fails_late() -> AsyncIterator[pa.RecordBatch]:
    yield NUMBERS
    raise InvalidStatement("Division by zero.")
