"""Chains of steps over the table `t` (columns n, m, s) of which each repeats what the step before computed."""

from __future__ import annotations

from typing import Final

_FIRST: Final = "SELECT n AS x, m AS y FROM t"
_DOUBLING: Final = "SELECT x + x AS x FROM {}"
_CASE: Final = "SELECT CASE WHEN x > 1 THEN x + 1 ELSE x END AS x FROM {}"


def chain(step: str, steps: int, *, first: str = _FIRST) -> str:
    """Return the WITH clause of tables a0, a1, …, each `step` of the one before."""
    tables = "".join(f", a{index + 1} AS ({step.format(f'a{index}')})" for index in range(steps))
    return f"WITH a0 AS ({first}){tables} "


#: By shape, the step and the statement over the last table, which is `{}`.
GROWING: Final = {
    "filter": (_DOUBLING, "SELECT * FROM {} WHERE x > 1"),
    "filter in a quoted name": (
        'SELECT "x\n  y" + "x\n  y" AS "x\n  y" FROM {}',
        'SELECT * FROM {} WHERE "x\n  y" > 1',
    ),
    "filter in each step": (_DOUBLING + " WHERE x > 1", "SELECT * FROM {}"),
    "filter on two columns": ("SELECT x + y AS x, x - y AS y FROM {}", "SELECT * FROM {} WHERE x > 1"),
    "filter on a union": (_DOUBLING, "SELECT * FROM (SELECT * FROM {0} UNION ALL SELECT * FROM {0}) WHERE x > 1"),
    "filter on groups": ("SELECT x + x AS x, count(*) AS c FROM {} GROUP BY x + x", "SELECT * FROM {} WHERE x > 1"),
    "filter on distinct rows": ("SELECT DISTINCT x + x AS x FROM {}", "SELECT * FROM {} WHERE x > 1"),
    "filter on unnested rows": ("SELECT unnest([x + x]) AS x FROM {}", "SELECT * FROM {} WHERE x > 1"),
    "names of its own": ("SELECT x + x, x FROM {} AS q (x, y)", "SELECT * FROM {} AS q (x, y) WHERE x > 1"),
    "having": (_DOUBLING, "SELECT x FROM {} GROUP BY x HAVING x > 1"),
    "join": (_DOUBLING, "SELECT * FROM {} AS a JOIN t ON a.x = t.n"),
    "join by comparison": (_DOUBLING, "SELECT * FROM {} AS a JOIN t ON a.x < t.n"),
    "joined steps": ("SELECT {0}.x + {0}.x AS x FROM {0} LEFT JOIN t ON {0}.x = t.n", "SELECT * FROM {} WHERE x > 1"),
    "first rows": (_DOUBLING, "SELECT * FROM {} ORDER BY x LIMIT 3"),
    "case": (_CASE, "SELECT * FROM {} WHERE x = 3"),
    "case, first rows": (_CASE, "SELECT * FROM {} ORDER BY x LIMIT 3"),
    "coalesce": ("SELECT coalesce(x, y) AS x, y FROM {}", "SELECT * FROM {} WHERE x = 3"),
    "between": ("SELECT CASE WHEN x BETWEEN 1 AND 3 THEN 1 END AS x FROM {}", "SELECT * FROM {} WHERE x = 3"),
    "list": ("SELECT x IN (y > 1, y > 2, y > 3) AS x, y FROM {}", "SELECT * FROM {} WHERE x"),
    "types": ("SELECT named_struct('a', x, 'b', x) AS x FROM {}", "SELECT * FROM {}"),
    "exists": (_DOUBLING, "SELECT * FROM t WHERE EXISTS (SELECT 1 FROM {} AS a WHERE a.x > t.n)"),
    "in": (_DOUBLING, "SELECT * FROM t WHERE n IN (SELECT x FROM {} WHERE x > 1)"),
    "scalar subquery": (_DOUBLING, "SELECT (SELECT max(x) FROM {} WHERE x > 1) AS y FROM t"),
}


def growing(shape: str, steps: int) -> str:
    """Return one statement of a shape."""
    step, end = GROWING[shape]
    first = "SELECT n > 1 AS x, m AS y FROM t" if shape == "list" else _FIRST
    if "quoted" in shape:
        first = 'SELECT n AS "x\n  y" FROM t'
    return chain(step, steps, first=first) + end.format(f"a{steps}")
