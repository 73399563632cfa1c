"""Two lakes with materialized views that differ only in rows that are hidden from a caller, and statements over them.

Both have the same visible rows. In the second, hidden rows are in each file of the source and in more of them, and
definitions fail on some of them, so that these views were never refreshed. The views lack the rows of the last files.
"""

import random
from dataclasses import replace
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
from datafusion import SessionContext

from micromegas_jupyter.core.protocols import DataFile, TableSnapshot
from micromegas_jupyter.engine.functions.query_functions import FUNCTION_NAMES, register_flat_functions
from micromegas_jupyter.lake.snapshot import view_snapshot
from micromegas_jupyter.lake.tables import VIEW_SOURCE_PROPERTY, VIEW_UPDATED_BY_PROPERTY, VIEW_UPDATED_PROPERTY
from micromegas_jupyter.telemetry.histograms import OTEL_HISTOGRAM
from micromegas_jupyter.telemetry.view_definitions import parse_view_statement
from tests.unit.engine.test_otel_histograms import explicit, exponential

SCHEMA = pa.schema(
    [
        ("exe", pa.string()),
        ("level", pa.int32()),
        ("msg", pa.string()),
        ("x", pa.int64()),
        ("at", pa.timestamp("us", "UTC")),
        ("h", OTEL_HISTOGRAM),
    ]
)
CONDITIONS = ("exe = 'x'", "exe IN ('x', 'z')", "exe = 'nobody'")
FILES = 10
_NEW_FILES = 4
_TIME = "max(at) AS t"
_SUMS = "sum(n) AS n, max(t) AS t"
#: Views that the caller may read, with their queries.
READABLE = {
    "counts": (
        f"SELECT exe, level, count(*) AS n, {_TIME} FROM logs GROUP BY 1, 2",
        f"SELECT exe, level, {_SUMS} FROM {{source}} GROUP BY 1, 2",
    ),
    "divided": (
        f"SELECT exe, level, sum(12 / (x - 5)) AS n, {_TIME} FROM logs GROUP BY exe, level",
        f"SELECT exe, level, {_SUMS} FROM {{source}} GROUP BY exe, level ORDER BY level",
    ),
    "numbers": (
        f"SELECT exe, level, sum(x) AS n, {_TIME} FROM logs WHERE CAST(msg AS INT) > 0 GROUP BY exe, level",
        f"SELECT exe, level, {_SUMS} FROM {{source}} GROUP BY exe, level HAVING sum(n) > 1",
    ),
    "quotients": (
        f"SELECT exe, level, max(x) AS n, {_TIME} FROM logs GROUP BY exe, level",
        "SELECT exe, level, sum(12 / (n - 5)) * 0 + max(n) AS n, max(t) AS t FROM {source} GROUP BY exe, level",
    ),
    "latencies": (
        f"SELECT exe, level, histogram_merge(h) AS h, count(*) AS n, {_TIME} FROM logs GROUP BY exe, level",
        f"SELECT exe, level, histogram_merge(h) AS h, {_SUMS} FROM {{source}} GROUP BY exe, level",
    ),
    "lines": ("SELECT exe, level, x AS n, at AS t, h FROM logs", "SELECT * FROM {source}"),
}
_OF_LINES = "SELECT exe, level, x AS n, at AS t FROM"
_MERGED = f"SELECT exe, level, {_SUMS} FROM {{source}} GROUP BY 1, 2"
#: Views that the caller may not read: their rows aren't groups of the condition's column.
HIDDEN = {
    "aliased": (f"SELECT msg AS exe, level, count(*) AS n, {_TIME} FROM logs GROUP BY 1, 2", _MERGED),
    "swapped": (f"SELECT msg AS exe, exe AS msg, level, count(*) AS n, {_TIME} FROM logs GROUP BY 1, 2, 3", _MERGED),
    "firsts": (f"SELECT first_value(exe) AS exe, level, count(*) AS n, {_TIME} FROM logs GROUP BY level", _MERGED),
    "filled": (f"SELECT coalesce(exe, 'x') AS exe, level, count(*) AS n, {_TIME} FROM logs GROUP BY 1, 2", _MERGED),
    "cases": (
        f"SELECT CASE WHEN level > 0 THEN 'x' END AS exe, level, count(*) AS n, {_TIME} FROM logs GROUP BY 1, 2",
        _MERGED,
    ),
    "all_groupings": (f"SELECT exe, level, count(*) AS n, {_TIME} FROM logs GROUP BY CUBE(exe, level)", _MERGED),
    "rollups": (f"SELECT exe, level, count(*) AS n, {_TIME} FROM logs GROUP BY ROLLUP(exe, level)", _MERGED),
    "joined": (
        "SELECT a.exe, b.level, count(*) AS n, max(a.at) AS t FROM logs a JOIN logs b ON a.x = b.x GROUP BY 1, 2",
        _MERGED,
    ),
    "united": (f"{_OF_LINES} logs UNION ALL SELECT 'x', level, x, at FROM logs", _MERGED),
    "limited": (f"{_OF_LINES} logs LIMIT 40", _MERGED),
    "ordered": (f"{_OF_LINES} logs ORDER BY x DESC LIMIT 40", _MERGED),
    "windows": ("SELECT exe, level, count(*) OVER () AS n, at AS t FROM logs", _MERGED),
    "distinct_lines": ("SELECT DISTINCT ON (level) exe, level, x AS n, at AS t FROM logs ORDER BY level", _MERGED),
    "scalars": (f"SELECT exe, level, (SELECT count(*) FROM logs) AS n, {_TIME} FROM logs GROUP BY 1, 2", _MERGED),
    "existing": (f"{_OF_LINES} logs WHERE EXISTS (SELECT 1 FROM logs o WHERE o.x = 5)", _MERGED),
    "shadowed": (f"WITH logs AS (SELECT 'x' AS exe, level, x, at FROM logs) {_OF_LINES} logs", _MERGED),
    "merged": (READABLE["counts"][0], f"SELECT 'x' AS exe, level, {_SUMS} FROM {{source}} GROUP BY level"),
    "totals": (f"SELECT level, count(*) AS n, {_TIME} FROM logs GROUP BY 1", _MERGED.replace("exe, ", "")),
}


