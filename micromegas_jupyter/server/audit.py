"""One JSON line for each query, ingest and export, however it ended, on the logger `micromegas_jupyter.audit`.

Field names are upstream's, in upstream's order, with more among them and after them. Refused calls: see
`access.audit`.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final

import msgspec

from micromegas_jupyter.access.audit import MAX_FIELD_CHARACTERS, encode_line, utc_text
from micromegas_jupyter.access.validator import token_name
from micromegas_jupyter.core.log_writer import RECEIPT_FIELD, Receipt
from micromegas_jupyter.core.protocols import AuthContext, AuthType
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock, Secret
from micromegas_jupyter.engine.contract import ANY
from micromegas_jupyter.engine.scanner import sql_hash
from micromegas_jupyter.errors import InternalError, MicromegasError, QueryCancelled, QueryDenied, ResourcesExhausted
from micromegas_jupyter.executors.pool import ClientGone, StatementReport
from micromegas_jupyter.executors.protocol import Statement
from micromegas_jupyter.server.authentication import (
    UNKNOWN_ADDRESS,
    Attribution,
    Headers,
    parse_authorization,
    parse_client_tags,
    resolve_attribution,
)
from micromegas_jupyter.server.flight_service import Call, ends_task, translate_error
from micromegas_jupyter.server.recorder.log_records import AUDIT_LOGGER, MAX_AUDIT_LINE_BYTES, TARGET_FIELD
from micromegas_jupyter.telemetry.conversion import QUERY_AUDIT_TARGET

_AUDIT: Final = logging.getLogger(AUDIT_LOGGER)
_LOG: Final = logging.getLogger("micromegas_jupyter.server")
# The root logger's default would hide the lines from handlers that are there.
_AUDIT.setLevel(logging.INFO)
_LOG_FIELDS: Final = vars(_AUDIT.makeRecord(AUDIT_LOGGER, logging.INFO, "", 0, "", (), None)) | {RECEIPT_FIELD: None}
_MAX_SQL_BYTES: Final = 16 * 1024
_MAX_ROLES: Final = 32
_MAX_ESCAPE_BYTES: Final = 12
_MAX_WHOLE_BYTES: Final = MAX_AUDIT_LINE_BYTES - len(',"truncated":["sql"]')
_MAX_HASHED_CHARACTERS: Final = 4096
_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOrigin:
    """Which call it is, who makes it and on whose behalf; `credential` is what identified the caller, if anything."""

    query_id: str
    client_address: str
    tags: Mapping[str, str]
    caller: AuthContext
    attribution: Attribution
    credential: Secret | None = field(default=None, repr=False)


def find_origin(call: Call) -> CallOrigin:
    """Return the origin of a call; fails if nothing can be recorded now, or its headers are wrong."""
    call.check_audit()
    return build_origin(call.query_id, call.describe().client_address or UNKNOWN_ADDRESS, call.caller, call.headers)


def build_origin(query_id: str, client_address: str, caller: AuthContext, headers: Headers) -> CallOrigin:
    """Return the origin of a call, or of a request over HTTP, in the same way."""
    return CallOrigin(
        query_id=query_id,
        client_address=client_address,
        tags=parse_client_tags(headers),
        caller=caller,
        attribution=resolve_attribution(caller, headers),
        credential=None if caller.auth_type is AuthType.NONE else parse_authorization(headers)[1],
    )


def _build_log_record(line: str, target: str) -> logging.LogRecord:
    """Return a record as `makeRecord` does, which would look up the file, thread and process of each."""
    record = logging.LogRecord.__new__(logging.LogRecord)
    created = SYSTEM_CLOCK.now().timestamp()
    record.__dict__.update(_LOG_FIELDS, msg=line, created=created, msecs=created % 1 * 1000)
    setattr(record, TARGET_FIELD, target)
    return record


class _Audit:
    """Measures one call and writes its line."""

    _target = AUDIT_LOGGER

    def __init__(self, origin: CallOrigin, clock: Clock) -> None:
        self._origin = origin
        self._clock = clock
        self._started = clock.monotonic()
        self._receipt: Receipt | None = None

    def seconds(self) -> float:
        """Return how long the call has taken so far."""
        return self._clock.monotonic() - self._started

    def write(self, status: str, error: MicromegasError | None = None) -> None:
        """Write the line: `ok`, `error` with the error, or `incomplete` when the client left."""
        try:
            if _AUDIT.isEnabledFor(logging.INFO):
                caller = self._origin.caller
                roles = [role[:MAX_FIELD_CHARACTERS] for role in caller.roles[:_MAX_ROLES]]
                rights = {"roles": roles, "is_admin": caller.is_admin}
                line = encode_bounded(self._record(status, error) | rights, cut=self._cut_fields())
                record = _build_log_record(line, self._target)
                _AUDIT.handle(record)
                self._receipt = getattr(record, RECEIPT_FIELD)
        except Exception:  # noqa: BLE001 - a broken log must not decide what becomes of a call
            _LOG.exception("an audit line could not be written, query_id=%s", self._origin.query_id)

    async def deliver(self) -> None:
        """Wait until the line is on its way, so that the call may end; ServerUnavailable if that fails."""
        if self._receipt is not None:
            await self._receipt.wait()

    def _record(self, status: str, error: MicromegasError | None) -> dict[str, object]:
        origin, attribution = self._origin, self._origin.attribution
        account = attribution.service_account_name
        record: dict[str, object] = {
            "query_id": origin.query_id,
            "client_ip": origin.client_address,
            **origin.tags,
            "user": attribution.user,
            "email": attribution.email,
        }
        if attribution.name is not None:
            record["name"] = attribution.name
        record["service_account"] = account is not None
        if account is not None:
            record["service_account_name"] = account
        record |= self._request()
        record["status"] = status
        if error is not None:
            record |= {"error": str(error), "error_class": classify_error(error)}
        record |= self._result()
        record["issuer"] = origin.caller.issuer
        if origin.credential is not None:
            record["credential"] = token_name(origin.credential.reveal())
        record["time"] = utc_text(self._clock.now())
        return record

    def _cut_fields(self) -> list[str]:
        """Return the fields that were shortened before the line is made."""
        return ["roles"] if len(self._origin.caller.roles) > _MAX_ROLES else []

    def _request(self) -> dict[str, object]:
        raise NotImplementedError

    def _result(self) -> dict[str, object]:
        return {}


class QueryAudit(_Audit):
    """The audit of one query; `report` says what it took when the line is written.

    The `hashes` of a long statement, or of large values, are made beforehand, off the event loop.
    """

    _target = QUERY_AUDIT_TARGET

    def __init__(
        self,
        origin: CallOrigin,
        statement: Statement,
        report: StatementReport,
        clock: Clock,
        *,
        hashes: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(origin, clock)
        self._statement = statement
        self._report = report
        self._hashes = hashes

    def _record(self, status: str, error: MicromegasError | None) -> dict[str, object]:
        record = super()._record(status, error)
        record.update(self._hashes or hash_statement(self._statement), reads=self._report.reads)
        return record

    def _cut_fields(self) -> list[str]:
        reads = self._report.reads or {}
        is_cut = any(ANY in columns for columns in reads.values())
        return [*super()._cut_fields(), *(["reads"] if is_cut else [])]

    def _request(self) -> dict[str, object]:
        statement, report = self._statement, self._report
        request: dict[str, object] = {"sql": statement.sql}
        if statement.time_range is not None:
            request["range_begin"] = statement.time_range.begin.isoformat()
            request["range_end"] = statement.time_range.end.isoformat()
        if statement.row_limit is not None:
            request["limit"] = statement.row_limit
        total, init = self.seconds(), report.context_init_seconds
        planning = total - report.waiting_seconds if report.planning_seconds is None else report.planning_seconds
        return request | {
            "context_init_ms": _milliseconds(init),
            "planning_ms": _milliseconds(max(0.0, planning - init)),
            "execution_ms": _milliseconds(report.execution_seconds),
            "setup_ms": _milliseconds(min(report.waiting_seconds + planning + report.execution_seconds, total)),
            "total_ms": _milliseconds(total),
        }

    def _result(self) -> dict[str, object]:
        report = self._report
        result: dict[str, object] = {} if report.planning_seconds is None else {"output_rows": report.rows}
        result |= {
            "bytes_scanned": report.bytes_scanned,
            "peak_memory_bytes": report.peak_memory_bytes,
            "spilled_bytes": report.spilled_bytes,
            "spill_count": report.spill_count,
            "cpu_ms": None if report.cpu_seconds is None else _milliseconds(report.cpu_seconds),
        }
        if report.files_total:
            result |= {name: getattr(report, name) for name in ("files_total", "files_read", "rows_scanned")}
        if report.cause is not None:
            result["ended_for"] = report.cause.value
        if report.ended_by is not None:
            result["ended_by"] = report.ended_by
        return result


class ActionAudit(_Audit):
    """The audit of a call that is not a query; `fields` describe the action, and may grow until the line is written."""

    def __init__(self, origin: CallOrigin, clock: Clock, action: str, **fields: object) -> None:
        super().__init__(origin, clock)
        self.fields: dict[str, Any] = {"action": action, **fields}

    def _request(self) -> dict[str, object]:
        return {**self.fields, "total_ms": _milliseconds(self.seconds())}


def hash_statement(statement: Statement) -> dict[str, object]:
    """Return the fields of an audit line that identify a statement and its values."""
    sql, values = statement.sql, statement.parameters
    hashes = _hash_short_sql(sql) if len(sql) <= _MAX_HASHED_CHARACTERS else _hash_sql(sql)
    return {**hashes, **({"values_sha256": _sha256(*values)} if values else {})}


def _hash_sql(sql: str) -> Mapping[str, object]:
    return {"sql_hash": sql_hash(sql), "statement_sha256": _sha256(sql.encode("utf-8", "surrogatepass"))}


_hash_short_sql: Final = lru_cache(maxsize=256)(_hash_sql)


def _sha256(*parts: bytes) -> str:
    digest = sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def encode_bounded(record: Mapping[str, object], *, cut: Sequence[str] = ()) -> str:
    """Return a record as a line of at most `MAX_AUDIT_LINE_BYTES`; its field `truncated` lists those that were `cut`.

    The statement gets what the other fields leave: an ASCII escape is up to six times as long as its character.
    """
    sql = record.get("sql", "")
    long = [name for name, text in record.items() if isinstance(text, str) and len(text) > MAX_FIELD_CHARACTERS]
    cut = [*cut, *(name for name in long if name != "sql")]
    if not cut and isinstance(sql, str) and len(sql) <= _MAX_SQL_BYTES and sql.isascii():
        with suppress(ValueError, TypeError):
            # Ten times as fast as `encode_line`, for what needs none of its escapes and is short enough.
            line = _encode(record)
            if line.isascii() and b"\x7f" not in line and len(line) <= _MAX_WHOLE_BYTES:
                return line.decode()
    fields = {name: value for name, value in record.items() if name != "sql"}
    if not isinstance(sql, str) or "sql" not in record:
        return encode_line({**fields, **({"truncated": cut} if cut else {})})
    kept = sql.encode("utf-8", "replace")[:_MAX_SQL_BYTES].decode("utf-8", "ignore")
    others = encode_line({**fields, "sql": "", "truncated": [*cut, "sql"]})
    kept = _fit(kept, MAX_AUDIT_LINE_BYTES - len(others))
    if kept != sql:
        cut.append("sql")
    return encode_line({**record, "sql": kept, **({"truncated": cut} if cut else {})})


def _fit(text: str, max_bytes: int) -> str:
    """Return as much of a text as takes so many bytes in a line."""
    encoded = encode_line({"sql": text})[len('{"sql":"') : -len('"}')]
    if len(encoded) <= max_bytes:
        return text
    for end in range(max_bytes, max(0, max_bytes - _MAX_ESCAPE_BYTES), -1):
        with suppress(ValueError):  # it was cut within an escape
            return str(json.loads(f'"{encoded[:end]}"')).encode("utf-8", "ignore").decode()
    return ""


class recorded:  # noqa: N801 - used like a function
    """Write the line and count the call however the body ends: `ok`, `error`, or `incomplete` when the client left.

    The call's status is sent after this, and so after its line is on its way.
    """

    def __init__(self, audit: _Audit, call: Call, count: Callable[[str, MicromegasError | None], None]) -> None:
        self._audit = audit
        self._call = call
        self._count = count

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, _kind: object, raised: BaseException | None, _traceback: object) -> None:
        audit, context = self._audit, self._call.context
        if raised is None:
            audit.write("ok")
            self._count("ok", None)
        elif ends_task(raised) or isinstance(raised, ClientGone | QueryCancelled) or context.done():
            audit.write("incomplete")
            self._count("incomplete", None)
            # A status follows unless the client has left.
            is_ended_here = isinstance(raised, asyncio.CancelledError) and not context.done()
            if not is_ended_here and not isinstance(raised, QueryCancelled):
                return
        else:
            error = translate_error(raised, self._call.query_id)
            audit.write("error", error)
            self._count("error", error)
            await audit.deliver()
            raise error from raised
        await audit.deliver()


def classify_error(error: MicromegasError) -> str:
    """Return upstream's class of an error: `user`, `resource`, `internal` or `denied`."""
    if isinstance(error, QueryDenied) or error.grpc_code == "PERMISSION_DENIED":
        return "denied"
    if isinstance(error, ResourcesExhausted):
        return "resource"
    if isinstance(error, InternalError) or error.grpc_code in {"UNAVAILABLE", "INTERNAL"}:
        return "internal"
    return "user"


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
