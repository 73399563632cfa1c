"""Runs one query for one call: its limits, its denials, its rows to the client, its audit line."""

import asyncio
import enum
import json
import logging
import threading
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from micromegas_jupyter.core.files import FileProblem
from micromegas_jupyter.core.protocols import AuthContext, AuthType
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.core.text import JsonError, decode_strict_json
from micromegas_jupyter.engine.contract import MAX_STATEMENT_BYTES, RUNNING_QUERIES
from micromegas_jupyter.engine.functions.denial_store import (
    MAX_RULES,
    CutOff,
    Denial,
    DenialStore,
    MalformedFile,
    with_hits,
)
from micromegas_jupyter.engine.partition_calls import PartitionCall, find_partition_call
from micromegas_jupyter.engine.scanner import fingerprints
from micromegas_jupyter.errors import (
    ConfigurationError,
    InvalidStatement,
    MicromegasError,
    QueryDenied,
    Rejected,
    UsageError,
)
from micromegas_jupyter.executors.launcher import await_shared, run_in_thread
from micromegas_jupyter.executors.pool import Pool, RunningStatement, StatementReport
from micromegas_jupyter.executors.protocol import Output, Statement
from micromegas_jupyter.executors.scheduling import CallerKey, Cause
from micromegas_jupyter.gateway.forwarding import ForwardedStatement, Gateway
from micromegas_jupyter.server.authentication import (
    CallOrigin,
    Headers,
    QueryAudit,
    claimed_names,
    hash_statement,
    parse_compression,
    parse_statement,
    resolve_attribution,
)
from micromegas_jupyter.server.flight_service import Call, ends_task, find_origin, recorded, translate_error
from micromegas_jupyter.server.monitoring import ServerMetrics, phase
from micromegas_jupyter.server.settings import FlightServerSettings

if TYPE_CHECKING:
    from micromegas_jupyter.engine.functions.denials import MatchRules

CHECK_SECONDS: Final = 1.0
MAX_AGE_SECONDS: Final = 4.0
_WAIT_SECONDS: Final = 5.0
_HITS_SECONDS: Final = 5.0
_MAX_UNREAD_SECONDS: Final = 10.0
_CANCEL_SECONDS: Final = 2.0
QUERIES_ACTION: Final = "MicromegasQueries"
COUNTS_TRAILER: Final = "x-micromegas-counts"
_MAX_EXPLAINED_CHARACTERS: Final = 4096  # clients accept 8 KiB of metadata
_MAX_BODY_BYTES: Final = 1024
_MAX_LISTED: Final = 500  # of what runs, the longest first
_MAX_LISTED_CHARACTERS: Final = 1000
#: Longer statements are searched, and larger values hashed, on another thread.
_MAX_INLINE_CHARACTERS: Final = 4096
_MAX_INLINE_BYTES: Final = 256 * 1024
_LOG: Final = logging.getLogger("micromegas_jupyter.server")


QueryKey = tuple[str, str, bytes]

#: Runs a function that changes partitions, and returns when it said what.
ChangePartitions = Callable[[Call, PartitionCall], Awaitable[tuple[tuple[int, str], ...]]]


class CancelStatus(enum.IntEnum):
    """The result of a cancellation, in the numbers of Flight's `CancelStatus` and Flight SQL's `CancelResult`."""

    CANCELLED = 1
    CANCELLING = 2
    NOT_CANCELLABLE = 3


def query_key(caller: CallerKey, name: bytes) -> QueryKey:
    """Return the key of a caller's query, which nobody else can name; `name` is its ticket, or the id of one."""
    return (*caller, name)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunningQuery:
    """A statement while its rows are read, or while it waits for a slot."""

    key: QueryKey = field(repr=False)
    caller: CallerKey
    origin: CallOrigin
    sql: str = field(repr=False)
    statement: RunningStatement
    began_at: datetime

    def describe(self, now: datetime) -> dict[str, object]:
        """Return what its caller and administrators see of it."""
        report, attribution = self.statement.report, self.origin.attribution
        return {
            "query_id": self.origin.query_id,
            "user": attribution.user,
            "email": attribution.email,
            "client_ip": self.origin.client_address,
            "client": self.origin.tags.get("client"),
            "entrypoint": self.origin.tags.get("entrypoint"),
            "began_at": self.began_at,
            "seconds": round((now - self.began_at).total_seconds(), 3),
            "is_running": self.statement.is_running,
            "peak_memory_bytes": max(self.statement.peak_bytes, report.peak_memory_bytes or 0),
            "sql": self.sql[:_MAX_LISTED_CHARACTERS],
            "files": None if report.progress is None else report.progress.files,
            "scanned": None if report.progress is None else report.progress.scanned,
        }


