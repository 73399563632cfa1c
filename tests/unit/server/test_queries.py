"""Denials hold in every process that shares the file, and fail closed; callers cancel their own queries."""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from unittest.mock import Mock

import pytest

from micromegas_jupyter.core.protocols import AuthType
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.engine.functions.denial_store import DenialStore
from micromegas_jupyter.engine.scanner import fingerprints
from micromegas_jupyter.errors import ConfigurationError, InvalidStatement, QueryDenied, Unavailable
from micromegas_jupyter.executors.scheduling import Cause
from micromegas_jupyter.server import cut_off
from micromegas_jupyter.server.authentication import Attribution, CallOrigin
from micromegas_jupyter.server.cut_off import DenyList
from micromegas_jupyter.server.flight_methods import CancelStatus, QueryRunner, RunningQuery, query_key
from tests.fakes.validator import ALICE

ALICE_KEY = ("https://id.example", "alice")
KEY = query_key(ALICE_KEY, b"ticket")
SQL = "SELECT msg FROM log_entries WHERE level = 2"
ORIGIN = CallOrigin(
    query_id="q-1",
    client_address="192.0.2.7",
    tags={"client": "grafana", "agent": "none", "entrypoint": "panel", "session": "s-1"},
    caller=ALICE,
    attribution=Attribution(user="alice", email="alice@example.com"),
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "query_denials.json"


@pytest.fixture
def store(path, clock):
    return DenialStore(path, clock=clock)


@pytest.fixture
def open_list(path, clock):
    return lambda **options: DenyList(path, clock=clock, **options)


def _check(deny_list, sql=SQL, **changes):
    asyncio.run(deny_list.check(replace(ORIGIN, **changes), sql))


@pytest.mark.parametrize(
    "expression",
    [
        "user_id = 'alice'", "email = 'alice@example.com'", "service_account IS NULL", "client = 'grafana'",
        "entrypoint = 'panel'", "session = 's-1'", "notebook IS NULL", "client_ip LIKE '192.0.2.%'",
        "sql LIKE '%log_entries%'", "sql_hash IS NOT NULL",
    ],
)  # fmt: skip
def test_every_column_is_known(open_list, expression, store):
    store.add(expression, "a reason", created_by="root")
    deny_list = open_list()

    with pytest.raises(QueryDenied):
        _check(deny_list)


@pytest.mark.parametrize("claimed", [None, "ann"])
def test_an_api_key_cannot_talk_itself_out_of_a_rule(open_list, claimed, store):
    store.add("service_account = 'alice'", "a reason", created_by="root")
    deny_list = open_list()
    key = replace(ALICE, auth_type=AuthType.API_KEY)
    attribution = Attribution(
        user=claimed or "alice", email="none", service_account_name=None if claimed is None else "alice"
    )

    with pytest.raises(QueryDenied):
        _check(deny_list, caller=key, attribution=attribution)


def test_an_administrator_can_lift_a_denial_of_everything(open_list, store):
    store.add("client = 'grafana'", "all of it", created_by="root")
    deny_list = open_list()
    lifting = "SELECT remove_query_denial('x')"

    _check(deny_list, lifting, caller=replace(ALICE, is_admin=True))
    with pytest.raises(QueryDenied):
        _check(deny_list, lifting, caller=replace(ALICE, is_admin=False))
    with pytest.raises(QueryDenied):
        _check(deny_list, "SELECT 'remove_query_denial'", caller=replace(ALICE, is_admin=True))


def test_another_process_sees_a_change_when_it_looks_again(open_list, clock, store):
    other = open_list()
    rule_id = store.add("client = 'grafana'", "a reason", created_by="root")

    _check(other)
    clock.advance(1.0)
    with pytest.raises(QueryDenied):
        _check(other)
    store.remove(rule_id)
    clock.advance(1.0)
    _check(other)


def test_hits_are_written_every_five_seconds_at_most(open_list, clock, store):
    store.add("client = 'grafana'", "a reason", created_by="root")
    deny_list = open_list()
    times = []

    for _ in range(12):
        clock.advance(1.0)
        with pytest.raises(QueryDenied):
            _check(deny_list)
        times.append(store.rules()[0].last_hit_at)

    assert len({*times} - {None}) == 2


def test_no_query_passes_by_old_rules_while_another_reads_the_file(open_list, clock, store):
    other = open_list()
    store.add("client = 'grafana'", "a reason", created_by="root")
    clock.advance(60.0)

    async def scenario():
        return await asyncio.gather(*(other.check(ORIGIN, SQL) for _ in range(3)), return_exceptions=True)

    assert [type(one) for one in asyncio.run(scenario())] == [QueryDenied] * 3


def test_a_denial_that_is_made_while_a_query_is_checked_holds_for_it(open_list, monkeypatch, store):
    store.add("client = 'other'", "a reason", created_by="root")
    deny_list = open_list()
    makings = iter(["client = 'grafana'"])

    async def scenario():
        loop = asyncio.get_running_loop()

        def deny_now(sql):
            for expression in makings:
                store.add(expression, "a reason", created_by="root")
                loop.call_soon_threadsafe(deny_list.invalidate)
            return fingerprints(sql)

        monkeypatch.setattr(cut_off, "fingerprints", deny_now)
        await deny_list.check(ORIGIN, SQL)

    with pytest.raises(QueryDenied):
        asyncio.run(scenario())


def test_storage_that_hangs_holds_up_neither_the_event_loop_nor_queries_for_long(open_list, clock, monkeypatch):
    deny_list = open_list()
    may_end = threading.Event()
    monkeypatch.setattr(cut_off, "_WAIT_SECONDS", 0.05)
    monkeypatch.setattr(DenialStore, "mark", lambda _: may_end.wait(30) and None)
    clock.advance(60.0)

    async def scenario():
        deny_list.invalidate()
        for _ in range(10):
            await deny_list.check(ORIGIN, SQL)
        refreshing = deny_list._refreshing
        may_end.set()
        await refreshing
        return sum(thread.name == "denials" for thread in threading.enumerate())

    assert asyncio.run(scenario()) <= 1


def test_rules_that_are_made_at_once_are_all_kept(path):
    stores = [DenialStore(path) for _ in range(4)]

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda n: stores[n % 4].add(f"client = '{n}'", "a reason", created_by="root"), range(12)))

    assert {rule.rule_id for rule in DenialStore(path).rules()} == set(made)


