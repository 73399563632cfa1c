"""Placeholders, the values that are bound to them, and what is read from a plan before it runs."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from datafusion import SessionConfig, SessionContext

from micromegas_jupyter.engine.contract import StatementRequest
from micromegas_jupyter.engine.datafusion_engine import DataFusionEngine
from micromegas_jupyter.engine.planning.checks import check_plan, placeholder_types, without_paths
from micromegas_jupyter.engine.planning.parameters import find_placeholders, with_plain_parameters
from micromegas_jupyter.engine.scanner import scan
from micromegas_jupyter.errors import InvalidStatement, StatementRefused
from tests.fakes.fixed_tables import LOG_SCHEMA, NOON, FixedTables, empty_table
from tests.unit.engine.conftest import SETTINGS, Asker

if TYPE_CHECKING:
    from datafusion.plan import LogicalPlan


@pytest.mark.parametrize(
    ("sql", "written", "columns"),
    [
        ("SELECT 1", "SELECT 1", ()),
        ("SELECT ?, ?", "SELECT $1, $2", ("0", "1")),
        ("SELECT ? || '?' || \"?\" -- ?\n || ?", "SELECT $1 || '?' || \"?\" -- ?\n || $2", ("0", "1")),
        ("SELECT E'\\'?' || ?", "SELECT E'\\'?' || $1", ("0",)),
        ("SELECT /* ? */ ?", "SELECT /* ? */ $1", ("0",)),
        ("SELECT $1, $2, $1", "SELECT $1, $2, $1", ("0", "1")),
        ("SELECT $2", "SELECT $2", ("0", "1")),
        ("SELECT $exe, $level, $exe", "SELECT $exe, $level, $exe", ("exe", "level")),
        ("SELECT ?, $exe", "SELECT $1, $exe", ("0", "exe")),
        ("SELECT $b, $1", "SELECT $b, $1", ("0", "b")),
        ("SELECT $$ ? $$", None, None),
    ],
)
def test_placeholders_become_numbers_and_names(sql: str, written: str | None, columns: tuple[str, ...] | None) -> None:
    if written is None:
        with pytest.raises(InvalidStatement, match=r"\$1, \$2"):
            find_placeholders(scan(sql))
        return

    found = find_placeholders(scan(sql))

    assert found.sql == written
    assert found.columns == columns


@pytest.mark.parametrize("sql", ["SELECT ?, $1", "SELECT ?1", "SELECT $0", "SELECT $1001", "SELECT $99999"])
def test_odd_placeholders_are_invalid(sql: str) -> None:
    with pytest.raises(InvalidStatement):
        find_placeholders(scan(sql))


def test_more_than_a_thousand_placeholders_are_invalid() -> None:
    with pytest.raises(InvalidStatement, match="1000"):
        find_placeholders(scan("SELECT " + ", ".join(["?"] * 1001)))


def test_a_value_too_many_is_named() -> None:
    found = find_placeholders(scan("SELECT $exe"))

    with pytest.raises(InvalidStatement, match="'level'"):
        found.bind(pa.record_batch({"exe": ["x"], "level": [1]}))


def test_a_name_inside_a_dollar_quote_needs_no_value_but_may_have_one() -> None:
    found = find_placeholders(scan("SELECT $a, $$ costs $b $$"))

    assert found.columns == ("a",)
    assert found.bind(pa.record_batch({"a": [1]})).keys() == {"a"}
    assert found.bind(pa.record_batch({"a": [1], "b": [2]})).keys() == {"a", "b"}


def test_a_column_is_counted_in_the_statement_as_it_was_sent() -> None:
    found = find_placeholders(scan("SELECT ?,\n  ?, ?, nope"))

    assert found.sql == "SELECT $1,\n  $2, $3, nope"
    assert found.original_column(2, 11) == 9
    assert found.original_column(1, 8) == 8


def test_a_null_inside_a_value_where_a_list_of_a_fixed_size_belongs_is_invalid() -> None:
    row = pa.record_batch({"0": pa.array([[None]], pa.list_(pa.list_(pa.int8(), 2)))})

    with pytest.raises(InvalidStatement, match="fixed size"):
        find_placeholders(scan("SELECT $1")).bind(row)


VALUES = [
    pa.scalar(True),
    pa.scalar(-3, pa.int8()),
    pa.scalar(2**64 - 1, pa.uint64()),
    pa.scalar(1.5),
    pa.scalar("it's; -- ?"),
    pa.scalar(b"\x00\xff"),
    pa.scalar(date(2026, 11, 24)),
    pa.scalar(NOON, pa.timestamp("ns", "UTC")),
    pa.scalar(timedelta(seconds=1), pa.duration("ns")),
    pa.scalar(Decimal("1.25"), pa.decimal128(10, 2)),
    pa.scalar([1, 2]),
    pa.scalar({"a": 1}),
    pa.scalar(None, pa.string()),
    pa.scalar(None, pa.int64()),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{value.type}-{value.is_valid}")
@pytest.mark.parametrize(
    ("sql", "column"), [("SELECT ? AS v", "0"), ("SELECT $1 AS v", "0"), ("SELECT $it AS v", "it")]
)
def test_a_parameter_keeps_value_and_type(ask: Asker, value: pa.Scalar, sql: str, column: str) -> None:
    row = pa.RecordBatch.from_arrays([pa.array([value.as_py()], value.type)], names=[column])

    planned = ask.plan(sql, parameters=row)
    found = ask.table(sql, parameters=row)

    assert planned.parameter_schema == pa.schema([pa.field(column, value.type)])
    assert found.schema.field("v").type == value.type
    assert found.column("v")[0].as_py() == value.as_py()


def test_parameters_filter_rows(ask: Asker) -> None:
    row = pa.record_batch({"0": [2], "1": ["error%"], "2": [3]})

    found = ask.rows("SELECT msg FROM log_entries WHERE level = ? AND msg LIKE ? ORDER BY time LIMIT ?", parameters=row)

    assert [one["msg"] for one in found] == ["error 0", "error 1", "error 2"]


def test_a_statement_is_planned_without_its_parameters_but_not_run(ask: Asker) -> None:
    planned = ask.plan("SELECT level FROM log_entries WHERE level = ? AND msg LIKE ? AND exe = $exe")

    assert planned.schema == pa.schema([pa.field("level", pa.int32(), nullable=False)])
    assert planned.parameter_schema.names == ["0", "1", "exe"]
    assert planned.parameter_schema.field("0").type == pa.int32()
    with pytest.raises(InvalidStatement, match="number 1"):
        ask.rows("SELECT level FROM log_entries WHERE level = ?")


def test_a_missing_parameter_is_named(ask: Asker) -> None:
    with pytest.raises(InvalidStatement, match=r"\$level"):
        ask.plan("SELECT $exe, $level", parameters=pa.record_batch({"exe": ["web"]}))


NUMBERS = pa.array([7, 8], pa.int64())
WORDS = pa.array(["a"])


def dense(codes: list[int], offsets: list[int]) -> pa.Array:
    return pa.UnionArray.from_dense(pa.array(codes, pa.int8()), pa.array(offsets, pa.int32()), [NUMBERS, WORDS])


def plain(batch: pa.RecordBatch | None, columns: tuple[str, ...] = ("0", "1")) -> pa.RecordBatch | None:
    return with_plain_parameters(StatementRequest(sql="x", parameters=batch), columns).parameters


@pytest.mark.parametrize("names", [["param_0", "param_1"], ["", ""], ["", "param_1"]])
def test_names_that_a_client_made_up_are_positions(names: list[str]) -> None:
    batch = pa.RecordBatch.from_arrays([pa.array([1]), pa.array(["x"])], names=names)

    assert plain(batch) == pa.record_batch({"0": [1], "1": ["x"]})


@pytest.mark.parametrize("names", [["param_1", "param_0"], ["a", "b"], ["1", "0"]])
def test_other_names_stay(names: list[str]) -> None:
    batch = pa.RecordBatch.from_arrays([pa.array([1]), pa.array(["x"])], names=names)

    assert plain(batch) is batch


def test_a_union_is_the_value_in_it() -> None:
    sparse = pa.UnionArray.from_sparse(pa.array([1], pa.int8()), [pa.array([0]), WORDS])

    assert plain(pa.record_batch({"0": dense([0], [1]), "1": sparse})) == pa.record_batch({"0": [8], "1": ["a"]})
    assert plain(pa.record_batch({"0": dense([1], [0])})) == pa.record_batch({"0": ["a"]})


def test_a_union_of_several_types_is_refused() -> None:
    with pytest.raises(InvalidStatement, match="several types"):
        plain(pa.record_batch({"0": dense([0, 1], [0, 0])}))


def test_each_row_is_bound_over_the_table(ask: Asker) -> None:
    rows = pa.record_batch({"0": ["p1", "no such process", "p2"]})
    planned = ask.plan("SELECT DISTINCT process_id FROM log_entries WHERE process_id = ?", parameters=rows)

    found = [row["process_id"] for batch in planned.batches() for row in batch.to_pylist()]

    assert found == ["p1", "p2"]
    assert planned.parameter_schema.names == ["0"]


def test_what_all_rows_took_is_added_up(ask: Asker) -> None:
    sql = "SELECT msg FROM log_entries WHERE level = ?"
    one = ask.plan(sql, parameters=pa.record_batch({"0": [4]}))
    three = ask.plan(sql, parameters=pa.record_batch({"0": [4, 4, 4]}))

    for planned in (one, three):
        list(planned.batches())

    assert one.statistics.bytes_scanned
    assert three.statistics.bytes_scanned == 3 * one.statistics.bytes_scanned


def test_a_null_among_the_values_changes_no_columns(ask: Asker) -> None:
    found = ask.table("SELECT ? AS n", parameters=pa.record_batch({"0": pa.array([1, None], pa.int64())}))

    assert found.schema == pa.schema([pa.field("n", pa.int64())])
    assert found["n"].to_pylist() == [1, None]


@pytest.mark.parametrize(("limit", "rows"), [(0, 0), (3, 3), (100, 40)])
def test_a_limit_counts_over_all_rows(ask: Asker, limit: int, rows: int) -> None:
    parameters = pa.record_batch({"0": [0, 1]})

    found = ask.table("SELECT * FROM log_entries WHERE level > ?", parameters=parameters, row_limit=limit)

    assert found.num_rows == rows


def test_a_row_that_gives_other_columns_is_refused() -> None:
    tables = FixedTables([empty_table()])
    engine = DataFusionEngine(tables, SETTINGS)
    sql = "SELECT * FROM measures WHERE level > ?"
    planned = Asker(engine, tables).plan(sql, parameters=pa.record_batch({"0": [1, 2]}))

    tables.tables = [replace(empty_table(), schema=LOG_SCHEMA.remove(0))]

    with pytest.raises(InvalidStatement, match="Row 2 of the parameters"):
        list(planned.batches())
    engine.close()


def test_no_row_of_values_is_refused(ask: Asker) -> None:
    with pytest.raises(InvalidStatement, match="no row of values"):
        ask.plan("SELECT ? AS n", parameters=pa.record_batch({"0": pa.array([], pa.int64())}))


def plan(sql: str) -> LogicalPlan:
    context = SessionContext(SessionConfig().with_information_schema())
    context.register_record_batches("t", [pa.table({"x": [1], "s": ["a"]}).to_batches()])
    return context.sql(sql).logical_plan()


@pytest.mark.parametrize(
    "sql",
    [
        "SHOW ALL",
        'SELECT 1 FROM information_schema."Df_Settings" AS z',
        "SELECT x FROM t WHERE s IN (SELECT value FROM information_schema.df_settings)",
        "SELECT 1 UNION ALL SELECT 2 FROM information_schema.df_settings",
    ],
)
def test_the_settings_are_found_wherever_they_are_read(sql: str) -> None:
    with pytest.raises(StatementRefused, match="settings"):
        check_plan(plan(sql))


@pytest.mark.parametrize(
    "sql", ["SELECT 'df_settings' AS df_settings", "SHOW TABLES", "SELECT s AS df_settings FROM t"]
)
def test_their_name_alone_is_harmless(sql: str) -> None:
    check_plan(plan(sql))


def test_types_of_placeholders_are_those_that_the_plan_inferred() -> None:
    found = placeholder_types(
        plan("SELECT $name FROM t WHERE x = $1 AND (s LIKE $2 OR x BETWEEN $3 AND 9 OR x IN ($4, 1)) AND NOT x > $5")
    )

    assert {name: found.get(name) for name in ("1", "2", "3", "4")} == {
        "1": pa.int64(),
        "2": pa.string(),
        "3": pa.int64(),
        "4": pa.int64(),
    }


def test_a_described_plan_shows_no_path() -> None:
    batch = pa.record_batch(
        {
            "plan": [
                (
                    "DataSourceExec: file_groups={2 groups: [[srv/my%20lake/date=1/a.parquet:0..10, x.parquet], "
                    "[srv/my%20lake/date=2/b.parquet:3..9, ...]]}, projection=[x]"
                ),
                "see /srv/lake/a.PARQUET:1..2, [s3://bucket/lake/y.parquet] ok",
                None,
            ],
            "n": [1, 2, 3],
        }
    )

    assert without_paths(batch).to_pydict() == {
        "plan": ["DataSourceExec: file_groups={2 groups}, projection=[x]", "see …, [… ok", None],
        "n": [1, 2, 3],
    }


def test_parameters_and_limits_hold(ask: Asker) -> None:
    values = pa.record_batch({"0": [41]})

    assert ask.rows("SELECT ? + 1 AS n", parameters=values) == [{"n": 42}]
    assert ask.rows("SELECT 1 AS n", row_limit=0) == []
    assert ask.rows("SELECT 1 AS n LIMIT 0") == []
    with pytest.raises(InvalidStatement, match="has no value"):
        ask.rows("SELECT ? + 1 AS n")
