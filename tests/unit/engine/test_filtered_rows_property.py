"""Any statement over the rows that a condition leaves gives what it gives over a table of just these rows."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from micromegas_jupyter.core.protocols import TableSnapshot
from micromegas_jupyter.engine.contract import EngineSettings
from micromegas_jupyter.engine.datafusion_engine import DataFusionEngine
from micromegas_jupyter.engine.schemas import flat_schema
from micromegas_jupyter.engine.security import condition_problem
from micromegas_jupyter.errors import MicromegasError
from tests.fakes.fixed_tables import FixedTables
from tests.unit.engine.conftest import Asker

Row = dict[str, object]

SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("a", pa.int64()),
        pa.field("b", pa.int32()),
        pa.field("f", pa.float64()),
        pa.field("s", pa.string()),
        pa.field("w", pa.dictionary(pa.int32(), pa.string())),
    ]
)
TEXTS = ("1", "2", "10", "x", "xy", "", "(")
_files = itertools.count()


@dataclass(frozen=True)
class Condition:
    """A condition in SQL, and an independent answer: True, False, or None where it is not known."""

    sql: str
    kind: str
    parts: tuple[Condition, ...] = ()
    column: str = ""
    value: object = None

    def holds(self, row):  # noqa: PLR0911 - one per kind
        known = row.get(self.column)
        match self.kind:
            case "and":
                found = [part.holds(row) for part in self.parts]
                return False if False in found else None if None in found else True
            case "or":
                found = [part.holds(row) for part in self.parts]
                return True if True in found else None if None in found else False
            case "not":
                inner = self.parts[0].holds(row)
                return None if inner is None else not inner
            case "null":
                return known is None
        if known is None:
            return None
        match self.kind:
            case "=":
                return known == self.value
            case "<":
                return known < self.value  # type: ignore[operator]
            case "in":
                return known in self.value  # type: ignore[operator]
            case _:
                return str(known).startswith(str(self.value))


def number_conditions():
    return st.builds(
        lambda column, kind, value: Condition(f"{column} {kind} {value}", kind, column=column, value=value),
        st.sampled_from(["id", "a", "b"]),
        st.sampled_from(["=", "<"]),
        st.integers(-2, 6),
    )


def number_list_conditions():
    return st.builds(
        in_list, st.sampled_from(["id", "a", "b"]), st.lists(st.integers(-2, 6), min_size=1, max_size=5), st.booleans()
    )


def in_list(column, values, negated):
    listed = f"({', '.join(map(str, values))})"
    inside = Condition(f"{column} IN {listed}", "in", column=column, value=values)
    return Condition(f"{column} NOT IN {listed}", "not", (inside,)) if negated else inside


def text_conditions():
    columns = st.sampled_from(["s", "w"])
    return st.one_of(
        st.builds(
            lambda column, value: Condition(f"{column} LIKE '{value}%'", "starts", column=column, value=value),
            columns,
            st.sampled_from(["1", "x"]),
        ),
        st.builds(
            lambda column, values: Condition(
                f"{column} IN ({', '.join(map(repr, values))})", "in", column=column, value=values
            ),
            columns,
            st.lists(st.sampled_from(TEXTS), min_size=1, max_size=3),
        ),
        st.builds(lambda column: Condition(f"{column} IS NULL", "null", column=column), columns),
    )


CONDITIONS = st.recursive(
    st.one_of(number_conditions(), number_list_conditions(), text_conditions()),
    lambda inner: st.one_of(
        st.builds(lambda a, b: Condition(f"({a.sql}) AND ({b.sql})", "and", (a, b)), inner, inner),
        st.builds(lambda a, b: Condition(f"({a.sql}) OR ({b.sql})", "or", (a, b)), inner, inner),
        st.builds(lambda a: Condition(f"NOT ({a.sql})", "not", (a,)), inner),
    ),
    max_leaves=4,
)

# What a row is asked for; several fail on some values.
VALUES = st.sampled_from(
    [
        "CAST(s AS INT)",
        "CAST(w AS BIGINT)",
        "1 / (a - 2)",
        "b % a",
        "COALESCE(CAST(s AS INT), 1 / a)",
        "CASE WHEN s = 'x' THEN 1 / (a - a) ELSE a END",
        "CASE WHEN regexp_like('x', s) THEN 1 ELSE 0 END",
        "TRY_CAST(w AS INT)",
        "a + b",
        "f / 2",
        "a",
        "length(s)",
    ]
)
# One expression for each statement: which of two that fail is evaluated first is the engine's choice.
SHAPES = st.sampled_from(
    [
        "SELECT id, {0} AS v FROM {1}",
        "SELECT {0} AS v FROM {1}",
        "SELECT s, {0} AS v FROM {1}",
        "SELECT id FROM {1} WHERE {0} = 1",
        "SELECT id FROM {1} WHERE NOT ({0} < 2)",
        "SELECT count(*) AS n FROM {1} WHERE {0} IS NOT NULL",
        "SELECT w, a FROM {1} WHERE {0} IN (1, 2, 10)",
        "SELECT id FROM (SELECT *, {0} AS v FROM {1}) WHERE v > 0",
        "SELECT max({0}) AS m, count(*) AS n FROM {1}",
        "SELECT {0} AS v, count(*) AS n FROM {1} GROUP BY 1",
        "SELECT w, sum({0}) AS n FROM {1} GROUP BY w",
        "SELECT DISTINCT {0} AS v FROM {1}",
        "SELECT id, rank() OVER (ORDER BY {0}) AS r FROM {1}",
        "SELECT id FROM {1} ORDER BY {0}, id LIMIT 3",
        "SELECT x.id FROM {1} x JOIN (VALUES (1), (2)) AS u (k) ON {0} = u.k",
        "SELECT u.k, x.id FROM (VALUES (1), (2)) AS u (k) LEFT JOIN {1} x ON {0} = u.k",
        "SELECT k FROM (VALUES (1), (2)) AS u (k) WHERE k IN (SELECT {0} FROM {1})",
        "SELECT k FROM (VALUES (1), (2)) AS u (k) WHERE EXISTS (SELECT 1 FROM {1} WHERE {0} = u.k)",
        "SELECT (SELECT min({0}) FROM {1}) AS v",
        "SELECT {0} AS v FROM {1} UNION ALL SELECT 1",
        "SELECT count(*) AS n, min(a) AS a, max(b) AS b, min(w) AS w, max(s) AS s FROM {1}",
        "SELECT * FROM {1} WHERE a > 0 ORDER BY id DESC LIMIT 2",
        "SELECT id FROM {1} WHERE s LIKE '1%' OR b BETWEEN 1 AND 3",
    ]
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "a": st.one_of(st.none(), st.integers(-2, 6)),
            "b": st.one_of(st.none(), st.integers(-2, 6)),
            "f": st.one_of(st.none(), st.sampled_from([0.0, 1.5])),
            "s": st.one_of(st.none(), st.sampled_from(TEXTS)),
            "w": st.one_of(st.none(), st.sampled_from(TEXTS)),
        }
    ),
    max_size=24,
)


@pytest.fixture(scope="module", params=[1, 2])
def asker(request):
    tables = FixedTables()
    engine = DataFusionEngine(tables, EngineSettings(batch_rows=4, target_partitions=int(request.param)))
    yield Asker(engine, tables)
    engine.close()


def write(folder, name, rows):
    """Write the rows into files of up to nine, with small row groups."""
    files = []
    for start in range(0, len(rows), 9):
        path = folder / f"{next(_files)}.parquet"
        pq.write_table(pa.Table.from_pylist(rows[start : start + 9], schema=SCHEMA), path, row_group_size=3)
        files.append(str(path))
    return TableSnapshot(name=name, schema=SCHEMA, files=tuple(files))


def outcome(ask, sql):
    try:
        return sorted(map(repr, ask.rows(sql)))
    except MicromegasError as error:
        return type(error)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, conditions=st.lists(CONDITIONS, min_size=1, max_size=3), statement=st.tuples(SHAPES, VALUES))
def test_a_filtered_table_is_a_table_of_its_visible_rows(asker, tmp_path, rows, conditions, statement):
    assume(all(condition_problem(condition.sql, flat_schema(SCHEMA)) is None for condition in conditions))
    shape, value = statement
    everything = [{"id": index, **row} for index, row in enumerate(rows)]
    visible = [row for row in everything if any(condition.holds(row) is True for condition in conditions)]
    asker.tables.tables = [write(tmp_path, "everything", everything), write(tmp_path, "visible", visible)]
    expected = outcome(asker, shape.format(value, "visible"))

    roles = tuple(condition.sql for condition in conditions)
    found = outcome(asker.seeing({"everything": roles}), shape.format(value, "everything"))

    assert found == expected
