"""Statements that were written anew tell nothing of hidden rows, and mean what they mean in the embedded engine."""

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pytest
from datafusion import SessionConfig, SessionContext
from hypothesis import given
from hypothesis import strategies as st

from micromegas_jupyter.config.server import EngineDialect
from micromegas_jupyter.core.protocols import TableAccess
from micromegas_jupyter.engine.scanner import Kind, scan
from micromegas_jupyter.errors import (
    InternalError,
    InvalidStatement,
    MicromegasError,
    QueryError,
    StatementRefused,
    UnsupportedStatement,
)
from micromegas_jupyter.gateway import terms
from micromegas_jupyter.gateway.rewrite import access_of, rewrite, try_plan
from micromegas_jupyter.telemetry.tables import LOG_ENTRIES, PROCESSES
from tests.fakes.fixed_tables import CALLER
from tests.fakes.read_statements import READS
from tests.unit.gateway.corpus import CORPUS, FAILING, MORE
from tests.unit.gateway.worlds import ACCESS, SCHEMAS, embedded, outcome, rows_of_world

WORLDS = (0, 1)
TOKENS = [
    *([token.text for token in scan(sql).tokens] for sql in CORPUS),
    *([text] for text in ('"a), (evil"', "'a), (evil'")),
]


def forwarded(sql):
    """Return the text that a bare DataFusion gets, or raise what the caller gets instead."""
    found = rewrite(sql, access=ACCESS, tables=SCHEMAS, dialect=EngineDialect.DATAFUSION)
    try_plan(found, sql=sql, tables=SCHEMAS, dialect=EngineDialect.DATAFUSION, hides_values=True)
    return found.sql


def text_of(sql, dialect=EngineDialect.DATAFUSION, **options):
    return rewrite(sql, **{"access": ACCESS, "tables": SCHEMAS, "dialect": dialect, **options}).sql


@pytest.fixture(scope="module")
def bare():
    """A bare DataFusion for each world."""
    contexts = [SessionContext(SessionConfig().with_target_partitions(1)) for _ in WORLDS]
    for number, context in enumerate(contexts):
        for name, table in rows_of_world(number).items():
            context.register_record_batches(f'"{name}"', [table.to_batches()])
    return [lambda sql, context=context: context.sql(sql).to_arrow_table() for context in contexts]


@pytest.fixture(scope="module")
def ask_embedded(tmp_path_factory):
    with embedded(tmp_path_factory.mktemp("world")) as ask:
        yield ask


@pytest.mark.parametrize("sql", CORPUS)
def test_a_statement_tells_nothing_of_hidden_rows_and_means_the_same(bare, ask_embedded, sql):
    try:
        text = forwarded(sql)
    except MicromegasError:
        return
    found = [outcome(lambda _, run=run: run(text), sql) for run in bare]

    assert found[0] == found[1]
    if found[0] is not None and sql not in MORE:
        assert found[0] == outcome(ask_embedded, sql)


def test_the_corpus_reveals_rows_without_filters_and_without_the_barrier(bare, monkeypatch):
    def differ(statements, **options):
        answers = (
            [outcome(lambda text, run=run: run(text_of(text, **options)), sql) for run in bare] for sql in statements
        )
        return sum(one != other for one, other in answers)

    assert differ(CORPUS[::20], access=None) >= 10
    monkeypatch.setattr(terms, "is_leakproof", lambda *_, **__: True)
    assert differ(FAILING[::3]) >= 5


NEAR, FAR = datetime(2024, 1, 2), datetime(9000, 1, 1)  # noqa: DTZ001 - columns without a zone
WIDE = pa.schema(
    [
        ("us", pa.timestamp("us")),
        ("ns", pa.timestamp("ns")),
        ("money", pa.decimal128(12, 2)),
        ("exact", pa.decimal128(38, 37)),
        ("shown", pa.bool_()),
    ]
)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) AS n FROM wide WHERE us < ns",
        "SELECT count(*) AS n FROM wide WHERE us BETWEEN ns AND ns",
        "SELECT count(*) AS n FROM wide WHERE us IN (ns)",
        "SELECT count(*) AS n FROM wide WHERE money = exact",
        "SELECT shown, money = money OR exact = exact AS c, us FROM wide UNION ALL SELECT TRUE, TRUE, ns FROM wide",
        "SELECT shown, us = us OR ns = ns AS c, money FROM wide UNION ALL SELECT TRUE, TRUE, exact FROM wide",
        "SELECT count(*) AS n FROM wide WHERE us < TIMESTAMP '2024-01-01 00:00:00.000000001'",
        "SELECT count(*) AS n FROM wide WHERE us < now() - INTERVAL '1' DAY",
    ],
)
def test_hidden_values_that_fit_no_finer_type_tell_nothing(sql):
    rows = [(NEAR, NEAR, Decimal("1.5"), Decimal("1.5"), True), (FAR, NEAR, Decimal(99_999), Decimal("1.5"), False)]
    text = text_of(sql, access=TableAccess(filters={"wide": ("shown",)}), tables={"wide": WIDE})
    answers = []
    for count in (1, 2):
        context = SessionContext(SessionConfig().with_target_partitions(1))
        batch = pa.RecordBatch.from_pylist([dict(zip(WIDE.names, row, strict=True)) for row in rows[:count]], WIDE)
        context.register_record_batches("wide", [[batch]])
        answers.append(context.sql(text).to_arrow_table().num_rows)

    assert answers[0] == answers[1]


