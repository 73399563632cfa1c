"""A caller who sees some rows of a table, or none of a table, learns nothing about the others, whatever is asked."""

from dataclasses import replace
from datetime import timedelta
from functools import cache

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.core.protocols import DataFile, TableAccess, TableSnapshot
from micromegas_jupyter.engine.contract import TimeRange
from micromegas_jupyter.errors import InternalError, InvalidStatement, MicromegasError, StatementRefused
from tests.fakes.fixed_tables import (
    CALLER,
    NOON,
    write_ledger,
    write_log_entries,
    write_processes,
)
from tests.unit.engine.conftest import asking
from tests.unit.engine.statements import REVEALING

# The second is one that DataFusion does not evaluate inside the Parquet reader.
CONDITIONS = ("shown", "array_has(tags, 1)", "id % 2 = 0 AND secret <> 'x'")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ledgers")


@pytest.fixture(scope="module", params=[1, 3], ids=["1 partition", "3 partitions"])
def everything(request, folder):
    """Small batches; `ledger` has rows to hide and `visible` holds only those that are left."""
    tables = [
        write_ledger(folder, "ledger", with_hidden=True),
        write_ledger(folder, "visible", with_hidden=False),
        write_processes(folder),
        write_log_entries(folder, 2),
    ]
    with asking(tables, batch_rows=8, target_partitions=request.param) as asker:
        yield asker


def outcome(ask, sql):
    """Return the rows in any order, or the class of the error."""
    try:
        return sorted(map(repr, ask.rows(sql)))
    except MicromegasError as error:
        return type(error)


@pytest.fixture(scope="module")
def expected(everything):
    """Return what a statement has to give: its outcome for a table without hidden rows."""
    return cache(lambda sql: outcome(everything, sql.replace("ledger", "visible")))


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("sql", REVEALING)
def test_a_statement_answers_as_if_the_hidden_rows_were_not_there(everything, expected, sql, condition):
    found = outcome(everything.seeing({"ledger": (condition,)}), sql)

    assert found == expected(sql)
    assert isinstance(found, list)


def test_the_statements_reveal_rows_without_a_filter(everything, expected):
    same = [sql for sql in REVEALING if outcome(everything, sql) == expected(sql)]

    # Distinct estimates and guarded CASE forms may come out the same; nearly all do not.
    assert len(same) <= 4


IDS = "SELECT id FROM ledger ORDER BY id"
PROCESSES = "SELECT process_id FROM processes"
COUNTS = "SELECT (SELECT count(*) FROM ledger) AS a, (SELECT count(*) FROM visible) AS b"
SEEN = {
    "one condition is enough": (
        {"ledger": ("id = 3", "id BETWEEN 10 AND 11", "shown IS NULL AND id < 6")},
        IDS,
        [(1,), (3,), (5,), (10,), (11,)],
    ),
    "what is not known to be true": ({"ledger": ("NOT shown",)}, "SELECT DISTINCT shown FROM ledger", [(False,)]),
    "a table without a condition": ({"ledger": (), "visible": ("id = 0",)}, COUNTS, [(60, 1)]),
    "the name for all tables": ({"*": ("id < 4",), "visible": ()}, COUNTS, [(4, 30)]),
    # Of a merged table, the condition is about the merged rows; raw rows stay where there is none.
    "merged": ({"processes": ("last_update_time > start_time",)}, PROCESSES, [("p1",)]),
    "merged, computed": (
        {"processes": ("last_update_time > start_time",)},
        "SELECT count(*) AS n, max(CAST(substr(process_id, 2) AS INT)) AS m FROM processes",
        [(1, 1)],
    ),
    "raw": ({"processes": ()}, "SELECT count(*) AS n FROM __processes__partitions", [(3,)]),
}


@pytest.mark.parametrize(("filters", "sql", "rows"), SEEN.values(), ids=SEEN)
def test_rows_are_seen_of_which_one_condition_is_true(everything, filters, sql, rows):
    assert [tuple(row.values()) for row in everything.seeing(filters).rows(sql)] == rows


@pytest.mark.parametrize(
    ("filters", "sql", "hours", "rows"),
    [
        ({"ledger": ("shown",)}, IDS, (0, 0.15), [(0,), (2,), (4,), (6,), (8,)]),
        # In this range lies the first state of p1 only, which would meet the condition.
        ({"processes": ("last_update_time = start_time",)}, PROCESSES, (0, 1), [("p2",)]),
        ({"processes": ("process_id LIKE 'p%'",)}, PROCESSES, (2, 4), [("p1",)]),
    ],
)
def test_a_time_range_and_a_condition_both_count(everything, filters, sql, hours, rows):
    begin, end = (NOON + timedelta(hours=hour) for hour in hours)

    found = everything.seeing(filters).rows(sql, time_range=TimeRange(begin=begin, end=end))

    assert [tuple(row.values()) for row in found] == rows


