from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pytest

from micromegas_jupyter.engine.explanations import UPSTREAM_FUNCTIONS, UPSTREAM_TABLES, unknown_name
from micromegas_jupyter.errors import InvalidStatement

if TYPE_CHECKING:
    from tests.unit.engine.conftest import Asker

_TABLE_FUNCTIONS = {"view_instance", "list_partitions", "retire_partitions", "perfetto_trace_chunks", "jsonb_each"}


def test_a_function_of_upstream_is_told_from_a_misspelt_one() -> None:
    error = unknown_name("function", "view_instance", ["view"], "SELECT * FROM view_instance('a', 'b')")

    assert error.what == "There is no function named view_instance."
    assert error.remedy == "Query the table itself, for example FROM log_entries WHERE process_id = '…'."
    assert (error.line, error.column) == (1, 15)


def test_a_table_of_upstream_is_told_from_a_misspelt_one() -> None:
    error = unknown_name("table", "datafusion.public.blocks", ["block"], "SELECT * FROM blocks")

    assert error.remedy == "Only Micromegas's own server has it."


@pytest.mark.parametrize(("kind", "name"), [("function", "lengtn"), ("column", "blocks"), ("table", "view_instance")])
def test_other_names_and_columns_are_not_upstreams(kind: Literal["column", "table", "function"], name: str) -> None:
    assert unknown_name(kind, name, [], f"SELECT {name}").remedy == "Correct the statement."


def test_upstreams_names_are_known_in_any_case() -> None:
    found = unknown_name("function", "VIEW_INSTANCE", [], "SELECT 1")

    assert found.remedy == UPSTREAM_FUNCTIONS["view_instance"]


@pytest.mark.parametrize("in_from", [False, True])
def test_this_server_has_none_of_these_functions(ask: Asker, in_from: bool) -> None:
    for name in UPSTREAM_FUNCTIONS:
        if in_from is (name in _TABLE_FUNCTIONS):
            with pytest.raises(InvalidStatement, match=f"no function named {name}") as caught:
                ask.plan(f"SELECT * FROM {name}('a')" if in_from else f"SELECT {name}('a')")
            assert caught.value.remedy == UPSTREAM_FUNCTIONS[name]


def test_this_server_has_none_of_these_tables(ask: Asker) -> None:
    for name in UPSTREAM_TABLES:
        with pytest.raises(InvalidStatement, match=f"no table named {name}") as caught:
            ask.plan(f"SELECT * FROM {name}")
        assert caught.value.remedy == UPSTREAM_TABLES[name]
