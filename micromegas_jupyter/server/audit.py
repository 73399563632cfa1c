"""One JSON line for each query and each ingest, however it ended, on the logger `micromegas_jupyter.audit`.

Calls that are not let in are told by `access.audit`, on a child of that logger.

Where the lines go is decided by whoever configures logging; a handler that fails does not fail the query.

Field names are upstream's, in upstream's order, and more before the last: `cpu_ms`, `ended_for`, `issuer`, `credential`
(as in `access.audit`) and `time`.
"""

import logging
from dataclasses import dataclass, field
from typing import Final

from micromegas_jupyter.access.audit_lines import encode_line, utc_text
from micromegas_jupyter.access.credential import token_name
from micromegas_jupyter.core.protocols import AuthContext, AuthType, Secret
from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.engine import sql_hash
from micromegas_jupyter.errors import InternalError, MicromegasError, QueryDenied, ResourcesExhausted
from micromegas_jupyter.executors.pool import StatementReport
from micromegas_jupyter.executors.protocol import Statement
from micromegas_jupyter.flightsql.ingest_command import IngestCommand
from micromegas_jupyter.server.attribution import Attribution
from micromegas_jupyter.server.authentication import parse_authorization
from micromegas_jupyter.server.calls import Call
from micromegas_jupyter.server.headers import ClientTags, parse_client_tags

AUDIT_LOGGER: Final = "micromegas_jupyter.audit"
_AUDIT: Final = logging.getLogger(AUDIT_LOGGER)
_LOG: Final = logging.getLogger("micromegas_jupyter.server")
# The root logger's default would hide the lines from handlers that are there.
_AUDIT.setLevel(logging.INFO)
_MAX_SQL_BYTES: Final = 2048
_MAX_TABLE_CHARACTERS: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryFacts:
    """What is known of a query before it runs; `credential` is what the caller was recognised by, if anything."""

    query_id: str
    client_address: str
    tags: ClientTags
    caller: AuthContext
    attribution: Attribution
    statement: Statement = field(repr=False)
    credential: Secret | None = field(default=None, repr=False)


class QueryAudit:
    """Measures one query and writes its line, once."""

    def __init__(self, facts: QueryFacts, clock: Clock) -> None:
        self._facts = facts
        self._clock = clock
        self._started = clock.monotonic()
        self._is_written = False

    def seconds(self) -> float:
        """Return how long the query takes so far."""
        return self._clock.monotonic() - self._started

    def write(self, status: str, report: StatementReport, error: MicromegasError | None = None) -> None:
        """Write the line: `ok`, `error` with the error, or `incomplete` when the client left."""
        if self._is_written:
            return
        self._is_written = True
        try:
            if _AUDIT.isEnabledFor(logging.INFO):
                # `info` would look for the line of code that calls it, which is always this one.
                line = encode_line(self._record(status, report, error))
                _AUDIT.handle(_AUDIT.makeRecord(AUDIT_LOGGER, logging.INFO, __file__, 0, "%s", (line,), None))
        except Exception:  # noqa: BLE001 - a broken log must not decide what becomes of a call
            _LOG.exception("an audit line could not be written, query_id=%s", self._facts.query_id)

    def _record(self, status: str, report: StatementReport, error: MicromegasError | None) -> dict[str, object]:
        facts, statement = self._facts, self._facts.statement
        record = describe_asker(facts.query_id, facts.client_address, tags=facts.tags, attribution=facts.attribution)
        record["sql"] = statement.sql.encode("utf-8", "replace")[:_MAX_SQL_BYTES].decode("utf-8", "ignore")
        if statement.time_range is not None:
            record["range_begin"] = statement.time_range.begin.isoformat()
            record["range_end"] = statement.time_range.end.isoformat()
        if statement.row_limit is not None:
            record["limit"] = statement.row_limit
        record |= self._timings(report)
        record["status"] = status
        if error is not None:
            record |= {"error": str(error), "error_class": classify_error(error)}
        if report.planning_seconds is not None:
            record["output_rows"] = report.rows
        record |= {
            "bytes_scanned": report.bytes_scanned,
            "peak_memory_bytes": report.peak_memory_bytes,
            "spilled_bytes": report.spilled_bytes,
            "spill_count": report.spill_count,
            "cpu_ms": None if report.cpu_seconds is None else _milliseconds(report.cpu_seconds),
        }
        if report.cause is not None:
            record["ended_for"] = report.cause.value
        record["issuer"] = facts.caller.issuer
        if facts.credential is not None:
            record["credential"] = token_name(facts.credential.reveal())
        record["time"] = utc_text(self._clock.now())
        record["sql_hash"] = sql_hash(statement.sql)
        return record

    def _timings(self, report: StatementReport) -> dict[str, object]:
        total = self.seconds()
        init = report.context_init_seconds
        planning = total - report.waiting_seconds if report.planning_seconds is None else report.planning_seconds
        setup = report.waiting_seconds + planning + report.execution_seconds
        return {
            "context_init_ms": _milliseconds(init),
            "planning_ms": _milliseconds(max(0.0, planning - init)),
            "execution_ms": _milliseconds(report.execution_seconds),
            "setup_ms": _milliseconds(min(setup, total)),
            "total_ms": _milliseconds(total),
        }


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
            "total_ms": _milliseconds(self.clock.monotonic() - self._started),
            "status": status,
        }
        if error is not None:
            record |= {"error": str(error), "error_class": classify_error(error)}
        record["issuer"] = caller.issuer
        if caller.auth_type is not AuthType.NONE:
            record["credential"] = token_name(parse_authorization(call.headers).text.reveal())
        record["time"] = utc_text(self.clock.now())
        return record


def describe_asker(
    query_id: str, client_address: str, *, tags: ClientTags, attribution: Attribution
) -> dict[str, object]:
    """Return the fields with which each line begins: which call it was and who asked."""
    record: dict[str, object] = {
        "query_id": query_id,
        "client_ip": client_address,
        "client": tags.client,
        "agent": tags.agent,
        "entrypoint": tags.entrypoint,
        **tags.optional,
        "user": attribution.user,
        "email": attribution.email,
    }
    if attribution.name is not None:
        record["name"] = attribution.name
    record["service_account"] = attribution.service_account_name is not None
    if attribution.service_account_name is not None:
        record["service_account_name"] = attribution.service_account_name
    return record


def classify_error(error: MicromegasError) -> str:
    """Return upstream's class of an error: `user`, `resource`, `internal` or `denied`."""
    match error:
        case QueryDenied():
            return "denied"
        case ResourcesExhausted():
            return "resource"
        case InternalError():
            return "internal"
        case _ if error.grpc_code == "PERMISSION_DENIED":
            return "denied"
        case _ if error.grpc_code in {"UNAVAILABLE", "INTERNAL"}:
            return "internal"
        case _:
            return "user"


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
