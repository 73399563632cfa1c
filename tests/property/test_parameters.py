"""Binding keeps values apart from the statement and exactly as they were."""

import math
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from micromegas_jupyter.flightsql.parameters import (
    bind_named,
    find_placeholders,
    parameter_names,
    quote_identifier,
    quote_literal,
)

_TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]))
_SQL_PIECES = st.sampled_from(
    ["'", '"', "`", "$$", "$t$", "--", "/*", "*/", "\n", ":", "::", ":a", ":b1", "e'", "\\", " ", "x", "1", "(", "IN"]
)
_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), _TEXT, st.binary(), st.dates()
)


@given(_VALUES)
def test_a_value_survives_binding(value):
    bound = bind_named("SELECT :a", {"a": value})

    found = bound.row.column(0)[0].as_py()
    assert bound.sql == "SELECT $a"
    assert found == value or (isinstance(value, float) and math.isnan(value) and math.isnan(found))
    assert type(found) is type(value)


@given(
    st.datetimes(datetime(1678, 1, 1), datetime(2262, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds are naive
    | st.timedeltas(timedelta(days=-100_000), timedelta(days=100_000))
)
def test_a_time_or_a_duration_survives_binding(value):
    bound = bind_named("SELECT :a", {"a": value})

    assert bound.row.column(0)[0].as_py() == value


@given(st.lists(_TEXT, min_size=1, max_size=20))
def test_a_list_survives_binding(values):
    bound = bind_named("x IN :a", {"a": values})

    assert list(bound.row.to_pylist()[0].values()) == values


@given(st.lists(_SQL_PIECES, max_size=30).map("".join))
def test_only_placeholders_change_and_no_value_enters_the_statement(sql):
    names = parameter_names(sql)

    bound = bind_named(sql, dict.fromkeys(names, "SECRET"))

    expected, position = "", 0
    for placeholder in find_placeholders(sql):
        expected += sql[position : placeholder.start] + "$" + placeholder.name
        position = placeholder.end
    assert bound.sql == expected + sql[position:]
    assert len(bound.sql) == len(sql)


@given(_TEXT)
def test_nothing_inside_a_literal_is_a_placeholder(text):
    literal = quote_literal(text.replace("\0", ""))

    assert parameter_names(f"SELECT {literal}, :b") == ("b",)


@given(_TEXT.map(lambda text: text.replace("\0", "")).filter(bool))
def test_a_quoted_name_is_read_as_that_name_and_nothing_else(name):
    quoted = quote_identifier(name)

    assert (quoted[0], quoted[-1]) == ('"', '"')
    assert quoted[1:-1].replace('""', "").count('"') == 0
    assert quoted[1:-1].replace('""', '"') == name
    assert parameter_names(f"SELECT {quoted}, :b") == ("b",)
