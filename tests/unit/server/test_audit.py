"""Each query leaves one line that parses, whatever it holds."""

import asyncio
import hashlib
import json
import logging
import threading
from dataclasses import replace
from datetime import UTC, datetime
from unittest.mock import Mock

import pytest

from micromegas_jupyter.access.audit import AuditFile, AuditFileHandler
from micromegas_jupyter.access.validator import token_name
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.engine.contract import TimeRange
from micromegas_jupyter.errors import (
    InternalError,
    InvalidStatement,
    PermissionDenied,
    ProviderUnavailable,
    ResourcesExhausted,
)
from micromegas_jupyter.executors.pool import StatementReport
from micromegas_jupyter.executors.protocol import Statement
from micromegas_jupyter.executors.scheduling import Cause
from micromegas_jupyter.server.authentication import Attribution, CallOrigin, QueryAudit, classify_error
from micromegas_jupyter.server.flight_service import recorded
from tests.fakes.validator import ALICE

STATEMENT = Statement(sql="SELECT 1", caller=ALICE)


def _audit(clock, statement=STATEMENT, report=None, **changes):
    values = {
        "query_id": "q-1",
        "client_address": "192.0.2.7",
        "tags": {"client": "python", "agent": "none", "entrypoint": "jupyter", "session": "s-1"},
        "caller": ALICE,
        "attribution": Attribution(user="alice", email="alice@example.com"),
    }
    origin = CallOrigin(**{**values, **changes})
    return QueryAudit(origin, statement, report or StatementReport(), clock)


def _write(audit, caplog, status, error=None):
    caplog.set_level(logging.INFO, logger="micromegas_jupyter.audit")
    audit.write(status, error)
    (line,) = caplog.messages
    return json.loads(line)


def test_a_finished_query_is_recorded_in_upstreams_order(clock, caplog):
    day = TimeRange(begin=datetime(2026, 1, 1, tzinfo=UTC), end=datetime(2026, 1, 2, tzinfo=UTC))
    report = StatementReport(
        rows=7,
        waiting_seconds=0.5,
        planning_seconds=0.25,
        context_init_seconds=0.05,
        execution_seconds=0.125,
        cpu_seconds=0.375,
        peak_memory_bytes=1048576,
        bytes_scanned=4096,
        spilled_bytes=2048,
        spill_count=2,
        reads={},
    )
    audit = _audit(clock, replace(STATEMENT, time_range=day, row_limit=10), report)
    clock.advance(1.75)

    record = _write(audit, caplog, "ok")

    assert list(record) == [
        "query_id", "client_ip", "client", "agent", "entrypoint", "session", "user", "email", "service_account", "sql",
        "range_begin", "range_end", "limit", "context_init_ms", "planning_ms", "execution_ms", "setup_ms", "total_ms",
        "status", "output_rows", "bytes_scanned", "peak_memory_bytes", "spilled_bytes", "spill_count", "cpu_ms",
        "issuer", "time", "sql_hash", "statement_sha256", "reads", "roles", "is_admin", "read_only",
    ]  # fmt: skip
    assert list(record.values()) == [
        "q-1", "192.0.2.7", "python", "none", "jupyter", "s-1", "alice", "alice@example.com", False, "SELECT 1",
        "2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00", 10, 50.0, 200.0, 125.0, 875.0, 1750.0,
        "ok", 7, 4096, 1048576, 2048, 2, 375.0,
        "https://id.example", "2026-11-24T12:00:01.750Z", "e1c71d1661ae46e0",
        "e004ebd5b5532a4b85984a62f8ad48a81aa3460c1ca07701f386135d72cdecf5", {}, [], True, False,
    ]  # fmt: skip


def test_a_failed_query_names_its_error(clock, caplog):
    audit = _audit(clock)
    clock.advance(0.5)

    record = _write(audit, caplog, "error", InvalidStatement("No such column."))

    assert record["error_class"] == "user"
    assert (record["planning_ms"], record["setup_ms"], record["total_ms"]) == (500.0, 500.0, 500.0)
    assert not {"output_rows", "ended_for", "credential"} & set(record)
    assert (record["bytes_scanned"], record["cpu_ms"], record["execution_ms"]) == (None, None, 0.0)


def test_sql_and_fields_are_cut(clock, caplog):
    statement = Statement(sql="é" * 9000, caller=ALICE)

    record = _write(_audit(clock, statement, attribution=Attribution(user="u" * 999, email="e")), caplog, "ok")

    assert record["sql"] == "é" * 8192
    assert record["user"] == "u" * 256
    assert record["truncated"] == ["user", "sql"]


