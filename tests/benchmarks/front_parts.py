"""What each part of the front costs for one `SELECT 1`: the processor time of this process, driven in a loop."""

import asyncio
import json
import logging
from contextlib import ExitStack, contextmanager
from time import process_time

from micromegas_jupyter.access import validator_from_environment
from micromegas_jupyter.access.audit import AuditFileHandler
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.executors.pool import RunningStatement, StatementReport
from micromegas_jupyter.executors.protocol import Output, Statement
from micromegas_jupyter.flightsql.commands import messages, parse_message, parse_ticket, statement_ticket
from micromegas_jupyter.server.authentication import Authenticator, QueryAudit, build_origin, group_headers
from micromegas_jupyter.server.flight_methods import query_key
from micromegas_jupyter.server.monitoring import ServerMetrics
from tests.fakes.servers import build_pool

SQL = "SELECT 1"
_KEY = "mmk_of_a_benchmark_0123456789"
_METADATA = (("user-agent", "grpc-c++/1.60"), ("authorization", f"Bearer {_KEY}"), ("x-client-type", "python"))
_REPORT = StatementReport(
    rows=1, waiting_seconds=0.0001, planning_seconds=0.001, execution_seconds=0.001, cpu_seconds=0.002,
    peak_memory_bytes=1 << 20, bytes_scanned=0, spilled_bytes=0, spill_count=0, reads={},
)  # fmt: skip


@contextmanager
def front_parts(folder):
    """Give the parts by their names: each a coroutine function that does what one `SELECT 1` needs of it.

    Belongs to the event loop that runs; the pool is open, and audit lines go to a file in `folder`.
    """
    validator = validator_from_environment({"MICROMEGAS_API_KEYS": json.dumps([{"name": "bench", "key": _KEY}])})
    caller = validator.validate_token(_KEY)
    headers, key = group_headers(_METADATA), (caller.issuer, caller.subject)
    authenticator, metrics = Authenticator(validator, check_seconds=1), ServerMetrics()
    statement = Statement(sql=SQL, caller=caller)
    ticket = messages.Ticket(ticket=statement_ticket(SQL)).SerializeToString()
    pool = build_pool(max_per_caller=1)
    written = AuditFileHandler(folder / "audit.jsonl")

    async def authentication():
        await authenticator.authenticate(group_headers(_METADATA))

    async def framing():
        command = parse_ticket(ticket_bytes := parse_message(messages.Ticket, ticket).ticket)
        assert (command.sql, query_key(key, ticket_bytes)[2]) == (SQL, ticket_bytes)

    async def use_pool():
        async def write(_frame):
            pass

        async with RunningStatement(pool, key, query_id="q") as running:
            await running.run(statement, output=Output(), write=write)

    async def audit():
        line = QueryAudit(build_origin("q", "127.0.0.1", caller, headers), statement, _REPORT, SYSTEM_CLOCK)
        line.write("ok")
        await line.deliver()

    async def count():
        metrics.count_query(_REPORT, 0.002, "ok")
        metrics.bytes_sent.add(500)
        metrics.count_call("/arrow.flight.protocol.FlightService/DoGet", "OK")

    with ExitStack() as stack:
        stack.callback(authenticator.close)
        stack.callback(validator.close)
        stack.enter_context(_only_handler(written))
        yield (
            pool,
            {"audit": audit, "pool": use_pool, "authentication": authentication, "framing": framing, "metrics": count},
        )


@contextmanager
def _only_handler(handler):
    """Let nothing else take the lines of the audit: pytest listens, too."""
    logger = logging.getLogger("micromegas_jupyter.audit")
    before, logger.handlers, logger.propagate = logger.handlers, [handler], False
    try:
        yield
    finally:
        logger.handlers, logger.propagate = before, True
        handler.close()


async def measure_parts(folder, *, count):
    """Return the processor microseconds of each part for one statement, of `count` in a row."""
    costs = {}
    with front_parts(folder) as (pool, parts):
        await pool.open()
        try:
            for name, part in parts.items():
                await part()
                began = process_time()
                for _ in range(count):
                    await part()
                costs[name] = (process_time() - began) / count * 1e6
        finally:
            await pool.close()
    return costs


def run(folder, *, count):
    """Measure on an event loop as the server has it."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(measure_parts(folder, count=count))
