"""Conditions on rows are checked on difficult values before they are applied."""

import functools
import operator

import pyarrow as pa
import pytest
from datafusion import SessionContext

from micromegas_jupyter.engine.security import apply_conditions, check_role_conditions, condition_problem
from micromegas_jupyter.errors import ConfigurationError, InternalError

SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("text", pa.string()),
        pa.field("seen", pa.bool_()),
        pa.field("time", pa.timestamp("ns", "UTC"), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("tags", pa.list_(pa.int64())),
    ]
)


@pytest.mark.parametrize(
    "condition",
    [
        "seen",
        "SEEN",
        '"seen"',
        "text NOT LIKE 'micromegas_jupyter.audit%'",
        "text = 'it''s' -- a note",
        "id IN (1, 2) AND (text IS NULL OR NOT seen)",
        "time > now() - INTERVAL '1 day'",
        "time >= '2026-01-01T00:00:00Z'",
        "TRY_CAST(text AS INT) = 1",
        "starts_with(lower(text), 'a')",
        "regexp_like(text, '^a')",
        "array_has(tags, 1)",
        "id % 2 = 0",
        "(seen IS DISTINCT FROM true) AND id = 1",
        "id = 1 AND text IS NOT DISTINCT FROM concat('a', text)",
        "CASE WHEN id = 1 THEN seen END",
        "NOT (text IN ('a') AND text IN ('b'))",
        "true",
        "null",
    ],
)
def test_a_condition_that_fails_on_no_value_fits(condition):
    assert condition_problem(condition, SCHEMA) is None


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("(" * 48 + "seen" + ")" * 48, "too deeply nested"),
        ("seen" + " AND seen" * 300, "too deeply nested"),
        ("seen; DROP TABLE x", "more than one"),
        ("seen;", "semicolon"),
        ("id = $1", "placeholder"),
        ("id = ?", "placeholder"),
        ("text = $$a$$", "quote"),
        ("text = 'a", "quote"),
        ("seen) OR (true", "not one SQL expression"),
        ("seen, id", "not one SQL expression"),
        ("seen OR", "not one SQL expression"),
        ("id", "not true or false"),
        ("'true'", "not true or false"),
        ("tenant = 'acme'", "names tenant"),
        ('"ID" = 1', "names"),
        ("log_entries.id = 1", "names log_entries.id"),
        ("id IN (SELECT 1)", "subquery"),
        ("EXISTS (SELECT 1)", "subquery"),
        ("id = (SELECT max(id) FROM x)", "subquery"),
        ("text IN (VALUES ('a'))", "subquery"),
        ("random() > 0.5", "calls random"),
        ('"random"() > 0.5', "calls random"),
        ("RAND() > 0.5", "calls rand"),
        ("uuid() = text", "calls uuid"),
        ("no_such(id)", "do not fit together"),
        ("text = true", "cast"),
        ("count(*) > 1", "aggregate"),
        ("row_number() OVER () > 1", "by itself"),
        ("unnest(tags) = 1", "by itself"),
        ("CAST(text AS INT) = 1", "TRY_CAST"),
        ("text = 1", "TRY_CAST"),
        ("text::TIMESTAMP > time", "TRY_CAST"),
        ("1 / id = 1", "division"),
        ("regexp_like('a', text)", "by itself"),
        ("seen IS DISTINCT FROM true AND id = 1", "brackets"),
        ("id = 2 OR (seen IS NOT DISTINCT FROM (id = 1) OR id = 3)", "brackets"),
    ],
)
def test_another_condition_does_not_and_the_reason_is_said(condition, words):
    problem = condition_problem(condition, SCHEMA)

    assert problem is not None
    assert words in problem


def test_conditions_of_which_one_is_enough_hide_what_each_of_them_hides():
    schema = pa.schema([pa.field("x", pa.int64())])
    context = SessionContext()
    rows = context.read_batch(pa.record_batch({"x": pa.array([None, 1, 3, 5])}, schema=schema))

    shown = apply_conditions(rows, ("x NOT IN (1, 2) -- a note", "x NOT IN (3, 4)"), table="t")

    assert shown.to_pylist() == [{"x": 1}, {"x": 3}, {"x": 5}]


def test_conditions_that_the_engine_makes_true_together_are_not_used(monkeypatch, caplog):
    def as_written(rows, conditions):
        return functools.reduce(operator.or_, map(rows.parse_sql_expr, conditions))

    monkeypatch.setattr("micromegas_jupyter.engine.security._either", as_written)
    rows = SessionContext().read_batch(pa.record_batch({"x": [1]}))

    with pytest.raises(InternalError):
        apply_conditions(rows, ("x NOT IN (1, 2)", "x NOT IN (3, 4)"), table="t")

    assert "together" in str(caplog.records[0].__dict__)


def test_conditions_are_checked_against_the_tables_and_missing_tables_are_named(ask, caplog):
    check_role_conditions(
        ask.tables,
        {
            "log_entries": ("exe NOT LIKE 'web%'", "level < 3"),
            "processes": ("last_update_time > start_time",),
            "measures": (),
            "__processes__partitions": (),
            "not_there_yet": ("whatever = current_user() AND array_has(current_groups(), team)",),
            "nor_this": (),
            "*": ("tenant = 'acme'",),
        },
    )

    assert [vars(record)["tables"] for record in caplog.records] == [["nor_this", "not_there_yet"]]


@pytest.mark.parametrize(
    ("table", "condition", "words"),
    [
        ("log_entries", "tenant = 'acme'", "of log_entries cannot be used: it names tenant"),
        ("log_entries", "level", "not true or false"),
        ("measures", "CAST(msg AS INT) = 1", "TRY_CAST"),
        ("processes", "insert_time > now()", "of processes cannot be used: it names insert_time"),
        ("__processes__partitions", "process_id = 'p1'", "set it on processes"),
        ("not_there_yet", "whatever = 3 AND", "of not_there_yet cannot be used: it is not one SQL expression"),
        ("*", "whatever IN (SELECT 1)", "of * cannot be used: it contains a subquery"),
    ],
)
def test_a_condition_that_cannot_be_used_is_a_wrong_setting(ask, table, condition, words):
    with pytest.raises(ConfigurationError) as caught:
        check_role_conditions(ask.tables, {"log_entries": ("level = 1",), table: ("true", condition)})

    assert words in caught.value.what
    assert caught.value.key == "roles"
    assert "/" not in str(caught.value)
