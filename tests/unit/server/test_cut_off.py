"""Whose calls are rejected after a cut-off, and what the file of denials keeps of it."""

import asyncio
import json
from dataclasses import replace
from datetime import timedelta

import pytest

from micromegas_jupyter.core.protocols import AuthContext, AuthType
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.engine.functions.denial_store import (
    MAX_FILE_BYTES,
    REPORT_PERIOD,
    Applied,
    CutOff,
    DenialStore,
    with_hits,
)
from micromegas_jupyter.errors import Rejected, Unavailable, UsageError
from micromegas_jupyter.server.cut_off import DenyList
from tests.fakes.validator import ALICE

KEY = AuthContext(subject="a key", issuer="api_key", auth_type=AuthType.API_KEY, may_delegate=True)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "query_denials.json"


@pytest.fixture
def store(path, clock):
    return DenialStore(path, clock=clock)


@pytest.fixture
def is_rejected(path, clock):
    """Return whether a caller is rejected, by what the file has now."""

    def ask(caller, **headers):
        deny_list = DenyList(str(path), clock=clock)
        try:
            deny_list.check_caller(caller, {name.replace("_", "-"): (value,) for name, value in headers.items()})
        except Rejected as error:
            return error.reason == "cut_off"
        return False

    return ask


def cut_off(store, clock, caller=ALICE, **changes):
    user = CutOff(issuer=caller.issuer, subject=caller.subject, created_at=clock.now(), created_by="carol", **changes)
    store.change_cut_off(lambda found: [*found, user])
    return user


def test_a_user_the_keys_of_the_user_and_calls_for_the_user_are_rejected(store, clock, is_rejected):
    cut_off(store, clock, email="alice@example.com")

    assert is_rejected(ALICE)
    assert is_rejected(replace(KEY, owner=f"{ALICE.issuer}|{ALICE.subject}"))
    assert is_rejected(KEY, x_user_id=ALICE.subject)
    assert is_rejected(KEY, x_user_email="alice%40example.com")
    assert is_rejected(KEY, x_user_email="Alice%40Example.com")  # as another program writes the same address


@pytest.mark.parametrize(
    ("caller", "headers"),
    [
        (replace(ALICE, subject="bob"), {}),
        (replace(ALICE, issuer="https://other.example"), {}),
        (KEY, {}),
        (KEY, {"x_user_id": "bob"}),
        (replace(KEY, owner="https://other.example|alice"), {}),
        (replace(ALICE, subject="bob"), {"x_user_id": ALICE.subject}),  # rejected elsewhere, as someone else's name
    ],
)
def test_other_callers_are_accepted(store, clock, is_rejected, caller, headers):
    cut_off(store, clock, email="alice@example.com")

    assert not is_rejected(caller, **headers)


def test_a_cut_off_ends_at_its_time_and_leaves_the_file_with_the_next_change(store, path, clock, is_rejected):
    cut_off(store, clock, until=clock.now() + timedelta(hours=1))
    assert is_rejected(ALICE)

    clock.advance(3600)

    assert not is_rejected(ALICE)
    store.change_cut_off(lambda found: found)
    assert json.loads(path.read_text()) == {"version": 1, "rules": []}


def test_a_file_with_users_has_a_version_that_earlier_servers_do_not_rewrite(store, path, clock):
    store.add("client = 'x'", "a reason", created_by="carol")
    assert json.loads(path.read_text())["version"] == 1

    cut_off(store, clock)
    store.add("client = 'y'", "a reason", created_by="carol")

    found = json.loads(path.read_text())
    assert (found["version"], len(found["rules"]), len(found["cut_off"])) == (2, 2, 1)


def test_reports_are_kept_for_a_minute(store, clock):
    cut_off(store, clock, applied=(Applied(server="a", ended=1, query_ids=("q-1",)),))
    assert store.read().cut_off[0].applied

    clock.advance(REPORT_PERIOD.total_seconds() + 1)
    store.change_cut_off(lambda found: found)

    assert store.read().cut_off[0].applied == ()


def test_a_damaged_file_keeps_the_users_who_were_cut_off(store, path, clock):
    cut_off(store, clock)
    deny_list = DenyList(str(path), clock=clock)
    content = path.read_text()
    path.write_text("{")
    deny_list.reload()

    assert not deny_list.is_current
    with pytest.raises(Rejected):
        deny_list.check_caller(ALICE, {})
    with pytest.raises(Unavailable):
        cut_off(store, clock)

    path.write_text(content)
    deny_list.reload()
    assert deny_list.is_current


def test_replicas_stay_ready_while_the_file_cannot_be_read_for_a_moment(store, path, clock):
    cut_off(store, clock)
    deny_list = DenyList(str(path), clock=clock)
    file = path.rename(path.with_name("moved"))
    path.symlink_to(file)  # which is not followed

    def look_after(seconds):
        clock.advance(seconds)
        asyncio.run(deny_list.refresh())
        return deny_list.is_current

    assert [look_after(seconds) for seconds in (2, 7, 2)] == [True, True, False]
    file.rename(path)
    assert look_after(1)


def test_a_change_that_no_server_could_read_is_rejected(store, path, clock):
    cut_off(store, clock)
    content = path.read_bytes()

    with pytest.raises(UsageError, match="1 MiB"):
        cut_off(store, clock, email="x" * MAX_FILE_BYTES)

    assert path.read_bytes() == content


def test_a_rule_is_added_once_if_the_response_is_lost_and_the_rule_is_hit_meanwhile(store, path, clock, monkeypatch):
    replace_file = Storage.replace

    def lose_response(storage, *arguments, **options):
        monkeypatch.setattr(Storage, "replace", replace_file)
        assert replace_file(storage, *arguments, **options)
        (rule,) = store.rules()
        store.change(lambda rules: with_hits(rules, {rule.rule_id: clock.now()}))
        return False

    monkeypatch.setattr(Storage, "replace", lose_response)
    rule_id = store.add("client = 'x'", "a reason", created_by="carol")

    assert [rule.rule_id for rule in store.rules()] == [rule_id]
