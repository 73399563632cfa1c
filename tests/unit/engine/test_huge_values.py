"""One call that makes an enormous value is refused before anything is planned."""

from __future__ import annotations

import pytest

from micromegas_jupyter.engine.huge_values import check_huge_values
from micromegas_jupyter.engine.scanner import scan
from micromegas_jupyter.errors import StatementRefused


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT repeat('x', 1000000000)",
        "SELECT RePeAt ('x', 10000001)",
        "SELECT \"repeat\"('x', 10000001)",
        "SELECT lpad('x', 1500000000), 1",
        "SELECT rpad('x', 1500000000, 'ab')",
        "SELECT cardinality(array_repeat(1, 300000000))",
        "SELECT list_resize([1], 300000000, 0)",
        "SELECT repeat(repeat('x', 30000), 30000)",
        "SELECT repeat(upper(lpad('x', 4000)), 4000)",
        "SELECT repeat('x', 100000 * 100000)",
        "SELECT repeat('x', 1e9)",
        "SELECT repeat('x', /* , */ 99999999999999999999999999999999)",
        "SELECT range(1000000000)",
        "SELECT unnest(range(1, 100000000))",
        "SELECT a, generate_series(-1000000000, 0) FROM t, u",
        "SELECT n FROM t, u WHERE n IN (1, 2) AND array_has(range(0, 1000000000, 10), n)",
        "SELECT count(*) FROM (SELECT unnest(range(1, 100000000))) AS many",
        "SELECT n FROM t JOIN u ON array_has(range(1, 100000000), t.n)",
        "SELECT n FROM t ORDER BY array_length(range(100000000, 1, -1))",
        "SELECT array_repeat(range(0, 10000), 10000)",
        "SELECT 1 IS DISTINCT FROM 1, range(0, 1000000000)",
        "SELECT 1 IS NOT DISTINCT FROM 1, range(0, 1000000000)",
        "SELECT [1] IS DISTINCT FROM range(0, 1000000000)",
        "SELECT range(0, (1000000000))",
        "SELECT range((0), ((-(1000000000))))",
        "SELECT range(0, +1000000000)",
        "SELECT range(-8000000, -(-8000000))",
        "SELECT repeat('x', (1000000000))",
    ],
)
def test_an_enormous_value_is_refused(sql: str) -> None:
    with pytest.raises(StatementRefused, match="more than 10,000,000"):
        check_huge_values(scan(sql))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT repeat('x', 10000000)",
        "SELECT lpad(a, 4000), lpad(b, 4000), lpad(c, 4000) FROM t",
        "SELECT repeat('1000000000', 3)",
        "SELECT value FROM generate_series(1, 1000000000)",
        "SELECT a.value FROM t JOIN range(1, 1000000000) AS a ON t.n = a.value, generate_series(1, 1000000000) AS b",
        "SELECT value FROM t CROSS JOIN generate_series(1, 1000000000), LATERAL range(1, 1000000000)",
        "SELECT range(1, 10000000), range(0, 1000000000, 1000), range(a, 1000000000), range(1, 2, 3, 1000000000)",
        "SELECT range(5, 10 - 1000000000), range('a', 1000000000), range(1, 1000000000 * n), range(1, $1)",
        "SELECT DISTINCT value FROM t JOIN u ON a IS DISTINCT FROM b, range(0, 1000000000)",
        "SELECT range(0, (5)), range((a), 1000000000), range(0, ascii(1000000000)), range(0, [1000000000])",
        "SELECT range((1, 2), 1000000000), (1000000000), (((",
        "SELECT repeat(name, length) FROM t WHERE id = 1000000000",
        "SELECT replace('x', 'y', 1000000000)",
        "SELECT 1)) , repeat(",
        "",
    ],
)
def test_ordinary_sizes_are_not(sql: str) -> None:
    check_huge_values(scan(sql))
