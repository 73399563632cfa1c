"""Runs one query for one call: its limits, its rows to the client, its audit line."""

from contextlib import ExitStack

from micromegas_jupyter.core.protocols import AuthContext, AuthType
from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.errors import QueryCancelled, QueryDenied
from micromegas_jupyter.executors.pool import (
    ClientGone,
    Pool,
    RunningStatement,
    list_tables,
    plan_statement,
    run_statement,
)
from micromegas_jupyter.executors.protocol import Output, Statement
from micromegas_jupyter.server.attribution import resolve_attribution
from micromegas_jupyter.server.audit import QueryAudit, QueryFacts
from micromegas_jupyter.server.authentication import parse_authorization
from micromegas_jupyter.server.calls import Call
from micromegas_jupyter.server.deny_list import DenyList
from micromegas_jupyter.server.flight_settings import FlightServerSettings
from micromegas_jupyter.server.headers import (
    find_client_address,
    parse_client_tags,
    parse_compression,
    parse_query_options,
)
from micromegas_jupyter.server.metrics import ServerMetrics
from micromegas_jupyter.server.running_queries import RunningQueries
from micromegas_jupyter.server.statuses import ends_task, translate_error
from micromegas_jupyter.server.tracing import phase


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
