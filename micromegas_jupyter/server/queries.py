"""Runs one query for one call: its turn, its plan, its rows to the client, its audit line.

SQL is the engine's business; which call this is, `flight_service` has found.
"""

import pyarrow as pa

from micromegas_jupyter.contracts import AuthType
from micromegas_jupyter.engine import Engine, PlannedQuery, StatementRequest, WorkClass, default_heavy_statements
from micromegas_jupyter.engine.owner import QUERY_OWNER, QueryOwner
from micromegas_jupyter.errors import QueryDenied
from micromegas_jupyter.seams import Clock
from micromegas_jupyter.server.admission import Admission, AdmissionLimits, Turn
from micromegas_jupyter.server.attribution import resolve_attribution
from micromegas_jupyter.server.audit import QueryAudit, QueryFacts
from micromegas_jupyter.server.authentication import parse_authorization
from micromegas_jupyter.server.calls import Call
from micromegas_jupyter.server.deny_list import DenyList
from micromegas_jupyter.server.experience import Experience
from micromegas_jupyter.server.flight_settings import FlightServerSettings
from micromegas_jupyter.server.headers import (
    find_client_address,
    parse_client_tags,
    parse_query_options,
)
from micromegas_jupyter.server.kept_plans import KeptPlans
from micromegas_jupyter.server.metrics import QueryMeasure, ServerMetrics
from micromegas_jupyter.server.parameter_rows import plan_rows
from micromegas_jupyter.server.query_limits import QueryTime, ResultSize
from micromegas_jupyter.server.restrained_callers import RestrainedCallers
from micromegas_jupyter.server.sending import Sending
from micromegas_jupyter.server.statuses import ends_task, translate_error
from micromegas_jupyter.server.tracing import phase


