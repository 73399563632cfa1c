"""The magic's line, and completion in it: tokens, tables, candidates, and the servers' schemas."""

from unittest.mock import ANY

import pyarrow as pa
import pytest
from IPython.core.completer import provisionalcompleter

from micromegas_jupyter.errors import UnsupportedRequest, UsageError
from micromegas_jupyter.notebook.completion import (
    FRESH_SECONDS,
    MAX_CHARACTERS,
    MAX_COMPLETIONS,
    Column,
    SchemaCache,
    ServerSchema,
    Table,
    complete_sql,
    fetch_schema,
)
from micromegas_jupyter.notebook.extension import register, unregister
from micromegas_jupyter.notebook.shell import Position, SqlLine, find_position, split_sql_line
from tests.fakes.notebook_world import SETTINGS, FakeClient, FakePersonalProvider


def make_table(name, *columns):
    return Table(name=name, columns=tuple(Column(name=column, type_text="int64") for column in columns))


SCHEMA = ServerSchema(
    tables={
        found.name: found
        for found in (
            make_table("log_entries", "time", "level", "Upper Case", "order"),
            make_table("measures", "time", "value"),
        )
    },
    functions=("date_bin", "count", "->"),
)


def complete(marked, schema=SCHEMA):
    """Return what may stand at the `|` in a statement."""
    before, after = marked.split("|")
    return complete_sql(before, after, schema, variables=lambda: ["max_level", "names"])[1]


def texts(marked, *kinds):
    return [found.text for found in complete(marked) if not kinds or found.type in kinds]


@pytest.mark.parametrize(
    ("sql", "columns"),
    [
        ("SELECT | FROM measures", ["time", "value"]),
        ("SELECT * FROM measures WHERE v|", ["value"]),
        ("SELECT * FROM measures WHERE value > 1 AND T|", ["time"]),
        ("SELECT count(| FROM measures", ["time", "value"]),
        ("SELECT * FROM measures ORDER BY value, |", ["time", "value"]),
        ("SELECT extract(year FROM t|) FROM measures", ["time"]),
        ("SELECT | FROM log_entries", ["time", "level", '"Upper Case"', '"order"']),
        ("WITH q AS (SELECT time AS t FROM measures) SELECT | FROM q", ["t", "time", "value"]),
    ],
)
def test_columns_of_the_statements_tables_come_first_and_in_their_order(sql, columns):
    assert texts(sql, "column") == columns
    assert complete(sql)[0].type == "column"


@pytest.mark.parametrize(
    ("sql", "columns"),
    [
        ("SELECT l.| FROM log_entries AS l, measures m", ["time", "level", '"Upper Case"', '"order"']),
        ("SELECT m.v| FROM log_entries l JOIN measures m ON true", ["value"]),
        ("SELECT measures.| FROM measures", ["time", "value"]),
        ('SELECT "m".| FROM measures "m"', ["time", "value"]),
        ("WITH q AS (SELECT 1 AS one) SELECT q.| FROM q", ["one"]),
        ("SELECT unknown.| FROM measures", []),
        (".|", []),
    ],
)
def test_behind_a_dot_there_are_the_columns_of_what_is_before_it(sql, columns):
    assert texts(sql) == columns


def test_aliases_functions_keywords_and_expressions_are_offered():
    assert texts("SELECT lo| FROM log_entries AS logs", "alias", "table") == ["logs", "log_entries"]
    assert texts("SELECT da|", "function") == ["date_bin"]
    assert texts("WITH recent AS (SELECT 1) SELECT * FROM rec|") == ["recent"]
    assert texts("SELECT * FROM measures wh|") == ["where"]
    assert texts("SELECT * FROM measures WH|") == ["WHERE"]
    assert "SELECT" in texts("|")


def test_table_functions_are_offered_beside_the_tables_of_the_data_model():
    model = ServerSchema(tables={"processes": make_table("processes", "exe")})

    assert [found.text for found in complete("SELECT * FROM view|", model)] == ["view_instance"]
    assert [found.text for found in complete("SELECT exe FROM list_|", model)] == ["list_partitions", "list_view_sets"]
    assert complete("SELECT * FROM view|", ServerSchema(tables={"t": make_table("t", "a")})) == []


def test_a_name_that_could_steer_a_line_is_not_offered():
    schema = ServerSchema(tables={"t": make_table("t", "a\u202eb", "a\nb", "", "ab")})

    assert [found.text for found in complete("SELECT a| FROM t", schema) if found.type == "column"] == ["ab"]


