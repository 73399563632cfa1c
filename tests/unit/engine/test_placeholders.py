"""How placeholders are found, written for DataFusion and paired with values."""

from __future__ import annotations

import pyarrow as pa
import pytest

from micromegas_jupyter.engine.planning.parameters import find_placeholders
from micromegas_jupyter.engine.scanner import scan
from micromegas_jupyter.errors import InvalidStatement


@pytest.mark.parametrize(
    ("sql", "written", "columns"),
    [
        ("SELECT 1", "SELECT 1", ()),
        ("SELECT ?, ?", "SELECT $1, $2", ("0", "1")),
        ("SELECT ? || '?' || \"?\" -- ?\n || ?", "SELECT $1 || '?' || \"?\" -- ?\n || $2", ("0", "1")),
        ("SELECT E'\\'?' || ?", "SELECT E'\\'?' || $1", ("0",)),
        ("SELECT /* ? */ ?", "SELECT /* ? */ $1", ("0",)),
        ("SELECT $1, $2, $1", "SELECT $1, $2, $1", ("0", "1")),
        ("SELECT $2", "SELECT $2", ("0", "1")),
        ("SELECT $exe, $level, $exe", "SELECT $exe, $level, $exe", ("exe", "level")),
        ("SELECT ?, $exe", "SELECT $1, $exe", ("0", "exe")),
        ("SELECT $b, $1", "SELECT $b, $1", ("0", "b")),
        ("SELECT $$ ? $$", None, None),
    ],
)
def test_placeholders_become_numbers_and_names(sql: str, written: str | None, columns: tuple[str, ...] | None) -> None:
    if written is None:
        with pytest.raises(InvalidStatement, match=r"\$1, \$2"):
            find_placeholders(scan(sql))
        return

    found = find_placeholders(scan(sql))

    assert found.sql == written
    assert found.columns == columns


@pytest.mark.parametrize("sql", ["SELECT ?, $1", "SELECT ?1", "SELECT $0", "SELECT $1001", "SELECT $99999"])
def test_odd_placeholders_are_invalid(sql: str) -> None:
    with pytest.raises(InvalidStatement):
        find_placeholders(scan(sql))


def test_more_than_a_thousand_placeholders_are_invalid() -> None:
    with pytest.raises(InvalidStatement, match="1000"):
        find_placeholders(scan("SELECT " + ", ".join(["?"] * 1001)))


def test_values_keep_their_types() -> None:
    found = find_placeholders(scan("SELECT ?, ?, $name"))
    row = pa.record_batch({"0": pa.array([1], pa.int8()), "1": pa.array([None], pa.string()), "name": ["x"]})

    bound = found.bind(row)

    assert bound == {"1": pa.scalar(1, pa.int8()), "2": pa.scalar(None, pa.string()), "name": pa.scalar("x")}
    assert [value.type for value in bound.values()] == [pa.int8(), pa.string(), pa.string()]


def test_a_missing_value_is_named() -> None:
    found = find_placeholders(scan("SELECT $exe, $level"))

    with pytest.raises(InvalidStatement, match=r"parameter \$level"):
        found.bind(pa.record_batch({"exe": ["x"]}))


def test_a_missing_value_of_a_question_mark_is_told_by_its_position() -> None:
    found = find_placeholders(scan("SELECT ?, ?"))

    with pytest.raises(InvalidStatement, match="number 2"):
        found.bind(pa.record_batch({"0": ["x"]}))


def test_a_value_too_many_is_named() -> None:
    found = find_placeholders(scan("SELECT $exe"))

    with pytest.raises(InvalidStatement, match="'level'"):
        found.bind(pa.record_batch({"exe": ["x"], "level": [1]}))


def test_values_are_at_least_one_row() -> None:
    found = find_placeholders(scan("SELECT ?"))

    with pytest.raises(InvalidStatement, match="no row"):
        found.bind(pa.record_batch({"0": pa.array([], pa.int64())}))


def test_a_name_inside_a_dollar_quote_needs_no_value_but_may_have_one() -> None:
    found = find_placeholders(scan("SELECT $a, $$ costs $b $$"))

    assert found.columns == ("a",)
    assert found.bind(pa.record_batch({"a": [1]})).keys() == {"a"}
    assert found.bind(pa.record_batch({"a": [1], "b": [2]})).keys() == {"a", "b"}


def test_a_column_is_counted_in_the_statement_as_it_was_sent() -> None:
    found = find_placeholders(scan("SELECT ?,\n  ?, ?, nope"))

    assert found.sql == "SELECT $1,\n  $2, $3, nope"
    assert found.original_column(2, 11) == 9
    assert found.original_column(1, 8) == 8


def test_a_null_of_a_nested_type_is_bound_as_null() -> None:
    pair = pa.list_(pa.int8(), 2)
    row = pa.record_batch({"0": pa.array([None], pair), "1": pa.array([[1, 2]], pair)})

    values = find_placeholders(scan("SELECT $1, $2")).bind(row)

    assert [value.as_py() for value in values.values()] == [None, [1, 2]]
    assert pa.types.is_null(next(iter(values.values())).type)


def test_a_null_inside_a_value_where_a_list_of_a_fixed_size_belongs_is_invalid() -> None:
    row = pa.record_batch({"0": pa.array([[None]], pa.list_(pa.list_(pa.int8(), 2)))})

    with pytest.raises(InvalidStatement, match="fixed size"):
        find_placeholders(scan("SELECT $1")).bind(row)
