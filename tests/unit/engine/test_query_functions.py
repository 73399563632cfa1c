"""Micromegas's own SQL functions give its types, values and bytes, for each kind of column, and hide what is hidden."""

import contextlib
import math
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datafusion import SessionConfig, SessionContext
from hypothesis import given, settings
from hypothesis import strategies as st

from micromegas_jupyter.core.jsonb import encode
from micromegas_jupyter.core.protocols import TableSnapshot
from micromegas_jupyter.engine.functions.columns import PerValue
from micromegas_jupyter.engine.functions.json_path import PathError, select
from micromegas_jupyter.engine.functions.query_functions import FUNCTION_NAMES
from micromegas_jupyter.errors import InvalidStatement, QueryError
from tests.fakes.fixed_tables import data_files
from tests.unit.engine.conftest import SMALL, asking

PAIRS = pa.list_(pa.struct([("key", pa.string()), ("value", pa.string())]))
TEXT_DICTIONARY = pa.dictionary(pa.int32(), pa.string())
JSONB = pa.dictionary(pa.int32(), pa.binary())
FIRST = encode({"env": "prod", "N": 7, "o": {"a": [1, None]}}, is_signed=True)
TEXTS = [[("env", "prod"), ("gone", None)], [], None, [("ENV", "qa")]]
ROWS = pa.table(
    {
        "id": [1, 2, 3, 4],
        "p": pa.array([FIRST, encode({}), None, encode({"ENV": "qa"})]).cast(JSONB),
        "b": pa.array([FIRST, encode({}), None, b"malformed"]),
        "m": pa.array(TEXTS, pa.map_(pa.string(), pa.string())),
        "l": pa.array(
            [None if row is None else [{"key": key, "value": value} for key, value in row] for row in TEXTS], PAIRS
        ),
        "k": pa.array(["env", "n", "env", "Env"]),
        "v": pa.array([1.0, 2.0, 3.0, None]),
        "shown": [True, True, True, False],
    }
)


def _table(folder, rows, name="t"):
    pq.write_table(rows, folder / f"{name}.parquet", row_group_size=3)
    return TableSnapshot(name=name, schema=rows.schema, files=data_files(folder / f"{name}.parquet"))


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    with asking([_table(tmp_path_factory.mktemp("rows"), ROWS)], **SMALL) as asker:
        yield asker


def _column(ask, expression, **options):
    return ask.table(f"SELECT {expression} AS found FROM t ORDER BY id", **options)["found"]


@pytest.mark.parametrize(
    ("expression", "kind", "expected"),
    [
        ("property_get(p, 'env')", TEXT_DICTIONARY, ["prod", None, None, "qa"]),
        ("property_get(p, k)", TEXT_DICTIONARY, ["prod", None, None, "qa"]),
        ("property_get(p, NULL)", TEXT_DICTIONARY, [None] * 4),
        ("property_get(b, 'env')", TEXT_DICTIONARY, ["prod", None, None, None]),
        ("property_get(b, 'n')", TEXT_DICTIONARY, ["7", None, None, None]),
        ("property_get(p, 'o')", TEXT_DICTIONARY, ['{"a":[1,null]}', None, None, None]),
        ("property_get(m, 'env')", TEXT_DICTIONARY, ["prod", None, None, "qa"]),
        ("property_get(l, 'Env')", TEXT_DICTIONARY, ["prod", None, None, "qa"]),
        ("property_get(properties_to_dict(l), 'Env')", TEXT_DICTIONARY, ["prod", None, None, "qa"]),
        ("properties_length(p)", pa.int32(), [3, 0, None, 1]),
        ("properties_length(b)", pa.int32(), [3, 0, None, None]),
        ("properties_length(m)", pa.int32(), [1, 0, None, 1]),
        ("properties_length(properties_to_dict(m))", pa.int32(), [1, 0, None, 1]),
        ("properties_length(jsonb_parse('[1]'))", pa.int32(), [0] * 4),
        ("properties_to_jsonb(b)", JSONB, [FIRST, encode({}), None, b"malformed"]),
        ("properties_to_jsonb(l)", JSONB, [encode({"env": "prod"}), encode({}), None, encode({"ENV": "qa"})]),
        ("array_length(properties_to_array(properties_to_dict(l)))", pa.uint64(), [1, 0, None, 1]),
        ("jsonb_object_keys(p)", pa.dictionary(pa.int32(), pa.list_(pa.string())),
         [["N", "env", "o"], [], None, ["ENV"]]),
        ("jsonb_array_length(jsonb_get(jsonb_get(p, 'O'), 'a'))", pa.int64(), [2, None, None, None]),
        ("jsonb_get(b, 'n')", JSONB, [bytes.fromhex("20000000 20000002 4007"), None, None, None]),
        ("jsonb_as_i64(jsonb_get(b, 'n'))", pa.int64(), [7, None, None, None]),
        ("jsonb_format_json(b)", TEXT_DICTIONARY, ['{"N":7,"env":"prod","o":{"a":[1,null]}}', "{}", None, None]),
        ("jsonb_path_query(p, '$.o.a[*]')", JSONB, [encode([1, None], is_signed=True), encode([]), None, encode([])]),
        ("jsonb_path_query_first(b, '$.env')", JSONB, [encode("prod"), None, None, None]),
    ],
)  # fmt: skip
def test_a_function_is_decided_by_value_in_every_kind_of_column(ask, expression, kind, expected):
    found = _column(ask, expression, preserve_dictionary=True)

    assert found.type == kind
    assert found.to_pylist() == expected
    assert _column(ask, expression).to_pylist() == expected