class DenyList:
    """Refuses queries that an administrator has denied, before they are planned, and knows who is cut off.

    Rules are made and removed while the server runs; a change of the file holds within five seconds, and a file that
    cannot be used at the start is a ConfigurationError. `on_denied` is called with the rule's id and must not block.
    `_hits_lock` covers the hits that are not written yet; `_file_lock` lets one thread at a time read the file.
    """

    def __init__(
        self, location: str, *, clock: Clock = SYSTEM_CLOCK, on_denied: Callable[[str], None] = lambda _: None
    ) -> None:
        self.store = self._file = DenialStore(location, clock=clock)
        self._mark: str | None = None
        self._clock = clock
        self._on_denied = on_denied
        self._hits_lock = threading.Lock()
        self._hits: dict[str, datetime] = {}
        self._hits_due_at = float("-inf")
        self._changes = 0
        self._file_lock = threading.Lock()
        self._checked_at = clock.monotonic()  # when the reading began that was done last
        self._read_at = self._checked_at  # when the one began that could read the file
        self._refreshing: asyncio.Task[None] | None = None
        self._problem: str | None = None
        self._is_malformed = False
        #: The users who are cut off, by `issuer|subject`.
        self.cut_offs: Mapping[str, CutOff] = {}
        #: The rules as they were last read, and what applies them.
        self._denials: tuple[Sequence[Denial], MatchRules | None] = ((), None)
        try:
            self._denials = self._read()
        except (FileProblem, MalformedFile, InvalidStatement) as error:
            raise ConfigurationError(
                f"The list of denied queries ({self._file.name}) cannot be used: {_describe(error)}.",
                key=self._file.name,
                remedy="Correct or remove the file, and start again.",
            ) from None

    @property
    def is_current(self) -> bool:
        """Whether the file could be read lately, and used.

        Replicas share the file: storage that fails for a moment must not end the readiness of all of them.
        """
        return not self._is_malformed and self._clock.monotonic() - self._read_at < _MAX_UNREAD_SECONDS

    def find_cut_off(self, caller: AuthContext, headers: Headers) -> CutOff | None:
        """Return what cuts off a caller, the owner of its API key, or the user whom the key names; for any thread."""
        if not (known := self.cut_offs):
            return None
        found = [known.get(f"{caller.issuer}|{caller.subject}"), known.get(caller.owner or "")]
        if caller.auth_type is AuthType.API_KEY and (names := claimed_names(headers)):
            addresses = {name.lower() for name in names}
            found += [one for one in known.values() if one.subject in names or (one.email or "").lower() in addresses]
        now = self._clock.now()
        return next((one for one in found if one is not None and not one.is_over(now)), None)

    def check_caller(self, caller: AuthContext, headers: Headers) -> None:
        """Reject a caller who is cut off."""
        if self.find_cut_off(caller, headers) is not None:
            raise Rejected(reason="cut_off")

    async def check(self, origin: CallOrigin, sql: str) -> None:
        """Refuse a query that a rule denies, unless an administrator's query names a function of denials."""
        seen = -1
        # Rules that are made meanwhile count: what is not listed yet is not ended for them.
        while seen != self._changes:
            seen = self._changes
            await self._check_once(origin, sql)

    async def _check_once(self, origin: CallOrigin, sql: str) -> None:
        await self.refresh()
        rules, matching = self._denials
        if matching is None or len(sql) > MAX_STATEMENT_BYTES:
            return  # what is longer is refused for that, and reading it would cost more than running a short one
        facts = {
            "user_id": origin.attribution.user,
            "email": origin.attribution.email,
            "service_account": origin.caller.subject if origin.caller.auth_type is AuthType.API_KEY else None,
            **{
                name: origin.tags.get(name) for name in ("client", "agent", "entrypoint", "session", "notebook", "cell")
            },
            "client_ip": origin.client_address,
            "sql": sql,
        }
        is_admin = origin.caller.is_admin

        def find_match() -> int | None:
            from micromegas_jupyter.engine.functions.denials import names_denial_function

            found = matching.first_match(facts, fingerprints(sql))
            return None if found is not None and is_admin and names_denial_function(sql) else found

        position = await asyncio.to_thread(find_match)
        if position is None:
            return
        rule = rules[position]
        with self._hits_lock:
            self._hits[rule.rule_id] = self._clock.now()
        self._on_denied(rule.rule_id)
        _LOG.warning("query denied by rule %s: %s, user=%s", rule.rule_id, rule.reason, origin.attribution.user)
        raise QueryDenied(f"This query is denied by rule {rule.rule_id}: {rule.reason.rstrip('.')}.", limit="denied")

    def write_hits(self) -> None:
        """Write when rules were last hit; when the file cannot be written, the log says so."""
        with self._hits_lock:
            hits, self._hits = self._hits, {}
        if not hits:
            return
        try:
            self._file.change(lambda rules: with_hits(rules, hits))
        except MicromegasError:
            _LOG.warning("the last hits of query denials could not be written")

    def invalidate(self) -> None:
        """Have the next query wait until the file is read again; belongs to the event loop of the queries."""
        self._checked_at, self._refreshing = float("-inf"), None  # one under way may have read it before
        self._changes += 1

    async def refresh(self) -> None:
        """Wait until the rules are young enough, or the storage does not answer for some seconds."""
        came_at = self._clock.monotonic()
        while (age := came_at - self._checked_at) >= CHECK_SECONDS:
            refreshing = self._refreshing
            if refreshing is None:
                refreshing = self._refreshing = asyncio.get_running_loop().create_task(self._refresh_once())
                refreshing.add_done_callback(lambda task: task.cancelled() or task.exception())
            elif age < MAX_AGE_SECONDS:
                return  # another query looks
            done, _ = await asyncio.wait({refreshing}, timeout=_WAIT_SECONDS)
            if not done:
                return
            await await_shared(refreshing)

    async def _refresh_once(self) -> None:
        began_at = self._clock.monotonic()
        try:
            # Not on a thread of the loop's pool: storage may hang, and those are few.
            await run_in_thread(self._refresh, name="denials")
            if self._problem is None:
                self._read_at = began_at
        finally:
            if self._refreshing is asyncio.current_task():
                self._checked_at, self._refreshing = began_at, None

    def reload(self) -> None:
        """Read the file again; one that cannot be used leaves the rules as they were."""
        with self._file_lock:
            try:
                self._denials, self._problem, self._is_malformed = self._read(), None, False
            except (FileProblem, MalformedFile, InvalidStatement) as error:
                self._is_malformed |= not isinstance(error, FileProblem)
                known, self._problem = self._problem, _describe(error)
                if self._problem != known:
                    text = "the list of denied queries cannot be used, the rules before it stay in force: %s"
                    _LOG.error(text, self._problem)

    def _refresh(self) -> None:
        now = self._clock.monotonic()
        if now >= self._hits_due_at:
            # Each write has all replicas read the file again, and may cross one that cuts a user off.
            self._hits_due_at = now + _HITS_SECONDS
            self.write_hits()
        with suppress(FileProblem):  # said by `reload` when it was read last
            if self._problem is None and self._file.mark() == self._mark:
                return
        self.reload()

    def _read(self) -> "tuple[Sequence[Denial], MatchRules | None]":
        self._mark = self._file.mark()
        found = self._file.read()
        rules = found.rules
        if len(rules) > MAX_RULES:
            raise MalformedFile(f"it has {len(rules)} rules, more than the maximum of {MAX_RULES}")
        self.cut_offs = {one.identity: one for one in found.cut_off}
        if not rules:
            return (), None
        expressions = tuple(rule.match_expr for rule in rules)
        matching = self._denials[1]
        if matching is None or matching.expressions != expressions:
            # It loads the engine, which most servers need not.
            from micromegas_jupyter.engine.functions.denials import MatchRules

            matching = MatchRules(expressions)
        return rules, matching


