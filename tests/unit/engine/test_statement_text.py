"""What is read from a statement's text: tokens, limits, ignored clauses, the fingerprint."""

import hashlib

import pyarrow as pa
import pytest
from datafusion import SessionContext
from hypothesis import given, settings
from hypothesis import strategies as st

from micromegas_jupyter.engine.contract import StatementRequest
from micromegas_jupyter.engine.planning import (
    MAX_BRACKET_DEPTH,
    check_no_ignored_clause,
    check_statement,
    find_placeholders,
    with_plain_parameters,
)
from micromegas_jupyter.engine.scanner import Kind, fingerprints, scan, sql_hash
from micromegas_jupyter.errors import InvalidStatement, StatementRefused, UnsupportedStatement


@pytest.mark.parametrize(
    "hiding", ["'a + b'", '"a + b"', "-- a + b\n", "/* a + b */", "e'a \\' + b'", "E'a '' + b'", "'''a + b'''"]
)
def test_quotes_and_comments_hide_what_they_hold(hiding):
    found = scan("SELECT " + hiding)

    assert Kind.OPERATOR not in {token.kind for token in found.tokens}
    assert found.is_certain


@pytest.mark.parametrize(
    "doubtful",
    [
        "$$a + b$$", "$tag$a + b$tag$", "a$b$ + c", "`a + b`", "b'a + b'", "r'a \\' + b'", "q'[a + b]'", "u&'a + b'",
        "/* a /* + b */ c */", "/* a + b", "'a + b", '"a + b', "e'a + b\\'", "-- a \r + b\n",
    ],
)  # fmt: skip
def test_a_doubtful_construct_hides_nothing(doubtful):
    found = scan("SELECT 1, " + doubtful + " + c")

    assert found.certain_until == 10
    assert sum(token.text == "+" for token in found.tokens) == 2


LIMIT = 131072
NESTED = {
    "brackets": lambda n: "SELECT " + "(" * n + "1" + ")" * n,
    "casts": lambda n: "SELECT " + "CAST(" * n + "1" + " AS INT)" * n,
    "structs": lambda n: "SELECT " + "{'a':" * n + "1" + "}" * n,
}


def check(sql):
    check_statement(sql, max_bytes=LIMIT)


@pytest.mark.parametrize("shape", NESTED)
def test_brackets_may_nest_as_deep_as_the_parser_goes(shape):
    deepest = NESTED[shape](MAX_BRACKET_DEPTH)

    check(deepest)
    SessionContext().sql(deepest)

    with pytest.raises(StatementRefused, match="47 levels"):
        check(NESTED[shape](MAX_BRACKET_DEPTH + 1))