def test_pairs_come_as_a_dictionary_and_as_a_list(ask):
    pairs = [[{"key": "env", "value": "prod"}], [], None, [{"key": "ENV", "value": "qa"}]]

    as_dictionary = _column(ask, "properties_to_dict(l)", preserve_dictionary=True)
    assert as_dictionary.type == pa.dictionary(pa.int32(), PAIRS)
    assert as_dictionary.to_pylist() == pairs
    assert _column(ask, "properties_to_array(m)").to_pylist() == pairs
    assert _column(ask, "properties_to_array(p)").to_pylist()[0] == [
        {"key": "N", "value": "7"}, {"key": "env", "value": "prod"}, {"key": "o", "value": '{"a":[1,null]}'},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("jsonb_parse('{\"name\":\"value\"}')", bytes.fromhex("40000001 10000004 10000005") + b"namevalue"),
        ("jsonb_parse('{\"a\": 1}')", bytes.fromhex("40000001 10000001 20000002") + b"a\x50\x01"),
        ("jsonb_parse('{')", None),
        ("jsonb_parse(repeat('[', 5000))", None),
        ("jsonb_format_json(jsonb_parse(' [1.0, \"é\", {\"b\": null, \"a\": 1}]'))", '[1.0,"é",{"a":1,"b":null}]'),
        ("jsonb_as_string(jsonb_parse('\"x\"'))", "x"), ("jsonb_as_string(jsonb_parse('1'))", None),
        ("jsonb_as_f64(jsonb_parse('75.5'))", 75.5), ("jsonb_as_f64(jsonb_parse('7'))", 7.0),
        ("jsonb_as_f64(jsonb_parse('\"7\"'))", None), ("jsonb_as_f64(jsonb_parse('true'))", None),
        ("jsonb_as_i64(jsonb_parse('8.0'))", 8), ("jsonb_as_i64(jsonb_parse('8.5'))", None),
        ("jsonb_as_i64(jsonb_parse('18446744073709551615'))", None), ("jsonb_as_i64(X'00')", None),
        ("jsonb_array_length(jsonb_parse('[]'))", 0), ("jsonb_array_length(jsonb_parse('{}'))", None),
        ("jsonb_object_keys(jsonb_parse('[]'))", None),
        ("property_get(MAP {'a': 'b'}, 'A')", "b"),
        ("lerp(0, 10, 2.5)", 25.0), ("unlerp(10, 20, 15)", 0.5), ("unlerp(1, 1, 2)", math.inf),
        ("bin_center(26, 50)", 50.0), ("bin_center(-25, 50)", 0.0), ("bin_center(NULL, 50)", None),
    ],
)  # fmt: skip
def test_a_function_of_constants(ask, expression, expected):
    assert ask.rows(f"SELECT {expression} AS found") == [{"found": expected}]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("$", [{"items": [{"t": "a", "n": 1}, {"t": "b", "n": 2.5}, {"t": None}, 7], "k": "a"}]),
        ("$.items[0].t", ["a"]), ('$["items"] [last]', [7]), ("$.items[last - 3].n", [1]), ("$.items[9]", []),
        ('$.items[*] ? (@.t == "b").n', [2.5]), ('$.items[*]?(@.t=="b")."n"', [2.5]),
        ("$.items[*] ? (@.n > 1)", [{"t": "b", "n": 2.5}]), ("$.items[*] ? (@.t == $.k).n", [1]),
        ('$.items[*] ? (@.n < 2 && @.t == "a" || @.n == 2.5).n', [1, 2.5]),
        ('$.items[*] ? (@.n >= 1 && (@.t == "x" || @.t != "a")).n', [2.5]),
        ('$.items[*] ? (@.t starts with "b").n', [2.5]), ("$.items[*] ? (@.t == null)", [{"t": None}]),
        ("$.items[*] ? (@.t < 1)", []), ("$.k[*]", ["a"]), ("$.k.x", []), ("$.*[1].t", ["b"]), ("$.missing", []),
    ],
)  # fmt: skip
def test_a_path_finds(path, expected):
    data = encode({"items": [{"t": "a", "n": 1}, {"t": "b", "n": 2.5}, {"t": None}, 7], "k": "a"})

    assert select(path, data) == [encode(one) for one in expected]


