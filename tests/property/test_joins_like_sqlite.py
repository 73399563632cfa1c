"""Random statements with joins, IN and EXISTS give the rows of SQLite, whether or not tables have the same columns."""

import random
import re
import sqlite3
from contextlib import closing

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.core.protocols import TableSnapshot
from micromegas_jupyter.engine.contract import EngineSettings
from micromegas_jupyter.engine.datafusion_engine import DataFusionEngine
from tests.fakes.fixed_tables import FixedTables, data_files
from tests.unit.engine.conftest import Asker

STATEMENTS = 20
STATEMENTS_LONG = 750
SEEDS = 4
ROWS = {"t": 40, "u": 16, "v": 5}
SCHEMA = pa.schema([("a", pa.int64()), ("b", pa.int64()), ("s", pa.string())])
SOURCE = re.compile(r"(?:FROM|JOIN) ([tuv]) ([qr]\d*)")
# SQLite sometimes says so of a RIGHT or FULL JOIN with a derived table.
SQLITE_LIMIT = "ON clause references tables to its right"
JOINS = ("JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN")


class Statements:
    """Makes statements of joins, also of derived tables, with conditions in each place and perhaps the first rows only.

    A condition is about `names`, the aliases in its scope; each of these has the columns a, b and s.
    """

    def __init__(self, chance):
        self._chance = chance
        self._aliases = 0

    def one(self):
        self._aliases = 0
        names, tables = self._joined(self._chance.choice([1, 1, 2]), nesting=1)
        where = self._where(names)
        if self._chance.random() < 0.3:
            key = self._number(names)
            having = self._perhaps(0.3, f" HAVING count(*) > {self._chance.randrange(3)}")
            shown = f"{key} AS k, count(*) AS c, max({self._number(names)}) AS m"
            return f"SELECT {shown} FROM {tables}{where} GROUP BY 1{having}"
        columns = [f"{name}.{column}" for name in names for column in SCHEMA.names]
        shown = ", ".join(f"{column} AS c{place}" for place, column in enumerate(columns))
        if self._chance.random() < 0.5:
            return f"SELECT {shown} FROM {tables}{where}"
        first = f"{self._number(names)} {self._chance.choice(['ASC', 'DESC'])} NULLS FIRST"
        return (
            f"SELECT {shown} FROM {tables}{where} ORDER BY {first}, {total_order(len(columns))} LIMIT {self._limit()}"
        )

    def _joined(self, joins, *, nesting, subqueries=True):
        names = [self._alias()]
        tables = f"{self._table(nesting)} {names[0]}"
        for _ in range(joins):
            name = self._alias()
            key = f"{self._number(names)} = {self._number([name])}"
            condition = self._condition if subqueries else self._plain
            more = self._perhaps(0.4, f" AND {condition([*names, name])}")
            tables += f" {self._chance.choice(JOINS)} {self._table(nesting)} {name} ON {key}{more}"
            names.append(name)
        return names, tables

    def _table(self, nesting):
        """Return a table, or a derived one with the same columns."""
        if nesting and self._chance.random() < 0.4:
            return f"({self._derived(nesting)})"
        return self._chance.choice("tuv")

    def _derived(self, nesting):
        table = self._chance.choice("tuv")
        names, tables = self._joined(self._chance.choice([0, 1, 1]), nesting=nesting - 1)
        where = self._where(names)
        a, b, s = self._number(names), self._number(names), f"{self._chance.choice(names)}.s"
        columns = f"{a} AS a, {b} AS b, {s} AS s"
        match self._chance.randrange(6):
            case 0:
                return f"SELECT {columns} FROM {tables}{where}"
            case 1:
                return f"SELECT DISTINCT {columns} FROM {tables}{where}"
            case 2:
                having = self._perhaps(0.5, " HAVING count(*) > 1")
                return f"SELECT {a} AS a, {b} AS b, min({s}) AS s FROM {tables}{where} GROUP BY {a}, {b}{having}"
            case 3:
                union = self._chance.choice(["UNION", "UNION ALL"])
                other = f"SELECT a, b, s FROM {table} WHERE {self._plain([table])}"
                return f"SELECT {columns} FROM {tables}{where} {union} {other}"
            case 4:
                order = ", ".join(f"{name}.{column} NULLS FIRST" for name in names for column in SCHEMA.names)
                row = f"CAST(row_number() OVER (PARTITION BY {a} ORDER BY {order}) AS BIGINT)"
                return f"SELECT {a} AS a, {row} AS b, {s} AS s FROM {tables}{where}"
            case _:
                return f"SELECT {columns} FROM {tables}{where} ORDER BY {total_order(3)} LIMIT {self._limit()}"

    def _where(self, names):
        conditions = [self._condition(names) for _ in range(self._chance.choice([0, 1, 1, 2]))]
        return f" WHERE {' AND '.join(conditions)}" if conditions else ""

    def _condition(self, names):  # noqa: PLR0911 - one per kind of condition
        match self._chance.randrange(13):
            case 0 | 1:
                return f"({self._plain(names)} OR {self._plain(names)})"
            case 2:
                text = self._chance.choice(["z AND z", "(", "x OR (y", "CASE", "\nLeft Join: "])
                return f"coalesce({self._chance.choice(names)}.s, '{text}') <> 'R AND D'"
            case 3:
                other = self._chance.choice([self._in_values(names), self._plain(names)])
                return f"({self._in_values(names)} {self._chance.choice(['OR', 'AND'])} {other})"
            case 4:
                connective = self._chance.choice(["OR", "AND"])
                number = self._number(names)
                lists = (f"{number} {self._not()}IN ({self._values()})" for _ in range(2))
                return f"{self._not()}({f' {connective} '.join(lists)})"
            case 7:
                return self._in_rows(names)
            case 8:
                return (
                    f"{self._not()}({self._in_rows(names)} {self._chance.choice(['OR', 'AND'])} {self._plain(names)})"
                )
            case 9:
                where = f"q.b = {self._number(names)} AND {self._plain(['q'])}"
                return self._exists(where)
            case 10:
                return f"({self._exists(f'q.a < {self._number(names)}')} OR {self._plain(names)})"
            case 11:
                inner, tables = self._joined(1, nesting=0, subqueries=False)
                function = self._chance.choice(["min", "max", "count"])
                where = self._perhaps(0.7, f" WHERE {self._plain(inner)}")
                return f"{self._number(names)} >= (SELECT {function}({self._number(inner)}) FROM {tables}{where})"
            case _:
                return self._plain(names)

    def _in_values(self, names):
        return f"{self._number(names)} {self._not()}IN ({self._values()})"

    def _values(self):
        values = [str(self._chance.randrange(-2, 8)) for _ in range(self._chance.choice([1, 2, 5]))]
        return ", ".join([*values, *self._chance.choice([[], [], ["NULL"]])])

    def _in_rows(self, names):
        value = self._number(names)
        where = self._chance.choice([self._plain(["q"]), "false", f"q.b = {value}"])
        column = self._chance.choice("ab")
        return f"{value} {self._not()}IN (SELECT q.{column} FROM {self._chance.choice('tuv')} q WHERE {where})"

    def _exists(self, where):
        return f"{self._not()}EXISTS (SELECT 1 FROM {self._chance.choice('tuv')} q WHERE {where})"

    def _not(self):
        return self._perhaps(0.4, "NOT ")

    def _plain(self, names):
        operator = self._chance.choice(["=", "=", "<", ">", "<>", "<=", ">="])
        match self._chance.randrange(5):
            case 0:
                return f"{self._number(names)} {operator} {self._number(names)}"
            case 1:
                return f"{self._number(names)} {operator} {self._chance.randrange(-2, 8)}"
            case 2:
                return f"{self._number(names)} IS {self._chance.choice(['', 'NOT '])}NULL"
            case 3:
                return f"coalesce({self._number(names)}, {self._number(names)}) {operator} {self._chance.randrange(6)}"
            case _:
                return f"{self._chance.choice(names)}.s {operator} '{self._chance.choice(['', 'x', 'zz'])}'"

    def _alias(self):
        self._aliases += 1
        return f"r{self._aliases}"

    def _number(self, names):
        return f"{self._chance.choice(names)}.{self._chance.choice('ab')}"

    def _limit(self):
        return self._chance.choice([1, 3, 10])

    def _perhaps(self, share, text):
        return text if self._chance.random() < share else ""


