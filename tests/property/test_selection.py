"""Filters, clicks, and brushes select the same rows as their SQL, and no name or value becomes part of the SQL."""

import random
from decimal import Decimal

import datafusion
import pyarrow as pa
import pytest
from hypothesis import given

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.results.filters import range_filter, value_filter
from micromegas_jupyter.notebook.results.selection import checked_source, picked_filters, selection_sql
from micromegas_jupyter.notebook.results.view import RowQuery, RowsView
from tests.property.arrow_tables import texts

ROWS = 300
AUTUMN = 1_792_886_400  # 2026-10-25 00:00 UTC: an hour before clocks in Berlin go back from 3 to 2
WORDS = (
    "",
    "a",
    "A b",
    "O'Neil",
    '"quoted"',
    "50%",
    "under_score",
    "back\\slash",
    "-- no comment",
    "ß",
    "x;y",
    " pad ",
)


def sample_table(seed):
    """Return rows of each type that has SQL, with nulls, and values at the types' ends."""
    generator = random.Random(seed)

    def column(kind, make):
        few = [make() for _ in range(12)]
        return pa.array([None if generator.random() < 0.05 else generator.choice(few) for _ in range(ROWS)], kind)

    def time(size):
        return (AUTUMN + generator.randrange(4 * 3600)) * size + generator.randrange(size)

    columns = {
        "int": column(pa.int64(), lambda: generator.choice([0, 1, -5, 2**63 - 1, -(2**63), 2**53 + 1, 2**53 + 2])),
        "small": column(pa.int8(), lambda: generator.randrange(-128, 128)),
        "unsigned": column(pa.uint64(), lambda: generator.choice([0, 7, 2**64 - 1, 2**63])),
        "decimal": column(pa.decimal128(30, 4), lambda: Decimal(generator.randrange(-(10**8), 10**8)).scaleb(-4)),
        "double": column(
            pa.float64(), lambda: generator.choice([0.0, 0.1, 1e300, float("nan"), float("inf"), generator.gauss(0, 3)])
        ),
        "real": column(pa.float32(), lambda: generator.choice([0.1, -2.5, float("nan"), generator.gauss(0, 3)])),
        "ns time": column(pa.timestamp("ns", "UTC"), lambda: time(10**9)),
        "s time": column(pa.timestamp("s"), lambda: generator.choice([time(1), 95_617_584_000, -20_000_000_000])),
        "berlin": column(pa.timestamp("ms", "Europe/Berlin"), lambda: time(1000)),
        "date": column(pa.date32(), lambda: generator.randrange(-1000, 30_000)),
        'a "text"': column(pa.string(), lambda: generator.choice(WORDS)),
        "word": column(pa.string(), lambda: generator.choice(WORDS)).dictionary_encode(),
        "flag": column(pa.bool_(), lambda: generator.random() < 0.5),
        "place": pa.array(range(ROWS)),
    }
    return pa.table(columns)


def random_filter(generator, view, column):  # noqa: PLR0911 - a kind of filter each
    """Return a filter for a column, of a click or as typed."""
    row = generator.randrange(ROWS)
    kind = view.table.schema.field(column).type
    choice = generator.randrange(4)
    if choice == 0:
        return generator.choice(["=", "!="])
    if choice == 1:
        what = "around" if pa.types.is_temporal(kind) and view.table.column(column)[row].is_valid else "only"
        return picked_filters(view, RowQuery(), row, column, what=what)[column]
    if choice == 2 or pa.types.is_boolean(kind):
        return picked_filters(view, RowQuery(), row, column, what=generator.choice(["only", "exclude"]))[column]
    bounds = [view.table.column(column)[generator.randrange(ROWS)] for _ in range(2)]
    parts = [pa.chunked_array([pa.array([bound.as_py()], kind)]) for bound in bounds if bound.is_valid]
    exact = [value_filter(part, view.format_of(column), view.exact_texts(part, column)[0])[2:] for part in parts]
    if not exact or "nan" in exact:
        return "!= nan" if pa.types.is_floating(kind) else "!="
    if kind in (pa.string(), view.table.schema.field("word").type) and generator.random() < 0.5:
        word = exact[0].strip('"') or "a"
        first = word[0] if word[0].isalpha() else "."
        return generator.choice([word, f"!{word}", f"/{first}/", f"!/{first}/"])
    sign = generator.choice(["<", "<=", ">", ">=", "..", "..<", "!.."])
    if sign[-1] not in ".<" or len(sign) < 2 or sign == "<=":
        return f"{sign} {exact[0]}"
    return f"!{exact[0]}..{exact[-1]}" if sign == "!.." else f"{exact[0]}{sign}{exact[-1]}"


def rows_of_sql(table, sql):
    context = datafusion.SessionContext()
    context.register_record_batches("sample", [table.to_batches()])
    batches = context.sql(sql).collect()
    return pa.Table.from_batches(batches) if batches else table.slice(0, 0)