@pytest.mark.parametrize(
    "path",
    ["", "items", "$.", "$[x", "$.items[?(@.t == 1)]", "$.a.**", "$.a ? (@.n)", "$.a ? (" + 40 * "(", '$."\\q"',
     "$.a ? (@.n = 1)", "$.a b", "$." + 5000 * "a", "$[-1]", "$.a ? (@.b == c)"],
)  # fmt: skip
def test_what_is_no_path_is_refused(ask, path):
    with pytest.raises(PathError):
        select(path, encode({}))
    with pytest.raises(InvalidStatement, match="JSON path"):
        ask.rows(f"SELECT jsonb_path_query(p, '{path}') FROM t")


@given(st.text("$@.*[]()?\"'\\ab01 =<>!&|-", max_size=30))
def test_any_text_is_a_path_or_refused(path):
    with contextlib.suppress(PathError):
        assert isinstance(select("$" + path, encode({"a": [1, {"b": "a"}]})), list)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT key, jsonb_format_json(value) v FROM jsonb_each((SELECT p FROM t WHERE id = 1))",
         [{"key": "N", "v": "7"}, {"key": "env", "v": '"prod"'}, {"key": "o", "v": '{"a":[1,null]}'}]),
        ("SELECT key k FROM jsonb_each((SELECT p FROM t)) ORDER BY 1", [{"k": k} for k in ("ENV", "N", "env", "o")]),
        ("SELECT e.key FROM jsonb_each(jsonb_parse('[10, 20]')) AS e", [{"key": "0"}, {"key": "1"}]),
        ("SELECT * FROM jsonb_each(X'40000000')", []),
        ("SELECT * FROM jsonb_each((SELECT b FROM t WHERE id = 4))", []),
        ("SELECT value FROM jsonb_array_elements((SELECT jsonb_parse('[1, 2]'))) WHERE jsonb_as_i64(value) > 1",
         [{"value": encode(2)}]),
        ("SELECT value FROM t, jsonb_array_elements(jsonb_path_query(jsonb_parse('[5]'), '$[*]')) WHERE id = 1",
         [{"value": encode(5)}]),
        ("SELECT key FROM jsonb_each((SELECT value FROM jsonb_each((SELECT p FROM t WHERE id = 1)) WHERE key = 'o'))",
         [{"key": "a"}]),
        ("SELECT bin_center, count FROM expand_histogram((SELECT make_histogram(0, 4, 2, v) FROM t)) ORDER BY 1",
         [{"bin_center": 1.0, "count": 1}, {"bin_center": 3.0, "count": 2}]),
        ("SELECT bin_center FROM expand_histogram((SELECT make_histogram(2, 2, 2, v) FROM t)) ORDER BY 1",
         [{"bin_center": 2.5}, {"bin_center": 3.5}]),
    ],
)  # fmt: skip
def test_a_table_function_makes_rows_of_a_value_or_a_query(ask, sql, expected):
    assert ask.rows(sql) == expected


