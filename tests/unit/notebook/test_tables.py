"""`%micromegas_tables`: the listing, the widget, and counted rows."""

from dataclasses import replace
from threading import Event

import pyarrow as pa
import pytest

from micromegas_jupyter.notebook.completion.schema import Column, ServerSchema, Table
from micromegas_jupyter.notebook.table_explorer import (
    MAX_OPEN_COUNTS,
    TablesWidget,
    build_listing,
    listing_bundle,
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
EVIL = '</code><script>alert("1")</script>'
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


def test_nothing_from_the_server_is_markup_or_steers_a_terminal():
    evil = EVIL + "\x1b[2J\u202e"
    table = Table(name=evil, columns=(Column(name=evil, type_text=evil, remarks=evil),), remarks=evil)
    shown = listing(schema=ServerSchema(tables={evil: table}))

    assert "<script" not in listing_bundle(shown)["text/html"]
    assert "\x1b" not in listing_text(shown) + str(listing_traits(shown))
    assert "\u202e" not in listing_text(shown) + str(listing_traits(shown))


def table(name, **columns):
    found = tuple(Column(name=column, type_text=type_text) for column, type_text in columns.items())
    return Table(name=name, columns=found)


@pytest.fixture
def client(world):
    return FakeClient(world, FakePersonalProvider())


def answer(rows, first=None, last=None):
    times = [pa.array([moment], pa.timestamp("ns", "UTC")) for moment in (first, last)]
    return pa.table([pa.array([rows]), *times], names=["n", "first", "last"]).to_batches()


def test_a_table_is_asked_for_once_at_a_time_and_only_a_few_are_together(client, world):
    may_answer = Event()
    world.script = [lambda: may_answer.wait(WAIT_SECONDS), *answer(3)]
    names = [f"table_{number}" for number in range(MAX_OPEN_COUNTS + 2)]
    widget = widget_of(client, *names)

    for name in names[1:]:
        widget._handle_custom_msg({"open": name}, [])
        widget._handle_custom_msg({"open": name}, [])
    refused = dict(widget.facts)
    may_answer.set()

    assert refused == {
        names[0]: "2 rows",
        names[-1]: "Other tables are being counted. Close this one and open it again.",
    }
    assert facts_of(widget, count=len(names))[names[1]] == "3 rows"
    assert len(world.asked) == MAX_OPEN_COUNTS