def test_what_is_offered_and_looked_at_is_bounded():
    many = ServerSchema(tables={"t": make_table("t", *(f"column_{number}" for number in range(5 * MAX_COMPLETIONS)))})

    assert len(complete("SELECT | FROM t", many)) == MAX_COMPLETIONS
    assert complete("SELECT |" + " " * MAX_CHARACTERS) == []


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("SELECT | FROM logs l, other AS o WHERE x", ["l", "o"]),
        ("SELECT | FROM a JOIN b ON a.x = b.x LEFT JOIN c USING (x)", ["a", "b", "c"]),
        ('SELECT | FROM db."Big" "B" GROUP BY 1', ['"B"']),
        ("SELECT | FROM view_instance('logs', 'x') v LIMIT 1", ["v"]),
        ("SELECT (SELECT max(x) FROM b WHERE |) FROM a", ["b", "a"]),
        ("SELECT x, | FROM (SELECT * FROM logs) q, b", ["q", "b", "logs"]),
        ("SELECT | FROM", []),
        ("SELECT | FROM WHERE", []),
        ("SELECT | FROM logs,", ["logs"]),
        ("SELECT | FROM (", []),
        ("SELECT | FROM " + "FROM a, b JOIN c ON (((" * 400, ["a", "b", "c"]),
    ],
)
def test_tables_and_their_aliases_are_found_however_far_the_statement_is(sql, names):
    assert texts(sql, "alias") == names


@pytest.fixture
def shell(bare_shell, world, monkeypatch):
    # The first completion waits for the answer, which a loaded machine may take its time for.
    monkeypatch.setattr("micromegas_jupyter.notebook.completion.FIRST_ANSWER_SECONDS", 60.0)
    register(bare_shell, world.dependencies())
    yield bare_shell
    world.tables.may_answer.set()
    unregister(bare_shell)


def offered(shell, marked):
    """Return what IPython offers at the `|` in a cell: the text and its type."""
    before, after = marked.split("|")
    with provisionalcompleter():
        found = list(shell.Completer.completions(before + after, len(before)))
    return [(completion.text, completion.type) for completion in found]


def test_a_sql_cell_is_completed_from_the_server_and_with_nothing_else(shell):
    shell.user_ns["log_frame"] = 1

    assert offered(shell, "%%sql\nSELECT * FROM log|") == [("log_entries", "table")]
    assert offered(shell, "%%micromegas_sql\nSELECT l.le| FROM log_entries l") == [("level", "column")]
    assert offered(shell, "rows = %sql SELECT va| FROM measures")[0] == ("value", "column")


def split(line, cell):
    return split_sql_line(
        line,
        cell,
        options_with_value=("--begin", "--limit"),
        flags=("--traceback", "--plot"),
        optional_values={"--plot": ("bar", "line")},
    )


@pytest.mark.parametrize(
    ("line", "cell", "name", "arguments", "sql"),
    [
        ("SELECT 1", None, None, (), "SELECT 1"),
        ("df << SELECT 1", None, "df", (), "SELECT 1"),
        ("", "SELECT 1\n", None, (), "SELECT 1\n"),
        ("df <<", "SELECT 1\n", "df", (), "SELECT 1\n"),
        ("\u00b5s <<", "SELECT 1", "\u03bcs", (), "SELECT 1"),
        ("df << --begin 1h --limit=5", "SELECT 1", "df", ("--begin", "1h", "--limit", "5"), "SELECT 1"),
        ('--begin "2026-01-31 12:00:00Z" SELECT 1', None, None, ("--begin", "2026-01-31 12:00:00Z"), "SELECT 1"),
        ("--begin '1h' SELECT 'it''s'", None, None, ("--begin", "1h"), "SELECT 'it''s'"),
        ("--plot SELECT 1", None, None, ("--plot",), "SELECT 1"),
        ("--plot bar SELECT 1", None, None, ("--plot", "bar"), "SELECT 1"),
        ("a << --plot --limit 1", "SELECT 1", "a", ("--plot", "--limit", "1"), "SELECT 1"),
        ("--plot=pie", "SELECT 1", None, ("--plot", "pie"), "SELECT 1"),
        ("--plot line", "SELECT 1", None, ("--plot", "line"), "SELECT 1"),
        ("--plot pie", "SELECT 1", None, ("--plot", "pie"), "SELECT 1"),
        ("--plot EXPLAIN", "SELECT 1", None, ("--plot",), "EXPLAIN\nSELECT 1"),
        ("--plot SELECT", "time FROM t", None, ("--plot",), "SELECT\ntime FROM t"),
        ("SELECT 1 << 2", None, None, (), "SELECT 1 << 2"),
        ("SELECT 1 --begin of a comment", None, None, (), "SELECT 1 --begin of a comment"),
        ("-- a comment", "SELECT 1", None, (), "-- a comment\nSELECT 1"),
    ],
)
def test_the_line_is_taken_apart(line, cell, name, arguments, sql):
    parts = split(line, cell)

    assert parts == SqlLine(name=name, arguments=arguments, sql=sql)


@pytest.mark.parametrize(
    ("line", "cell", "what"),
    [
        ("", None, "No SQL"),
        ("df <<", None, "No SQL"),
        ("--beginning 1h SELECT 1", None, "--beginning is not an option. Did you mean --begin?"),
        ("--xyz SELECT 1", None, "--xyz is not an option. The options are --begin, --limit, --traceback, --plot."),
        ("--begin", "SELECT 1", "--begin needs a value"),
        ("\u2460 << SELECT 1", None, '"1" is not a name'),
        ("class << SELECT 1", None, '"class" is not a name'),
    ],
)
def test_a_line_that_cannot_be_understood_says_why(line, cell, what):
    with pytest.raises(UsageError, match=what):
        split(line, cell)