def test_rows_have_upstreams_types(ask):
    each = ask.plan("SELECT * FROM jsonb_each((SELECT p FROM t))").schema
    bins = ask.plan("SELECT * FROM expand_histogram((SELECT make_histogram(0, 4, 2, v) FROM t))").schema

    assert (each.names, each.types) == (["key", "value"], [pa.string(), pa.binary()])
    assert (bins.names, bins.types) == (["bin_center", "count"], [pa.float64(), pa.uint64()])


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT property_get(id, 'x') FROM t", "SELECT jsonb_get(m, 'x') FROM t", "SELECT jsonb_each(p) FROM t",
        "SELECT * FROM jsonb_each((SELECT p, b FROM t))",
        "SELECT * FROM jsonb_each(jsonb_parse('1'))", "SELECT * FROM jsonb_array_elements((SELECT p FROM t))",
        "SELECT * FROM jsonb_each()", "SELECT make_histogram(0, 4, 0, v) FROM t",
        "SELECT make_histogram(0, 4, 1000000, v) FROM t", "SELECT make_histogram(5, 4, 2, v) FROM t",
        "SELECT make_histogram(0, 'NaN', 2, v) FROM t", "SELECT make_histogram(0, NULL, 2, v) FROM t",
        "SELECT sum_histograms(h) FROM (SELECT make_histogram(0, id, 2, v) h FROM t GROUP BY id)",
    ],
)  # fmt: skip
def test_a_call_that_does_not_fit_is_refused_as_the_callers_mistake(ask, sql):
    with pytest.raises(QueryError):
        ask.rows(sql)


def test_calls_with_different_kinds_of_columns_stand_in_one_statement(ask):
    found = ask.rows(
        "SELECT property_get(m, 'env'), property_get(p, 'env') AS p, property_get(l, 'env') AS l, count(*) AS n, "
        "max(properties_length(properties_to_dict(p))) AS pairs, max(properties_length(p)) AS length "
        "FROM t WHERE property_get(p, 'env') = 'prod' GROUP BY property_get(m, 'env'), 2, 3"
    )

    assert found == [{"property_get(t.m,'env')": "prod", "p": "prod", "l": "prod", "n": 1, "pairs": 3, "length": 3}]
    behind_dollars = "SELECT property_get(m, $$env$$) AS m, property_get(p, 'env') AS p FROM t WHERE id = 1"
    assert len(ask.rows(behind_dollars)) == 1


def test_a_value_is_looked_at_once():
    seen = []
    first, other = (pa.array(values, pa.binary()).dictionary_encode() for values in ([b"a", b"b"] * 50, [b"b", None]))
    function = PerValue(lambda data: seen.append(data) or data.decode(), TEXT_DICTIONARY)

    assert function(first).to_pylist() == ["a", "b"] * 50
    assert function(first.slice(50)).to_pylist() == ["a", "b"] * 25
    assert function(other).to_pylist() == ["b", None]
    assert function(first.slice(1, 1)).dictionary.to_pylist() == ["b"]
    assert seen == [b"a", b"b"]


