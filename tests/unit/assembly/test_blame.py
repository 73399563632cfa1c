"""Only where all queries are one caller's is it certain whose fault the end of a worker was."""

from __future__ import annotations

import pytest
from micromegas_jupyter.assembly.workers.blame import describe_queries, only_caller, read_queries

ALICE = {"caller": ["https://id.example", "alice"], "user": "alice", "query_id": "q-1", "sql_hash": "aa"}
BOB = {"caller": ["https://id.example", "bob"], "user": "bob", "query_id": "q-2", "sql_hash": "bb"}
NOBODY = {"caller": None, "user": "anonymous", "query_id": "q-3", "sql_hash": "cc"}


@pytest.mark.parametrize(
    ("queries", "caller"),
    [
        ([], None),
        ([ALICE], ("https://id.example", "alice")),
        ([ALICE, ALICE], ("https://id.example", "alice")),
        ([ALICE, BOB], None),
        ([ALICE, NOBODY], None),
        ([NOBODY], None),
    ],
)
def test_the_caller_is_known_when_there_is_one(
    queries: list[dict[str, object]], caller: tuple[str, str] | None
) -> None:
    assert only_caller(queries) == caller


def test_one_query_is_named_by_facts_and_several_as_candidates() -> None:
    assert describe_queries([]) == {}
    assert describe_queries([ALICE]) == {"user": "alice", "query_id": "q-1", "sql_hash": "aa"}
    assert describe_queries([ALICE, BOB]) == {"candidates": "alice q-1 aa; bob q-2 bb"}


def test_what_all_candidates_have_in_common_is_a_fact_too() -> None:
    other = {**ALICE, "query_id": "q-4"}

    assert describe_queries([ALICE, other]) == {
        "user": "alice",
        "sql_hash": "aa",
        "candidates": "alice q-1 aa; alice q-4 aa",
    }


def test_of_many_only_the_first_are_shown() -> None:
    shown = describe_queries([ALICE] * 20)["candidates"]

    assert shown == "; ".join([*["alice q-1 aa"] * 8, "and 12 more"])


@pytest.mark.parametrize("told", [{}, {"queries": "noise"}, {"queries": ["noise"]}])
def test_what_names_no_query_blames_nobody(told: dict[str, object]) -> None:
    assert read_queries(told) == ()


def test_only_so_many_are_read() -> None:
    assert len(read_queries({"queries": [ALICE] * 100})) == 64
