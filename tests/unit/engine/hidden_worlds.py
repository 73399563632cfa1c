"""Two lakes that differ only in hidden rows, and statements with constants and expressions that fail if a row is read.

Both have the same visible rows in the same files. In the second, hidden rows widen the bounds of each file and row
group to values that no visible row has, and some files have only hidden rows.
"""

import random
from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from micromegas_jupyter.core.protocols import DataFile, TableSnapshot

WORLDS = (0, 1)
SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("exe", pa.string()),
        ("level", pa.int32()),
        ("msg", pa.string()),
        ("x", pa.int64()),
        ("value", pa.float64()),
        ("money", pa.decimal128(12, 2)),
        ("day", pa.date32()),
        ("at", pa.timestamp("us", "UTC")),
        ("tags", pa.list_(pa.int64())),
    ]
)
OTHER_SCHEMA = pa.schema([("log_id", pa.int64()), ("exe", pa.string()), ("n", pa.int64())])
SCHEMAS = {"logs": SCHEMA, "other": OTHER_SCHEMA}
#: The last hides all rows.
CONDITIONS = ("exe = 'x'", "level < 4 AND x <> 5", "exe IN ('x', 'z')", "exe = 'nobody'")
#: Those that all rows of the first world meet.
HIDING_NOTHING = (CONDITIONS[0], CONDITIONS[2])
FILES = 36
_BOUNDED = ("id", "level", "at")
_INT64 = (-(1 << 63), (1 << 63) - 1)


def _visible(number):
    return {
        "id": number,
        "exe": "x",
        "level": number % 3 + 1,
        "msg": ("7", "12", "a7", None)[number % 4],
        "x": number % 4 + 1,
        "value": number / 2,
        "money": Decimal(number % 50),
        "day": date(2024, 1, number % 28 + 1),
        "at": datetime(2024, 1, number % 28 + 1, number % 24, tzinfo=UTC),
        "tags": [number, 1],
    }


def _hidden(number):
    choose = random.Random(number).choice
    return {
        "id": choose((*_INT64, 5000 + number, -number)),
        "exe": "hidden",
        "level": choose((99, -99, 50, 2147483647, None)),
        "msg": choose(("secret (", "no number", "999999999999", "\0", "z" * 2000, "-7", "2024-13-45")),
        "x": 5,
        "value": choose((float("nan"), float("inf"), -1e300, 0.0, 1e300)),
        "money": choose((Decimal("9999999999.99"), Decimal("-9999999999.99"), Decimal("0.01"))),
        "day": choose((-2147483648, 2147483647, 0, 2_000_000)),
        "at": choose((*_INT64, 0, 4_000_000_000_000_000)),
        "tags": choose(([], None, [5, 0])),
    }


def _file(rows, folder, name, schema):
    """Write rows in small row groups; return the file and its bounds."""
    table = pa.table({field.name: _column(rows, field) for field in schema}, schema=schema)
    pq.write_table(table, folder / f"{name}.parquet", row_group_size=3)
    bounds = {"rows": table.num_rows}
    for column in set(_BOUNDED) & set(schema.names):
        values = table[column].cast(pa.int64())
        low, high = pc.min_max(values).values()
        bounds |= {f"min.{column}": low.as_py(), f"max.{column}": high.as_py(), f"nulls.{column}": values.null_count}
    return DataFile(str(folder / f"{name}.parquet")), bounds


def _column(rows, field):
    """Return a column of values of which some are given as they are stored."""
    if pa.types.is_date(field.type):
        epoch = date(1970, 1, 1)
        days = [
            (one[field.name] - epoch).days if isinstance(one[field.name], date) else one[field.name] for one in rows
        ]
        return pa.array(days, pa.int32()).cast(field.type)
    if pa.types.is_timestamp(field.type):
        moments = (one[field.name] for one in rows)
        values = [int(one.timestamp() * 10**6) if isinstance(one, datetime) else one for one in moments]
        return pa.array(values, pa.int64()).cast(pa.timestamp("us")).cast(field.type)
    return pa.array([one[field.name] for one in rows], field.type)