def test_copied_sql_returns_the_rows_of_random_states(request):
    states = 500 if request.config.getoption("--long") else 40
    wrong = []
    for seed in range(states):
        generator = random.Random(seed)
        table = sample_table(seed)
        view = RowsView(table)
        columns = generator.sample(range(table.num_columns - 1), generator.choice([1, 1, 2, 3]))
        filters = tuple((at, random_filter(generator, view, at)) for at in sorted(columns))
        keys = generator.sample(range(table.num_columns - 1), generator.randrange(3))
        order = RowQuery(filters, tuple((at, generator.random() < 0.5) for at in keys))
        expected = view.rows(order, 0, ROWS)

        found = rows_of_sql(table, selection_sql("SELECT * FROM sample -- all", view, order))

        is_same = sorted(found["place"].to_pylist()) == sorted(expected["place"].to_pylist())
        in_order = all(repr(found.column(at).to_pylist()) == repr(expected.column(at).to_pylist()) for at in keys[:1])
        if not (is_same and in_order):
            wrong.append((seed, order, len(found), len(expected)))
    assert wrong == []


@given(texts.filter(bool), texts, texts)
def test_no_name_or_value_becomes_part_of_the_sql(name, value, other):
    table = pa.table({name: [value, other, None], "place ": [0, 1, 2]})
    view = RowsView(table)
    for what, row in (("only", 0), ("exclude", 0), ("exclude", 2)):
        try:
            filters = picked_filters(view, RowQuery(), row, 0, what=what)
            order = RowQuery(tuple(filters.items()))
            sql = selection_sql("SELECT * FROM sample", view, order)
        except UsageError:
            continue
        assert rows_of_sql(table, sql)["place "].to_pylist() == view.rows(order, 0, 3)["place "].to_pylist()
        assert [line.split(" ")[0] for line in sql.split("\n")] == ["SELECT", "SELECT", ")", "WHERE"]


@pytest.mark.parametrize("character", ["\0", "\r", "\t", "\x1b", "\x85", "\u2028", "\u202e", "\ud800"])
def test_a_cell_with_control_characters_is_rejected(character):
    view = RowsView(pa.table({"a": ["x"]}))
    with pytest.raises(UsageError, match="control characters"):
        checked_source(f"%%sql\nSELECT '{character}'")
    with pytest.raises(UsageError, match=r"control characters|NUL|does not fit"):
        selection_sql("SELECT 1", view, RowQuery(((0, f'= "x{character}y"'),)))


@pytest.mark.parametrize(("name", "value"), [("a\nb", "x"), ("a", "x\ny")])
def test_a_line_break_in_a_name_or_value_is_rejected(name, value):
    view = RowsView(pa.table({name: ["x"]}))
    with pytest.raises(UsageError, match="line break"):
        selection_sql("SELECT 1", view, RowQuery(((0, f'= "{value}"'),)))


@pytest.mark.parametrize(
    ("sql", "wanted"),
    [
        ("SELECT 1 AS a -- one", 'SELECT * FROM (\nSELECT 1 AS a -- one\n) AS result\nWHERE "a" > 0'),
        ("WITH b AS (SELECT 1 AS a)\r\n\tSELECT a FROM b;", None),
        ("-- first\n/* second */ VALUES (1)", None),
        (
            "SELECT 1 AS a; -- what it's for;\n/* end; */ ;",
            'SELECT * FROM (\nSELECT 1 AS a\n) AS result\nWHERE "a" > 0',
        ),
    ],
)
def test_a_statement_keeps_its_lines(sql, wanted):
    view = RowsView(pa.table({"a": [1]}))
    found = selection_sql(sql, view, RowQuery(((0, "> 0"),)))
    assert "\t" not in found
    assert ";" not in found
    assert wanted is None or found == wanted.replace("> 0", ">= 1")


def test_a_semicolon_in_a_literal_or_a_comment_is_not_the_end():
    sql = "SELECT 1 AS a /* ; */, 'x;' AS b, \"c;\" -- ;\nFROM t"
    found = selection_sql(f"{sql};\n", RowsView(pa.table({"a": [1]})), RowQuery(((0, "> 0"),)))
    assert found.startswith(f"SELECT * FROM (\n{sql}\n) AS result")


def test_what_has_no_sql_is_rejected():
    table = pa.table({"took": pa.array([1], pa.duration("ns")), "a": [1]})
    view = RowsView(table)
    with pytest.raises(UsageError, match="took has no SQL"):
        selection_sql("SELECT 1", view, RowQuery(((0, "> 5 s"),)))
    with pytest.raises(UsageError, match="Only a query"):
        selection_sql("SHOW TABLES", view, RowQuery(((1, "> 5"),)))
    twice = RowsView(pa.table([[1], [2]], names=["a", "a"]))
    with pytest.raises(UsageError, match="same name"):
        selection_sql("SELECT 1", twice, RowQuery(((1, "> 5"),)))
    assert selection_sql("SHOW TABLES", view, RowQuery()) == "SHOW TABLES"


def test_the_limit_of_a_cell_is_applied_before_the_filters():
    view = RowsView(pa.table({"a": [1, 2, 3]}))
    sql = selection_sql("SELECT * FROM sample ORDER BY a", view, RowQuery(((0, ">= 2"),)), limit=2)
    assert rows_of_sql(view.table, sql)["a"].to_pylist() == [2]


def test_the_outermost_bars_hold_what_lies_beyond():
    edges = ["0", "10", "20", "30"]
    ranges = [range_filter(edges, *bars, is_open=True) for bars in ((0, 0), (1, 1), (2, 1), (0, 2), (0, 1))]
    assert ranges == ["< 10", "10..<20", ">= 10", "", "< 20"]
    assert range_filter(edges, 0, 5, is_open=False) == "0..<30"
