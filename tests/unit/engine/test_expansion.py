"""How many copies of sub-plans common table expressions make."""

from __future__ import annotations

import pytest

from micromegas_jupyter.engine.expansion import plan_copies
from micromegas_jupyter.engine.scanner import scan


@pytest.mark.parametrize(
    ("sql", "copies"),
    [
        ("SELECT 1", 0),
        ("WITH a AS (SELECT 1) SELECT * FROM a", 1),
        ("WITH a AS (SELECT 1) SELECT * FROM a JOIN a b ON a.x = b.x", 2),
        ("WITH a AS (SELECT 1), b AS (SELECT * FROM a, a c) SELECT * FROM b", 3),
        ('WITH "A b" AS (SELECT 1) SELECT * FROM "A b", "A b" c', 2),
        ("WITH a(x, y) AS (SELECT 1, 2) SELECT x FROM a, a b", 2),
        ("WITH a AS NOT MATERIALIZED (SELECT 1) SELECT * FROM a", 1),
        ("WITH RECURSIVE r AS (SELECT 1 UNION ALL SELECT x + 1 FROM r) SELECT * FROM r", 1),
        ("SELECT * FROM (WITH a AS (SELECT 1) SELECT * FROM a) z", 1),
    ],
)
def test_each_reference_counts_with_what_its_table_is_made_of(sql: str, copies: int) -> None:
    assert plan_copies(scan(sql), at_most=100) == copies


def test_counting_stops_above_the_limit() -> None:
    chain = "".join(f", c{i + 1} AS (SELECT 1 FROM c{i} a, c{i} b)" for i in range(300))

    assert 100 < plan_copies(scan("WITH c0 AS (SELECT 1)" + chain + " SELECT 1"), at_most=100) < 300