class QueryRunner:
    """Plans and runs queries within the server's limits. Belongs to one event loop.

    Args:
        engine: Does the work; closed by its owner.
        settings: The limits.
        clock: Measures the phases of a query.
        metrics: Counts queries and what they send.
        deny_list: Refuses what an administrator has denied.
        restrained: Refuses callers whose queries did not stop.
    """

    def __init__(  # noqa: PLR0913 - the parts that its queries pass through
        self,
        engine: Engine,
        *,
        settings: FlightServerSettings,
        clock: Clock,
        metrics: ServerMetrics,
        deny_list: DenyList | None = None,
        restrained: RestrainedCallers | None = None,
    ) -> None:
        self._restrained = restrained
        self._deny_list = deny_list
        self._engine = engine
        self._clock = clock
        self._settings = settings
        self._metrics = metrics
        self._time = QueryTime(settings.query_timeout_seconds)
        self._experience = Experience()
        self._kept_plans = KeptPlans(clock)
        self._admission = admission = Admission(
            AdmissionLimits(
                max_queries=settings.max_concurrent_queries,
                max_per_caller=settings.max_queries_per_caller,
                max_heavy=settings.max_heavy_queries or default_heavy_statements(),
                max_medium=settings.max_medium_queries or default_heavy_statements(),
                wait_seconds=settings.admission_wait_seconds,
            )
        )
        metrics.watch_queries(
            WorkClass.SMALL, running=lambda: admission.small_count, waiting=lambda: admission.waiting_count
        )
        metrics.watch_queries(
            WorkClass.MEDIUM, running=lambda: admission.medium_count, waiting=lambda: admission.waiting_medium_count
        )
        metrics.watch_queries(
            WorkClass.HEAVY, running=lambda: admission.heavy_count, waiting=lambda: admission.waiting_heavy_count
        )

    async def plan(self, call: Call, sql: str, parameters: pa.RecordBatch | None) -> PlannedQuery:
        """Plan a statement without running it, as its caller would run it.

        Raises:
            UsageError: A header cannot be read.
            PermissionDenied: The headers name another user.
            QueryError: The statement is denied, or cannot be planned, or not in time.
        """
        request = _build_request(call, sql, parameters)
        facts = self._gather_facts(call, request)
        try:
            await self._check_denials(facts)
        except QueryDenied as error:
            # A client that is refused here never asks for the rows, and a denial belongs in the audit.
            QueryAudit(facts, self._clock).write("error", error)
            raise
        with self._time.of_one():
            async with self._admission.turn(call.caller_key):
                return await plan_rows(self._engine, request, call.caller)

    def keep(
        self, ticket_id: bytes, planned: PlannedQuery, call: Call, sql: str, parameters: pa.RecordBatch | None
    ) -> None:
        """Keep what `plan` returned for a moment, for the call that brings this ticket."""
        self._kept_plans.keep(ticket_id, planned, _build_request(call, sql, parameters), call.caller)

    async def run(self, call: Call, sql: str, parameters: pa.RecordBatch | None, *, ticket_id: bytes = b"") -> None:
        """Run a statement and send its rows; writes the audit line however it ends.

        Args:
            call: Who asks, with which options.
            sql: The statement.
            parameters: Its values.
            ticket_id: The id of the ticket that the call brings, if the server has issued it.

        Raises:
            UsageError: A header cannot be read.
            PermissionDenied: The headers name another user.
            QueryError: The statement cannot be planned or fails, or takes more time or gives more than it may.
        """
        request = _build_request(call, sql, parameters, runs_at_once=True)
        facts = self._gather_facts(call, request)
        audit = QueryAudit(facts, self._clock)
        measure = QueryMeasure(self._clock)
        try:
            await self._check_denials(facts)
            with self._time.of_one():
                async with self._admission.turn(call.caller_key, waiting=measure.waiting) as turn:
                    audit.mark_admitted()
                    with measure.planning(), phase("plan"):
                        planned = self._kept_plans.take(ticket_id, request, call.caller) or await plan_rows(
                            self._engine, request, call.caller
                        )
                    audit.mark_planned(lambda: planned.figures)
                    await self._send(call, planned, sql=sql, turn=turn, audit=audit, measure=measure)
        except BaseException as error:
            if ends_task(error) or call.context.done():
                audit.write("incomplete")
                self._metrics.count_query(measure, "incomplete")
                raise
            translated = translate_error(error, call.query_id)
            audit.write("error", translated)
            self._metrics.count_query(measure, "error", translated)
            raise translated from error
        audit.write("ok")
        self._metrics.count_query(measure, "ok")

    async def _send(  # noqa: PLR0913 - what is known of a query by then
        self, call: Call, planned: PlannedQuery, *, sql: str, turn: Turn, audit: QueryAudit, measure: QueryMeasure
    ) -> None:
        measure.work_class = self._experience.correct(sql, planned.work_class, call.caller_key)
        if measure.work_class is WorkClass.HEAVY:
            with phase("wait"):
                await turn.become_heavy()
        elif measure.work_class is WorkClass.MEDIUM:
            with phase("wait"):
                await turn.become_medium()
        else:
            turn.become_small()
        sending = Sending(
            call=call,
            turn=turn,
            size=ResultSize(max_rows=self._settings.max_rows, max_bytes=self._settings.max_result_bytes),
            audit=audit,
            measure=measure,
            metrics=self._metrics,
        )
        watched = self._experience.watch(
            sql,
            planned.work_class,
            call.caller_key,
            worked_seconds=measure.worked_seconds,
            busy_seconds=lambda: planned.figures.busy_seconds,
        )
        with watched, phase("stream"):
            await sending.send(planned)

    async def _check_denials(self, facts: QueryFacts) -> None:
        is_known = facts.caller.auth_type is not AuthType.NONE
        caller = (facts.caller.issuer, facts.caller.subject) if is_known else None
        QUERY_OWNER.set(
            QueryOwner(query_id=facts.query_id, caller=caller, user=facts.attribution.user, sql=facts.request.sql)
        )
        if self._restrained is not None and caller is not None:
            self._restrained.check(caller)
        if self._deny_list is not None:
            await self._deny_list.check(facts)

    def _gather_facts(self, call: Call, request: StatementRequest) -> QueryFacts:
        return QueryFacts(
            query_id=call.query_id,
            client_address=find_client_address(call.context.peer(), call.headers, self._settings.trusted_proxies),
            tags=parse_client_tags(call.headers),
            caller=call.caller,
            attribution=resolve_attribution(call.caller, call.headers),
            request=request,
            credential=None if call.caller.auth_type is AuthType.NONE else parse_authorization(call.headers).text,
        )


def _build_request(
    call: Call, sql: str, parameters: pa.RecordBatch | None, *, runs_at_once: bool = False
) -> StatementRequest:
    options = parse_query_options(call.headers)
    return StatementRequest(
        sql=sql,
        parameters=parameters,
        time_range=options.time_range,
        row_limit=options.row_limit,
        preserve_dictionary=options.preserve_dictionary,
        runs_at_once=runs_at_once,
    )