HISTOGRAM = {
    "start": 0.0, "end": 4.0, "min": 1.0, "max": 3.0, "sum": 6.0, "sum_sq": 14.0, "count": 3, "bins": [0, 1, 1, 1],
}  # fmt: skip


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT make_histogram(0.0, 4.0, 4, v) AS h FROM t",
        "SELECT make_histogram((SELECT min(id) FROM t) - 1, 4, 4, v) AS h FROM t",
        "SELECT sum_histograms(h) AS h FROM (SELECT id, make_histogram(0, 4, 4, v) AS h FROM t GROUP BY id)",
    ],
)
def test_a_histogram_has_upstreams_type(ask, sql):
    found = ask.table(sql)

    assert found["h"].type == pa.struct(
        [*(pa.field(name, pa.float64(), nullable=False) for name in ("start", "end", "min", "max", "sum", "sum_sq")),
         pa.field("count", pa.uint64(), nullable=False),
         pa.field("bins", pa.list_(pa.field("bin", pa.uint64(), nullable=False)), nullable=False)]
    )  # fmt: skip
    assert found["h"].to_pylist() == [HISTOGRAM]


def test_a_histogram_of_no_rows_counts_nothing(ask):
    (row,) = ask.rows(
        "SELECT count_from_histogram(h) n, sum_from_histogram(h) s, variance_from_histogram(h) v "
        "FROM (SELECT make_histogram(0, 4, 4, v) AS h FROM t WHERE id > 9)"
    )

    assert (row["n"], row["s"]) == (0, 0.0)
    assert math.isnan(row["v"])


FLOATS = st.floats(-50, 150, allow_nan=False)


@settings(max_examples=60, deadline=None)
@given(st.lists(FLOATS, min_size=2, max_size=80), st.integers(1, 20), st.floats(0, 1))
def test_a_histogram_agrees_with_numpy(tmp_path_factory, values, bins, ratio):
    np = pytest.importorskip("numpy")
    folder = tmp_path_factory.mktemp("values")
    table = pa.table({"g": [number % 3 for number in range(len(values))], "v": values})
    counts, edges = np.histogram(np.clip(values, 0, 100), bins, (0, 100))
    with asking([_table(folder, table)], **SMALL) as ask:
        (row,) = ask.rows(
            "SELECT h, sum_from_histogram(h) s, count_from_histogram(h) n, variance_from_histogram(h) v, "
            f"quantile_from_histogram(h, {ratio!r}) q FROM (SELECT sum_histograms(part) AS h FROM "
            f"(SELECT g, make_histogram(0, 100, {bins}, v) AS part FROM t GROUP BY g))"
        )

    wide = 100 / bins
    on_an_edge = any(abs(value / wide - round(value / wide)) < 1e-9 for value in values)
    assert on_an_edge or row["h"]["bins"] == counts.tolist()
    assert sum(row["h"]["bins"]) == row["n"] == len(values)
    assert row["s"] == pytest.approx(sum(values), abs=1e-6)
    assert row["v"] == pytest.approx(np.var(values, ddof=1), rel=1e-6, abs=1e-6)
    assert (row["h"]["min"], row["h"]["max"]) == (min(values), max(values))
    place = np.searchsorted(edges, row["q"])
    reached = np.cumsum(row["h"]["bins"])
    assert reached[min(max(place - 1, 0), bins - 1)] >= ratio * len(values) - 1e-6 or on_an_edge


@pytest.mark.parametrize("values", [[math.nan, 1.0], [math.inf, -math.inf], [1e308, 1e308]])
def test_values_that_are_no_finite_numbers_are_counted(tmp_path, values):
    with asking([_table(tmp_path, pa.table({"v": values}))], **SMALL) as ask:
        (row,) = ask.rows("SELECT make_histogram(0, 10, 2, v) AS h FROM t")

    assert sum(row["h"]["bins"]) == 2


def test_a_function_leaves_the_session_with_its_statement(ask):
    for _ in range(3):
        assert _column(ask, "property_get(p, 'env')").to_pylist() == ["prod", None, None, "qa"]
        ask.rows("SELECT make_histogram(0, 1, 1, v) FROM t")
        with pytest.raises(InvalidStatement, match="JSON path"):
            ask.rows("SELECT jsonb_path_query(p, 'x') FROM t")
    assert ask.rows("SELECT count(*) AS n FROM t") == [{"n": 4}]
    for lent in ask.engine._sessions.free:
        with pytest.raises(ValueError, match="Invalid function"):
            lent.session.sql("SELECT property_get(X'00', 'a')")


