"""`params` may be names and values, or values in order; both are bound beside the statement."""

from __future__ import annotations

import pyarrow as pa
import pytest

from micromegas_jupyter.client.parameters import MAX_VALUES, Params, bind
from micromegas_jupyter.errors import UsageError


def bound_row(sql: str, params: Params) -> tuple[str, dict[str, object]]:
    bound = bind(sql, params)
    assert bound is not None
    (row,) = bound.row.to_pylist()
    return bound.sql, row


@pytest.mark.parametrize("params", [None, {}, [], (), {"other": 1}])
def test_without_values_nothing_is_bound(params: Params) -> None:
    assert bind("SELECT 1, ':a', '$b' -- $c", params) is None


@pytest.mark.parametrize("kind", [list, tuple])
@pytest.mark.parametrize("sql", ["SELECT ?, ?", "SELECT $1, $2"])
def test_values_in_order_are_columns_counted_from_zero(sql: str, kind: type[list[object]]) -> None:
    assert bound_row(sql, kind([7, "ü"])) == (sql, {"0": 7, "1": "ü"})


def test_both_spellings_of_a_name_are_bound() -> None:
    sql = "SELECT :a, $b, $a, '$c', \"$d\" /* $e */, $$ $f $$"
    values = {name: name for name in "abcdef"}

    assert bound_row(sql, values) == (sql.replace(":a", "$a"), {"a": "a", "b": "b"})


def test_a_list_serves_in_beside_a_name_of_the_servers_own_spelling() -> None:
    assert bound_row("x IN :ids AND y = $y", {"ids": [1, 2], "y": None}) == (
        "x IN ($ids_1, $ids_2) AND y = $y",
        {"ids_1": 1, "ids_2": 2, "y": None},
    )


def test_values_keep_their_types() -> None:
    bound = bind("SELECT ?, $2", [True, b"\0"])

    assert bound is not None
    assert bound.row.schema == pa.schema([("0", pa.bool_()), ("1", pa.binary())])


@pytest.mark.parametrize("params", ["text", b"bytes", 7, {1, 2}, iter([1])])
def test_what_is_neither_a_mapping_nor_a_sequence_is_refused_at_once(params: object) -> None:
    with pytest.raises(UsageError, match="params is of type"):
        bind("SELECT ?", params)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sql", "params", "said"),
    [
        ("SELECT :a", [1], "has a name, :a, and params has none"),
        ("SELECT ?", [0] * (MAX_VALUES + 1), "cannot bind more than"),
        ("SELECT ?", [object()], "cannot be bound"),
        ("SELECT $a", {"a": object()}, "The value of :a cannot be bound"),
    ],
)
def test_values_that_do_not_fit_are_refused_before_they_are_sent(sql: str, params: Params, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        bind(sql, params)