def test_what_needs_no_barrier_is_read_without():
    for condition in (
        "at >= '2024-01-01' AND at < '2024-01-02 03:04:05.5Z'",
        "at > now() - INTERVAL '7' DAY",
        "name LIKE 'a%' AND g IN (1, 2) AND NOT shown",
        "price > 1.5e3 AND id <> -5 AND day = DATE '2024-01-01'",
    ):
        assert "barrier" not in text_of(f"SELECT count(*) FROM t WHERE {condition}")


def test_no_named_query_has_the_name_of_a_table_of_the_engine():
    tables = {**SCHEMAS, "_c0": SCHEMAS["hidden"]}

    assert '"_c0"' not in text_of("WITH a AS (SELECT id FROM t) SELECT id FROM a", tables=tables)


@given(st.data())
def test_a_mutated_statement_is_refused_or_tells_nothing(bare, data):
    tokens = list(data.draw(st.sampled_from(TOKENS)))
    for _ in range(data.draw(st.integers(1, 4))):
        begin = data.draw(st.integers(0, len(tokens)))
        end = data.draw(st.integers(begin, min(len(tokens), begin + 3)))
        other = data.draw(st.sampled_from(TOKENS))
        first = data.draw(st.integers(0, len(other)))
        tokens[begin:end] = other[first : first + data.draw(st.integers(0, 6))]
    try:
        texts = [
            text_of(" ".join(tokens), dialect, row_limit=1000)
            for dialect in (EngineDialect.DATAFUSION, EngineDialect.SPARK)
        ]
    except MicromegasError:
        return
    assert all(token.name != "evil" for token in scan(texts[0]).tokens if token.kind is Kind.WORD)
    answers = [outcome(run, texts[0]) for run in bare]
    assert answers[0] == answers[1] or "LIMIT" in tokens or "now" in texts[0].lower()


@pytest.mark.parametrize("dialect", EngineDialect)
def test_a_hidden_table_is_one_that_does_not_exist(dialect):
    errors = []
    for name in ("hidden", "nobody"):
        with pytest.raises(InvalidStatement) as caught:
            text_of(f"SELECT * FROM {name}", dialect)
        errors.append(str(caught.value).replace(name, "…"))
    with pytest.raises(InvalidStatement) as caught:
        text_of("SELECT * FROM hidden", dialect, tables={"t": SCHEMAS["t"]})

    assert errors[0] == errors[1]
    assert caught.value.what == "There is no table named hidden."


@pytest.mark.parametrize("dialect", EngineDialect)
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM table_at('t', 0)",
        "SELECT * FROM \"table_at\"('t', 0) AS x",
        "WITH c AS (SELECT * FROM table_history('t')) SELECT * FROM c",
        "SELECT (SELECT max(id) FROM TABLE_AT('t', 0))",
        "SELECT * FROM t VERSION AS OF 0",
        "SELECT * FROM t FOR SYSTEM_TIME AS OF '2026-11-30'",
        "SELECT * FROM t TIMESTAMP AS OF '2026-11-30'",
    ],
)
def test_time_travel_is_not_forwarded(dialect, sql):
    with pytest.raises(UnsupportedStatement, match=r"table function table_(at|history)|version in TABLE"):
        text_of(sql, dialect, access=None)


@pytest.mark.parametrize("dialect", EngineDialect)
@pytest.mark.parametrize(
    "condition",
    [
        "id = (SELECT max(id) FROM t)",
        "nobody = 1",
        "id =",
        "id = 1; SELECT 2",
        "version() = '1'",
        "id = $1",
        "TRUE) OR (TRUE",
    ],
)
def test_a_condition_that_cannot_be_said_refuses_everything(dialect, condition):
    with pytest.raises(InternalError) as caught:
        text_of("SELECT 1 FROM u", dialect, access=TableAccess(filters={"u": ("id = 1", condition)}))
    assert condition not in str(caught.value)


def test_conditions_hold_the_callers_values_and_the_defaults_limit_others(bare):
    caller = replace(CALLER, subject="a' OR label <> '", is_admin=False)
    own = replace(caller, table_access=TableAccess(filters={"u": ("label = current_user()",)}))
    options = {"default_conditions": {"u": "label = 'a'"}, "tables": SCHEMAS}
    count = "SELECT count(*) AS n FROM u"
    found = [
        bare[1](text_of(count, access=access_of(who, **options))).to_pydict()["n"]
        for who in (own, caller, replace(caller, is_admin=True))
    ]

    assert found == [[0], [2], [8]]


