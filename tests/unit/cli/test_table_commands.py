"""`micromegas tables`: what is asked before rows go, and how answers are printed."""

import json
import time
from contextlib import nullcontext
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from micromegas_jupyter.cli import main
from micromegas_jupyter.client.table_answers import (
    DeletedRows,
    OptimizeResult,
    RestoreResult,
    TableColumn,
    TableDescription,
    TableSummary,
    TableVersion,
    Undo,
)
from micromegas_jupyter.wiring import client_side

ORDERS = TableDescription(
    name="orders", is_owner=True, columns=(TableColumn(name="id", type="int64", nullable=True),), row_count=1200
)
UNDO = Undo(
    undo_to=datetime(2026, 11, 24, 11, 59, 59, 999000, tzinfo=UTC), undo_until=datetime(2026, 11, 25, 12, tzinfo=UTC)
)
UNDO_TIMES = {"undo_to": "2026-11-24T11:59:59.999000+00:00", "undo_until": "2026-11-25T12:00:00+00:00"}
HISTORY = (TableVersion(version=3, operation="DELETE", committed_at=datetime(2026, 11, 24, 12, tzinfo=UTC)),)


class Client:
    """As much of a client as the command uses, with a record of what was changed."""

    def __init__(self):
        self.changes = []
        self.table_summaries = lambda: (TableSummary(name="orders", is_owner=True, may_ingest=False),)
        self.describe_table = lambda _: ORDERS
        self.table_history = lambda _, limit: HISTORY[:limit]
        self.optimize_table = lambda _: OptimizeResult(removed_files=50, added_files=1)
        self.on_notice = lambda _: None

    def set_time_travel(self, table, to):
        self.changes.append(("set_time_travel", table, to))

    def set_undo_hours(self, table, hours):
        self.changes.append(("set_undo_hours", table, hours))

    def drop_table(self, table):
        self.changes.append(("drop", table))
        return UNDO

    def delete_rows(self, table, where):
        self.changes.append(("delete", table, where))
        return DeletedRows(1200, UNDO)

    def restore_table(self, table, *, to, dry_run):
        if dry_run:
            return RestoreResult(
                restored_version=4, version=8, added_files=3, removed_files=1, was_dropped=False, missing_files=("a",)
            )
        self.changes.append(("restore", table, to))
        return RestoreResult(restored_version=4, version=9, added_files=3, removed_files=1, was_dropped=False)


@pytest.fixture
def client(monkeypatch):
    client = Client()
    monkeypatch.setattr(client_side, "connect", lambda _uri, profile: nullcontext(client))
    return client


@pytest.fixture
def answer(monkeypatch):
    """Stand in for a terminal at which somebody types this, or for none."""

    def type_in(text):
        stream = SimpleNamespace(isatty=lambda: text is not None, readline=lambda: f"{text}\n")
        monkeypatch.setattr("sys.stdin", stream)
        monkeypatch.setattr("sys.stderr.isatty", lambda: text is not None, raising=False)

    return type_in


DROP = ("tables", "drop", "orders")
DELETE = ("tables", "delete", "orders", "--where", "id > 5")
RESTORE = ("tables", "restore", "orders", "--to", "2026-11-24T12:00:00Z")


@pytest.mark.parametrize("words", [DROP, DELETE, RESTORE])
@pytest.mark.parametrize(("typed", "code"), [("y", 0), ("YES", 0), ("n", 1), ("", 1), ("yes please", 1)])
def test_rows_go_only_once_somebody_has_said_yes(client, answer, words, typed, code):
    answer(typed)

    assert main.run(words) == code

    assert bool(client.changes) is (code == 0)