def with_own_names(sql):
    """Return a statement over tables u and v whose columns have names of their own, but for b of v."""
    sql = re.sub(r"SELECT a, b, s FROM u", "SELECT ua, ub, us FROM u", re.sub(r"FROM [uv] q", "FROM t q", sql))
    sql = sql.replace("SELECT a, b, s FROM v", "SELECT va, b, vs FROM v")
    tables = {"u": "u", "v": "v"} | {alias: table for table, alias in SOURCE.findall(sql)}

    def renamed(found):
        table = tables.get(found[1], "")
        return found[0] if found[2] == "b" and table == "v" else f"{found[1]}.{table.strip('t')}{found[2]}"

    return re.sub(r"\b(r\d+|[uv])\.([abs])\b", renamed, sql)


def total_order(columns):
    return ", ".join(f"{place + 1} NULLS FIRST" for place in range(columns))


def filled(folder, database, chance, *, has_own_names):
    tables = []
    for name, count in ROWS.items():
        columns = SCHEMA.names
        if has_own_names:
            columns = [with_own_names(f"{name}.{one}").partition(".")[2] for one in columns]
        schema = pa.schema(list(zip(columns, SCHEMA.types, strict=True)))
        rows = [
            (chance.choice([None, *range(8)]), chance.randrange(-3, 12), chance.choice([None, "", "x", "y", "zz"]))
            for _ in range(count)
        ]
        database.execute(f"CREATE TABLE {name} ({columns[0]} INTEGER, {columns[1]} INTEGER, {columns[2]} TEXT)")
        database.executemany(f"INSERT INTO {name} VALUES (?, ?, ?)", rows)
        files = [str(folder / f"{name}{part}.parquet") for part in range(2)]
        for part, file in enumerate(files):
            records = [dict(zip(columns, row, strict=True)) for row in rows[part::2]]
            pq.write_table(pa.Table.from_pylist(records, schema=schema), file, row_group_size=5)
        tables.append(TableSnapshot(name=name, schema=schema, files=data_files(*files)))
    return FixedTables(tables)