@pytest.mark.parametrize("condition", ["false", "null", "1 = 2"])
def test_a_condition_that_never_holds_hides_everything(everything, condition):
    ask = everything.seeing({"ledger": (condition,)})

    assert ask.rows("SELECT count(*) AS n, max(id) AS m FROM ledger") == [{"n": 0, "m": None}]
    assert ask.rows("SELECT CAST(secret AS INT) FROM ledger") == []


def test_no_dictionary_carries_values_of_hidden_rows(everything):
    found = everything.seeing({"ledger": ("shown",)}).table("SELECT word FROM ledger", preserve_dictionary=True)

    assert found.schema.field("word").type == pa.string()
    assert "hidden" not in str(found.column("word").combine_chunks().buffers()[2].to_pybytes())


def test_a_row_limit_counts_visible_rows(everything):
    ask = everything.seeing({"ledger": ("shown",)})

    assert ask.table("SELECT CAST(secret AS INT) FROM ledger", row_limit=7).num_rows == 7
    assert ask.table("SELECT id FROM ledger", row_limit=7).num_rows == 7


def test_parameters_bind_over_filtered_rows(everything):
    ask = everything.seeing({"ledger": ("shown",)})
    row = pa.record_batch({"0": [7], "1": [20]})

    found = ask.rows(
        "SELECT id FROM ledger WHERE CAST(secret AS INT) = ? AND id < ? ORDER BY id LIMIT 2", parameters=row
    )

    assert found == [{"id": 0}, {"id": 2}]
    assert ask.plan("SELECT id FROM ledger WHERE id = ?").parameter_schema.names == ["0"]


@pytest.mark.parametrize("name", ["__processes__partitions", '"__processes__partitions"', "__PROCESSES__PARTITIONS"])
def test_the_raw_rows_of_a_filtered_table_do_not_exist(everything, name):
    ask = everything.seeing({"processes": ("process_id = 'p1'",)})

    with pytest.raises(InvalidStatement, match="no table named"):
        ask.rows(f"SELECT * FROM {name}, processes")
    assert {row["table_name"] for row in ask.rows("SHOW TABLES") if row["table_schema"] == "public"} == {"processes"}


def test_raw_rows_with_a_condition_of_their_own_do_not_exist(everything):
    ask = everything.seeing({"*": (), "__processes__partitions": ("process_id = 'p1'",)})

    with pytest.raises(InvalidStatement, match="no table named __processes__partitions"):
        ask.rows("SELECT * FROM __processes__partitions")
    assert ask.rows("SELECT count(*) AS n FROM processes") == [{"n": 2}]


@pytest.mark.parametrize(
    "sql",
    [
        "EXPLAIN SELECT * FROM ledger",
        "EXPLAIN ANALYZE SELECT count(*) FROM ledger",
        "EXPLAIN VERBOSE SELECT 1 FROM LEDGER",
        "EXPLAIN FORMAT TREE SELECT * FROM visible WHERE id IN (SELECT id FROM ledger)",
        'EXPLAIN ANALYZE VERBOSE WITH l AS (SELECT * FROM "ledger") SELECT * FROM l',
    ],
)
def test_how_a_filtered_table_is_read_is_not_described(everything, sql):
    ask = everything.seeing({"ledger": ("shown",), "visible": ()})

    with pytest.raises(StatementRefused, match="plan and cost estimate of this statement aren't shown"):
        ask.rows(sql)


def test_how_other_tables_are_read_is_described(everything):
    ask = everything.seeing({"ledger": ("shown",), "visible": ()})

    assert ask.rows("EXPLAIN ANALYZE SELECT count(*) FROM visible")
    assert [row["column_name"] for row in ask.rows("DESCRIBE ledger")][:2] == ["id", "shown"]


def test_an_error_on_a_visible_row_shows_no_value(everything):
    ask = everything.seeing({"ledger": ("id IN (0, 3)",)})

    with pytest.raises(InvalidStatement) as caught:
        ask.rows("SELECT CAST(secret AS INT) FROM ledger")

    assert "hidden'" not in str(caught.value)
    assert "cast" in caught.value.remedy


