from __future__ import annotations

from dataclasses import replace

import pytest

from micromegas_jupyter.notebook.completion.schema import Column, ServerSchema, Table
from micromegas_jupyter.notebook.magics.table_listing import (
    MAX_TABLES,
    build_listing,
    listing_html,
    listing_text,
    listing_traits,
)

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


def listing(pattern: str = "", schema: ServerSchema = SCHEMA):
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
def test_a_pattern_finds_tables_by_their_names_and_else_by_their_columns(
    pattern: str, found: dict[str, list[str]]
) -> None:
    assert {table.name: [column.name for column in table.columns] for table in listing(pattern).tables} == found


def test_the_text_lines_columns_up_below_their_table() -> None:
    shown = replace(listing("log"), facts={"log_entries": "3 rows"})

    assert listing_text(shown) == (
        "1 of 2 tables of lake.example.com:50051\n"
        "\n"
        "log_entries · 3 rows · What programs logged.\n"
        "  time  timestamp[ns, UTC], never null\n"
        "  msg   string                          The message."
    )


def test_the_html_opens_without_a_script_and_a_single_table_is_open() -> None:
    shown = listing_html(listing())

    assert shown.count("<details><summary>") == 2
    assert "<p>2 tables of lake.example.com:50051</p>" in shown
    assert listing_html(listing("log")).count("<details open><summary>") == 1


def test_nothing_from_the_server_is_markup_or_steers_a_terminal() -> None:
    evil = EVIL + "\x1b[2J\u202e"
    table = Table(name=evil, columns=(Column(name=evil, type_text=evil, remarks=evil),), remarks=evil)
    shown = listing(schema=ServerSchema(tables={evil: table}))

    assert "<script" not in listing_html(shown)
    assert "\x1b" not in listing_text(shown) + str(listing_traits(shown))
    assert "\u202e" not in listing_text(shown) + str(listing_traits(shown))


def test_what_is_shown_is_bounded() -> None:
    long = "x" * 5000
    tables = {
        f"{number}{long}": Table(
            name=f"{number}{long}", columns=(Column(name=long, type_text=long, remarks=long),) * 700, remarks=long
        )
        for number in range(3)
    }
    many = {str(number): Table(name=str(number)) for number in range(MAX_TABLES + 10)}

    assert len(listing_text(listing(schema=ServerSchema(tables=tables)))) < 3 * 501 * 600
    assert listing(schema=ServerSchema(tables=many)).title == "500 of 510 tables of lake.example.com:50051"
