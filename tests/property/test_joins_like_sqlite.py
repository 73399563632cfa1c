"""Random statements with joins of tables whose columns have the same names give the rows that SQLite gives."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.contracts import TableSnapshot
from micromegas_jupyter.engine import DataFusionEngine, EngineSettings
from micromegas_jupyter.errors import UnsupportedStatement
from tests.fakes.fixed_tables import FixedTables
from tests.unit.engine.conftest import Asker

if TYPE_CHECKING:
    from pathlib import Path

STATEMENTS = 60
SEEDS = 4
FEW_REFUSED = 6
ROWS = {"t": 60, "u": 16, "v": 5}
SCHEMA = pa.schema([("a", pa.int64()), ("b", pa.int64()), ("s", pa.string())])


class Statements:
    """Makes statements of one join or two, with conditions in each place and perhaps the first rows only."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def one(self) -> str:
        names, tables = ["x", "y"], f"{self._table('t')} x {self._join('x', 'y')}"
        if self._chance.random() < 0.3:
            names, tables = ["x", "y", "z"], f"{tables} {self._join('y', 'z')}"
        where = f" WHERE {self._condition(names)}" if self._chance.random() < 0.7 else ""
        if self._chance.random() < 0.3:
            group = self._number(names)
            return (
                f"SELECT {group} AS k, count(*) AS c, max({self._number(names)}) AS m FROM {tables}{where} GROUP BY 1"
            )
        columns = [f"{name}.{column}" for name in names for column in SCHEMA.names]
        shown = ", ".join(f"{column} AS c{place}" for place, column in enumerate(columns))
        if self._chance.random() < 0.5:
            return f"SELECT {shown} FROM {tables}{where}"
        order = ", ".join(f"{place + 1} NULLS FIRST" for place in range(len(columns)))
        direction = self._chance.choice(["ASC", "DESC"])
        first = f"{self._number(names)} {direction} NULLS FIRST, {order} LIMIT {self._chance.choice([1, 3, 10])}"
        return f"SELECT {shown} FROM {tables}{where} ORDER BY {first}"

    def _join(self, left: str, right: str) -> str:
        kind = self._chance.choice(["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"])
        more = f" AND {self._condition([left, right])}" if self._chance.random() < 0.3 else ""
        table = self._table(self._chance.choice("uv"))
        return f"{kind} {table} {right} ON {self._number([left])} = {self._number([right])}{more}"

    def _table(self, name: str) -> str:
        return f"(SELECT * FROM {name} p WHERE {self._plain(['p'])})" if self._chance.random() < 0.15 else name

    def _number(self, names: list[str]) -> str:
        return f"{self._chance.choice(names)}.{self._chance.choice('ab')}"

    def _plain(self, names: list[str]) -> str:
        operator = self._chance.choice(["=", "<", ">", "<>", "<=", ">="])
        match self._chance.randrange(4):
            case 0:
                return f"{self._number(names)} {operator} {self._number(names)}"
            case 1:
                return f"{self._number(names)} {operator} {self._chance.randrange(-2, 8)}"
            case 2:
                return f"{self._number(names)} IS {self._chance.choice(['', 'NOT '])}NULL"
            case _:
                return f"{self._chance.choice(names)}.s {operator} '{self._chance.choice(['', 'x', 'zz'])}'"

    def _condition(self, names: list[str]) -> str:
        match self._chance.randrange(8):
            case 6:
                text = self._chance.choice(["z AND z", "(", "x OR (y", "CASE"])
                return f"coalesce({self._chance.choice(names)}.s, '{text}') <> 'R AND D' AND {self._plain(names)}"
            case 7:
                inner = f"t k JOIN u l ON {self._number(['k'])} = {self._number(['l'])}"
                return f"{self._number(names)} > (SELECT min({self._number(['k', 'l'])}) FROM {inner})"
            case 0:
                return f"({self._plain(names)} OR {self._plain(names)})"
            case 1 | 2:
                return f"{self._plain(names)} AND {self._plain(names)}"
            case 3:
                return f"coalesce({self._number(names)}, {self._number(names)}) > {self._chance.randrange(6)}"
            case _:
                return self._plain(names)


def filled(folder: Path, database: sqlite3.Connection, chance: random.Random) -> FixedTables:
    tables = []
    for name, count in ROWS.items():
        rows = [
            (chance.choice([None, *range(8)]), chance.randrange(-3, 12), chance.choice([None, "", "x", "y", "zz"]))
            for _ in range(count)
        ]
        database.execute(f"CREATE TABLE {name} (a INTEGER, b INTEGER, s TEXT)")
        database.executemany(f"INSERT INTO {name} VALUES (?, ?, ?)", rows)
        files = []
        for part in range(2):
            columns = [
                pa.array(column, field.type)
                for column, field in zip(zip(*rows[part::2], strict=True), SCHEMA, strict=True)
            ]
            pq.write_table(pa.table(columns, schema=SCHEMA), folder / f"{name}{part}.parquet", row_group_size=5)
            files.append(str(folder / f"{name}{part}.parquet"))
        tables.append(TableSnapshot(name=name, schema=SCHEMA, files=tuple(files)))
    return FixedTables(tables)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_rows_are_those_of_sqlite(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    refused = 0
    with closing(sqlite3.connect(":memory:")) as database:
        tables = filled(tmp_path, database, chance)
        settings = EngineSettings(target_partitions=1 + seed % 2, batch_rows=(4, 8192)[seed // 2 % 2])
        engine = DataFusionEngine(tables, settings)
        everybody = Asker(engine, tables)
        askers = [everybody, everybody.seeing(dict.fromkeys(ROWS, ("b IS NOT NULL",)))]
        statements = Statements(chance)
        for number in range(STATEMENTS):
            sql = statements.one()
            expected = sorted(map(repr, database.execute(sql).fetchall()))
            try:
                found = askers[number % 2].rows(sql)
            except UnsupportedStatement:
                refused += 1
            else:
                assert sorted(repr(tuple(row.values())) for row in found) == expected, sql
        engine.close()
    assert refused < FEW_REFUSED