def test_a_condition_that_fits_no_table_runs_nothing(everything, caplog):
    ask = everything.seeing({"*": ("tenant = 'acme'",)})

    with pytest.raises(InternalError) as caught:
        ask.rows("SELECT count(*) FROM ledger")

    assert "acme" not in str(caught.value)
    assert "tenant" not in str(caught.value)
    (record,) = [record for record in caplog.records if record.name == "micromegas_jupyter.engine.security"]
    assert record.table == "ledger"  # type: ignore[attr-defined]
    assert "acme" not in str(record.__dict__)
    assert ask.rows("SELECT 1 AS one") == [{"one": 1}]


def test_a_filtered_table_keeps_its_columns(everything):
    ask = everything.seeing({"ledger": ("shown",)})

    assert ask.plan("SELECT * FROM ledger").schema == everything.plan("SELECT * FROM ledger").schema
    assert dict(ask.engine.tables(ask.caller))["ledger"] == everything.plan("SELECT * FROM ledger").schema


@pytest.mark.parametrize("name", ["log_entries", "processes"])
def test_the_rows_that_are_left_are_the_same(everything, name):
    ask = everything.seeing({name: ("process_id LIKE 'p%'",)})

    for sql in (f"SELECT * FROM {name}", f"SELECT *, concat(process_id, '!') AS c FROM {name}"):
        assert sorted(map(repr, ask.rows(sql))) == sorted(map(repr, everything.rows(sql)))


BY_DEFAULT = {"ledger": "word NOT LIKE 'hid%'"}


@pytest.mark.parametrize(
    ("caller", "rows"),
    [
        (CALLER, 30),
        (replace(CALLER, is_admin=True), 60),
        (replace(CALLER, table_access=TableAccess(filters={"*": ()})), 60),
        (replace(CALLER, table_access=TableAccess(filters={"ledger": ("id < 5",)})), 5),
        (replace(CALLER, is_admin=True, table_access=TableAccess(filters={"ledger": ("id < 5",)})), 5),
    ],
)
def test_a_default_condition_is_for_callers_whom_nothing_else_limits(everything, caller, rows):
    with asking(everything.tables, default_conditions=BY_DEFAULT) as ask:
        ask.caller = caller
        assert ask.rows("SELECT count(*) AS n FROM ledger") == [{"n": rows}]


def test_a_default_condition_leaves_other_tables_alone(everything):
    with asking(everything.tables, default_conditions=BY_DEFAULT) as ask:
        assert ask.rows("SELECT count(*) AS n FROM visible, __processes__partitions") == [{"n": 90}]
        assert ask.rows("EXPLAIN SELECT * FROM visible")


def test_a_row_whose_text_is_null_is_hidden_by_a_default_condition_on_it(everything):
    with asking(everything.tables, default_conditions={"log_entries": "msg NOT LIKE 'error%'"}) as ask:
        found = ask.rows("SELECT DISTINCT substr(msg, 1, 4) AS msg FROM log_entries ORDER BY 1")

    assert found == [{"msg": "star"}, {"msg": "step"}]


def test_filtered_statements_that_are_planned_side_by_side_do_not_see_each_other(everything):
    askers = [everything.seeing({"ledger": (f"id = {index}",)}) for index in range(4)]

    planned = [ask.plan("SELECT id FROM ledger") for ask in askers]
    found = [[row["id"] for batch in one.batches() for row in batch.to_pylist()] for one in planned]

    assert found == [[0], [1], [2], [3]]


# `{}` is a name: of a hidden table, or of one that never was. It is as long and as unlike any visible name.
ASKING = [
    "SELECT * FROM {}",
    "SELECT * FROM {} AS x WHERE 1 = 1",
    'SELECT * FROM "{}"',
    "SELECT * FROM public.{}",
    "SELECT * FROM datafusion.public.{}",
    'SELECT * FROM datafusion."public"."{}"',
    "SELECT {}.x FROM measures",
    "SELECT 1 WHERE EXISTS (SELECT 1 FROM {})",
    "SELECT (SELECT count(*) FROM {})",
    "SELECT * FROM measures JOIN {} USING (process_id)",
    "WITH c AS (SELECT * FROM {}) SELECT * FROM c",
    "TABLE {}",
    "DESCRIBE {}",
    "SHOW COLUMNS FROM {}",
    "SHOW CREATE TABLE {}",
    "SELECT * FROM information_schema.{}",
    "SELECT * FROM {}()",
    "SELECT {}(1)",
    "SELECT * FROM generate_series({})",
    "EXPLAIN SELECT * FROM {}",
    "EXPLAIN ANALYZE SELECT * FROM {}",
    "SELECT * FROM $${}$$",
    "SELECT * FROM `{}`",
    "SELECT * FROM '{}'",
    "INSERT INTO {} VALUES (1)",
    "DROP TABLE {}",
]


