from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.engine.unknown_names import unknown_name
from micromegas_jupyter.engine.upstream_names import UPSTREAM_FUNCTIONS, UPSTREAM_TABLES, find_upstream_remedy
from micromegas_jupyter.errors import InvalidStatement

if TYPE_CHECKING:
    from tests.unit.engine.conftest import Asker

_TABLE_FUNCTIONS = {"view_instance", "list_partitions", "retire_partitions", "perfetto_trace_chunks", "jsonb_each"}


def test_a_function_of_upstream_is_told_from_a_misspelt_one() -> None:
    error = unknown_name("There is no function", "view_instance", ["view"], "SELECT * FROM view_instance('a', 'b')")

    assert error.what == "There is no function named view_instance."
    assert error.remedy == "Query the table itself, for example FROM log_entries WHERE process_id = '…'."
    assert (error.line, error.column) == (1, 15)


def test_a_table_of_upstream_is_told_from_a_misspelt_one() -> None:
    error = unknown_name("There is no table", "datafusion.public.blocks", ["block"], "SELECT * FROM blocks")

    assert error.remedy == "Micromegas's own server has it; this one does not."


def test_other_names_and_columns_are_not_upstreams() -> None:
    assert find_upstream_remedy("There is no function", "lengtn") is None
    assert find_upstream_remedy("There is no column", "blocks") is None
    assert find_upstream_remedy("There is no table", "view_instance") is None
    assert find_upstream_remedy("There is no function", "VIEW_INSTANCE") is not None


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
