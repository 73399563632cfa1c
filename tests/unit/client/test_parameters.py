"""Values are bound beside the statement, never inside it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from micromegas_jupyter.client.parameters import MAX_VALUES, bind_named, frozen_values, parameter_names
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


@pytest.mark.parametrize(
    ("column", "elements"),
    [
        (np.array([1, 2]), [1, 2]),
        (np.array(["a"], dtype=object), ["a"]),
        (pd.Series(["a", np.nan, None]), ["a", None, None]),
        (pd.Series([1.5, np.nan]), [1.5, None]),
        (pd.Series([1, 2], index=[0.0, 500.0]), [1, 2]),
        (pd.Series([1, None], dtype="Int64"), [1, None]),
        (pd.Index(["a"]), ["a"]),
        (pd.array([True, None], dtype="boolean"), [True, None]),
        (pd.Categorical(["a", "b"]), ["a", "b"]),
        (pa.array([1, None]), [1, None]),
        (pa.chunked_array([[b"a"], [b"b"]]), [b"a", b"b"]),
        (pl.Series([1, None]), [1, None]),
        (frozenset({1}), [1]),
        ([1, None], [1, None]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_column_of_any_library_stands_for_its_elements(column: object, elements: list[object]) -> None:
    bound = bind_named("x IN :ids", {"ids": column})

    assert list(bound.row.to_pylist()[0].values()) == elements


def test_times_of_a_column_keep_their_zone_and_nanoseconds() -> None:
    times = pd.date_range("2026-01-01T00:00:00.000000001", periods=1, tz="Europe/Paris", unit="ns")

    bound = bind_named("x IN :times", {"times": times})

    assert bound.row.schema.field(0).type == pa.timestamp("ns", "+00:00")
    assert bound.row.column(0)[0].value == times[0].value


def test_a_column_that_is_far_too_long_is_refused_without_a_look_at_all_of_it() -> None:
    with pytest.raises(UsageError, match="more than 256"):
        bind_named("x IN :ids", {"ids": pd.Series(range(1_000_000))})


def test_values_are_frozen_as_they_are_now() -> None:
    names, text, data = ["a"], "x", bytearray(b"a")

    frozen = frozen_values("x IN :names AND :text = :data", {"names": names, "text": text, "data": data, "other": 1})
    names.append("b")
    data[0] = 0

    assert frozen == {"names": ("a",), "text": "x", "data": b"a"}


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
        ("x IN :a", {"a": np.array([[1]])}),
        ("x IN :a", {"a": pd.Series([], dtype="float64")}),
        ("x IN :a", {"a": pd.Series([pd.Timestamp("2026-01-01")])}),
        ("x IN :a", {"a": pd.DataFrame({"a": [1]})}),
        ("x IN :a", {"a": pl.DataFrame({"a": [1]})}),
        ("x IN :a", {"a": pl.Series([[1]])}),
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


@pytest.mark.parametrize(
    ("sql", "marked"),
    [
        ("SELECT a WHERE b IN :names AND HERE = 1", "HERE"),
        ("SELECT a WHERE b IN :names AND c IN (:more, :names) AND HERE = 1", "HERE"),
        ("SELECT HERE WHERE b IN :names", "HERE"),
        ("SELECT a,\n  HERE WHERE b IN :names", "HERE"),
        ("SELECT a WHERE b IN :names\n  AND c IN :more AND HERE", "HERE"),
        ("SELECT :one WHERE b IN :names AND HERE", "HERE"),
    ],
)
def test_a_place_in_what_was_sent_is_found_in_what_was_given(sql: str, marked: str) -> None:
    bound = bind_named(sql, {"names": ["a", "b", "c"], "more": [1, 2], "one": 1})
    sent_line, given_line = (
        next(number for number, line in enumerate(text.split("\n"), 1) if marked in line) for text in (bound.sql, sql)
    )
    sent_column = bound.sql.split("\n")[sent_line - 1].index(marked) + 1

    column = bound.original_column(sent_line, sent_column)

    assert sent_line == given_line
    assert column == sql.split("\n")[given_line - 1].index(marked) + 1


def test_a_place_within_a_list_is_where_its_name_stands() -> None:
    sql = "SELECT a WHERE b IN :names AND c"
    bound = bind_named(sql, {"names": ["a", "b", "c"]})

    columns = {bound.original_column(1, bound.sql.index(f"$names_{number}") + 1) for number in (1, 2, 3)}

    assert columns == {sql.index(":names") + 1}