@pytest.mark.parametrize("words", [DROP, DELETE, RESTORE])
def test_without_a_terminal_rows_go_only_with_the_option(client, answer, words, capsys):
    answer(None)

    assert main.run(words) == 2
    assert "--yes" in capsys.readouterr().err
    assert client.changes == []

    assert main.run([*words, "--yes"]) == 0
    assert len(client.changes) == 1


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["list"], [{"name": "orders", "is_owner": True, "may_ingest": False}]),
        (["drop", "orders", "--yes"], {"table": "orders", "dropped": True, **UNDO_TIMES}),
        (
            ["delete", "orders", "--where", "true", "--yes"],
            {"table": "orders", "deleted_rows": 1200, **UNDO_TIMES},
        ),
        (
            ["restore", "orders", "--to", "2h", "--yes"],
            {
                "table": "orders",
                "was_dropped": False,
                "restored_version": 4,
                "version": 9,
                "added_files": 3,
                "removed_files": 1,
                "undo_to": None,
                "undo_until": None,
            },
        ),
        (["optimize", "orders"], {"table": "orders", "removed_files": 50, "added_files": 1}),
    ],
)
def test_json_holds_the_whole_answer(words, expected, capsys):
    assert main.run(["tables", *words, "--format", "json"]) == 0

    assert json.loads(capsys.readouterr().out) == expected


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["list"], "orders  yes      no"),
        (["describe", "orders"], "rows   1,200"),
        (["history", "orders"], "2026-11-24T12:00:00+00:00  DELETE"),
        (["delete", "orders", "--where", "true", "--yes"], "deleted 1,200 rows"),
        (
            ["restore", "orders", "--to", "2h", "--yes"],
            "version 4 (files added: 3, removed: 1)",
        ),
        (["optimize", "orders"], "merged 50 files into 1"),
    ],
)
def test_a_person_gets_a_table_or_a_sentence(words, shown, capsys):
    assert main.run(["tables", *words]) == 0

    assert shown in capsys.readouterr().out


@pytest.mark.usefixtures("client")
def test_json_of_a_table_and_its_history_has_times_as_text(capsys):
    main.run(["tables", "describe", "orders", "--format", "json"])
    assert json.loads(capsys.readouterr().out)["columns"] == [{"name": "id", "type": "int64", "nullable": True}]

    main.run(["tables", "history", "orders", "--format", "json", "--limit", "1"])
    assert json.loads(capsys.readouterr().out)[0]["committed_at"] == "2026-11-24T12:00:00+00:00"
    assert main.run(["tables", "history", "orders", "--limit", "0"]) == 2


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize("words", [DROP, DELETE])
def test_a_change_is_printed_with_the_deadline_and_the_command_that_undoes_it(words, capsys, monkeypatch):
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    main.run([*words, "--yes"])
    monkeypatch.undo()
    time.tzset()

    assert capsys.readouterr().out.splitlines()[1:] == [
        "can be undone until 2026-11-25 07:00:00 EST (2026-11-25T12:00:00.000Z):",
        "  micromegas tables restore orders --to 2026-11-24T11:59:59.999Z",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-24T12:00:00.5Z", datetime(2026, 11, 24, 12, 0, 0, 500000, tzinfo=UTC)),
        ("12", 12),
        ("yesterday", None),
    ],
)
def test_the_time_to_restore_to_is_read_before_anything_is_asked(client, text, expected):
    code = main.run(["tables", "restore", "orders", "--to", text, "--yes"])

    assert (code, client.changes) == ((0, [("restore", "orders", expected)]) if expected else (2, []))


def test_a_dry_run_asks_nothing_and_prints_what_would_change(client, capsys):
    assert main.run([*RESTORE, "--dry-run"]) == 0

    shown = capsys.readouterr().out
    assert "would restore orders to version 4 (files added: 3, removed: 1)" in shown
    assert "files are missing: a" in shown
    assert client.changes == []


@pytest.mark.parametrize(
    ("made", "shown"),
    [(9, "restored orders to version 4"), (4, "orders is already in its state of that time")],
)
def test_a_restore_of_columns_alone_is_told_from_one_that_changes_nothing(client, made, shown, capsys):
    client.restore_table = lambda _, to, dry_run: RestoreResult(
        restored_version=4, version=made, added_files=0, removed_files=0, was_dropped=False
    )

    main.run([*RESTORE, "--yes"])

    assert capsys.readouterr().out.splitlines()[0] == shown


def test_settings_of_a_table_are_checked_before_they_are_sent(client, capsys):
    for setting in ("time-travel=everyone", "time-travel", "undo-hours=two", "colour=red"):
        assert main.run(["tables", "set", "orders", setting]) == 2
    assert client.changes == []
    assert "time-travel=owners|readers" in capsys.readouterr().err

    assert main.run(["tables", "set", "orders", "time-travel=readers"]) == 0
    assert main.run(["tables", "set", "orders", "undo-hours=72", "--format", "json"]) == 0

    assert client.changes == [("set_time_travel", "orders", "readers"), ("set_undo_hours", "orders", 72)]
    sentence, _, found = capsys.readouterr().out.partition("\n")
    assert sentence == "readers of orders may read its earlier versions"
    assert json.loads(found) == {"table": "orders", "undo_hours": 72}