def _visible(number):
    return {
        "exe": "x", "level": number % 3 + 1, "msg": str(number % 7 + 1), "x": number % 4 + 1,
        "at": datetime(2026, 1, number % 28 + 1, tzinfo=UTC), "h": explicit([float(number % 90), 3.0]),
    }  # fmt: skip


def _hidden(number):
    choose = random.Random(number).choice
    return {
        "exe": choose(("hidden", None, "y")), "level": choose((1, 2, 3, 99, None)), "msg": choose(("secret", "", "-1")),
        "x": choose((5, 99, -3)),
        "at": choose((None, datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC))),
        "h": choose((exponential([1.0, 900.0]), explicit([7.0], [1.0, 2.0]), None)),
    }  # fmt: skip


def write_world(number, folder):
    """Write the tables of one world into a folder, and return them."""
    files, rows = [], []
    for at in range(FILES + 2 * number):
        visible = [_visible(at * 5 + index) for index in range(5)] if at < FILES else []
        hidden = [_hidden(at * 3 + index) for index in range(3)] if number else []
        rows.append([*hidden[:1], *visible, *hidden[1:]])
        files.append(_write(pa.Table.from_pylist(rows[-1], SCHEMA), folder / f"logs{at}.parquet"))
    source = TableSnapshot(name="logs", schema=SCHEMA, files=tuple(files))
    stored = [row for of_file in rows[:-_NEW_FILES] for row in of_file]
    views = [_view(name, sql, source, stored, folder) for name, sql in (READABLE | HIDDEN).items()]
    return [source, *views]


def _write(table, path):
    pq.write_table(table, path, row_group_size=3)
    return DataFile(str(path))


def _view(name, queries, source, rows, folder):
    extract, merge = queries
    definition = parse_view_statement(
        f"CREATE MATERIALIZED VIEW {name} WITH (extract_query = $${extract}$$, merge_partitions_query = $${merge}$$, "
        "count_src_query = '{begin} {end}', update_group = 1, time_column = 't')"
    ).definition
    properties = {
        **definition.to_properties(),
        VIEW_SOURCE_PROPERTY: "logs",
        VIEW_UPDATED_PROPERTY: "2026-12-01T00:00:00+00:00",
        VIEW_UPDATED_BY_PROPERTY: "ann",
    }
    session = SessionContext()
    register_flat_functions(session, FUNCTION_NAMES)
    session.register_record_batches("logs", [pa.Table.from_pylist(rows, SCHEMA).to_batches()])
    found = session.sql(extract)
    schema, files, new = found.schema(), (), source.files
    try:
        files = (_write(found.to_arrow_table(), folder / f"{name}.parquet"),)
    except Exception:  # noqa: BLE001 - a refresh fails on a hidden row, so nothing is stored
        pass
    else:
        new = source.files[-_NEW_FILES:]
    view = view_snapshot(TableSnapshot(name=name, schema=schema, files=files), definition, properties)
    return replace(view, materialized=replace(view.materialized, source=replace(source, files=new)))


