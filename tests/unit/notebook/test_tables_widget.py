from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from micromegas_jupyter.notebook.completion.schema import Column, ServerSchema, Table
from micromegas_jupyter.notebook.magics import tables_widget
from micromegas_jupyter.notebook.magics.table_listing import MAX_TABLES, TableListing, build_listing, search_listing
from micromegas_jupyter.notebook.magics.tables_widget import TablesWidget

LOGS = Table(name="log_entries", columns=(Column(name="msg", type_text="string"),), remarks="What programs logged.")
SCHEMA = ServerSchema(tables={"log_entries": LOGS, "odd\nname": Table(name="odd\nname")})


@pytest.fixture
def asked() -> list[Table]:
    return []


@pytest.fixture
def listing() -> TableListing:
    return build_listing(SCHEMA, server="lake.example.com", pattern="")


@pytest.fixture
def widget(listing: TableListing, asked: list[Table]) -> TablesWidget:
    shown = replace(build_listing(SCHEMA, server="lake.example.com", pattern="log"), facts={"log_entries": "2 rows"})
    return TablesWidget(
        replace(listing, facts=shown.facts), search="log", shown=shown, count=lambda table, _tell: asked.append(table)
    )


def test_the_traits_are_the_tables_what_is_looked_for_and_what_is_known(widget: TablesWidget) -> None:
    state = widget.get_state()

    assert [table["name"] for table in state["tables"]] == ["log_entries", "odd\\nname"]
    assert state["tables"][0]["columns"] == [["msg", "string", ""]]
    assert (state["search"], state["server"]) == ("log", "lake.example.com")
    assert state["facts"] == {"log_entries": "2 rows"}


def test_what_is_known_of_a_table_behind_the_limit_is_shown_with_it() -> None:
    schema = ServerSchema(
        tables={name: Table(name=name) for name in (f"t{number}" for number in range(MAX_TABLES + 1))}
    )
    last = f"t{MAX_TABLES}"
    shown = replace(build_listing(schema, server="lake.example.com", pattern=last), facts={last: "2 rows"})

    widget = TablesWidget(search_listing(schema, shown), search=last, shown=shown, count=lambda _table, _tell: None)

    state = widget.get_state()
    assert [table["name"] for table in state["tables"]][:2] == [last, "t0"]
    assert len(state["tables"]) == MAX_TABLES
    assert state["facts"] == {last: "2 rows"}


def test_tables_whose_names_are_cut_to_the_same_keep_the_widget_working() -> None:
    schema = ServerSchema(tables={name: Table(name=name) for name in ("t" * 200 + "1", "t" * 200 + "2")})
    shown = replace(
        build_listing(schema, server="lake.example.com", pattern=""), facts=dict.fromkeys(schema.tables, "2 rows")
    )

    widget = TablesWidget(search_listing(schema, shown), search="", shown=shown, count=lambda _table, _tell: None)

    assert list(widget.get_state()["facts"].values()) == ["2 rows"]


def test_opening_a_table_asks_for_it_and_the_answer_is_shown(widget: TablesWidget, asked: list[Table]) -> None:
    widget._handle_custom_msg({"open": "odd\\nname"}, [])
    widget.notify("odd\nname", "3 rows")

    assert [table.name for table in asked] == ["odd\nname"]
    assert widget.get_state()["facts"] == {"log_entries": "2 rows", "odd\\nname": "3 rows"}


@pytest.mark.parametrize("content", [{}, {"open": "unknown"}, {"open": ["log_entries"]}, {"open": None}, "open", None])
def test_a_message_that_names_no_table_is_left_alone(widget: TablesWidget, asked: list[Table], content: object) -> None:
    widget._handle_custom_msg(content, [])

    assert asked == []


def test_where_widgets_do_not_run_there_are_text_and_html_of_what_was_asked_for(widget: TablesWidget) -> None:
    bundle, _ = widget._repr_mimebundle_()

    assert "log_entries · 2 rows · What programs logged." in bundle["text/plain"]
    assert "odd" not in bundle["text/plain"] + bundle["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_the_browser_half_writes_text_and_never_markup() -> None:
    source = (Path(tables_widget.__file__).parents[1] / "static" / "tables.js").read_text(encoding="utf-8")

    assert not any(word in source for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "eval("))