def test_a_rule_needs_a_reason_that_can_be_shown_and_there_are_so_many_at_most(path):
    store = DenialStore(path, max_rules=1)

    for reason in ("  ", "x" * 257, "two\nlines"):
        with pytest.raises(InvalidStatement, match="reason"):
            store.add("client = 'x'", reason, created_by="root")
    store.add("client = 'x'", "a reason", created_by="root")
    with pytest.raises(InvalidStatement, match="which is the maximum"):
        store.add("client = 'y'", "a reason", created_by="root")


_RULE = {
    "rule_id": "r-1", "created_at": "2026-11-25T12:00:00+00:00", "created_by": "root", "reason": "a reason",
    "match_expr": "client = 'grafana'",
}  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        "{", '{"version": 3, "rules": []}',
        json.dumps({"version": 1, "rules": [{**_RULE, "created_at": "yesterday"}]}),
        json.dumps({"version": 1, "rules": [_RULE, _RULE]}),
        json.dumps({"version": 1, "rules": [{**_RULE, "match_expr": "secret_word ="}]}),
        json.dumps({"version": 1, "rules": [{**_RULE, "rule_id": f"r-{n}"} for n in range(101)]}),
        " " * (1024 * 1024 + 1),
    ],
)  # fmt: skip
def test_a_malformed_file_stops_the_start_and_later_changes_nothing(open_list, path, clock, content, caplog):
    DenialStore(path).add("client = 'grafana'", "a reason", created_by="root")
    deny_list = open_list()
    path.write_text(content)
    clock.advance(1)

    with pytest.raises(QueryDenied):
        _check(deny_list)
    clock.advance(1)
    with pytest.raises(QueryDenied):
        _check(deny_list)
    with pytest.raises(ConfigurationError) as stopped:
        open_list()

    assert stopped.value.key == "query_denials.json"
    assert str(path.parent) not in str(stopped.value)
    assert caplog.text.count("stay in force") == 1


def test_a_malformed_file_is_not_written_over(path, store):
    path.write_text("{")

    with pytest.raises(Unavailable):
        store.add("client = 'x'", "a reason", created_by="root")

    assert path.read_text() == "{"


def test_a_link_in_place_of_the_file_is_not_followed(open_list, path):
    (path.parent / "elsewhere").write_text('{"version": 1, "rules": []}')
    path.symlink_to(path.parent / "elsewhere")

    with pytest.raises(ConfigurationError):
        open_list()


def test_a_statement_that_does_not_end_in_time_is_reported_as_cancelling(monkeypatch):
    monkeypatch.setattr("micromegas_jupyter.server.flight_methods._CANCEL_SECONDS", 0.01)
    parts = dict.fromkeys(("pool", "settings", "clock", "metrics"))
    runner, statement = QueryRunner(parts.pop("pool"), **parts), Mock(has_ended=asyncio.Event())
    query = RunningQuery(
        key=KEY, caller=("", ""), origin=Mock(query_id="a"), sql="", statement=statement, began_at=SYSTEM_CLOCK.now()
    )

    async def scenario():
        with runner.listed(query):
            cancelling = await runner.cancel([KEY])
        return cancelling, await runner.cancel([KEY])

    assert asyncio.run(scenario()) == (CancelStatus.CANCELLING, CancelStatus.NOT_CANCELLABLE)
    statement.end.assert_called_with(Cause.CANCELLED)
