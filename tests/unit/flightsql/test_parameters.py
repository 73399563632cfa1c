"""Placeholders and their values: where they are, how they are typed, how they travel."""

import enum
import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.flightsql import parameters
from micromegas_jupyter.flightsql.commands import MAX_PARAMETERS
from micromegas_jupyter.flightsql.parameters import Untyped, bind, bind_named, to_scalar


def _names(sql):
    return [placeholder.name for placeholder in parameters.find_placeholders(sql)]


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("SELECT :a, :b_2 FROM t WHERE x=:a", ["a", "b_2", "a"]), ("x>:a::int", ["a"]), ("'it''s :a' || :b", ["b"]),
        ('"col:a" = :b', ["b"]), ("`a :x` = :b", ["b"]), ("-- :a\n:b", ["b"]), ("/* :a */ :b", ["b"]),
        ("/* /* :a */ :b */ :c", ["c"]), ("$$ :a $$ :b", ["b"]), (r"e'\' :a' = :b", ["b"]), (r"'\' = :b", ["b"]),
        ("x::a", []), ("'12:30' '12' :b", ["b"]), ("arr[1:n]", []), ("{'key':value}", []), (":1 : a :", []),
        ("$1 = $name", []), ("a$$b :c", ["c"]), ("'unclosed :a", []), ("/* unclosed :a", []), ("$$ unclosed :a", []),
        (":größe", ["größe"]),
    ],
)  # fmt: skip
def test_placeholders_are_found_where_values_may_stand(sql, names):
    assert _names(sql) == names


@pytest.mark.parametrize("text", ["'" * 200_000, "/*" * 100_000, "$a" * 100_000, "x " * 100_000 + ":a", "$$ " * 70_000])
def test_a_hostile_statement_is_read_in_one_pass(text):
    assert len(_names(text)) <= 1


@pytest.mark.parametrize("name", ["", "a\0", "\ud800", None])
def test_what_is_no_name_is_not_quoted(name):
    with pytest.raises(UsageError):
        parameters.quote_identifier(name)


_BEFORE_1970 = pd.Timestamp("1969-12-31T23:59:59.999999999Z")
_ID = uuid.UUID("550e8400-e29b-41d4-a716-446655440000")


class _Level(enum.IntEnum):
    ERROR = 2


class _Tag(enum.StrEnum):
    LOG = "log"


@pytest.mark.parametrize(
    ("value", "kind", "stored"),
    [
        (None, pa.null(), None), (pd.NA, pa.null(), None), (np.datetime64("NaT", "ns"), pa.null(), None),
        (True, pa.bool_(), True), (7, pa.int64(), 7), (2**63, pa.uint64(), 2**63),
        (2**64, pa.decimal128(20, 0), Decimal(2**64)), (_Level.ERROR, pa.int64(), 2), (np.int32(7), pa.int64(), 7),
        (1.5, pa.float64(), 1.5), ("it's :a\0", pa.string(), "it's :a\0"), (_Tag.LOG, pa.string(), "log"),
        (b"\0\xff", pa.binary(), b"\0\xff"), (Decimal("0.10"), pa.decimal128(2, 2), Decimal("0.10")),
        (Decimal("1" * 50), pa.decimal256(50, 0), Decimal("1" * 50)),
        (date(2026, 11, 24), pa.date32(), date(2026, 11, 24)), (pa.scalar(7, pa.int8()), pa.int64(), 7),
        (_BEFORE_1970, pa.timestamp("ns", "+00:00"), _BEFORE_1970),
        (np.timedelta64(3, "ns"), pa.duration("ns"), pd.Timedelta(3, "ns")),
        (_ID, pa.string(), "550e8400-e29b-41d4-a716-446655440000"),
    ],
    ids=str,
)  # fmt: skip
def test_a_value_keeps_its_meaning(value, kind, stored):
    scalar = to_scalar(value, name="a")

    assert scalar.type == kind
    assert scalar.as_py() == stored


def test_what_nanoseconds_cannot_hold_becomes_microseconds():
    time, duration = to_scalar(datetime(1, 1, 1, tzinfo=UTC), name="a"), to_scalar(timedelta(days=200_000), name="a")

    assert (time.type, time.value) == (pa.timestamp("us", "+00:00"), -62_135_596_800_000_000)
    assert (duration.type, duration.value) == (pa.duration("us"), 17_280_000_000_000_000)