_NARROWING = (
    "level = 99", "level > 2", "exe = 'hidden'", "exe IS NULL", "n > 90", "n < 0", "n = 5", "t > '2100-01-01'",
    "t < '1990-01-01'", "t IS NULL", "level IS NULL", "level IN (1, 2)", "TRUE", "exe LIKE 'h%'", "n BETWEEN 1 AND 40",
)  # fmt: skip
_FAILING = (
    "12 / (n - 5) = 0", "n % (level - 99) = 0", "CAST(exe AS INT) = 1", "12 / (level - 1) > 1", "1 / 0 = 1",
    "CAST(n AS SMALLINT) > 0", "t + INTERVAL '9999' YEAR > now()", "chr(level) = 'a'", "factorial(n) > 1",
    "CASE WHEN exe <> 'x' THEN 1 / (n - n) = 0 ELSE TRUE END", "exe ~ exe", "exe LIKE '{pattern}'", "missing = 1",
)  # fmt: skip
_SHAPES = (
    "SELECT exe, level, n, t FROM {v} WHERE {p} AND {q} ORDER BY 1, 2, 3, 4",
    "SELECT count(*) AS c, sum(n) AS s FROM {v} WHERE {q} AND {p}",
    "SELECT level, n FROM {v} WHERE {p} OR {q} ORDER BY n DESC, level, t LIMIT 3",
    "SELECT ({q}) AS c, count(*) AS n FROM {v} WHERE {p} GROUP BY 1 ORDER BY 1, 2",
    "SELECT max(CASE WHEN {q} THEN n END) AS n FROM {v} WHERE {p}",
    "SELECT level, rank() OVER (PARTITION BY ({q}) ORDER BY n, level, t) AS r FROM {v} WHERE {p} ORDER BY 1, 2",
    "SELECT v.level, count(*) AS c FROM {v} AS v JOIN {w} AS w ON v.level = w.level GROUP BY 1 ORDER BY 1",
    "SELECT level FROM {v} WHERE {p} EXCEPT SELECT level FROM {w} WHERE {q} ORDER BY 1",
    "SELECT v.level, l.x FROM {v} AS v LEFT JOIN logs AS l ON v.level = l.level AND v.n = l.x ORDER BY 1, 2 LIMIT 9",
    "SELECT (SELECT max(n) FROM {v} WHERE {p} AND {q}) AS n",
    "SELECT count(*) AS c FROM logs WHERE level IN (SELECT level FROM {v} WHERE {p})",
    "EXPLAIN SELECT n FROM {v} WHERE {p}",
    "EXPLAIN ANALYZE SELECT n FROM {v} WHERE {q}",
    "SELECT * FROM __{v}__partitions",
    "SELECT view_set_name, definition_sql FROM list_view_set_definitions() ORDER BY 1",
    "SELECT table_name FROM information_schema.tables ORDER BY 1",
    "SELECT view_set_name FROM list_view_sets() ORDER BY 1",
)
_OF_HISTOGRAMS = (
    "SELECT level, histogram_quantile(h, {r}) AS p FROM {h} WHERE {p} ORDER BY 1, 2",
    "SELECT histogram_quantile(histogram_merge(h), {r}) AS p FROM {h} WHERE {p}",
    "SELECT level, histogram_quantile(histogram_merge(h), {r}) AS p FROM {h} WHERE {q} GROUP BY 1 ORDER BY 1",
    "SELECT level, histogram_buckets(h) AS b FROM {h} WHERE {p} AND {q} ORDER BY 1, h['count'], h['sum'] LIMIT 3",
    "SELECT sum(h['count']) AS c, max(h['sum']) AS s FROM {h} WHERE {q}",
    "SELECT count_from_histogram(histogram_to_bins(histogram_merge(h), 0.0, 100.0, 7)) AS c FROM {h} WHERE {p}",
    "SELECT level FROM {h} WHERE histogram_quantile(h, {r}) > 12 / (n - 5) ORDER BY 1, n",
    "SELECT max(histogram_quantile(h, 0.5)) AS p FROM {h} HAVING min(12 / (n - 5)) < {r}",
)


def statements(seed, count):
    """Return random statements over views; some fail, whatever the caller sees, or only on hidden rows."""
    choose = random.Random(seed).choice
    for _ in range(count):
        shape = choose(choose((_SHAPES, _SHAPES, _OF_HISTOGRAMS)))
        views = choose((list(READABLE), list(READABLE), list(READABLE), list(HIDDEN)))
        yield shape.format(
            v=choose(views),
            w=choose(list(READABLE)),
            h=choose(("latencies", "lines")),
            p=choose(_NARROWING),
            q=choose(choose((_NARROWING, _FAILING, _FAILING))).format(pattern="_" * 20_000),
            r=choose((0, 0.5, 0.99, 2)),
        )