def in_sql(before, after):
    return Position(before, after, options=ANY)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("%%sql\nSELECT | FROM t", in_sql("SELECT ", " FROM t")),
        ("%%sql rows << --begin 1h --traceback\nSELECT |\nFROM t", in_sql("SELECT ", "\nFROM t")),
        ("%%sql --begin '1 h' SELECT a,\n|", in_sql("SELECT a,\n", "")),
        ("%%sql SEL|\nFROM t", in_sql("SEL", "\nFROM t")),
        ("x = 1\nrows = %sql --begin=1h SELECT |\ny = 2", in_sql("SELECT ", "")),
        ("%sql SELECT a| FROM t", in_sql("SELECT a", " FROM t")),
        ("%%sql |\nSELECT 1", Position("", option="")),
        ("%%sql --be|\nSELECT 1", Position("--be", option="")),
        ("%%sql rows << -|", Position("-", option="")),
        ("%sql --begin 1h --|", Position("--", option="")),
        ("%%sql --profile pr|\n", Position("pr", option="--profile")),
        ("%%sql --profile=|", Position("", option="--profile")),
        ("%%sql --plot |\nSELECT 1", Position("", option="--plot")),
        ("%sql --plot b|", Position("b", option="--plot")),
        ("%sql --plot S|", in_sql("S", "")),
        ("%%sql --plot\nSELECT |", in_sql("SELECT ", "")),
        ("x = |", None),
        ("%%sq|l\nSELECT 1", None),
        ("text = '%sql' + |", None),
        ("%%sqlish\nSELECT |", None),
        ("print(%sql |)", None),
        ("%sql SELECT 1\nx = |", None),
    ],
)
def test_a_cursor_is_in_sql_at_an_option_or_elsewhere(cell, expected):
    before, after = cell.split("|")
    names = ("sql", "micromegas_sql")

    found = find_position(
        before + after,
        len(before),
        cell_magics=names,
        line_magics=names,
        options_with_value=("--begin", "--profile"),
        optional_values={"--plot": ("bar", "line")},
    )

    assert found == expected


WAIT_SECONDS = 60.0


@pytest.fixture
def client(world):
    world.script = pa.table({"routine_name": ["abs", "date_bin"]}).to_batches()
    return FakeClient(world, FakePersonalProvider())


def test_a_server_that_lists_no_tables_is_asked_for_its_columns(client, world):
    world.tables.failure = UnsupportedRequest("No.")
    rows = {
        "table_name": ["t", "t"],
        "column_name": ["a", "b"],
        "data_type": ["Utf8", "Int64\x1b"],
        "is_nullable": ["YES", "NO"],
    }
    world.script = pa.table(rows).to_batches()

    schema = fetch_schema(client)

    assert schema.tables["t"].columns == (
        Column(name="a", type_text="Utf8"),
        Column(name="b", type_text="Int64\\x1b", is_nullable=False),
    )
    assert schema.functions == ()


@pytest.fixture
def session(session, world):
    yield session
    world.tables.may_answer.set()
    session.close()


@pytest.fixture
def cache(session):
    return SchemaCache(session.connections, session.dependencies)


def wait_for(cache):
    """Wait until the server has answered, if it is being asked."""
    with cache._lock:
        answered = cache._fetching.get(SETTINGS)
    assert answered is None or answered.wait(WAIT_SECONDS)


@pytest.fixture
def ask(cache):
    """Look up, and wait for what is asked in the background, if anything is."""

    def ask_and_wait():
        cache.look_up(SETTINGS)
        wait_for(cache)
        return cache.look_up(SETTINGS)

    return ask_and_wait


def test_while_a_server_hangs_it_is_asked_once_and_only_the_first_look_waits(cache, world):
    world.tables.may_answer.clear()

    looks = [cache.look_up(SETTINGS, wait_seconds=0.01)]
    # Each of these would take a minute if it waited.
    looks += [cache.look_up(SETTINGS, wait_seconds=WAIT_SECONDS) for _ in range(20)]

    assert [list(look.tables) for look in looks] == [[]] * 21
    assert world.tables.was_asked.wait(WAIT_SECONDS)
    assert world.tables.asked_count == 1


def test_what_is_known_is_used_until_it_is_old_and_then_asked_for_in_the_background(cache, world, ask):
    ask()
    world.clock.advance(FRESH_SECONDS - 10)
    fresh = ask()
    world.clock.advance(20)
    world.tables.schemas = {}
    world.tables.may_answer.clear()
    old = cache.look_up(SETTINGS, wait_seconds=WAIT_SECONDS)
    world.tables.may_answer.set()
    wait_for(cache)

    assert list(fresh.tables) == list(old.tables) == ["log_entries", "measures"]
    assert list(cache.look_up(SETTINGS).tables) == []
    assert world.tables.asked_count == 2


def test_another_sign_in_never_sees_what_the_one_before_it_was_shown(session, world, cache, ask):
    ask()
    world.tables.schemas = {}

    session.connections.put(SETTINGS, FakePersonalProvider())

    assert list(ask().tables) == []
