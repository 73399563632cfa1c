"""A fingerprint names a statement's shape, and no quote or comment hides it."""

from __future__ import annotations

import hashlib

import pytest
from datafusion import SessionContext
from hypothesis import given, settings
from hypothesis import strategies as st

from micromegas_jupyter.engine.planning.fingerprint import fingerprints, sql_hash


def _digest(normalised: str) -> str:
    return hashlib.sha256(normalised.encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("sql", "normalised"),
    [
        ("SELECT 1", "select ?"),
        ("select  COUNT(*)\nFROM Log_Entries", "select count ( * ) from log_entries"),
        ("SELECT 'it''s', E'a\\'b', N'x', X'0aF', $$a'b$$, $t$ $$ $t$", "select ? , ? , ? , ? , ? , ?"),
        ("SELECT 1.5, .5, 1e-3, 2.E5, 0xFF", "select ? , ? , ? , ? , ?"),
        ('SELECT "A b", "a""b", `c d`', 'select "A b" , "a""b" , `c d`'),
        ("SELECT a -- one 'two'\n, b /* three /* four */ ' */ FROM t", "select a , b from t"),
        ("SELECT a != b, a <> b", "select a <> b , a <> b"),
        ("SELECT a>=1 AND b<2 OR c||'x' ->> 'k'", "select a >= ? and b < ? or c || ? ->> ?"),
        ("SELECT -1, a.b, x::int", "select - ? , a . b , x :: int"),
        ("SELECT * FROM t WHERE a = $1 AND b = ?", "select * from t where a = $1 and b = ?"),
        ("SELECT É FROM t;", "select é from t ;"),
        ("", ""),
    ],
)
def test_tokens_are_normalised(sql: str, normalised: str) -> None:
    assert sql_hash(sql) == _digest(normalised)


@pytest.mark.parametrize(
    "sql", ["SELECT  'open", 'SELECT  "open', "SELECT /* /*\n */", "SELECT $a$ b", "SELECT `a", "E'\\'"]
)
def test_a_text_that_is_not_made_of_tokens_is_taken_with_its_blanks_collapsed(sql: str) -> None:
    assert sql_hash(sql) == _digest(" ".join(sql.split()))


@pytest.mark.parametrize(
    "disguised",
    [
        "SELECT msg FROM log_entries WHERE level = 2",
        "select\tMSG\r\nfrom LOG_ENTRIES where LEVEL=2",
        "SELECT msg /* ' */ FROM log_entries -- $$\nWHERE level = 99.5",
        "SELECT msg FROM /* /* nested */ $a$ */ log_entries WHERE level = 'x'",
        "SELECT msg FROM log_entries WHERE level = $q$'; -- $q$",
        "SELECT msg FROM log_entries WHERE level = E'\\' -- '",
        "SELECT msg FROM log_entries WHERE level = 2;",
        "SELECT msg FROM log_entries WHERE level = 2 ; ; /* end */ ;",
    ],
)
def test_a_disguise_does_not_change_the_fingerprint_that_a_rule_names(disguised: str) -> None:
    assert sql_hash("SELECT msg FROM log_entries WHERE level = 1") in fingerprints(disguised)


@pytest.mark.parametrize("other", ["SELECT msg FROM log_stats", "SELECT target FROM log_entries", "SELECT MSG"])
def test_another_statement_has_another_fingerprint(other: str) -> None:
    assert sql_hash("SELECT msg FROM log_entries") not in fingerprints(other)


def test_a_very_long_text_is_known_by_its_beginning_in_bounded_time() -> None:
    sql = "SELECT " + "/* 'a' */ x + 1," * 100_000

    assert sql_hash(sql) == sql_hash(sql + "y")


@given(st.lists(st.sampled_from(["'", "''", '"', "$$", "$a$", "/*", "*/", "--", "\n", "e'", "a", "1", ".", ";", "\\"])))
@settings(max_examples=50, deadline=None)
def test_a_value_that_datafusion_reads_as_one_literal_is_one_token(parts: list[str]) -> None:
    sql = "SELECT " + "".join(parts)
    try:
        plan = SessionContext().sql(sql).logical_plan().display_indent()
    except Exception:  # noqa: BLE001 - DataFusion has no class for it; only accepted statements matter here
        return

    literals = plan.count("Utf8(") + plan.count("Int64(") + plan.count("Float64(")

    if literals == 1 and plan.startswith("Projection: ") and " AS " not in plan:
        assert sql_hash("SELECT 1") in fingerprints(sql)
