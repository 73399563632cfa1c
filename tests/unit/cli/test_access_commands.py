"""`micromegas keys`: what it makes, lists, revokes and says."""

import argparse
import json
from datetime import UTC, datetime, timedelta

import pytest

from micromegas_jupyter.cli.access_commands import add_keys_arguments, parse_expiry, run_keys
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import UsageError

NOW = datetime(2026, 11, 24, 12, 0, 30, 5, tzinfo=UTC)


def run(*words):
    parser = argparse.ArgumentParser()
    add_keys_arguments(parser)
    return run_keys(parser.parse_args(words))


@pytest.fixture
def path(tmp_path, monkeypatch):
    path = tmp_path / "keys.json"
    monkeypatch.setenv("MICROMEGAS_API_KEY_FILE", str(path))
    return path


def ends_after(days, end):
    return abs(datetime.fromisoformat(end) - SYSTEM_CLOCK.now() - timedelta(days=days)) < timedelta(minutes=5)


def listed(capsys):
    capsys.readouterr()
    run("list", "--json")
    return json.loads(capsys.readouterr().out)


@pytest.mark.usefixtures("path")
def test_a_key_gets_what_was_asked_for_and_one_of_the_same_name_is_pointed_out(capsys):
    run("create", "report", "--scope", "read", "--scope", "ingest", "--role", "a", "--role", "b", "--role", "a")
    assert "other valid" not in capsys.readouterr().err
    (entry,) = listed(capsys)

    run("create", "report", "--role", "ops")

    notes = capsys.readouterr().err
    assert (entry["scopes"], entry["roles"]) == (["ingest", "read"], ["a", "b"])
    assert (entry["name"], entry["state"]) == ("report", "valid")
    assert "1 other valid key of this name: revoke by id" in notes
    assert "1 role (ops): a role counts only where the server's configuration has it" in notes


@pytest.mark.usefixtures("path")
def test_a_new_key_ends_by_itself_within_the_maximum(capsys, monkeypatch):
    run("create", "usual")
    run("create", "endless", "--expires", "never")
    monkeypatch.setenv("MICROMEGAS_API_KEY_MAX_DAYS", "30")
    run("create", "limited")
    for refused in ("31d", "never"):
        with pytest.raises(UsageError, match="MICROMEGAS_API_KEY_MAX_DAYS"):
            run("create", "refused", "--expires", refused)

    ends = {entry["name"]: entry["expires_at"] for entry in listed(capsys)}
    assert (ends.keys(), ends["endless"]) == ({"usual", "endless", "limited"}, None)
    assert ends_after(90, ends["usual"])
    assert ends_after(30, ends["limited"])


@pytest.mark.usefixtures("path")
def test_a_scope_may_name_tables_and_one_that_is_none_is_refused(capsys):
    run("create", "report", "--scope", "ingest:orders", "--scope", "write")
    for wrong in ("admin", "ingest:", "ingest:*", "ingest:Orders"):
        with pytest.raises(UsageError, match="ingest:orders"):
            run("create", "report", "--scope", wrong)

    (entry,) = listed(capsys)
    assert entry["scopes"] == ["ingest:orders", "write"]


@pytest.mark.parametrize("words", [("create", "x"), ("list",)])
def test_without_a_file_the_error_says_what_to_give(words):
    with pytest.raises(UsageError, match=r"--file FILE.*MICROMEGAS_API_KEY_FILE"):
        run(*words)


@pytest.mark.parametrize("name", [" ", "x" * 256, "\x1b[31m"], ids=ascii)
def test_a_name_that_cannot_be_shown_is_refused(path, name):
    with pytest.raises(UsageError, match="NAME"):
        run("create", name)
    assert not path.exists()


def test_the_list_marks_keys_in_plain_text_and_does_not_show_them(path, capsys):
    path.write_text('[{"name": "old", "key": "a-plain-text-key"}]')

    run("list")

    table = capsys.readouterr().out
    assert "valid, plain text" in table
    assert "a-plain-text-key" not in table
    assert listed(capsys)[0]["is_plain_text"] is True


@pytest.mark.usefixtures("path")
def test_revoking_again_keeps_the_first_time(capsys):
    run("create", "report")
    run("revoke", "report")
    before = listed(capsys)

    run("revoke", "report")

    assert "was revoked in the file already" in capsys.readouterr().err
    assert listed(capsys) == before
    assert before[0]["revoked_at"] is not None


@pytest.mark.usefixtures("path")
def test_an_end_that_is_set_later_is_never_later_than_the_one_before(capsys):
    run("create", "report", "--expires", "never")
    for end in ("14d", "30d"):
        run("revoke", "report", "--at", end)
    with pytest.raises(UsageError, match="--at is not in the future"):
        run("revoke", "report", "--at", "2020-01-01T00:00:00Z")

    (entry,) = listed(capsys)
    assert (entry["state"], entry["revoked_at"], ends_after(14, entry["expires_at"])) == ("valid", None, True)


@pytest.mark.parametrize(
    ("text", "said"), [("soon", "is not a valid time"), ("0d", "future"), ("2026-11-24T12:00:30Z", "future")]
)
def test_an_end_is_so_long_from_now_or_a_time_and_in_the_future(text, said):
    assert parse_expiry("90d", now=NOW) == datetime(2027, 2, 22, 12, 0, 30, tzinfo=UTC)
    assert parse_expiry("2027-01-31T12:00:00+02:00", now=NOW) == datetime(2027, 1, 31, 10, tzinfo=UTC)
    with pytest.raises(UsageError, match=said):
        parse_expiry(text, now=NOW)
