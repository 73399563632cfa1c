"""One JSON line for each query, however it ended, on the logger `micromegas_jupyter.audit`; refusals on its child.

Where the lines go is decided by whoever configures logging; a handler that fails does not fail the query.

Field names are upstream's, in upstream's order, and two more at the end: `issuer` and `time`.
"""

import json
import logging
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from micromegas_jupyter.contracts import AuthContext
from micromegas_jupyter.engine import StatementRequest
from micromegas_jupyter.errors import InternalError, MicromegasError, ResourcesExhausted
from micromegas_jupyter.seams import Clock
from micromegas_jupyter.server.attribution import Attribution
from micromegas_jupyter.server.headers import ClientTags

AUDIT_LOGGER: Final = "micromegas_jupyter.audit"
_AUDIT: Final = logging.getLogger(AUDIT_LOGGER)
_REFUSED: Final = logging.getLogger(f"{AUDIT_LOGGER}.refused")
_LOG: Final = logging.getLogger("micromegas_jupyter.server")
# The root logger's default would hide the lines from handlers that are there.
_AUDIT.setLevel(logging.INFO)
_MAX_SQL_BYTES: Final = 2048
_MAX_FIELD: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryFacts:
    """What is known of a query before it runs."""

    query_id: str
    client_address: str
    tags: ClientTags
    caller: AuthContext
    attribution: Attribution
    request: StatementRequest = field(repr=False)


class QueryAudit:
    """Collects one query's measures and writes its line, once."""

    def __init__(self, facts: QueryFacts, clock: Clock) -> None:
        self._facts = facts
        self._clock = clock
        self._started = clock.monotonic()
        self._admitted: float | None = None
        self._planned: float | None = None
        self._is_written = False
        self.output_rows = 0

    def mark_admitted(self) -> None:
        """Note that the query's turn has come and planning starts."""
        self._admitted = self._clock.monotonic()

    def mark_planned(self) -> None:
        """Note that the plan exists."""
        self._planned = self._clock.monotonic()

    def write(self, status: str, error: MicromegasError | None = None) -> None:
        """Write the line: `ok`, `error` with the error, or `incomplete` when the client left."""
        if self._is_written:
            return
        self._is_written = True
        _write_line(_AUDIT, self._record(status, error))

    def _record(self, status: str, error: MicromegasError | None) -> dict[str, object]:
        facts, request = self._facts, self._facts.request
        record: dict[str, object] = {
            "query_id": facts.query_id,
            "client_ip": facts.client_address,
            "client": facts.tags.client,
            "agent": facts.tags.agent,
            "entrypoint": facts.tags.entrypoint,
            **facts.tags.optional,
            "user": facts.attribution.user,
            "email": facts.attribution.email,
        }
        if facts.attribution.name is not None:
            record["name"] = facts.attribution.name
        record["service_account"] = facts.attribution.service_account_name is not None
        if facts.attribution.service_account_name is not None:
            record["service_account_name"] = facts.attribution.service_account_name
        record["sql"] = request.sql.encode("utf-8", "replace")[:_MAX_SQL_BYTES].decode("utf-8", "ignore")
        if request.time_range is not None:
            record["range_begin"] = request.time_range.begin.isoformat()
            record["range_end"] = request.time_range.end.isoformat()
        if request.row_limit is not None:
            record["limit"] = request.row_limit
        record |= self._timings()
        record["status"] = status
        if error is not None:
            record |= {"error": str(error), "error_class": classify_error(error)}
        if self._planned is not None:
            record["output_rows"] = self.output_rows
        record |= {"issuer": facts.caller.issuer, "time": _utc_text(self._clock.now())}
        return record

    def _timings(self) -> dict[str, object]:
        now = self._clock.monotonic()
        admitted = self._admitted if self._admitted is not None else now
        planned = self._planned if self._planned is not None else now
        return {
            "planning_ms": _milliseconds(planned - admitted if self._admitted is not None else 0.0),
            "setup_ms": _milliseconds(planned - self._started),
            "total_ms": _milliseconds(now - self._started),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A call that was not let in, or not allowed; `reason` is a fixed word, never shown to the client."""

    query_id: str
    method: str
    client_address: str
    code: str
    reason: str


def write_refusal(refusal: Refusal, *, now: datetime) -> None:
    """Write one line about a refused call on the logger `micromegas_jupyter.audit.refused`."""
    record: dict[str, object] = {
        "event": "refused",
        "query_id": refusal.query_id,
        "method": refusal.method,
        "client_ip": refusal.client_address,
        "code": refusal.code,
        "reason": refusal.reason,
        "time": _utc_text(now),
    }
    _write_line(_REFUSED, record)


def _write_line(logger: logging.Logger, record: dict[str, object]) -> None:
    try:
        logger.info(encode_line(record))
    except Exception:  # noqa: BLE001 - a broken log must not decide what becomes of a call
        _LOG.exception("an audit line could not be written, query_id=%s", record["query_id"])


def encode_line(record: dict[str, object]) -> str:
    """Return the record as one line of JSON: bounded texts, nothing but printable ASCII."""
    bounded = {
        key: value[:_MAX_FIELD] if isinstance(value, str) and key != "sql" else value for key, value in record.items()
    }
    return json.dumps(bounded, ensure_ascii=True, separators=(",", ":")).replace("\x7f", "\\u007f")


def classify_error(error: MicromegasError) -> str:
    """Return upstream's class of an error: `user`, `resource`, `internal` or `denied`."""
    match error:
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


def _utc_text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