@pytest.mark.parametrize(
    "value",
    [
        datetime(2026, 1, 1), time(12, 0), "\ud800", Decimal("NaN"), 10**90, {"a": 1}, pa.scalar([1]),  # noqa: DTZ001
        np.array([1, 2]),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_a_value_that_has_no_sql_type_is_refused(value):
    with pytest.raises(UsageError) as caught:
        to_scalar(value, name="when")

    assert ":when" in str(caught.value)


@pytest.mark.parametrize(
    ("sql", "expanded"),
    [
        ("x IN :ids", "x IN ($ids_1, $ids_2)"), ("x in(:ids)", "x in($ids_1, $ids_2)"),
        ("x IN /* these */ :ids", "x IN /* these */ ($ids_1, $ids_2)"),
        ("x IN (7, :ids)", "x IN (7, $ids_1, $ids_2)"), ("make_array(:ids)", "make_array($ids_1, $ids_2)"),
    ],
)  # fmt: skip
def test_a_list_stands_for_its_elements(sql, expanded):
    bound = bind_named(sql, {"ids": ["a", "b"]})

    assert bound.sql == expanded
    assert bound.row.to_pylist() == [{"ids_1": "a", "ids_2": "b"}]


@pytest.mark.parametrize(
    ("column", "elements"),
    [
        (np.array([1, 2]), [1, 2]), (pd.Series(["a", np.nan, None]), ["a", None, None]),
        (pd.Series([1, 2], index=[0.0, 500.0]), [1, 2]), (pd.Series([1, None], dtype="Int64"), [1, None]),
        (pd.Categorical(["a", "b"]), ["a", "b"]), (pa.array([1, None]), [1, None]), (pl.Series([1, None]), [1, None]),
        (frozenset({1}), [1]), ([1, None], [1, None]),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_a_column_of_any_library_stands_for_its_elements(column, elements):
    bound = bind_named("x IN :ids", {"ids": column})

    assert list(bound.row.to_pylist()[0].values()) == elements


def test_a_column_that_is_far_too_long_is_refused_without_a_look_at_all_of_it():
    with pytest.raises(UsageError, match="more than 256"):
        bind_named("x IN :ids", {"ids": pd.Series(range(1_000_000))})


def test_values_are_frozen_as_they_are_now():
    names, text, data = ["a"], "x", bytearray(b"a")

    frozen = parameters.frozen_values(
        "x IN :names AND :text = :data", {"names": names, "text": text, "data": data, "other": 1}
    )
    names.append("b")
    data[0] = 0

    assert frozen == {"names": ("a",), "text": "x", "data": b"a"}


def test_the_elements_of_a_list_never_meet_another_placeholder():
    bound = bind_named("x IN :a AND y = :a_1 AND z = :A__2", {"a": [1, 2], "a_1": 3, "A__2": 4})

    assert bound.sql == "x IN ($a___1, $a___2) AND y = $a_1 AND z = $A__2"
    assert bound.row.to_pylist() == [{"a___1": 1, "a___2": 2, "a_1": 3, "A__2": 4}]


@pytest.mark.parametrize(
    ("sql", "values"),
    [
        ("x IN :a", {"a": []}), ("x = :a", {"a": [1, 2]}), ("x IN :a", {"a": [[1]]}), ("x = :größe", {"größe": 1}),
        ("x IN :a", {"a": np.array([[1]])}), ("x IN :a", {"a": pd.Series([pd.Timestamp("2026-01-01")])}),
        ("x IN :a", {"a": pl.DataFrame({"a": [1]})}), ("x IN :a", {"a": list(range(MAX_PARAMETERS + 1))}),
    ],
)  # fmt: skip
def test_a_value_that_cannot_stand_there_is_refused(sql, values):
    with pytest.raises(UsageError):
        bind_named(sql, values)


@pytest.mark.parametrize(
    "sql",
    ["SELECT a WHERE b IN :names AND c IN (:more, :names) AND HERE = 1", "SELECT a,\n  HERE WHERE b IN :names",
     "SELECT a WHERE b IN :names\n  AND c IN :more AND HERE"],
)  # fmt: skip
def test_a_place_in_what_was_sent_is_found_in_what_was_given(sql):
    def place(text):
        before = text.partition("HERE")[0]
        return before.count("\n") + 1, len(before) - before.rfind("\n")

    bound = bind_named(sql, {"names": ["a", "b", "c"], "more": [1, 2]})
    line, column = place(bound.sql)

    assert (line, bound.original_column(line, column)) == place(sql)


@pytest.mark.parametrize("params", [None, {}, [], (), {"other": 1}])
def test_without_values_nothing_is_bound(params):
    assert bind("SELECT 1, ':a', '$b' -- $c", params) is None


def test_both_spellings_of_a_name_are_bound():
    sql = "SELECT :a, $b, $a, '$c', \"$d\" /* $e */, $$ $f $$"
    values = {name: name for name in "abcdef"}

    bound = bind(sql, values)

    assert (bound.sql, bound.row.to_pylist()) == (sql.replace(":a", "$a"), [{"a": "a", "b": "b"}])


@pytest.mark.parametrize(
    ("sql", "params", "said"),
    [
        ("SELECT ?", "text", "params is of type"),
        ("SELECT :a", [1], "has a name, :a, but params doesn.t contain any names"),
        ("SELECT ?", [0] * (MAX_PARAMETERS + 1), "cannot bind more than"),
        ("SELECT ?", [object()], "cannot be bound"),
        ("SELECT $a", {"a": object()}, "The value of :a cannot be bound"),
    ],
)
def test_values_that_do_not_fit_are_refused_before_they_are_sent(sql, params, said):
    with pytest.raises(UsageError, match=said):
        bind(sql, params)


_MONEY = pa.decimal128(10, 2)
_EVENING = pa.scalar(datetime(2026, 1, 31, 20, tzinfo=UTC), pa.timestamp("ns", "+00:00"))


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("404", pa.string(), pa.scalar("404")), ("404", pa.large_string(), pa.scalar("404")),
        ("null", pa.string_view(), pa.scalar("null")), ("007", pa.null(), pa.scalar("007")),
        ("true", pa.null(), pa.scalar("true")), ("404", pa.int32(), pa.scalar(404, pa.int32())),
        ("-1", pa.uint8(), pa.scalar(-1, pa.int64())), ("1e2", pa.int64(), pa.scalar(100)),
        ("99999999999", pa.int32(), pa.scalar(99999999999)), ("4.5", pa.int32(), pa.scalar(Decimal("4.5"))),
        ("9007199254740993", pa.int64(), pa.scalar(9007199254740993)), ("2", pa.float64(), pa.scalar(2.0)),
        ("-inf", pa.int32(), pa.scalar(float("-inf"))), ("1.5", _MONEY, pa.scalar(Decimal("1.50"), _MONEY)),
        ("1.005", _MONEY, pa.scalar(Decimal("1.005"))), ("True", pa.bool_(), pa.scalar(True)),
        ("null", pa.int32(), pa.scalar(None, pa.int32())),
        ("2026-01-31T20:00:00+00:00", pa.timestamp("us", "UTC"), _EVENING),
        ("2026-01-31T20:00:00.123456789Z", pa.timestamp("ns", "UTC"), pa.scalar("2026-01-31T20:00:00.123456789Z")),
        ("2026-01-31", pa.date32(), pa.scalar(date(2026, 1, 31))), ("tomorrow", pa.date32(), pa.scalar("tomorrow")),
        ("tomorrow", pa.timestamp("ns"), pa.scalar("tomorrow")), ("1 hour", pa.duration("s"), pa.scalar("1 hour")),
        ("1e999999999", pa.int32(), pa.scalar("1e999999999")),
        ("404", pa.dictionary(pa.int8(), pa.string()), pa.scalar("404")),
    ],
)  # fmt: skip
def test_a_value_without_a_type_takes_that_of_its_column(text, kind, expected):
    bound = bind("SELECT :m", {"m": Untyped(text)})

    (value,) = bound.typed_row(pa.schema([pa.field("m", kind)])).column("m")

    assert (value, value.type) == (expected, expected.type)


def test_several_values_without_types_are_found_by_name_and_are_text_if_no_type_is_known():
    bound = bind("SELECT :a, $b, :c, :d", {"a": Untyped("1"), "b": Untyped("2"), "c": Untyped("3"), "d": 4})

    row = bound.typed_row(pa.schema([pa.field("$b", pa.int8()), pa.field("a", pa.int16())]))

    assert row.to_pylist() == [{"a": 1, "b": 2, "c": "3", "d": 4}]


@pytest.mark.parametrize(
    ("text", "kind"), [("abc", pa.int32()), ("", pa.float64()), ("1", pa.bool_()), ("x", pa.decimal128(5))]
)
def test_a_value_that_its_column_cannot_have_is_rejected_without_showing_it(text, kind):
    with pytest.raises(UsageError, match="does not fit") as caught:
        bind("SELECT :m", {"m": Untyped(text)}).typed_row(pa.schema([pa.field("m", kind)]))

    assert "-p m:text=VALUE" in caught.value.remedy
