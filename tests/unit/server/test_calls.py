"""Errors become statuses without their words, reloads that fail say so, uploads are named, calls are counted."""

import asyncio
import json
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from micromegas_jupyter import errors
from micromegas_jupyter.access.audit import CallFacts
from micromegas_jupyter.core.protocols import TableAccess, WriteMode
from micromegas_jupyter.server.authentication import Authenticator
from micromegas_jupyter.server.catalog import ServerFacts
from micromegas_jupyter.server.flight_methods import FlightMethods
from micromegas_jupyter.server.flight_service import abort_call, translate_error
from micromegas_jupyter.server.ingest import build_request
from micromegas_jupyter.server.monitoring import ServerMetrics
from tests.fakes.validator import ALICE, INGESTER, ReloadableFake

SOME = TableAccess(filters={"notes": ()})
BOTH = replace(INGESTER, scopes=frozenset({"ingest", "read"}))


class Panic(BaseException):
    """What a library written in Rust raises when it panics: not an `Exception`."""


class Context:
    """As much of a servicer context as one answer needs."""

    def __init__(self, *trailers):
        self.trailers = trailers
        self.sent = {}

    def trailing_metadata(self):
        return self.trailers

    async def abort(self, _code, *, details, trailing_metadata):
        self.sent = dict(trailing_metadata)


@pytest.mark.parametrize("error", [RuntimeError("/srv/secret.py"), Panic("/srv/secret.rs")])
def test_a_defect_is_told_without_its_words_which_go_to_the_log(error, caplog):
    translated = translate_error(error, "q-1")

    assert type(translated) is errors.InternalError
    assert translated.query_id == "q-1"
    assert "secret" not in str(translated)
    assert "secret" in caplog.text
    assert "q-1" in caplog.text


def test_a_cancelled_task_is_cancelled_and_a_function_that_raises_cancelled_error_has_failed():
    async def scenario():
        assert type(translate_error(asyncio.CancelledError(), "q-1")) is errors.InternalError
        task = asyncio.current_task()
        task.cancel()
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError as error:
            translate_error(error, "q-1")

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(scenario())


@pytest.mark.parametrize(("seconds", "milliseconds"), [(1.5, "1500"), (0.0001, "1")])
def test_when_to_try_again_is_a_trailer_beside_those_that_were_set_before(seconds, milliseconds):
    context = Context(("x-micromegas-notice", "This key ends soon."))

    asyncio.run(abort_call(context, errors.ResourcesExhausted("Too often.", retry_after_seconds=seconds)))

    assert context.sent["grpc-retry-pushback-ms"] == milliseconds
    assert sorted(context.sent) == ["grpc-retry-pushback-ms", "micromegas-error-bin", "x-micromegas-notice"]


def _reload(reload):
    names = ("queries", "prepared", "tickets", "tails", "ingests", "operations", "cut_offs", "keys")
    parts = dict.fromkeys(names, Mock())
    call = SimpleNamespace(
        caller=ALICE,
        describe=lambda: CallFacts(method="/x/DoAction", client_address="192.0.2.7", call_id="q-1"),
        is_read_only=False,
    )

    async def scenario():
        record = Authenticator(None, check_seconds=1).record
        await FlightMethods(**parts, facts=ServerFacts(), reload=reload, record=record)._reload_access(call, b"")

    asyncio.run(scenario())


def _events(caplog):
    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name.endswith("audit.access")]
    return [(line["outcome"], line.get("code"), line["subject"], line["client_ip"]) for line in lines]


@pytest.mark.parametrize(
    ("failure", "shown"),
    [
        (errors.ConfigurationError("It is not JSON.", key="oidc", remedy="Mend it."), "oidc: It is not JSON. Mend it."),
        (errors.ConfigurationError("denied[0] is no text.", key="denied[0]", remedy="x."), "denied[0] is no text. x."),
        (errors.Unavailable("A file cannot be read."), "A file cannot be read. Try again in a moment."),
    ],
)
def test_a_reload_that_fails_says_what_is_wrong(failure, shown, caplog):
    validator = ReloadableFake()
    validator.failure = failure

    with pytest.raises(type(failure)) as caught:
        _reload(validator.reload)

    assert str(caught.value) == shown
    assert _events(caplog) == [("reload_failed", failure.code, "alice", "192.0.2.7")]


@pytest.mark.parametrize(
    ("caller", "table", "may_read"),
    [
        (INGESTER, "notes", False),
        (BOTH, "notes", True),
        (replace(BOTH, table_access=SOME), "notes", True),
        (replace(BOTH, table_access=SOME), "pay", False),
        (ALICE, "pay", True),
    ],
)
def test_only_callers_who_may_read_a_table_learn_of_its_columns(caller, table, may_read):
    request = build_request(table, WriteMode.APPEND, caller, write_id=None, max_tables=5)

    assert request.may_read is may_read


def test_makers_differ_by_issuer_and_subject_and_administrators_are_not_bounded():
    callers = [INGESTER, replace(INGESTER, subject="other"), replace(INGESTER, issuer="other"), ALICE]

    requests = [build_request("notes", WriteMode.CREATE, caller, write_id="ab", max_tables=5) for caller in callers]

    assert len({request.maker for request in requests}) == 4
    assert [request.most_tables for request in requests] == [5, 5, 5, None]
    assert [request.is_trusted for request in requests] == [False, False, False, True]


def test_a_limit_that_the_server_does_not_have_is_counted_with_others():
    metrics = ServerMetrics()

    metrics.count_error(errors.ResourcesExhausted("Too much.", limit="of an executor's own making"))

    name = "micromegas_server_limits_reached_total"
    assert metrics.registry.get_sample_value(name, {"limit": "other"}) == 1
    assert metrics.registry.get_sample_value(name, {"limit": "of an executor's own making"}) is None