def test_no_statement_takes_long_or_much():
    n = 20_000
    for sql in (
        "SELECT " + "(" * n + "1" + ")" * n,
        "SELECT " + "NOT " * n + "TRUE",
        "SELECT " + "CASE WHEN " * 500 + "TRUE" + " THEN TRUE END" * 500,
        "SELECT " + "+".join(["1"] * 3_000),
        "SELECT " + ",".join(["*"] * 2_000) + " FROM t",
        "SELECT 1 FROM " + ",".join(["t"] * 1_000),
        "SELECT " + "+".join(["g"] * 90) + " AS k FROM t GROUP BY " + ",".join(["k"] * 2_000),
        "SELECT " + "f(x -> " * 46 + "1" + ")" * 46,
        "WITH a AS (" * 40 + "SELECT 1" + ") SELECT * FROM a" * 40,
        "SELECT '" + "a" * 600_000 + "'",
        "SELECT id FROM t WHERE id = " + "1" * 5_000,
        "SELECT id FROM t LIMIT " + "1" * 5_000,
        "SELECT "
        + ",".join(["*"] * 200)
        + " FROM (SELECT "
        + ",".join(f"1 AS a{one}" for one in range(200))
        + ") AS q",
        "SELECT coalesce(" + ",".join(["g"] * 150) + "), count(*) FROM t GROUP BY " + ",".join(["1"] * 150),
        "SELECT (" * 8 + "SELECT max(id) FROM t" + ") AS k, count(*) FROM t GROUP BY 1, 1" * 8,
        "SELECT " + "[" * 8 + "1" + "]" * 8,
        "SELECT " + "date(" * 9 + "day" + ")" * 9 + " FROM t",
        "SELECT * FROM " + "(SELECT * FROM " * 46 + "t" + ") AS q" * 46,
        # Engines descend into each operator, and end with their stack.
        "SELECT id FROM t WHERE " + " OR ".join(["id = 1"] * 101),
        "SELECT 1" + " UNION ALL SELECT 1" * 101,
    ):
        with pytest.raises(QueryError):
            text_of(sql)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT id FROM t ORDER BY id DESC", [6, 5]),
        ("SELECT id FROM t ORDER BY id LIMIT 1", [1]),
        ("SELECT id FROM t ORDER BY id DESC LIMIT 3 OFFSET 1", [5, 4]),
        ("SELECT id FROM t UNION ALL SELECT id FROM u ORDER BY id DESC", [6, 5]),
        ("(SELECT id FROM t ORDER BY id LIMIT 5) ORDER BY id DESC", [5, 4]),
        ("WITH a AS (SELECT id FROM t LIMIT 9) SELECT id FROM a ORDER BY id", [1, 2]),
    ],
)
def test_the_limit_of_rows_keeps_the_order(bare, sql, expected):
    assert bare[1](text_of(sql, row_limit=2)).to_pydict()["id"] == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (pa.scalar(3), "3"),
        (pa.scalar(-3), "-3"),
        (pa.scalar(None, pa.int64()), "None"),
        (pa.scalar("it's \\ $1"), "it's \\ $1"),
        (pa.scalar(True), "True"),
        (pa.scalar(1.5), "1.5"),
        (pa.scalar(datetime(2024, 1, 2, 3, tzinfo=UTC)), "2024-01-02 03:00:00"),
        (pa.scalar(date(2024, 1, 2)), "2024-01-02"),
        (pa.scalar("".join(map(chr, range(1, 300)))), "".join(map(chr, range(1, 300)))),
    ],
)
def test_values_are_written_into_the_statement(bare, value, expected):
    text = text_of("SELECT $x AS a, $1 AS b", parameters={"x": value, "1": pa.scalar(1)})
    text_of("SELECT $x AS a, $1 AS b", EngineDialect.SPARK, parameters={"x": value, "1": pa.scalar(1)})

    assert {key: str(one[0]) for key, one in bare[0](text).to_pydict().items()} == {"a": expected, "b": "1"}


def test_names_that_differ_only_in_case_are_refused_where_case_is_ignored():
    tables = {**SCHEMAS, "T": SCHEMAS["hidden"]}

    assert text_of("SELECT id FROM t", tables=tables)
    with pytest.raises(StatementRefused):
        text_of("SELECT id FROM t", EngineDialect.SPARK, tables=tables)


def test_a_rewritten_statement_names_the_columns_that_it_reads():
    tables = {one.name: one.schema for one in (LOG_ENTRIES, PROCESSES)}
    found = {}
    for sql in READS:
        with suppress(QueryError):  # some are not for another engine
            found[sql] = rewrite(sql, access=None, tables=tables, dialect=EngineDialect.DATAFUSION).reads

    assert len(found) > 30
    assert {sql: {*reads} for sql, reads in found.items()} == {sql: {*READS[sql]} for sql in found}
    # What a subquery selects counts, whether or not it is used.
    inner = ("FROM (SELECT", "WITH ", "SELECT *", " AS t(", "VALUES")
    exact = [sql for sql in found if not any(one in sql for one in inner)]
    assert {sql: found[sql] for sql in exact} == {sql: READS[sql] for sql in exact}
    for sql, reads in found.items():
        assert [table for table in reads if not {*READS[sql][table]} - {"*"} <= {*reads[table]}] == []
