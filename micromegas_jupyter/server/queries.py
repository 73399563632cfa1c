"""Runs one query for one call: its limits, its denials, its rows to the client, its audit line."""

import asyncio
import enum
import hashlib
import logging
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.core.files import FileMark, FileProblem
from micromegas_jupyter.core.protocols import AuthContext, AuthType
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.engine import fingerprints
from micromegas_jupyter.engine.contract import MAX_STATEMENT_BYTES
from micromegas_jupyter.engine.denial_store import MAX_RULES, Denial, DenialStore, MalformedFile, with_hits
from micromegas_jupyter.errors import (
    ConfigurationError,
    InvalidStatement,
    QueryCancelled,
    QueryDenied,
    Unavailable,
)
from micromegas_jupyter.executors.limits import CallerKey
from micromegas_jupyter.executors.pool import Pool
from micromegas_jupyter.executors.reports import Cause
from micromegas_jupyter.executors.requests import Output, Statement
from micromegas_jupyter.executors.statements import (
    ClientGone,
    RunningStatement,
    list_tables,
    plan_statement,
    run_statement,
)
from micromegas_jupyter.server.audit import QueryAudit, QueryFacts
from micromegas_jupyter.server.authentication import (
    find_client_address,
    parse_authorization,
    parse_client_tags,
    parse_compression,
    parse_query_options,
    resolve_attribution,
)
from micromegas_jupyter.server.calls import Call, ends_task, translate_error
from micromegas_jupyter.server.monitoring import ServerMetrics, phase
from micromegas_jupyter.server.settings import FlightServerSettings
from micromegas_jupyter.server.tickets import join_parts

if TYPE_CHECKING:
    from datetime import datetime

    from micromegas_jupyter.engine.denials import MatchRules

_END_SECONDS: Final = 2.0
_LOG: Final = logging.getLogger("micromegas_jupyter.server")
CHECK_SECONDS: Final = 1.0
_HIT_SECONDS: Final = 5.0


class CancelStatus(enum.IntEnum):
    """How far a cancellation has come, in the numbers of Flight's `CancelStatus` and Flight SQL's `CancelResult`."""

    CANCELLED = 1
    CANCELLING = 2
    NOT_CANCELLABLE = 3


class RunningQueries:
    """Knows the statements that run. Belongs to one event loop."""

    def __init__(self) -> None:
        self._running: dict[bytes, set[RunningStatement]] = {}

    @contextmanager
    def listed(self, key: bytes, statement: RunningStatement) -> Iterator[None]:
        """Let the statement be cancelled by its key while the body runs."""
        self._running.setdefault(key, set()).add(statement)
        try:
            yield
        finally:
            self._running[key].discard(statement)
            if not self._running[key]:
                del self._running[key]

    async def cancel(self, key: bytes) -> CancelStatus:
        """End the statements with this key, and wait a moment until they have ended."""
        statements = tuple(self._running.get(key, ()))
        if not statements:
            return CancelStatus.NOT_CANCELLABLE
        for statement in statements:
            statement.end(Cause.CANCELLED)
        try:
            async with asyncio.timeout(_END_SECONDS):
                for statement in statements:
                    await statement.has_ended.wait()
        except TimeoutError:
            return CancelStatus.CANCELLING
        return CancelStatus.CANCELLED


def join_statuses(found: Collection[CancelStatus]) -> CancelStatus:
    """Return the status of several cancellations as one: not done until all are, and done if there was one to do."""
    for status in (CancelStatus.CANCELLING, CancelStatus.CANCELLED):
        if status in found:
            return status
    return CancelStatus.NOT_CANCELLABLE


def query_key(caller: CallerKey, name: bytes) -> bytes:
    """Return the key of a caller's query; `name` is its ticket, or the id of a ticket that the server issued."""
    return hashlib.sha256(join_parts(*map(str.encode, caller), name)).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """The rules as they were last read, ready to be applied."""

    rules: tuple[Denial, ...] = ()
    matching: "MatchRules | None" = None


