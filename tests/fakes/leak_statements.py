"""A table of which every tenth row is deleted, and statements that would notice one of these."""

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake

from micromegas_jupyter.errors import MicromegasError
from tests.fakes.delta_tables import delete_rows

#: Casting `text`, or dividing by `zero`, fails on a deleted row and on no other.
STATEMENTS = (
    "SELECT count(*) AS c FROM {t}",
    "SELECT min(n) AS a, max(n) AS b, sum(n) AS c FROM {t}",
    "SELECT count(*) AS c FROM {t} WHERE CAST(text AS BIGINT) >= 0",
    "SELECT sum(CAST(text AS BIGINT)) AS s FROM {t}",
    "SELECT sum(1 / zero) AS s FROM {t}",
    "SELECT count(*) AS c FROM {t} WHERE 1 / zero = 1",
    "SELECT n FROM {t} WHERE n IN (0, 10, 11, 2000, 2001) ORDER BY n",
    "SELECT n FROM {t} ORDER BY n LIMIT 3",
    "SELECT n FROM {t} ORDER BY n DESC LIMIT 950",
    "SELECT n FROM {t} ORDER BY time DESC LIMIT 1850",
    "SELECT n FROM {t} ORDER BY time LIMIT 1850",
    "SELECT count(*) AS c FROM (SELECT n FROM {t} WHERE n < 100 LIMIT 1000)",
    "SELECT count(*) AS c FROM {t} WHERE text LIKE 'secret%'",
    "SELECT count(*) AS c FROM {t} WHERE s['t'] LIKE 'secret%'",
    "SELECT max(text) AS m FROM {t}",
    "SELECT a.n FROM {t} a JOIN {t} b ON a.n = b.n AND CAST(a.text AS INT) = CAST(b.text AS INT) ORDER BY 1 LIMIT 9",
    "SELECT count(DISTINCT text) AS c FROM {t}",
    "SELECT n, CAST(text AS BIGINT) + 1 AS x FROM {t} WHERE n < 25 ORDER BY n LIMIT 30",
    "SELECT * FROM (SELECT CAST(text AS BIGINT) AS v FROM {t}) WHERE v = 11",
    "SELECT tenant, count(*) AS c FROM {t} GROUP BY 1 ORDER BY 1",
    "SELECT count(*) AS c FROM {t} WHERE n BETWEEN 500 AND 1500 AND CAST(text AS BIGINT) > 0",
    "SELECT n FROM {t} ORDER BY CAST(text AS BIGINT) DESC LIMIT 5",
    "SELECT first_value(text ORDER BY n) AS f FROM {t}",
    "SELECT CASE WHEN CAST(text AS BIGINT) > 0 THEN 1 ELSE 0 END AS v, count(*) AS c FROM {t} GROUP BY 1 ORDER BY 1",
)
#: A few files are scanned one by one, and many in one scan.
TABLES = {"few": 3, "many": 40}


def rows_of_file(number, count=1000):
    """Return the rows of one file, those that are deleted too."""
    numbers = np.arange(count) + number * count
    texts = [f"secret{one}" if one % 10 == 0 else str(one) for one in numbers]
    return pa.table(
        {
            "n": numbers,
            "time": pa.array(1_760_000_000_000_000 + numbers * 1_000_000, pa.timestamp("us", "UTC")),
            "tenant": np.array(["a", "b"])[(numbers // 10) % 2],
            "text": texts,
            "zero": (numbers % 10 != 0).astype(np.int64),
            "s": [{"t": text} for text in texts],
        }
    )


def write_tables(storage, names=tuple(TABLES)):
    """Write each table twice: with its rows deleted by vectors, and under another name without them."""
    for name in names:
        for number in range(TABLES[name]):
            rows = rows_of_file(number)
            write_deltalake(storage.child_uri(name), rows, mode="append", storage_options=storage.options)
            live = rows.filter(pa.array(rows.column("zero").to_numpy() == 1))
            write_deltalake(storage.child_uri(f"{name}_ref"), live, mode="append", storage_options=storage.options)
        delete_rows(storage, name, lambda _, count: range(0, count, 10))


def wrong_statements(ask, names=tuple(TABLES)):
    """Return the statements whose rows are not those of the table that never had the deleted ones."""
    found = []
    for table in names:
        for sql in STATEMENTS:
            wanted = ask.rows(sql.format(t=f"{table}_ref"))
            try:
                rows = ask.rows(sql.format(t=table))
            except MicromegasError as error:
                rows = [{"error": str(error)}]
            if rows != wanted:
                found.append((table, sql, rows[:3]))
    return found