def _describe(error: Exception) -> str:
    return error.what if isinstance(error, InvalidStatement) else str(error.args[0])


class QueryRunner:
    """Plans and runs queries, and lets callers cancel theirs. Belongs to one event loop."""

    def __init__(  # noqa: PLR0913 - the parts of a server
        self,
        pool: Pool,
        gateway: Gateway | None = None,
        *,
        settings: FlightServerSettings,
        clock: Clock,
        metrics: ServerMetrics,
        deny_list: DenyList | None = None,
        change_partitions: ChangePartitions | None = None,
    ) -> None:
        self._running: dict[str, RunningQuery] = {}  # by their ids
        self._ending: asyncio.Task[None] | None = None
        self._pool = pool
        self._gateway = gateway
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._deny_list = deny_list
        self._change_partitions = change_partitions

    async def plan(self, call: Call, sql: str, parameters: tuple[bytes, ...]) -> tuple[bytes, bytes]:
        """Return the IPC schemas of a statement's result and of its parameters, as its caller would run it."""
        statement, origin, running, audit = await self._prepare(call, sql, parameters)
        try:
            await self._check_denials(origin, sql)
            with phase("plan"):
                async with running:
                    return await self._runner(running, sql).plan(statement)
        except BaseException as error:
            # A client that is refused here never asks for the rows, so a denial, or a plan that had to be ended, is
            # audited now. Other failures happen again when the rows are requested.
            if isinstance(error, QueryDenied) or (running.report.cause is not None and not ends_task(error)):
                audit.write("error", translate_error(error, call.query_id))
                await audit.deliver()
            raise

    async def run(self, call: Call, sql: str, parameters: tuple[bytes, ...], *, key: QueryKey) -> None:
        """Run a statement and send its rows, to be cancelled by `key`; writes the audit line however it ends."""
        statement, origin, running, audit = await self._prepare(call, sql, parameters)
        output = Output(
            compression=parse_compression(call.headers),
            max_rows=self._settings.max_rows,
            max_bytes=self._settings.max_result_bytes,
        )

        async def write(frame: bytes) -> None:
            await call.write(frame)
            self._metrics.bytes_sent.add(len(frame))

        def count(status: str, error: MicromegasError | None) -> None:
            self._metrics.count_query(running.report, audit.seconds(), status, error)

        async with recorded(audit, call, count):
            await self._check_denials(origin, sql)
            statement = await self._with_messages(call, statement)
            now = self._clock.now()
            query = RunningQuery(
                key=key, caller=call.caller_key, origin=origin, sql=sql, statement=running, began_at=now
            )
            with self.listed(query), ExitStack() as phases:
                phases.enter_context(phase("wait"))

                def begin_run(statement: Statement) -> Statement:
                    phases.close()
                    phases.enter_context(phase("run"))
                    if RUNNING_QUERIES not in sql.lower():
                        return statement
                    return replace(statement, running=tuple(self._describe_visible(call)))

                async with running:
                    runner = self._runner(running, sql)
                    await runner.run(statement, output=output, write=write, on_running=begin_run)
            if (counts := _build_counts(running.report)) is not None:
                call.add_trailer(COUNTS_TRAILER, counts)

    @contextmanager
    def listed(self, query: RunningQuery) -> Iterator[None]:
        """Let the query be found while the body runs."""
        self._running[query.origin.query_id] = query
        try:
            yield
        finally:
            del self._running[query.origin.query_id]

    async def cancel(self, keys: Collection[QueryKey]) -> CancelStatus:
        """End the statements with these keys, and wait a moment for their end."""
        return await self._end([query for query in self._running.values() if query.key in keys], Cause.CANCELLED)

    async def answer_action(self, call: Call, body: bytes) -> bytes:
        """Answer `MicromegasQueries`: list, follow or cancel a caller's queries, or as an administrator anybody's."""
        request = _parse_request(body)
        if request["operation"] == "list":
            return json.dumps({"queries": self._describe_visible(call)}, default=datetime.isoformat).encode()
        wanted = [one for one in self._visible(call) if one.origin.query_id == request["query_id"]]
        if request["operation"] == "progress":
            found = next((one.statement.report.progress for one in wanted), None)
            return json.dumps({"progress": None if found is None else found._asdict()}).encode()
        for query in wanted:
            query.statement.report.ended_by = resolve_attribution(call.caller, call.headers).user
        status = await self._end(wanted, Cause.CANCELLED)
        if wanted:
            _LOG.info("query cancelled by its id, query_id=%s", request["query_id"])
        return json.dumps({"status": status.name.lower()}).encode()

    def _visible(self, call: Call) -> list[RunningQuery]:
        """Return the running queries that a caller may see and end."""
        return [one for one in self._running.values() if call.caller.is_admin or one.caller == call.caller_key]

    def _describe_visible(self, call: Call) -> list[dict[str, object]]:
        """Return what a caller sees of the queries that run besides the call itself, the longest-running first."""
        now = self._clock.now()
        others = [one for one in self._visible(call) if one.origin.query_id != call.query_id]
        return [one.describe(now) for one in sorted(others, key=lambda one: one.began_at)[:_MAX_LISTED]]

    def end(self, query_id: str, *, ended_by: str) -> bool:
        """End a query of a user who was cut off; False if no query with this ID runs."""
        query = self._running.get(query_id)
        if query is None:
            return False
        query.statement.report.ended_by = ended_by
        query.statement.end(Cause.CUT_OFF)
        return True

    def apply_denials(self) -> None:
        """Apply new denials to the next query and, soon, to running ones."""
        if self._deny_list is not None:
            self._deny_list.invalidate()
            self._ending = asyncio.get_running_loop().create_task(self._end_denied())

    async def _end_denied(self) -> None:
        for query in list(self._running.values()):
            try:
                await self._check_denials(query.origin, query.sql)
            except QueryDenied:
                query.statement.end(Cause.DENIED)

    async def _end(self, queries: Sequence[RunningQuery], cause: Cause) -> CancelStatus:
        statements = [query.statement for query in queries]
        if not statements:
            return CancelStatus.NOT_CANCELLABLE
        for statement in statements:
            statement.end(cause)
        try:
            async with asyncio.timeout(_CANCEL_SECONDS):
                for statement in statements:
                    await statement.has_ended.wait()
        except TimeoutError:
            return CancelStatus.CANCELLING
        return CancelStatus.CANCELLED

    async def tables(self, call: Call) -> list[tuple[str, bytes]]:
        """Return the tables that the caller sees, each with its IPC schema."""
        async with RunningStatement(self._pool, call.source, query_id=call.query_id) as running:
            return await self._runner(running).list_tables(call.caller)

    def _runner(self, running: RunningStatement, sql: str | None = None) -> RunningStatement | ForwardedStatement:
        return running if self._gateway is None else self._gateway.runner(running, sql)

    async def _prepare(
        self, call: Call, sql: str, parameters: tuple[bytes, ...]
    ) -> tuple[Statement, CallOrigin, RunningStatement, QueryAudit]:
        statement = parse_statement(call.headers, sql, call.caller, parameters)
        origin = find_origin(call)
        running = RunningStatement(self._pool, call.source, query_id=call.query_id)
        is_large = len(sql) > _MAX_INLINE_CHARACTERS or sum(map(len, parameters)) > _MAX_INLINE_BYTES
        hashes = await asyncio.to_thread(hash_statement, statement) if is_large else None
        audit = QueryAudit(origin, statement, running.report, self._clock, hashes=hashes)
        return statement, origin, running, audit

    async def _with_messages(self, call: Call, statement: Statement) -> Statement:
        """Run the function in an administrator's statement that changes partitions, once the statement is planned."""
        if not call.caller.is_admin or self._change_partitions is None:
            return statement
        if len(statement.sql) <= _MAX_INLINE_CHARACTERS:
            changing = find_partition_call(statement.sql)
        else:
            changing = await asyncio.to_thread(find_partition_call, statement.sql)
        if changing is None:
            return statement
        async with RunningStatement(self._pool, call.source, query_id=call.query_id) as planning:
            await self._runner(planning, statement.sql).plan(statement)
        return replace(statement, messages=await self._change_partitions(call, changing))

    async def _check_denials(self, origin: CallOrigin, sql: str) -> None:
        if self._deny_list is not None:
            await self._deny_list.check(origin, sql)


