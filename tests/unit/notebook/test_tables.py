"""`%micromegas_tables`: the listing, the widget, and counted rows."""

from dataclasses import replace
from threading import Event

import pyarrow as pa
import pytest

from micromegas_jupyter.notebook.completion import Column, ServerSchema, Table
from micromegas_jupyter.notebook.table_explorer import (
    MAX_OPEN_COUNTS,
    TablesWidget,
    build_listing,
    count_rows,
    listing_text,
    listing_traits,
)
from tests.fakes.notebook_world import FakeClient, FakePersonalProvider
from tests.fakes.waiting import wait_until

SCHEMA = ServerSchema(
    tables={
        "log_entries": Table(
            name="log_entries",
            columns=(
                Column(name="time", type_text="timestamp[ns, UTC]", is_nullable=False),
                Column(name="msg", type_text="string", remarks="The message."),
            ),
            remarks="What programs logged.",
        ),
        "measures": Table(name="measures", columns=(Column(name="value", type_text="double"),)),
    }
)
EVIL = "\x1b[2J\u202e"
WAIT_SECONDS = 60.0


def widget_of(client, *names):
    """Return the widget of tables with these names."""
    shown = listing(schema=ServerSchema(tables={name: Table(name=name) for name in names}))
    return TablesWidget(client, shown, search="", shown=replace(shown, facts=dict.fromkeys(names[:1], "2 rows")))


def facts_of(widget, *, count):
    """Return what the widget says of tables, once it says something of so many."""
    wait_until(lambda: len(widget.facts) >= count, "lines about tables")
    return widget.get_state()["facts"]


def test_a_table_that_is_opened_is_counted(client, world):
    world.script = answer(3)
    widget = widget_of(client, "log_entries", "odd\nname")

    widget._handle_custom_msg({"open": "odd\\nname"}, [])

    assert facts_of(widget, count=2) == {"log_entries": "2 rows", "odd\\nname": "3 rows"}
    assert "odd\\nname · 3 rows" in widget._repr_mimebundle_()[0]["text/plain"]


@pytest.mark.parametrize("content", [{}, {"open": "unknown"}, {"open": ["log_entries"]}, "open", None])
def test_a_message_that_names_no_table_is_left_alone(client, world, content):
    widget_of(client, "log_entries")._handle_custom_msg(content, [])

    assert world.asked == []


def listing(pattern="", schema=SCHEMA):
    return build_listing(schema, server="lake.example.com:50051", pattern=pattern)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("", {"log_entries": ["time", "msg"], "measures": ["value"]}),
        ("LOG", {"log_entries": ["time", "msg"]}),
        ("val", {"measures": ["value"]}),
        ("m*s", {"log_entries": ["msg"], "measures": ["value"]}),
        (".", {}),
        ("(", {}),
    ],
)
def test_a_pattern_finds_tables_by_their_names_and_else_by_their_columns(pattern, found):
    assert {table.name: [column.name for column in table.columns] for table in listing(pattern).tables} == found


def test_nothing_from_the_server_steers_a_terminal():
    table = Table(name=EVIL, columns=(Column(name=EVIL, type_text=EVIL, remarks=EVIL),), remarks=EVIL)
    shown = listing(schema=ServerSchema(tables={EVIL: table}))

    for text in (listing_text(shown), str(listing_traits(shown))):
        assert not set(EVIL) & set(text) - set("[2J")


@pytest.fixture
def client(world):
    return FakeClient(world, FakePersonalProvider())


def answer(rows, first=None, last=None):
    return pa.table(
        {"n": [rows], "first": pa.array([first], pa.string()), "last": pa.array([last], pa.string())}
    ).to_batches()


def test_a_table_is_asked_for_once_at_a_time_and_a_few_together(client, world):
    may_answer = Event()
    world.script = [lambda: may_answer.wait(WAIT_SECONDS), *answer(3)]
    names = [f"table_{number}" for number in range(MAX_OPEN_COUNTS + 2)]
    widget = widget_of(client, *names)

    for name in names[1:]:
        widget._handle_custom_msg({"open": name}, [])
        widget._handle_custom_msg({"open": name}, [])
    wait_until(lambda: len(world.asked) == MAX_OPEN_COUNTS, "questions")
    may_answer.set()

    assert facts_of(widget, count=len(names)) == {names[0]: "2 rows", **dict.fromkeys(names[1:], "3 rows")}
    assert len(world.asked) == len(names) - 1


def test_the_times_that_a_table_covers_are_shown_to_the_second(client, world):
    world.script = answer(2, "2026-11-24T11:00:00.123456789Z", "12345-01-01T00:00:00Z")

    line = count_rows(client, SCHEMA.tables["log_entries"])

    assert line == "2 rows · time from 2026-11-24 11:00:00Z to 12345-01-01 00:00:00Z"