def said(ask, sql):
    """Return the whole error, or the rows."""
    try:
        return ask.rows(sql)
    except MicromegasError as error:
        return type(error), error.what, error.remedy, getattr(error, "line", None), getattr(error, "column", None)


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize(
    ("hidden", "unknown"), [("processes", "prxcesses"), ("__processes__partitions", "__prxcesses__partitions")]
)
@pytest.mark.parametrize("sql", ASKING)
def test_a_hidden_table_is_a_table_that_never_was(ask, sql, hidden, unknown, *, upper):
    caller = ask.seeing({"measures": (), "log_entries": ()})
    hidden, unknown = (hidden.upper(), unknown.upper()) if upper else (hidden, unknown)

    of_hidden = said(caller, sql.format(hidden))
    of_unknown = said(caller, sql.format(unknown))

    assert str(of_hidden).replace(hidden, unknown).replace(hidden.lower(), unknown.lower()) == str(of_unknown)


def test_the_statements_find_the_table_when_it_is_visible(ask):
    found = [sql for sql in ASKING if isinstance(said(ask, sql.format("processes")), list)]

    assert len(found) >= 14


def test_no_list_names_a_hidden_table(ask):
    caller = ask.seeing({"measures": ()})

    for sql in (
        "SHOW TABLES",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM information_schema.columns",
        "SELECT * FROM information_schema.views",
        "SELECT * FROM information_schema.schemata",
        "SELECT * FROM my_rights()",
        'SELECT table_name AS "processes" FROM "information_schema"."tables" WHERE table_name <> \'log_entries\'',
    ):
        listed = str([tuple(row.values()) for row in caller.rows(sql)])

        assert "processes" not in listed
        assert "log_entries" not in listed
    assert [name for name, _ in ask.engine.tables(caller.caller)] == ["measures"]
    assert "measures" in str(caller.rows("SHOW TABLES"))


@pytest.mark.parametrize("near", ["processing", "log_entriez"])
def test_no_suggestion_names_a_hidden_table(ask, near):
    caller = ask.seeing({"measures": ()})

    with pytest.raises(InvalidStatement) as caught:
        caller.rows(f"SELECT * FROM {near}")

    assert "Did you mean" not in str(caught.value)
    with pytest.raises(InvalidStatement, match="Did you mean"):
        ask.rows(f"SELECT * FROM {near}")


def test_a_caller_without_any_table_can_still_compute(ask):
    caller = ask.seeing({})

    assert caller.rows("SELECT 1 AS one") == [{"one": 1}]
    assert ask.engine.tables(caller.caller) == []
    assert [row for row in caller.rows("SHOW TABLES") if row["table_schema"] == "public"] == []


def test_allowed_tables_are_listed_and_described_as_ever(ask):
    caller = ask.seeing({"processes": (), "measures": ("level > 3",)})

    assert [name for name, _ in ask.engine.tables(caller.caller)] == ["processes", "measures"]
    assert caller.rows("DESCRIBE processes") == ask.rows("DESCRIBE processes")
    assert {row["definition"] for row in caller.rows("SHOW CREATE TABLE measures")} == {None}
    assert caller.rows("SELECT count(*) AS n FROM processes") == [{"n": 2}]


@pytest.mark.parametrize("sql", ["SHOW TABLES", "show tables;", "SELECT * FROM information_schema.tables"])
def test_raw_rows_are_listed_nowhere_and_read_by_whoever_knows_of_them(ask, sql):
    listed = {row["table_name"] for row in ask.rows(sql)}

    assert "processes" in listed
    assert "__processes__partitions" not in listed
    assert ask.rows("SELECT count(*) AS n FROM __processes__partitions")[0]["n"] >= 1


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT n, region FROM t",
        "SELECT 10 / (n + 1) AS x, region FROM t",
        "SELECT arrow_field(region) FROM t",
        "DESCRIBE t",
    ],
)
def test_whether_a_column_can_be_null_does_not_depend_on_partitions_that_are_hidden(tmp_path, sql):
    schema = pa.schema([("n", pa.int64()), ("region", pa.string())])
    found = []
    for hidden in ("north", None):
        files = []
        for number, region in enumerate(("south", hidden)):
            path = tmp_path / f"{number}.parquet"
            pq.write_table(pa.table({"n": pa.array([number], pa.int64())}), path)
            files.append(DataFile(str(path), (region,)))
        table = TableSnapshot(name="t", schema=schema, files=tuple(files), partition_columns=("region",))
        with asking([table]) as ask:
            found.append(ask.seeing({"t": ("n = 0",)}).table(sql))

    assert found[0].schema.equals(found[1].schema)
    assert found[0].to_pylist() == found[1].to_pylist()