def _build_counts(report: StatementReport) -> str | None:
    """Return what a client is told of the files that its statement has read; None if it reads none or hides rows."""
    if not report.shows_counts or not report.files_total:
        return None
    tables = [table._asdict() for table in report.explained]
    sizes = accumulate(len(json.dumps(table)) for table in tables)
    counts = {
        "files": report.files_read,
        "total": report.files_total,
        "bytes": report.bytes_scanned,
        "rows": report.rows_scanned,
        "explained": [table for table, size in zip(tables, sizes, strict=True) if size <= _MAX_EXPLAINED_CHARACTERS],
    }
    return json.dumps(counts)


def _parse_request(body: bytes) -> dict[str, Any]:
    """Return what is asked for: `{"operation": "list"}`, or `cancel` or `progress` with the `query_id`."""
    try:
        found = decode_strict_json(body[: _MAX_BODY_BYTES + 1].decode("utf-8"), max_depth=1)
    except (UnicodeDecodeError, JsonError):
        found = None
    named = {"operation", "query_id"}
    members = {"list": {"operation"}, "cancel": named, "progress": named}
    operation = found.get("operation") if isinstance(found, dict) else None
    if not isinstance(found, dict) or not isinstance(operation, str) or found.keys() != members.get(operation):
        raise UsageError(
            f"The body of {QUERIES_ACTION} cannot be used.",
            remedy="Send one JSON object with the operation: list, or cancel or progress with the query_id.",
        )
    return found