class DenyList:
    """The denials of one server.

    `_lock` covers the state and the hits that are not written yet; it is free during reading and writing.

    Args:
        path: The file with the rules; it need not exist.
        clock: Tells the time.
        max_rules: How many rules there may be.
        check_seconds: How often the file is looked at, at most.
        on_denied: Called with the rule's id for each query that is denied; must not block.

    Raises:
        ConfigurationError: The file is there and cannot be used.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock = SYSTEM_CLOCK,
        max_rules: int = MAX_RULES,
        check_seconds: float = CHECK_SECONDS,
        on_denied: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._file = DenialStore(path, clock=clock)
        self._clock = clock
        self._max_rules = max_rules
        self._check_seconds = check_seconds
        self._on_denied = on_denied
        self._lock = threading.Lock()
        self._hits: dict[str, datetime] = {}
        self._written_at = clock.monotonic()
        self._checked_at = clock.monotonic()
        self._mark: FileMark | None = None
        self._state = _State()
        try:
            self._mark, self._state = self._read()
        except (FileProblem, MalformedFile, InvalidStatement) as error:
            raise ConfigurationError(
                f"The list of denied queries ({self._file.name}) cannot be used: {_problem(error)}.",
                key=self._file.name,
                remedy="Correct or remove the file, and start again.",
            ) from None

    async def check(self, facts: QueryFacts) -> None:
        """Let a query pass that no rule denies, and any of an administrator that names a function of denials.

        Raises:
            QueryDenied: A rule denies it.
        """
        now = self._clock.monotonic()
        if now - self._checked_at >= self._check_seconds:
            self._checked_at = now  # first, so that queries beside this one do not look as well
            await asyncio.to_thread(self._reload_if_changed)
        state = self._state
        if state.matching is None or len(facts.statement.sql) > MAX_STATEMENT_BYTES:
            return  # what is longer is refused for that, and reading it would cost more than running a short one
        found = _match_facts(facts)
        hashes = fingerprints(facts.statement.sql)
        if state.matching.are_quick:
            place = state.matching.first_match(found, hashes)
        else:
            place = await asyncio.to_thread(state.matching.first_match, found, hashes)
        if place is None:
            return
        from micromegas_jupyter.engine.denials import names_denial_function

        if not (facts.caller.is_admin and names_denial_function(facts.statement.sql)):
            await self._deny(state.rules[place], facts)

    async def _deny(self, rule: Denial, facts: QueryFacts) -> None:
        now = self._clock.monotonic()
        with self._lock:
            self._hits[rule.rule_id] = self._clock.now()
            is_due = now - self._written_at >= _HIT_SECONDS
            if is_due:
                self._written_at = now
        self._on_denied(rule.rule_id)
        _LOG.warning("query denied by rule %s: %s, user=%s", rule.rule_id, rule.reason, facts.attribution.user)
        if is_due:
            await asyncio.to_thread(self.write_hits)
        raise QueryDenied(f"This query is denied by rule {rule.rule_id}: {rule.reason.rstrip('.')}.", limit="denied")

    def write_hits(self) -> None:
        """Write when rules were last hit; a file that cannot be written is only told in the log."""
        with self._lock:
            hits, self._hits = self._hits, {}
        if not hits:
            return
        try:
            self._file.change(lambda rules: with_hits(rules, hits))
        except Unavailable:
            _LOG.warning("the last hits of query denials could not be written")

    def _reload_if_changed(self) -> None:
        now = self._clock.monotonic()
        if self._hits and now - self._written_at >= _HIT_SECONDS:
            self._written_at = now
            self.write_hits()
        try:
            mark = self._file.mark()
        except FileProblem:
            mark = None
        if mark != self._mark:
            self.reload()

    def reload(self) -> None:
        """Read the file again; one that cannot be used leaves the rules as they were."""
        try:
            mark, state = self._read()
        except (FileProblem, MalformedFile, InvalidStatement) as error:
            # Told once for each state of the file.
            try:
                self._mark = self._file.mark()
            except FileProblem:
                self._mark = None
            _LOG.error(
                "the list of denied queries cannot be used, the rules before it stay in force: %s", _problem(error)
            )
            return
        with self._lock:
            self._mark, self._state = mark, state

    def _read(self) -> tuple[FileMark | None, _State]:
        mark = self._file.mark()
        rules = self._file.read()
        if len(rules) > self._max_rules:
            raise MalformedFile(f"it has {len(rules)} rules, more than the {self._max_rules} that there may be")
        expressions = tuple(rule.match_expr for rule in rules)
        if not rules:
            return mark, _State()
        before = self._state.matching
        if before is not None and before.expressions == expressions:
            return mark, _State(rules=rules, matching=before)
        from micromegas_jupyter.engine.denials import MatchRules  # loads the engine, which most servers need not here

        return mark, _State(rules=rules, matching=MatchRules(expressions))


def _match_facts(facts: QueryFacts) -> dict[str, str | None]:
    tags = facts.tags
    return {
        "user_id": facts.attribution.user,
        "email": facts.attribution.email,
        "service_account": facts.caller.subject if facts.caller.auth_type is AuthType.API_KEY else None,
        "client": tags.client,
        "agent": tags.agent,
        "entrypoint": tags.entrypoint,
        **{name: tags.optional.get(name) for name in ("session", "notebook", "cell")},
        "client_ip": facts.client_address,
        "sql": facts.statement.sql,
    }


def _problem(error: Exception) -> str:
    return error.what if isinstance(error, InvalidStatement) else str(error.args[0])


class QueryRunner:
    """Plans and runs queries. Belongs to one event loop.

    Args:
        pool: Plans and runs statements; closed by its owner.
        settings: The limits.
        clock: Measures.
        metrics: Counts queries and what they send.
        running: Lets callers cancel their queries.
        deny_list: Refuses what an administrator has denied.
    """

    def __init__(  # noqa: PLR0913 - the parts that its queries pass through
        self,
        pool: Pool,
        *,
        settings: FlightServerSettings,
        clock: Clock,
        metrics: ServerMetrics,
        running: RunningQueries,
        deny_list: DenyList | None = None,
    ) -> None:
        self._pool = pool
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._running = running
        self._deny_list = deny_list

    async def plan(self, call: Call, sql: str, parameters: tuple[bytes, ...]) -> tuple[bytes, bytes]:
        """Return the IPC schemas of a statement's result and of its parameters, as its caller would run it.

        Raises:
            UsageError: A header cannot be read.
            PermissionDenied: The headers name another user.
            QueryError: The statement is denied, or cannot be planned, or not in time.
        """
        facts = self._gather_facts(call, _build_statement(call, sql, parameters))
        audit = QueryAudit(facts, self._clock)
        running = RunningStatement(self._pool, call.source, query_id=call.query_id)
        try:
            await self._check_denials(facts)
            with phase("plan"):
                async with running:
                    return await plan_statement(self._pool, facts.statement, running)
        except QueryDenied as error:
            # A client that is refused here never asks for the rows, and a denial belongs in the audit.
            audit.write("error", running.report, error)
            raise
        except BaseException as error:
            # So does a plan that had to be ended; other failures come again when the rows are asked for.
            if running.report.cause is not None and not ends_task(error):
                audit.write("error", running.report, translate_error(error, call.query_id))
            raise

    async def run(self, call: Call, sql: str, parameters: tuple[bytes, ...], *, key: bytes) -> None:
        """Run a statement and send its rows; writes the audit line however it ends.

        Args:
            call: Who asks, with which options.
            sql: The statement.
            parameters: Serialized `FlightData` of its values.
            key: What the caller can cancel it by.

        Raises:
            UsageError: A header cannot be read.
            PermissionDenied: The headers name another user.
            QueryError: The statement cannot be planned or fails, or takes more time or gives more than it may.
        """
        facts = self._gather_facts(call, _build_statement(call, sql, parameters))
        output = Output(
            compression=parse_compression(call.headers),
            max_rows=self._settings.max_rows,
            max_bytes=self._settings.max_result_bytes,
        )
        audit = QueryAudit(facts, self._clock)
        running = RunningStatement(self._pool, call.source, query_id=call.query_id)

        async def write(frame: bytes) -> None:
            await call.write(frame)
            self._metrics.count_sent(len(frame))

        try:
            await self._check_denials(facts)
            with self._running.listed(key, running), ExitStack() as phases:
                phases.enter_context(phase("wait"))

                def begin_run() -> None:
                    phases.close()
                    phases.enter_context(phase("run"))

                async with running:
                    await run_statement(
                        self._pool, facts.statement, running, output=output, write=write, on_running=begin_run
                    )
        except BaseException as error:
            if ends_task(error) or isinstance(error, ClientGone | QueryCancelled) or call.context.done():
                audit.write("incomplete", running.report)
                self._metrics.count_query(running.report, audit.seconds(), "incomplete")
                raise
            translated = translate_error(error, call.query_id)
            audit.write("error", running.report, translated)
            self._metrics.count_query(running.report, audit.seconds(), "error", translated)
            raise translated from error
        audit.write("ok", running.report)
        self._metrics.count_query(running.report, audit.seconds(), "ok")

    async def tables(self, caller: AuthContext, call: Call) -> list[tuple[str, bytes]]:
        """Return the tables that a caller sees, each with its IPC schema.

        Raises:
            Unavailable: They cannot be listed now.
        """
        async with RunningStatement(self._pool, call.source, query_id=call.query_id) as running:
            return await list_tables(self._pool, caller, running)

    async def _check_denials(self, facts: QueryFacts) -> None:
        if self._deny_list is not None:
            await self._deny_list.check(facts)

    def _gather_facts(self, call: Call, statement: Statement) -> QueryFacts:
        return QueryFacts(
            query_id=call.query_id,
            client_address=find_client_address(call.context.peer(), call.headers, self._settings.trusted_proxies),
            tags=parse_client_tags(call.headers),
            caller=call.caller,
            attribution=resolve_attribution(call.caller, call.headers),
            statement=statement,
            credential=None if call.caller.auth_type is AuthType.NONE else parse_authorization(call.headers).text,
        )


def _build_statement(call: Call, sql: str, parameters: tuple[bytes, ...]) -> Statement:
    options = parse_query_options(call.headers)
    return Statement(
        sql=sql,
        caller=call.caller,
        parameters=parameters,
        time_range=options.time_range,
        row_limit=options.row_limit,
        preserve_dictionary=options.preserve_dictionary,
    )
