"""How much the SELECTs of a statement can multiply what they name, by their text."""

from __future__ import annotations

import pytest

from micromegas_jupyter.engine.scanner import scan
from micromegas_jupyter.engine.select_growth import makes_types, select_growth


@pytest.mark.parametrize(
    ("sql", "growth"),
    [
        ("SELECT 1", 1),
        ("SELECT a FROM t WHERE a > 1 AND a < 2 AND b", 2),
        ("SELECT a, b, c FROM t", 1),
        ("SELECT t.a, t.b AS b FROM t", 1),
        ("SELECT x + x AS x FROM t", 2),
        ('SELECT "x" + "x" AS x FROM t', 2),
        ('SELECT "x" + x AS x FROM t', 2),
        ("SELECT t.x * t.x * t.x AS x FROM t", 3),
        ("SELECT *, x + x AS y FROM t", 3),
        ("SELECT abs(x) + abs(x) AS x FROM t", 2),
        ("SELECT coalesce(x, 1) AS x FROM t", 3),
        ("SELECT CASE WHEN x > 1 THEN x END AS x FROM t", 6),
        ("SELECT a FROM (SELECT x + x AS a FROM (SELECT y + y AS x FROM t))", 4),
        ("SELECT (SELECT x + x FROM t), y + y", 4),
        ("WITH a AS (SELECT x + x AS x FROM t), b AS (SELECT x + x AS x FROM a) SELECT x FROM b", 4),
    ],
)
def test_the_most_frequent_name_of_each_list_multiplies(sql: str, growth: int) -> None:
    assert select_growth(scan(sql)) >= growth
    assert select_growth(scan(sql)) <= 2 * growth


def test_a_long_chain_is_a_large_number() -> None:
    assert select_growth(scan("SELECT x + x FROM (" * 100)) == 1 << 40


def test_doubtful_quotes_may_hide_anything() -> None:
    assert select_growth(scan("SELECT $$ x")) == 1 << 40


@pytest.mark.parametrize(
    ("sql", "makes"),
    [
        ("SELECT named_struct('a', x) FROM t", True),
        ("SELECT {'a': x} FROM t", True),
        ("SELECT map([x], [x]) FROM t", True),
        ("SELECT abs(x), 'struct(' FROM t", False),
        ("SELECT row, map FROM rows UNION SELECT 1, 2", False),
    ],
)
def test_what_makes_types_is_known_by_its_name(sql: str, *, makes: bool) -> None:
    assert makes_types(scan(sql)) is makes
