"""Values are bound beside the statement, never inside it."""

from __future__ import annotations

import pyarrow as pa
import pytest

from micromegas_jupyter.client.parameters import MAX_VALUES, bind_named, parameter_names
from micromegas_jupyter.errors import UsageError


def test_names_are_listed_once_in_order() -> None:
    assert parameter_names("SELECT :b, :a, ':c', :b") == ("b", "a")


def test_values_stand_in_one_typed_row() -> None:
    bound = bind_named("SELECT * FROM t WHERE level <= :max AND name = :name", {"max": 3, "name": "it's", "other": 1})

    assert bound.sql == "SELECT * FROM t WHERE level <= $max AND name = $name"
    assert bound.row.schema == pa.schema([("max", pa.int64()), ("name", pa.string())])
    assert bound.row.to_pylist() == [{"max": 3, "name": "it's"}]


def test_a_name_that_stands_twice_is_bound_once() -> None:
    bound = bind_named("SELECT :a + :a", {"a": 1})

    assert bound.sql == "SELECT $a + $a"
    assert bound.row.num_columns == 1


def test_none_is_null() -> None:
    bound = bind_named("SELECT :a", {"a": None})

    assert bound.row.to_pylist() == [{"a": None}]


@pytest.mark.parametrize(
    ("sql", "expanded"),
    [
        ("x IN :ids", "x IN ($ids_1, $ids_2)"),
        ("x in(:ids)", "x in($ids_1, $ids_2)"),
        ("x IN (7, :ids)", "x IN (7, $ids_1, $ids_2)"),
        ("make_array(:ids)", "make_array($ids_1, $ids_2)"),
    ],
)
@pytest.mark.parametrize("kind", [list, tuple])
def test_a_list_stands_for_its_elements(sql: str, expanded: str, kind: type) -> None:
    bound = bind_named(sql, {"ids": kind(["a", "b"])})

    assert bound.sql == expanded
    assert bound.row.to_pylist() == [{"ids_1": "a", "ids_2": "b"}]


def test_a_set_stands_for_its_elements() -> None:
    bound = bind_named("x IN :ids", {"ids": {"a", "b"}})

    assert sorted(bound.row.to_pylist()[0].values()) == ["a", "b"]


def test_the_elements_of_a_list_never_meet_another_placeholder() -> None:
    bound = bind_named("x IN :a AND y = :a_1 AND z = :A__2", {"a": [1, 2], "a_1": 3, "A__2": 4})

    assert bound.sql == "x IN ($a___1, $a___2) AND y = $a_1 AND z = $A__2"
    assert bound.row.to_pylist() == [{"a___1": 1, "a___2": 2, "a_1": 3, "A__2": 4}]


def test_text_that_looks_like_a_placeholder_stays() -> None:
    bound = bind_named("SELECT ':a', x::int, :a", {"a": 1})

    assert bound.sql == "SELECT ':a', x::int, $a"


def test_a_statement_without_placeholders_has_an_empty_row() -> None:
    bound = bind_named("SELECT 1", {"a": 1})

    assert (bound.sql, bound.row.num_columns) == ("SELECT 1", 0)


def test_a_missing_value_is_named() -> None:
    with pytest.raises(UsageError, match=":b, :c"):
        bind_named("SELECT :a, :b, :c", {"a": 1})


@pytest.mark.parametrize(
    ("sql", "values"),
    [
        ("x IN :a", {"a": []}),
        ("x = :a", {"a": [1, 2]}),
        ("SELECT :a", {"a": (1,)}),
        ("x IN :a", {"a": [[1]]}),
        ("x = :a", {"a": {"k": 1}}),
        ("x = :größe", {"größe": 1}),
        ("x IN :a", {"a": range(3)}),
        ("x IN :a", {"a": list(range(MAX_VALUES + 1))}),
    ],
)
def test_a_value_that_cannot_stand_there_is_refused(sql: str, values: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        bind_named(sql, values)


def test_as_many_values_as_the_server_takes_are_bound() -> None:
    bound = bind_named("x IN :a", {"a": list(range(MAX_VALUES))})

    assert bound.row.num_columns == 256


def test_neither_statement_nor_values_show_in_a_repr() -> None:
    bound = bind_named("SELECT 'secret', :a", {"a": "hidden"})

    assert "secret" not in repr(bound)
    assert "hidden" not in repr(bound)