HIDDEN = [
    "SELECT {} FROM t",
    "SELECT id FROM t WHERE {} IS NOT NULL",
    "SELECT {} FROM t WHERE {} IS NOT NULL ORDER BY 1",
    "SELECT count(*) n FROM t GROUP BY {}",
    "SELECT a.id FROM t a JOIN t b ON a.id = b.id AND {} IS NOT NULL",
]


@pytest.mark.parametrize("template", HIDDEN)
@pytest.mark.parametrize(
    "call",
    ["property_get({}b, 'env')", "jsonb_format_json({}b)", "jsonb_path_query({}b, {}k)", "property_get({}p, {}k)",
     "jsonb_entries({}s)", "jsonb_elements({}s)"],
)  # fmt: skip
def test_a_function_tells_nothing_of_hidden_rows(tmp_path, template, call):
    """On the hidden rows the bytes are malformed, the path is none and what should be an array is a number."""
    scalars = pa.array([encode([1]), encode([2]), None, encode(7)])
    paths = pa.array(["$.env", "$.o", "$", "no path"])
    rows = ROWS.append_column("s", scalars).set_column(ROWS.schema.get_field_index("k"), "k", paths)
    sql = template.format(*[call.replace("{}", "a." if "JOIN" in template else "")] * 3)
    with asking([_table(tmp_path, rows)], **SMALL) as ask:
        found = ask.seeing({"t": ("shown",)}).table(sql, preserve_dictionary=True)
    (tmp_path / "t.parquet").unlink()
    with asking([_table(tmp_path, rows.filter(rows["shown"]))], **SMALL) as ask:
        expected = ask.table(sql, preserve_dictionary=True)

    assert sorted(map(str, found.to_pylist())) == sorted(map(str, expected.to_pylist()))
    for column in found.columns:
        for chunk in column.chunks:
            assert not pa.types.is_dictionary(chunk.type) or "qa" not in str(chunk.dictionary.to_pylist())


def test_rows_of_a_hidden_value_are_not_made(ask):
    sql = "SELECT key FROM jsonb_each((SELECT p FROM t)) ORDER BY key"

    assert [row["key"] for row in ask.seeing({"t": ("shown",)}).rows(sql)] == ["N", "env", "o"]


def test_joins_groups_and_limits_take_functions(ask):
    on = "property_get(a.p, 'env') = property_get(b.p, 'env') AND a.id < 9"
    joined = f"SELECT a.id FROM t a LEFT JOIN t b ON {on} ORDER BY 1"

    assert [row["id"] for row in ask.rows(joined)] == [1, 2, 3, 4]
    assert ask.rows("SELECT property_get(p, 'env') e, count(*) n FROM t GROUP BY 1 ORDER BY n DESC, 1 LIMIT 2") == [
        {"e": None, "n": 2}, {"e": "prod", "n": 1},
    ]  # fmt: skip
    assert ask.rows("SELECT property_get($1, $2) AS x", parameters=pa.record_batch({"0": [FIRST], "1": ["N"]})) == [
        {"x": "7"}
    ]


def test_every_function_is_documented_and_no_other():
    page = (Path(__file__).parents[3] / "docs" / "sql.md").read_text(encoding="utf-8")
    section = page.partition("## Properties, JSON, and histograms")[2].partition("\n## ")[0]
    rows = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| `")]

    assert {name for row in rows for name in re.findall(r"`(\w+)\(", row)} == FUNCTION_NAMES


def test_functions_that_are_called_in_expressions_are_listed(ask):
    rows = ask.rows("SELECT DISTINCT routine_name AS name FROM information_schema.routines")

    in_from = {"jsonb_each", "jsonb_array_elements", "expand_histogram"}
    assert FUNCTION_NAMES - {row["name"] for row in rows} == in_from


def test_no_function_hides_one_of_the_engine():
    session = SessionContext(SessionConfig().with_information_schema(True))
    rows = session.sql("SELECT DISTINCT routine_name AS name FROM information_schema.routines").to_pylist()

    assert FUNCTION_NAMES.isdisjoint(row["name"] for row in rows)
