"""The words of SQL that completion offers, and how a name is written in SQL; which fits where is `completion`'s."""

from __future__ import annotations

import re
from typing import Final

_KEYWORDS: Final = (
    "SELECT FROM WHERE GROUP ORDER BY HAVING LIMIT OFFSET AS DISTINCT AND OR NOT IN IS NULL LIKE ILIKE BETWEEN "
    "CASE WHEN THEN ELSE END CAST TRY_CAST INTERVAL TIMESTAMP JOIN INNER LEFT RIGHT FULL OUTER CROSS NATURAL ON "
    "USING UNION ALL EXCEPT INTERSECT WITH RECURSIVE VALUES EXISTS ANY SOME ASC DESC NULLS FIRST LAST OVER "
    "PARTITION ROWS RANGE UNBOUNDED PRECEDING FOLLOWING CURRENT ROW FILTER WITHIN QUALIFY WINDOW EXTRACT UNNEST "
    "LATERAL ARRAY TRUE FALSE EXPLAIN ANALYZE VERBOSE DESCRIBE SHOW TABLES COLUMNS FUNCTIONS SIMILAR TO ESCAPE "
    "GROUPING SETS CUBE ROLLUP SEMI ANTI"
)
KEYWORDS: Final = tuple(_KEYWORDS.split())

FIRST_WORDS: Final = ("SELECT", "WITH", "EXPLAIN", "DESCRIBE", "SHOW", "VALUES")
"""What a statement begins with."""

_AFTER_TABLE: Final = (
    "WHERE GROUP ORDER HAVING LIMIT OFFSET JOIN INNER LEFT RIGHT FULL OUTER CROSS NATURAL ON USING UNION EXCEPT "
    "INTERSECT AS QUALIFY WINDOW SEMI ANTI"
)
AFTER_TABLE: Final = tuple(_AFTER_TABLE.split())
"""What may follow a table; none of these is an alias."""

_TYPES: Final = (
    "BIGINT BOOLEAN BYTEA CHAR DATE DECIMAL DOUBLE FLOAT INT INTEGER INTERVAL REAL SMALLINT STRING TIME TIMESTAMP "
    "TINYINT VARCHAR"
)
TYPES: Final = tuple(_TYPES.split())

_PLAIN_NAME: Final = re.compile(r"[a-z_][a-z0-9_]*")
_RESERVED: Final = (
    "all and any array as asc between by case cast cross desc describe distinct else end except exists false from "
    "full group having in inner intersect interval is join lateral left like limit natural not null offset on or "
    "order outer over partition qualify right select similar some then to true union unnest using values when "
    "where window with"
)
RESERVED: Final = frozenset(_RESERVED.split())
"""Words (in lower case) that begin or end something wherever they stand: no name without quotes."""


def name_in_sql(name: str) -> str:
    """Return a name as it must be written, in quotes when DataFusion would read it as another one without them."""
    if _PLAIN_NAME.fullmatch(name) and name not in RESERVED:
        return name
    return '"' + name.replace('"', '""') + '"'
