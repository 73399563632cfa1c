"""The rows of statements of literals, such as the `SELECT 1` by which programs ask whether a connection still works.

Such a row depends on neither caller, tables nor time, so it is computed once. Which statements these are is `reading`'s
answer; who may ask at all, the server has found before.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from micromegas_jupyter.engine.one_row import Ran, ReadyQuery

if TYPE_CHECKING:
    from micromegas_jupyter.engine.contract import StatementRequest

_MOST_KEPT: Final = 256
_NO_PARAMETERS: Final = pa.schema([])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    schema: pa.Schema
    batches: tuple[pa.RecordBatch, ...]
    shared: dict[str, object] = field(default_factory=dict)


class KeptAnswers:
    """Keeps the answers of the last 256 such statements, by their texts; a lock covers them."""

    def __init__(self) -> None:
        self._answers: dict[str, _Answer] = {}
        self._lock = threading.Lock()

    def get(self, request: StatementRequest) -> ReadyQuery | None:
        """Return the answer to a request; None when it is not known, or when the request asks for more than the text.

        A time range and the encoding of texts change nothing in a row of literals.
        """
        answer = self._answers.get(request.sql)
        if answer is None or request.parameters is not None or request.row_limit is not None:
            return None
        return ReadyQuery(
            Ran(batches=answer.batches, seconds=0.0),
            schema=answer.schema,
            parameter_schema=_NO_PARAMETERS,
            context_init_seconds=0.0,
            shared=answer.shared,
        )

    def keep(self, request: StatementRequest, schema: pa.Schema, ran: Ran) -> None:
        """Keep what came of a statement of literals, if it came to an end and nothing else was asked for."""
        if ran.failure is not None or request.parameters is not None or request.row_limit is not None:
            return
        with self._lock:
            self._answers[request.sql] = _Answer(schema=schema, batches=ran.batches)
            if len(self._answers) > _MOST_KEPT:
                del self._answers[next(iter(self._answers))]

    def clear(self) -> None:
        """Forget all of them."""
        with self._lock:
            self._answers.clear()