def test_a_log_that_fails_does_not_fail_the_query(clock, monkeypatch, caplog):
    class BrokenHandler(logging.Handler):
        def emit(self, record):
            raise OSError("no space left")

    logger = logging.getLogger("micromegas_jupyter.audit")
    monkeypatch.setattr(logger, "handlers", [BrokenHandler()])
    monkeypatch.setattr(logger, "level", logging.INFO)

    _audit(clock).write("ok")

    assert [record.exc_info[0] for record in caplog.records] == [OSError]


def test_errors_have_upstreams_classes():
    errors = (InvalidStatement, ResourcesExhausted, InternalError, PermissionDenied, ProviderUnavailable)

    assert [classify_error(error("x")) for error in errors] == ["user", "resource", "internal", "denied", "internal"]


def test_a_delegated_query_that_was_ended_names_everybody_its_cause_and_credential(clock, caplog):
    attribution = Attribution(user="carol", email="carol@example.com", name="Carol", service_account_name="grafana")
    report = StatementReport(cause=Cause.MEMORY, cpu_seconds=1.5)
    audit = _audit(clock, report=report, attribution=attribution, credential=Secret("mmk_8c1f0a6de2b94b7f"))

    record = _write(audit, caplog, "error", ResourcesExhausted("Too much memory."))

    assert (record["ended_for"], record["error_class"], record["cpu_ms"]) == ("memory", "resource", 1500.0)
    assert (record["user"], record["name"], record["service_account"]) == ("carol", "Carol", True)
    assert record["service_account_name"] == "grafana"
    assert record["credential"] == token_name("mmk_8c1f0a6de2b94b7f")
    assert "mmk_" not in caplog.text


def test_a_planned_query_names_what_it_read_and_with_which_rights(clock, caplog):
    caller = replace(ALICE, roles=("analyst",))
    statement = Statement(sql="SELECT msg FROM log_entries WHERE level = $1", caller=caller, parameters=(b"a", b"b"))
    report = StatementReport(reads={"log_entries": ["level", "msg"]})

    record = _write(_audit(clock, statement, report, caller=caller), caplog, "ok")

    assert record["reads"] == {"log_entries": ["level", "msg"]}
    assert (record["roles"], record["is_admin"]) == (["analyst"], True)
    assert record["statement_sha256"] == hashlib.sha256(statement.sql.encode()).hexdigest()
    assert record["values_sha256"] == hashlib.sha256(b"ab").hexdigest()
    assert "truncated" not in record


def test_a_query_that_was_not_planned_has_read_nothing_that_is_known(clock, caplog):
    assert _write(_audit(clock), caplog, "error", InvalidStatement("No such column."))["reads"] is None


@pytest.mark.parametrize("character", ["x", "\x01", "é", "\U0001f600", "\\", '"', "\x7f", "\ud800"])
def test_a_line_takes_at_most_64_kib_and_says_that_its_statement_was_cut(clock, caplog, character):
    tags = dict.fromkeys(("client", "agent", "entrypoint", "session", "notebook", "cell"), "\\" * 300)
    report = StatementReport(reads={"t" * 200: ["c" * 60] * 260})
    audit = _audit(clock, Statement(sql=character * 20_000, caller=ALICE), report, tags=tags)

    caplog.set_level(logging.INFO, logger="micromegas_jupyter.audit")
    audit.write("ok")

    (line,) = caplog.messages
    record = json.loads(line)
    assert len(line) <= 65_536
    assert line.isascii()
    assert (
        record["sql"]
        == (character * 20_000).encode("utf-8", "replace")[:16_384].decode("utf-8", "ignore")[: len(record["sql"])]
    )
    assert len(record["sql"]) > 3000
    assert record["truncated"] == [*tags, "sql"]
    assert record["reads"] == report.reads


def test_a_statement_of_16_kib_with_a_long_comment_is_whole(clock, caplog):
    sql = "/*" + "x" * 16_000 + "*/\nSELECT 1"

    record = _write(_audit(clock, Statement(sql=sql, caller=ALICE)), caplog, "ok")

    assert record["sql"] == sql
    assert "truncated" not in record


def test_a_call_that_is_ended_gets_its_status_after_its_line_is_in_the_file(clock, tmp_path, monkeypatch):
    file = tmp_path / "audit.jsonl"
    handler = AuditFileHandler(file)
    may_write, append = threading.Event(), AuditFile.write
    monkeypatch.setattr(AuditFile, "write", lambda *of: may_write.wait(30) and append(*of))
    call = Mock()
    call.context.done.return_value = False

    async def run():
        async with recorded(_audit(clock), call, Mock()):
            await asyncio.Event().wait()

    async def scenario():
        task = asyncio.create_task(run())
        await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=0.1)
        may_write.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        return bool(done), json.loads(file.read_text())["status"]

    logger = logging.getLogger("micromegas_jupyter.audit")
    logger.addHandler(handler)
    try:
        assert asyncio.run(scenario()) == (False, "incomplete")
    finally:
        logger.removeHandler(handler)
        handler.close()
