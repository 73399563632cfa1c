"""Files that a statement does not need are not read, and no row is ever lost by that."""

import random
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from micromegas_jupyter.core.protocols import DataFile, TableSnapshot
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.engine.contract import TimeRange
from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.lake.snapshot import DeltaSnapshots
from tests.unit.engine.conftest import asking

DAY = date(2026, 11, 1)
TIME = pa.timestamp("us", "UTC")
STORED = pa.schema({"time": TIME, "until": TIME, "n": pa.int64()})
REGIONS = ("eu", "us", "", "a/b", None)
DAYS, SHIFT = 16, timedelta(microseconds=1)
START = datetime(2026, 11, 1, tzinfo=UTC)
GONE = "/nowhere/x.parquet"


def micros(time):
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // SHIFT


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A partitioned table of eighty files, and the same rows in one file of which nothing is known."""
    folder = tmp_path_factory.mktemp("pruned")
    files, parts, bounds = [], [], []
    for number in range(DAYS * len(REGIONS)):
        day, region = number // len(REGIONS), REGIONS[number % len(REGIONS)]
        begin = START + timedelta(days=day, hours=number % 5)
        times = [begin + timedelta(hours=hour) for hour in range(4)]
        until = [time + timedelta(hours=12) for time in times]
        rows = pa.table(
            {"time": times, "until": [*until[:-1], None], "n": range(number * 4, number * 4 + 4)}, schema=STORED
        )
        pq.write_table(rows, folder / f"{number}.parquet")
        partition = (str(DAY + timedelta(days=day)), region, str(number % 3))
        is_known = number % 7 != 3
        files.append(
            DataFile(
                str(folder / f"{number}.parquet"),
                partition,
                micros(times[0]) if is_known else None,
                micros(until[-2]) if is_known else None,
            )
        )
        known = {"rows": 4, "nulls.time": 0, "nulls.until": 1, "nulls.n": 0}
        known |= {"min.time": micros(times[0]), "max.time": micros(times[-1])}
        known |= {"min.until": micros(until[0]), "max.until": micros(until[-2])}
        known |= {"min.n": number * 4, "max.n": number * 4 + 3}
        bounds.append(known if is_known else dict.fromkeys(known))
        columns = {"day": (DAY + timedelta(days=day), pa.date32()), "region": (region or None, pa.string())}
        columns["shard"] = (number % 3, pa.int32())
        for name, (value, kind) in columns.items():
            rows = rows.append_column(name, pa.array([value] * 4, kind))
        parts.append(rows)
    whole = pa.concat_tables(parts)
    pq.write_table(whole, folder / "whole.parquet")
    known = {"schema": whole.schema, "range_columns": ("time", "until")}
    return [
        TableSnapshot(
            name="t",
            files=tuple(files),
            partition_columns=("day", "region", "shard"),
            bounds=pa.Table.from_pylist(bounds),
            **known,
        ),
        TableSnapshot(name="u", files=(DataFile(str(folder / "whole.parquet")),), **known),
    ]


@pytest.fixture(scope="module")
def ask(tables):
    with asking(tables) as asker:
        yield asker


def condition(chance, depth=2):
    if depth and chance.random() < 0.6:
        first, second = condition(chance, depth - 1), condition(chance, depth - 1)
        text = f"({first} {chance.choice(['AND', 'OR'])} {second})"
        return f"NOT {text}" if chance.random() < 0.2 else text
    moment = START + timedelta(hours=chance.randrange(-10, 24 * DAYS), microseconds=chance.randrange(2))
    day, region, sign = DAY + timedelta(days=chance.randrange(-1, 17)), chance.choice(REGIONS[:4]), None
    sign = chance.choice(["=", "<>", "<", "<=", ">", ">="])
    return chance.choice(
        [
            f"time {sign} TIMESTAMP '{moment.isoformat()}'",
            f"'{moment.isoformat()}' {sign} until",
            f"time BETWEEN '{moment.isoformat()}' AND '{(moment + timedelta(days=2)).isoformat()}'",
            f"day {sign} DATE '{day}'",
            f"day {chance.choice(['', 'NOT '])}IN ('{day}', '{day + timedelta(days=2)}', '2026-11-04', '2026-11-09')",
            f"region {sign} '{region}'",
            f"region {chance.choice(['', 'NOT '])}IN ('{region}', 'eu')",
            "region IS NULL",
            f"shard {sign} {chance.randrange(4)}",
            f"CAST(time AS DATE) {sign} day",
            f"date_trunc('day', until) {sign} '{day}'",
            f"n {sign} {chance.randrange(320)}",
            "until IS NULL",
        ]
    )


SHAPES = (
    "SELECT * FROM {t} WHERE {c} ORDER BY time, n",
    "SELECT count(*) AS c, max(n) AS m, min(time) AS s, max(day) AS d FROM {t} WHERE {c}",
    "SELECT a.n, b.n AS m FROM {t} a LEFT JOIN {t} b ON a.n = b.n + 40 AND b.{c} WHERE a.n > 60 ORDER BY 1, 2",
    "SELECT n FROM {t} WHERE n IN (SELECT n + 1 FROM {t} WHERE {c}) ORDER BY n",
    "SELECT n, (SELECT count(*) FROM {t} WHERE {c}) AS c FROM {t} WHERE {d} ORDER BY n, time",
    "SELECT n FROM {t} a WHERE EXISTS (SELECT 1 FROM {t} b WHERE a.n = b.n AND {d}) AND {c} ORDER BY n",
    "WITH w AS (SELECT * FROM {t} WHERE {c}) SELECT n FROM w UNION ALL SELECT n FROM {t} WHERE {d} ORDER BY n",
    "SELECT day, region, count(*) AS c FROM {t} WHERE {c} GROUP BY 1, 2 HAVING {e} ORDER BY 1, 2",
    "SELECT n, sum(n) OVER (ORDER BY time, n) AS s FROM {t} WHERE {c} ORDER BY time, n LIMIT 7",
)


def random_statement(chance):
    shape = chance.choice(SHAPES)
    first = condition(chance, 0 if "b.{c}" in shape else 2)
    if "b.{c}" in shape:
        first = f"n > {chance.randrange(40)}"
    day = f"day > DATE '{DAY + timedelta(days=chance.randrange(DAYS))}'"
    return shape.replace("{c}", first).replace("{d}", condition(chance)).replace("{e}", day)


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=pytest.mark.long if seed > 7 else ()) for seed in range(16)])
def test_a_pruned_table_gives_the_rows_of_one_that_is_read_whole(ask, seed):
    chance = random.Random(seed)
    statement = random_statement(chance)
    begin = START + timedelta(hours=chance.randrange(24 * DAYS))
    time_range = None
    if chance.random() < 0.3:
        time_range = TimeRange(begin=begin, end=begin + timedelta(hours=chance.randrange(-5, 90)))

    pruned = ask.rows(statement.replace("{t}", "t"), time_range=time_range)

    assert pruned == ask.rows(statement.replace("{t}", "u"), time_range=time_range)


@pytest.mark.parametrize(
    ("where", "partitions"),
    [
        ("day = DATE '2026-11-04'", {3}),
        ("day IN ('2026-11-04', '2026-11-05', '2026-11-06', '2026-11-08', '2099-01-01')", {3, 4, 5, 7}),
        ("day >= DATE '2026-11-15' AND region = 'eu'", {14, 15}),
        ("day = DATE '2026-11-04' OR day < DATE '2026-11-02'", {0, 3}),
        ("region IS NULL", set(range(DAYS))),
        ("day < make_date(20000, 1, 1)", set(range(DAYS))),
        ("n < 3", set(range(DAYS))),
    ],
)
def test_only_needed_files_are_looked_for(tables, where, partitions):
    table = tables[0]
    lost = [file._replace(path=GONE) if (date.fromisoformat(file.partition[0]) - DAY).days not in partitions
            else file for file in table.files]  # fmt: skip
    broken = TableSnapshot(name="t", schema=table.schema, files=tuple(lost), partition_columns=table.partition_columns)

    with asking([broken, tables[1]]) as ask:
        rows = ask.rows(f"SELECT * FROM t WHERE {where} ORDER BY n, time")
        assert rows == ask.rows(f"SELECT * FROM u WHERE {where} ORDER BY n, time")


@pytest.mark.parametrize(
    ("where", "numbers"),
    [
        ("n = 41", {10}),
        ("n IN (41, 46, 1000)", {10, 11}),
        ("n < 4 OR n >= 316", {0, 79}),
        ("time >= TIMESTAMP '2026-11-16T07:00:00Z'", {78, 79}),
        ("until > TIMESTAMP '2026-11-16T18:00:00Z' AND n > 0", {79}),
    ],
)
def test_only_files_with_bounds_around_the_constants_are_looked_for(tables, where, numbers):
    with asking([without(tables[0], numbers), tables[1]]) as ask:
        rows = ask.rows(f"SELECT * FROM t WHERE {where} ORDER BY n")
        assert rows == ask.rows(f"SELECT * FROM u WHERE {where} ORDER BY n")


def without(table, numbers):
    """Return the table with only those of its files, and those of which nothing is known."""
    files = [
        file if number in numbers or number % 7 == 3 else file._replace(path=GONE)
        for number, file in enumerate(table.files)
    ]
    return replace(table, files=tuple(files))


@pytest.mark.parametrize(
    ("order", "numbers"),
    [
        ("time DESC LIMIT 3", {76, 77, 78, 79}),
        ("time, n LIMIT 3", {0, 1, 2, 3}),
        ("time LIMIT 4 OFFSET 2", set(range(5))),
        ("n DESC NULLS LAST LIMIT 5", {78, 79}),
    ],
)
def test_only_files_with_the_first_rows_are_looked_for(tables, order, numbers):
    with asking([without(tables[0], numbers), tables[1]]) as ask:
        assert ask.rows(f"SELECT time FROM t ORDER BY {order}") == ask.rows(f"SELECT time FROM u ORDER BY {order}")


@pytest.mark.parametrize("limit", [1, 9, 400, *(pytest.param(limit, marks=pytest.mark.long) for limit in (4, 100))])
@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM {t} ORDER BY time DESC, n LIMIT {k}",
        "SELECT * FROM {t} ORDER BY until DESC, n LIMIT {k}",
        "SELECT * FROM {t} ORDER BY until NULLS FIRST, n LIMIT {k}",
        "SELECT * FROM {t} ORDER BY abs(n - 100), n LIMIT {k}",
        "SELECT * FROM {t} WHERE n % 2 = 0 ORDER BY n DESC LIMIT {k}",
        "SELECT -n AS n, time FROM {t} ORDER BY n LIMIT {k}",
        "SELECT n, x FROM (SELECT time AS n, n AS x FROM {t}) ORDER BY n, x LIMIT {k}",
        "SELECT count(*) AS c, time FROM {t} GROUP BY time ORDER BY time DESC LIMIT {k}",
        "SELECT DISTINCT time FROM {t} ORDER BY time LIMIT {k}",
        "SELECT a.n FROM {t} a JOIN {t} b ON a.n = b.n + 8 ORDER BY a.n DESC LIMIT {k}",
        "SELECT n FROM (SELECT n, time FROM {t} ORDER BY n DESC LIMIT {k}) WHERE n % 3 = 0 ORDER BY n LIMIT 5",
        "(SELECT n FROM {t} ORDER BY n LIMIT {k}) UNION ALL (SELECT n FROM {t} ORDER BY n DESC LIMIT {k}) ORDER BY n",
        "SELECT n, row_number() OVER (ORDER BY n) AS r FROM {t} ORDER BY n DESC LIMIT {k}",
    ],
)
def test_the_first_rows_are_those_of_a_table_that_is_read_whole(ask, statement, limit):
    statement = statement.replace("{k}", str(limit))

    assert ask.rows(statement.replace("{t}", "t")) == ask.rows(statement.replace("{t}", "u"))


@pytest.mark.parametrize("order", ["n DESC", "n"])
def test_first_rows_of_a_time_range_or_under_a_condition_are_of_those_rows(ask, order):
    time_range = TimeRange(begin=START + timedelta(days=4), end=START + timedelta(days=9))
    limited = ask.seeing(dict.fromkeys("tu", ("n % 50 = 7",)))

    for asker, chosen in ((ask, time_range), (limited, None)):
        found = [asker.rows(f"SELECT * FROM {name} ORDER BY {order} LIMIT 5", time_range=chosen) for name in "tu"]
        assert found[0] == found[1]


def test_a_condition_on_rows_by_role_prunes_and_hides_as_on_a_whole_table(ask):
    filters = dict.fromkeys("tu", ("day >= DATE '2026-11-15'", "region = 'a/b'"))
    limited = ask.seeing(filters)

    pruned = limited.rows("SELECT * FROM t WHERE n % 2 = 0 ORDER BY n, time")

    assert pruned == limited.rows("SELECT * FROM u WHERE n % 2 = 0 ORDER BY n, time")
    assert {row["region"] for row in pruned} == {"eu", "us", "a/b", None}


def test_conditions_with_the_time_of_day_lose_no_row(tmp_path):
    now = datetime.now(UTC)
    files, bounds = [], []
    for hours in range(64):
        time = now + timedelta(hours=hours - 32, minutes=30)
        pq.write_table(pa.table({"time": pa.array([time], TIME)}), tmp_path / f"{hours}.parquet")
        files.append(DataFile(str(tmp_path / f"{hours}.parquet"), (), micros(time), micros(time)))
        bounds.append({"min.time": micros(time), "max.time": micros(time), "nulls.time": 0, "rows": 1})
    table = TableSnapshot(
        name="t",
        schema=pa.schema({"time": TIME}),
        files=tuple(files),
        range_columns=("time", "time"),
        bounds=pa.Table.from_pylist(bounds),
    )

    with asking([table]) as ask:
        for where in ("time > now() - INTERVAL '3 hours'", "now() > time", "now() - INTERVAL '1 day' < time"):
            whole = ask.rows(f"SELECT count(*) AS n FROM t WHERE {where.replace('time', 'coalesce(time, time)')}")
            assert ask.rows(f"SELECT count(*) AS n FROM t WHERE {where}") == whole


def test_a_long_condition_is_planned_like_a_short_one(ask):
    for chain in (" OR ".join(f"n = {number}" for number in range(300)), f"n IN ({', '.join(map(str, range(300)))})"):
        found = [ask.rows(f"SELECT count(*) AS c FROM {name} WHERE {chain}") for name in "tu"]
        assert found == [[{"c": 300}], [{"c": 300}]]


KINDS = {
    "i": pa.int32(), "u": pa.uint64(), "f": pa.float64(), "m": pa.decimal128(12, 2), "s": pa.string(), "d": pa.date32(),
    "t": TIME, "z": pa.timestamp("us"), "b": pa.bool_(), "day": pa.date32(), "code": pa.int64(), "area": pa.string(),
}  # fmt: skip
LITERALS = {
    "i": ("-2147483648", "0", "7", "2147483647", "3.5", "'7'"),
    "u": ("0", "7", "9223372036854775807", "-1"),
    "f": ("0.0", "-0.0", "1e300", "7"),
    "m": ("0.01", "-7", "7.005", "9999999999.99"),
    "s": ("''", "'b'", "'é'", f"'{'long ' * 20}b'", "'\U0001f600'"),
    "d": ("DATE '1970-01-08'", "DATE '0001-01-01'", "DATE '9999-12-31'"),
    "t": ("'1970-01-01T00:00:07Z'", "'1677-01-01T00:00:00Z'", "TIMESTAMP '2260-01-01T00:00:00'",
          "arrow_cast('1970-01-01T00:00:07.000001Z', 'Timestamp(Nanosecond, Some(\"+00:00\"))')"),
    "z": ("'1970-01-01T00:00:07'", "TIMESTAMP '1969-12-31T23:59:59.999999'"),
    "b": ("true", "false"),
    "day": ("DATE '1970-01-03'", "'1970-01-04'"),
    "code": ("-1", "2", "9007199254740993"),
    "area": ("''", "'a/b'", "'%41'"),
}  # fmt: skip


def value_near(chance, name, number):  # noqa: PLR0911 - a value of each type
    """Return a value of a row in a file, whose rows are near each other, or one that is far from them all."""
    if chance.random() < 0.06:
        return None
    is_far, near = chance.random() < 0.03, number // 4 + chance.randrange(2)
    match name:
        case "f":
            # No NaN: DataFusion 55 loses such rows by what footers say of the others.
            return chance.choice((-0.0, float("inf"), 1e300)) if is_far else near / 2
        case "m":
            return Decimal("9999999999.99") if is_far else Decimal(near) / 100
        case "s":
            return ("long " * 20 if chance.random() < 0.3 else "") + chance.choice("ab\U0001f600é") * (near % 3)
        case "b":
            return near % 3 == 0
        case "d":
            return -700_000 if is_far else near
        case "t" | "z":
            return chance.choice((-(1 << 62), 1 << 62)) if is_far else near * 1_000_000 + chance.randrange(2)
        case "u":
            return (1 << 63) - 1 if is_far else near
    return 2147483647 if is_far else near


@pytest.fixture(scope="module")
def typed(tmp_path_factory):
    """A Delta table of columns of many types in seventy files, and the same rows in one file."""
    folder, chance, parts, commits = tmp_path_factory.mktemp("typed"), random.Random(11), [], defaultdict(list)
    for number in range(70):
        stored = {name: [value_near(chance, name, number) for _ in range(3)] for name in [*KINDS][:9]}
        stored["day"], stored["code"] = [number // 20] * 3, [(None, -1, 2, 9007199254740993)[number % 4]] * 3
        stored["area"] = [(None, "a/b", "%41", "ü")[number // 5 % 4]] * 3
        columns = []
        for name, kind in KINDS.items():
            plain = {"d": pa.int32(), "day": pa.int32(), "t": pa.int64(), "z": pa.int64()}.get(name, kind)
            columns.append(pa.array(stored[name], plain).cast(kind))
        part = pa.table(columns, names=[*KINDS])
        # A commit makes one file of each partition.
        partition = tuple(stored[name][0] for name in ("day", "code", "area"))
        commits[sum(one == partition for one, _ in parts)].append(part)
        parts.append((partition, part))
    for tables in commits.values():
        by = ["day", "code", "area"]
        write_deltalake(str(folder / "t"), pa.concat_tables(tables), mode="append", partition_by=by)
    (table,) = DeltaSnapshots(Storage(folder)).list(None).values()
    assert len(table.files) == 70
    assert len(table.bounds.column_names) > 8
    pq.write_table(pa.concat_tables(part for _, part in parts), folder / "whole.parquet")
    whole = TableSnapshot(name="u", schema=table.schema, files=(DataFile(str(folder / "whole.parquet")),))
    with asking([table, whole]) as asker:
        yield asker


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=pytest.mark.long if seed > 7 else ()) for seed in range(24)])
def test_bounds_of_any_type_lose_no_row(typed, seed):
    chance = random.Random(seed)

    def comparison():
        name = chance.choice([*KINDS])
        values = LITERALS[name]
        if chance.random() < 0.2:
            return f"{name} IN ({', '.join(chance.sample(values, min(2, len(values))))})"
        return f"{name} {chance.choice(['=', '<', '<=', '>', '>=', '<>'])} {chance.choice(values)}"

    for _ in range(6):
        where = f" {chance.choice(['AND', 'OR'])} ".join(comparison() for _ in range(chance.randrange(1, 4)))
        counts = ", ".join(f"count({name}) AS {name}" for name in KINDS)
        found = []
        for name in "tu":
            try:
                found.append(typed.rows(f"SELECT count(*) AS rows, {counts} FROM {name} WHERE {where}"))
            except MicromegasError as error:
                found.append(type(error))
        assert found[0] == found[1], where
