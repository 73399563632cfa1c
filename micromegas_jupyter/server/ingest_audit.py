"""One JSON line for each ingest, however it ended, on the logger of the query audit.

Queries have lines of their own (`audit`); who sees lines in the lake is the engine's answer.
"""

import logging
from dataclasses import dataclass, field
from typing import Final

from micromegas_jupyter.access.audit_lines import encode_line, utc_text
from micromegas_jupyter.access.credential import token_name
from micromegas_jupyter.contracts import AuthType
from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.flightsql.ingest_command import IngestCommand
from micromegas_jupyter.seams import Clock
from micromegas_jupyter.server.attribution import Attribution
from micromegas_jupyter.server.audit import AUDIT_LOGGER, classify_error, describe_asker
from micromegas_jupyter.server.authentication import parse_authorization
from micromegas_jupyter.server.calls import Call
from micromegas_jupyter.server.headers import parse_client_tags

_AUDIT: Final = logging.getLogger(AUDIT_LOGGER)
_LOG: Final = logging.getLogger("micromegas_jupyter.server")
_MAX_TABLE_CHARACTERS: Final = 256


@dataclass(slots=True, kw_only=True)
class IngestAudit:
    """Collects one ingest's measures and writes its line.

    Attributes:
        call: The call.
        command: What it asks for.
        client_address: Where it comes from.
        attribution: On whose behalf it is made.
        clock: Tells the time.
        rows: Rows that were received, and with status `ok` stored.
        received_bytes: Bytes that were received.
        write_id: What names the write, when the caller gave it a name.
    """

    call: Call
    command: IngestCommand
    client_address: str
    attribution: Attribution
    clock: Clock
    rows: int = 0
    received_bytes: int = 0
    write_id: str | None = None
    _started: float = field(init=False)

    def __post_init__(self) -> None:
        self._started = self.clock.monotonic()

    def write(self, status: str, error: MicromegasError | None = None) -> None:
        """Write the line: `ok`, `error` with the error, or `incomplete` when the client left."""
        try:
            _AUDIT.info("%s", encode_line(self._record(status, error)))
        except Exception:  # noqa: BLE001 - a broken log must not decide what becomes of a call
            _LOG.exception("an audit line could not be written, query_id=%s", self.call.query_id)

    def _record(self, status: str, error: MicromegasError | None) -> dict[str, object]:
        call, caller = self.call, self.call.caller
        record = describe_asker(
            call.query_id,
            self.client_address,
            tags=parse_client_tags(call.headers),
            attribution=self.attribution,
        )
        record |= {
            "action": "ingest",
            "table": self.command.table[:_MAX_TABLE_CHARACTERS],
            "mode": self.command.mode.value,
        }
        if self.write_id is not None:
            record["write_id"] = self.write_id
        record |= {
            "rows": self.rows,
            "received_bytes": self.received_bytes,
            "total_ms": round((self.clock.monotonic() - self._started) * 1000, 3),
            "status": status,
        }
        if error is not None:
            record |= {"error": str(error), "error_class": classify_error(error)}
        record["issuer"] = caller.issuer
        if caller.auth_type is not AuthType.NONE:
            record["credential"] = token_name(parse_authorization(call.headers).text.reveal())
        record["time"] = utc_text(self.clock.now())
        return record