@pytest.mark.parametrize(
    ("seed", "has_own_names"),
    [
        pytest.param(seed, has_own_names, marks=pytest.mark.long if (seed in {0, 3}) is has_own_names else ())
        for seed in range(SEEDS)
        for has_own_names in (False, True)
    ],
)
def test_rows_are_those_of_sqlite(tmp_path, pytestconfig, seed, has_own_names):
    chance = random.Random(seed)
    with closing(sqlite3.connect(":memory:")) as database:
        tables = filled(tmp_path, database, chance, has_own_names=has_own_names)
        settings = EngineSettings(target_partitions=1 + seed % 2, batch_rows=(4, 8192)[seed // 2 % 2])
        everybody = Asker(DataFusionEngine(tables, settings), tables)
        conditions = {one.name: (f"{one.schema.names[1]} IS NOT NULL",) for one in tables.tables}
        askers = [everybody, everybody.seeing(conditions)]
        statements = Statements(chance)
        for number in range(STATEMENTS_LONG if pytestconfig.getoption("--long") else STATEMENTS):
            sql = with_own_names(statements.one()) if has_own_names else statements.one()
            try:
                expected = sorted(map(repr, database.execute(sql).fetchall()))
            except sqlite3.OperationalError as error:
                if SQLITE_LIMIT not in str(error):
                    raise
                continue
            found = askers[number % 2].rows(sql)
            assert sorted(repr(tuple(row.values())) for row in found) == expected, sql