def write_world(number, folder):
    """Write the tables of one world below a folder, and return them."""
    tables = []
    for name, schema in SCHEMAS.items():
        (folder / name).mkdir(parents=True)
        parts = []
        for at in range(FILES + 6):
            visible = [_visible(at * 5 + index) for index in range(5)] if at < FILES else []
            hidden = [_hidden(at * 3 + index) for index in range(3)] if number else []
            if not visible and not hidden:
                continue
            rows = [*hidden[:1], *visible, *hidden[1:]]
            if name == "other":
                rows = [{"log_id": one["id"], "exe": one["exe"], "n": one["x"]} for one in rows]
            parts.append(_file(rows, folder / name, at, schema))
        bounds = pa.Table.from_pylist([known for _, known in parts])
        tables.append(TableSnapshot(name=name, schema=schema, files=tuple(file for file, _ in parts), bounds=bounds))
    return tables


#: Values of these are in hidden rows only, so that files and row groups are pruned or not.
NARROWING = (
    "level = 99", "level > 10", "level < -5", "id > 4000", "id < -1", "id IN (5001, 5002)", "msg LIKE 'secret%'",
    "msg = 'no number'", "at > '2050-01-01'", "at < '1990-01-01'", "x = 5", "value > 1e200", "exe = 'hidden'",
    "day > '2100-01-01'", "money > 100", "level BETWEEN 40 AND 60", "msg > 'y'", "id = 9223372036854775807",
    "level = 99 OR id < -1", "at >= now()", "tags IS NULL", "level IS NULL", "level = 2", "id < 90", "TRUE",
)  # fmt: skip
#: These fail whatever is read.
FAILING_CONSTANTS = (
    "1 / 0 = 1", "1 % 0 = x", "msg LIKE '{pattern}'", "msg NOT LIKE '{pattern}'", "msg ILIKE '%{pattern}a'",
    "msg ~ '(.{{0,1000}}){{0,900}}x'", "msg !~* '(.{{0,1000}}){{0,900}}x'", "msg ~ '('", "msg SIMILAR TO 'z%('",
    "regexp_like(msg, '(.{{0,1000}}){{0,900}}x')", "regexp_replace(msg, '(', 'x') = 'x'", "regexp_count(msg, '(') = 1",
    "CAST('x' AS INT) = x", "x = CAST('99999999999999999999' AS BIGINT)", "at > '2024-13-01'", "day = '2024-02-31'",
    "at > TIMESTAMP '2024-99-99 00:00:00'", "at > now() - INTERVAL '99999999' YEAR", "x = factorial(100)",
    "CASE WHEN level = 99 THEN 1 / 0 = 1 ELSE TRUE END", "coalesce(x, 1 / 0) = 1", "nullif(1 / 0, x) = 1",
    "date_trunc('nonsense', at) = now()", "date_part('nonsense', at) = 1", "at = to_timestamp('nonsense')",
    "chr(-5) = msg", "money = CAST('1e30' AS DECIMAL(12, 2))", "tags[1 / 0] = 1", "split_part(msg, 'a', 0) = 'x'",
    "msg = regexp_replace('a', '(', 'x')", "power(0, -1) = x", "make_date(2024, 13, 45) = day",
    "x IN (1, 2, 1 / 0)", "x BETWEEN 0 AND 1 / 0", "x IN ({list})", "msg = CAST(1 / 0 AS VARCHAR)",
)  # fmt: skip
LONG = {"pattern": "_" * 20_000, "list": ", ".join(map(str, range(3_000)))}
#: These fail on hidden rows, and some of them on visible ones.
FAILING_VALUES = (
    "1 / (x - 5) = 0", "x % (x - 5) = 0", "CAST(msg AS INT) = 7", "CAST(exe AS INT) = 1", "CAST(id AS INT) = 1",
    "CAST(id AS SMALLINT) > 0", "CAST(value AS INT) > 1", "CAST(money AS DECIMAL(4, 2)) > 1", "CAST(msg AS DATE) = day",
    "CAST(at AS VARCHAR) > 'a'", "CAST(day AS VARCHAR) > 'a'", "day + INTERVAL '9999' YEAR > now()",
    "at + INTERVAL '9999' YEAR > now()", "date_trunc('month', at) > '2024-01-01'", "extract(year FROM at) = 2024",
    "to_timestamp(msg) > now()", "CAST(at AS TIMESTAMP) > TIMESTAMP '2024-01-01 00:00:00'", "at > day", "day < at",
    "x IN (1, 1 / (x - 5))", "x BETWEEN 1 AND 10 / (x - 5)", "msg ~ msg", "regexp_like('7', msg)", "msg SIMILAR TO msg",
    "msg LIKE msg", "msg = x", "id * 1000000 > 5", "abs(id) > 0", "-id < 0", "money * money > 1", "tags[1] > 0",
    "factorial(x) > 1", "chr(level) = 'a'", "CAST(level AS BOOLEAN)", "id + at > now()", "coalesce(1 / (x - 5), 1) = 1",
    "CASE WHEN x <> 5 THEN 1 / (x - 5) = 0 ELSE FALSE END", "CASE WHEN level = 99 THEN CAST(msg AS INT) = 1 END",
    "x = (SELECT CAST(max(msg) AS BIGINT) FROM logs)", "log2(CAST(msg AS DOUBLE)) > 0",
    "left(msg, CAST(exe AS INT)) = ''",
    "EXISTS (SELECT 1 FROM other WHERE 1 / (n - 5) = 0)", "id IN (SELECT log_id / (n - 5) FROM other)",
)  # fmt: skip
#: `p` and `q` are conditions, `e` is an expression that may fail.
SHAPES = (
    "SELECT count(*) FROM logs WHERE {p} AND {q}",
    "SELECT count(*) FROM logs WHERE {q} AND {p}",
    "SELECT id FROM logs WHERE {p} OR {q} ORDER BY id",
    "SELECT id FROM logs WHERE NOT ({p}) AND NOT ({q}) ORDER BY id",
    "SELECT id FROM logs WHERE {p} AND {q} ORDER BY level, id LIMIT 5",
    "SELECT id, ({q}) AS c FROM logs WHERE {p} ORDER BY id",
    "SELECT id FROM logs WHERE {p} ORDER BY ({q}), id DESC LIMIT 3",
    "SELECT id, ({q}) AS c FROM logs ORDER BY at DESC, id LIMIT 2",
    "SELECT level, max(id) AS n FROM logs WHERE {p} GROUP BY level HAVING min(1 / (x - 5)) < 9 ORDER BY level",
    "SELECT ({q}) AS c, count(*) AS n FROM logs WHERE {p} GROUP BY 1 ORDER BY 2, 1",
    "SELECT count(*) FILTER (WHERE {q}) AS n FROM logs WHERE {p}",
    "SELECT max(CASE WHEN {q} THEN id END) AS n FROM logs WHERE {p}",
    "SELECT id, row_number() OVER (PARTITION BY ({q}) ORDER BY id) AS n FROM logs WHERE {p} ORDER BY id",
    "SELECT id FROM (SELECT *, rank() OVER (ORDER BY id) AS r FROM logs) AS s WHERE {p} AND {q} ORDER BY id",
    "SELECT DISTINCT level FROM logs WHERE {p} AND {q} ORDER BY level",
    "WITH c AS (SELECT * FROM logs WHERE {q}) SELECT id FROM c WHERE {p} ORDER BY id",
    "SELECT id FROM logs WHERE {p} UNION ALL SELECT id FROM logs WHERE {q} ORDER BY id",
    "SELECT id FROM logs WHERE {p} EXCEPT SELECT id FROM logs WHERE {q} ORDER BY id",
    "SELECT logs.id FROM logs JOIN other ON logs.id = other.log_id AND {q} WHERE {p} ORDER BY logs.id",
    "SELECT logs.id FROM logs LEFT JOIN other ON logs.id = other.log_id AND {q} WHERE {p} ORDER BY logs.id",
    "SELECT other.log_id FROM other LEFT JOIN (SELECT * FROM logs WHERE {p}) AS l ON l.id = other.log_id ORDER BY 1",
    "SELECT log_id FROM other WHERE log_id IN (SELECT id FROM logs WHERE {p} AND {q}) ORDER BY log_id",
    "SELECT log_id FROM other WHERE EXISTS (SELECT 1 FROM logs WHERE logs.id = log_id AND {p} AND {q}) ORDER BY 1",
    "SELECT (SELECT count(*) FROM logs WHERE {p} AND {q}) AS n",
    "SELECT count(*) AS n FROM (SELECT id FROM logs WHERE {p} LIMIT 3) AS s JOIN other ON {plain}",
    "SELECT sum(id) AS s, avg(value) AS a, max(money) AS m FROM logs WHERE {p}",
    "SELECT id FROM logs WHERE {p} ORDER BY value DESC, id LIMIT 4",
)  # fmt: skip


def statements(seed, count):
    """Return random statements; nearly all read `logs` by a condition that rules out files and one that may fail."""
    choose = random.Random(seed).choice
    failing = [one.format(**LONG) for one in FAILING_CONSTANTS]
    for _ in range(count):
        first, second = choose(NARROWING), choose((failing, FAILING_VALUES, NARROWING))
        yield choose(SHAPES).format(p=f"({first})", q=f"({choose(second)})", plain=choose(("TRUE", "n = 1")))
