"""Any statement over the rows that a condition leaves gives what it gives over a table of just these rows."""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from micromegas_jupyter.core.protocols import TableSnapshot
from micromegas_jupyter.engine.schemas import flat_schema
from micromegas_jupyter.engine.security import condition_problem
from tests.fakes.fixed_tables import data_files
from tests.unit.engine.conftest import asking
from tests.unit.engine.test_filtered_rows import outcome

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


class Condition(NamedTuple):
    """A condition in SQL, and an independent answer for a row: True, False, or None where it is not known."""

    sql: str
    holds: Callable[[Row], bool | None]


def on(column, words, test):
    """Return a condition on a column's value, where there is one."""
    return Condition(f"{column} {words}", lambda row: None if row[column] is None else test(row[column]))


def any_of(*parts):
    def holds(row):
        found = {part.holds(row) for part in parts}
        return True if True in found else None if None in found else False

    return Condition(" OR ".join(f"({part.sql})" for part in parts), holds)


def negated(part):
    def holds(row):
        found = part.holds(row)
        return None if found is None else not found

    return Condition(f"NOT ({part.sql})", holds)


def all_of(*parts):
    none_fails = negated(any_of(*map(negated, parts)))
    return Condition(" AND ".join(f"({part.sql})" for part in parts), none_fails.holds)


def in_list(column, values, *, is_negated=False):
    words = f"{'NOT ' * is_negated}IN ({', '.join(map(repr, values))})"
    return on(column, words, lambda value: (value in values) is not is_negated)


NUMBER_COLUMNS, TEXT_COLUMNS = st.sampled_from(["id", "a", "b"]), st.sampled_from(["s", "w"])
NUMBERS = st.integers(-2, 6)
SIMPLE_CONDITIONS = st.one_of(
    st.builds(lambda column, value: on(column, f"= {value}", lambda known: known == value), NUMBER_COLUMNS, NUMBERS),
    st.builds(lambda column, value: on(column, f"< {value}", lambda known: known < value), NUMBER_COLUMNS, NUMBERS),
    st.builds(in_list, NUMBER_COLUMNS, st.lists(NUMBERS, min_size=1, max_size=5), is_negated=st.booleans()),
    st.builds(
        lambda column, value: on(column, f"LIKE '{value}%'", lambda known: known.startswith(value)),
        TEXT_COLUMNS,
        st.sampled_from(["1", "x"]),
    ),
    st.builds(in_list, TEXT_COLUMNS, st.lists(st.sampled_from(TEXTS), min_size=1, max_size=3)),
    st.builds(lambda column: Condition(f"{column} IS NULL", lambda row: row[column] is None), TEXT_COLUMNS),
)
CONDITIONS = st.recursive(
    SIMPLE_CONDITIONS,
    lambda inner: st.one_of(
        st.builds(all_of, inner, inner), st.builds(any_of, inner, inner), st.builds(negated, inner)
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
    with asking([], batch_rows=4, target_partitions=request.param) as opened:
        yield opened


def write(folder, name, rows):
    """Write the rows into files of up to nine, with small row groups."""
    files = []
    for start in range(0, len(rows), 9):
        path = folder / f"{next(_files)}.parquet"
        pq.write_table(pa.Table.from_pylist(rows[start : start + 9], schema=SCHEMA), path, row_group_size=3)
        files.append(str(path))
    return TableSnapshot(name=name, schema=SCHEMA, files=data_files(*files))


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