@pytest.mark.parametrize("letter", ["x", "é"])
def test_a_statement_is_as_long_as_its_bytes(letter):
    longest = "SELECT '" + letter * ((LIMIT - 9) // len(letter.encode())) + "'"

    check(longest)

    with pytest.raises(StatementRefused, match="131072 bytes"):
        check(longest + "  ")


@pytest.mark.parametrize("sql", ["", " \n\t", ";", " ; ; ", "-- only a comment", "/* only a comment */"])
def test_no_statement_is_invalid(sql):
    with pytest.raises(InvalidStatement, match="empty"):
        check(sql)


LEFT_OUT = [
    ("SELECT n FROM t TABLESAMPLE (10)", "TABLESAMPLE", (1, 17)),
    ("SELECT n FROM t PREWHERE n = 1", "PREWHERE", (1, 17)),
    ("SELECT n, count(*) FROM t GROUP BY n WITH ROLLUP", "WITH ROLLUP", (1, 38)),
    ("SELECT n, count(*) FROM t GROUP BY ROLLUP (n) WITH TOTALS", "WITH TOTALS", (1, 47)),
    ("SELECT n FROM t START WITH n = 1 CONNECT BY PRIOR n = n", "CONNECT BY", (1, 34)),
    ("SELECT * ILIKE '%a%' FROM t", "ILIKE", (1, 8)),
    ("SELECT n FROM t SAMPLE 0.1", "SAMPLE", (1, 17)),
    ("SELECT n FROM t PARTITION (p0) WHERE n = 1", "PARTITION", (1, 17)),
    ("SELECT n FROM t WITH ORDINALITY", "WITH ORDINALITY", (1, 17)),
    ("SELECT n FROM t FOR XML PATH", "FOR XML", (1, 17)),
    ("SELECT n FROM t PREWHERE left('One', 1) = 'O'", "PREWHERE", (1, 17)),
]
HEEDED = [
    "SELECT prewhere, tablesample, connect, rollup FROM named",
    "SELECT n AS prewhere, n tablesample FROM t ORDER BY prewhere DESC, tablesample",
    "SELECT 'n TABLESAMPLE (10)', \"prewhere\" FROM named -- WITH ROLLUP",
    "WITH rollup AS (SELECT 1 AS x), cube (y) AS (SELECT 2) SELECT * FROM rollup, cube",
    "SELECT sample, partition, ordinality, xml FROM others WHERE sample > 0.1",
    "WITH sample (x) AS (SELECT 1), partition (x) AS (SELECT 2) SELECT sample.x FROM sample, partition",
    "SELECT tablesample FROM named AS prewhere LEFT JOIN (SELECT 1 AS n) AS o ON tablesample = n",
    "SELECT prewhere - 1, sum(prewhere) + 1 FROM (SELECT 1 AS prewhere) WHERE -prewhere < 0 GROUP BY prewhere",
]


@pytest.fixture(scope="module")
def session():
    session = SessionContext()
    session.sql("CREATE TABLE t AS SELECT 1 AS n")
    session.sql("CREATE TABLE named AS SELECT true AS prewhere, 1 AS tablesample, 2 AS connect, 3 AS rollup")
    session.sql("CREATE TABLE others AS SELECT 1 AS sample, 2 AS partition, 3 AS ordinality, 4 AS xml")
    return session


@pytest.mark.parametrize(("sql", "clause", "place"), LEFT_OUT)
def test_a_clause_that_would_be_left_out_is_refused_with_its_place(session, sql, clause, place):
    with pytest.raises(UnsupportedStatement, match=clause) as refused:
        check_no_ignored_clause(scan(sql))

    assert (refused.value.line, refused.value.column) == place
    session.sql(sql).collect()  # once the engine refuses or heeds it by itself, this and the rule may go


@pytest.mark.parametrize("sql", HEEDED)
def test_a_name_or_a_clause_that_is_heeded_passes(session, sql):
    check_no_ignored_clause(scan(sql))

    session.sql(sql).collect()


@pytest.mark.parametrize(
    ("sql", "normalised"),
    [
        ("select  COUNT(*)\nFROM Log_Entries", "select count ( * ) from log_entries"),
        ("SELECT 'it''s', E'a\\'b', N'x', X'0aF', $$a'b$$, $t$ $$ $t$", "select ? , ? , ? , ? , ? , ?"),
        ("SELECT 1.5, .5, 1e-3, 2.E5, 0xFF", "select ? , ? , ? , ? , ?"),
        ('SELECT "A b", "a""b", `c d`', 'select "A b" , "a""b" , `c d`'),
        ("SELECT a -- one 'two'\n, b /* three /* four */ ' */ FROM t", "select a , b from t"),
        ("SELECT a>=1 AND b<2 OR c||'x' ->> 'k'", "select a >= ? and b < ? or c || ? ->> ?"),
        ("SELECT -1, a.b, x::int", "select - ? , a . b , x :: int"),
        ("SELECT * FROM t WHERE a = $1 AND b = ?", "select * from t where a = $1 and b = ?"),
        ("SELECT É FROM t;", "select é from t ;"),
        ("", ""),
    ],
)
def test_tokens_are_normalised(sql, normalised):
    assert sql_hash(sql) == hashlib.sha256(normalised.encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    "disguised",
    [
        "SELECT msg FROM log_entries WHERE level = 2",
        "select\tMSG\r\nfrom LOG_ENTRIES where LEVEL=2",
        "SELECT msg /* ' */ FROM log_entries -- $$\nWHERE level = 99.5",
        "SELECT msg FROM /* /* nested */ $a$ */ log_entries WHERE level = 'x'",
        "SELECT msg FROM log_entries WHERE level = $q$'; -- $q$",
        "SELECT msg FROM log_entries WHERE level = E'\\' -- '",
        "SELECT msg FROM log_entries WHERE level = 2 ; ; /* end */ ;",
    ],
)
def test_a_disguise_does_not_change_the_fingerprint_that_a_rule_names(disguised):
    assert sql_hash("SELECT msg FROM log_entries WHERE level = 1") in fingerprints(disguised)


def test_of_a_text_with_too_many_tokens_the_beginning_counts():
    assert fingerprints("(" * 20_000 + "a") == fingerprints("(" * 20_000 + "b") != fingerprints("(" * 19_999 + "b")


@given(st.lists(st.sampled_from(["'", "''", '"', "$$", "$a$", "/*", "*/", "--", "\n", "e'", "a", "1", ".", ";", "\\"])))
@settings(max_examples=50, deadline=None)
def test_a_value_that_datafusion_reads_as_one_literal_is_one_token(parts):
    sql = "SELECT " + "".join(parts)
    try:
        plan = SessionContext().sql(sql).logical_plan().display_indent()
    except Exception:  # noqa: BLE001 - DataFusion has no class for it; only accepted statements matter here
        return

    literals = plan.count("Utf8(") + plan.count("Int64(") + plan.count("Float64(")

    if literals == 1 and plan.startswith("Projection: ") and " AS " not in plan:
        assert sql_hash("SELECT 1") in fingerprints(sql)


@pytest.mark.parametrize(
    ("sql", "written", "columns"),
    [
        ("SELECT ?, ?", "SELECT $1, $2", ("0", "1")),
        ("SELECT ? || '?' || \"?\" -- ?\n || ?", "SELECT $1 || '?' || \"?\" -- ?\n || $2", ("0", "1")),
        ("SELECT E'\\'?' || ?", "SELECT E'\\'?' || $1", ("0",)),
        ("SELECT $1, $2, $1", "SELECT $1, $2, $1", ("0", "1")),
        ("SELECT $exe, $level, $exe", "SELECT $exe, $level, $exe", ("exe", "level")),
        ("SELECT $b, $1", "SELECT $b, $1", ("0", "b")),
    ],
)
def test_placeholders_become_numbers_and_names(sql, written, columns):
    found = find_placeholders(scan(sql))

    assert found.sql == written
    assert found.columns == columns


@pytest.mark.parametrize(
    "sql", ["SELECT $$ ? $$", "SELECT ?, $1", "SELECT ?1", "SELECT $0", "SELECT $1001", "SELECT $99999"]
)
def test_odd_placeholders_are_invalid(sql):
    with pytest.raises(InvalidStatement):
        find_placeholders(scan(sql))


def test_a_name_inside_a_dollar_quote_needs_no_value_but_may_have_one():
    found = find_placeholders(scan("SELECT $a, $$ costs $b $$"))

    assert found.columns == ("a",)
    assert found.bind(pa.record_batch({"a": [1]})).keys() == {"a"}
    assert found.bind(pa.record_batch({"a": [1], "b": [2]})).keys() == {"a", "b"}


def test_a_union_is_the_value_in_it():
    numbers, words = pa.array([7, 8]), pa.array(["a"])
    dense = pa.UnionArray.from_dense(pa.array([0], pa.int8()), pa.array([1], pa.int32()), [numbers, words])
    sparse = pa.UnionArray.from_sparse(pa.array([1], pa.int8()), [pa.array([0]), words])
    request = StatementRequest(sql="x", parameters=pa.record_batch({"0": dense, "1": sparse}))

    found = with_plain_parameters(request, find_placeholders(scan("SELECT $1, $2")))

    assert found.parameters == pa.record_batch({"0": [8], "1": ["a"]})


@pytest.mark.parametrize(
    ("sql", "sent", "bound"),
    [
        # As arrow-go names them.
        ("SELECT ?", ["$1"], ["0"]), ("SELECT $1, $2", ["$1", "$2"], ["0", "1"]),
        ("SELECT $m", ["$1"], ["m"]), ("SELECT $m, $m", ["x"], ["m"]), ("SELECT ?", ["m"], ["0"]),
        ("SELECT $m", ["m"], ["m"]), ("SELECT $m, $n", ["n", "m"], ["n", "m"]),
        # Names that may be meant, and several that do not match, are left alone.
        ("SELECT $a, $$ $b $$", ["b"], ["b"]), ("SELECT $m, $n", ["x", "y"], ["x", "y"]),
        ("SELECT $m, $n", ["x"], ["x"]), ("SELECT 1", ["x"], ["x"]),
    ],
)  # fmt: skip
def test_a_single_value_is_for_the_only_placeholder_whatever_its_name(sql, sent, bound):
    request = StatementRequest(sql=sql, parameters=pa.record_batch([[7]] * len(sent), names=sent))

    assert with_plain_parameters(request, find_placeholders(scan(sql))).parameters.schema.names == bound


def test_a_null_inside_a_value_where_a_list_of_a_fixed_size_belongs_is_invalid(ask):
    row = pa.record_batch({"0": pa.array([[None]], pa.list_(pa.list_(pa.int8(), 2)))})

    with pytest.raises(InvalidStatement, match="fixed-size"):
        ask.plan("SELECT $1", parameters=row)
