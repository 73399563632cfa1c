"""Sends one planned query's rows to its client, within the limits of a result.

Whose turn it is and what becomes of errors is `queries`' job.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

from micromegas_jupyter.engine import PlannedQuery
from micromegas_jupyter.engine.one_row import ReadyQuery
from micromegas_jupyter.flightsql.framing import Compression, FlightDataEncoder, KeptEncoding
from micromegas_jupyter.server.admission import Turn
from micromegas_jupyter.server.audit import QueryAudit
from micromegas_jupyter.server.calls import Call
from micromegas_jupyter.server.headers import parse_compression
from micromegas_jupyter.server.metrics import QueryMeasure, ServerMetrics
from micromegas_jupyter.server.query_limits import ResultSize

_CLOSE_SECONDS: Final = 10.0
_ENCODING: Final = "encoding"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """Where rows go, and who takes note of them."""

    call: Call
    turn: Turn
    size: ResultSize
    audit: QueryAudit
    measure: QueryMeasure
    metrics: ServerMetrics

    async def send(self, planned: PlannedQuery) -> None:
        """Run the query and send its rows.

        Raises:
            QueryError: The query fails, or gives more than it may.
        """
        compression = parse_compression(self.call.headers)
        encoder = _find_encoder(planned, compression)
        await self._write(encoder.encode_schema())
        batches = planned.batches()
        is_whole = False
        try:
            async for batch in batches:
                sent = self.size.fit(batch)
                encoded = encoder.encode_batch(sent)
                if compression is not None:  # work that would hold up other calls
                    encoded = iter(await asyncio.to_thread(list, encoded))
                for message in encoded:
                    self.size.check_message(len(message))
                    await self._write(message)
                    self.metrics.count_sent(rows=0, size=len(message))
                self.metrics.count_sent(rows=sent.num_rows, size=0)
                self.audit.output_rows += sent.num_rows
                self.size.count_rows(sent.num_rows, of=batch.num_rows)
            is_whole = True
        finally:
            # Without this the engine would work on until the garbage collector finds the iterator.
            close = None if is_whole else getattr(batches, "aclose", None)
            if close is not None:
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await close()

    async def _write(self, message: bytes) -> None:
        with self.measure.sending(), self.turn.idle():
            await self.call.write(message)


def _find_encoder(planned: PlannedQuery, compression: Compression | None) -> FlightDataEncoder | KeptEncoding:
    """Return what encodes a query's rows; rows that are the same each time are encoded once."""
    shared = planned.shared if isinstance(planned, ReadyQuery) else None
    if shared is None or compression is not None:
        return FlightDataEncoder(planned.schema, compression=compression)
    found = shared.get(_ENCODING)
    if not isinstance(found, KeptEncoding):
        found = shared[_ENCODING] = KeptEncoding(planned.schema)
    return found
