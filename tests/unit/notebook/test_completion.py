"""The magic's line, and completion in it: tokens, tables, candidates, and the servers' schemas."""

import threading

import pyarrow as pa
import pytest
from IPython.core.completer import provisionalcompleter

from micromegas_jupyter.errors import UnsupportedRequest, UsageError
from micromegas_jupyter.notebook import completion
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
from micromegas_jupyter.notebook.magics.sql import SqlMagic
from micromegas_jupyter.notebook.shell import parse_sql_line
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
    return [found.text for found in complete(marked) if not kinds or found.type.partition(" ")[0] in kinds]


@pytest.mark.parametrize(
    ("sql", "columns"),
    [
        ("SELECT | FROM measures", ["time", "value"]),
        ("SELECT * FROM measures WHERE v|", ["value"]),
        ("SELECT * FROM measures WHERE value > 1 AND T|", ["time"]),
        ("SELECT count(| FROM measures", ["time", "value"]),
        ("SELECT * FROM measures ORDER BY value, |", ["time", "value"]),
        ("SELECT | FROM log_entries", ["time", "level", '"Upper Case"', '"order"']),
        ("WITH q AS (SELECT time AS t FROM measures) SELECT | FROM q", ["time", "value"]),
    ],
)
def test_columns_of_the_statements_tables_come_first_and_in_their_order(sql, columns):
    assert texts(sql, "column") == columns
    assert complete(sql)[0].type.startswith("column ")


@pytest.mark.parametrize(
    ("sql", "columns"),
    [
        ("SELECT l.| FROM log_entries AS l, measures m", ["time", "level", '"Upper Case"', '"order"']),
        ("SELECT m.v| FROM log_entries l JOIN measures m ON true", ["value"]),
        ("SELECT measures.| FROM measures", ["time", "value"]),
        ('SELECT "m".| FROM measures "m"', ["time", "value"]),
        ("SELECT unknown.| FROM measures", []),
    ],
)
def test_behind_a_dot_there_are_the_columns_of_what_is_before_it(sql, columns):
    assert texts(sql) == columns


def test_aliases_functions_keywords_and_expressions_are_offered():
    assert texts("SELECT lo| FROM log_entries AS logs", "alias", "table") == ["logs", "log_entries"]
    assert texts("SELECT da|", "function") == ["date_bin"]
    assert texts("WITH recent AS (SELECT 1) SELECT * FROM rec|") == ["recent"]
    assert texts("SELECT * FROM measures qual|") == ["qualify"]
    assert texts("SELECT * FROM measures QUAL|") == ["QUALIFY"]
    assert "SELECT" in texts("|")


def test_table_functions_are_offered_beside_the_tables_of_the_data_model():
    model = ServerSchema(tables={"processes": make_table("processes", "exe")})

    assert [found.text for found in complete("SELECT * FROM view|", model)] == ["view_instance"]
    assert [found.text for found in complete("SELECT exe FROM list_|", model)] == ["list_partitions", "list_view_sets"]
    assert complete("SELECT * FROM view|", ServerSchema(tables={"t": make_table("t", "a")})) == []


def test_a_name_that_could_steer_a_line_is_not_offered():
    schema = ServerSchema(tables={"t": make_table("t", "a\u202eb", "a\nb", "", "ab")})

    assert [found.text for found in complete("SELECT a| FROM t", schema) if found.type.startswith("column")] == ["ab"]


def test_what_is_offered_and_looked_at_is_bounded():
    many = ServerSchema(tables={"t": make_table("t", *(f"column_{number}" for number in range(5 * MAX_COMPLETIONS)))})

    assert len(complete("SELECT | FROM t", many)) == MAX_COMPLETIONS
    assert complete("SELECT |" + " " * MAX_CHARACTERS) == []
    for piece in ("x", "x ", '"', "'", "--plot ", "a.", ":"):  # each takes no time
        complete("SELECT " + piece * (40_000 // len(piece)) + "|")


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("SELECT | FROM log_entries l, measures AS m WHERE x", ["l", "m"]),
        ("SELECT | FROM log_entries a JOIN measures b ON a.x = b.x", ["a", "b"]),
        ('SELECT | FROM db."log_entries" "B" GROUP BY 1', ['"B"']),
        ("SELECT (SELECT max(x) FROM measures b WHERE |) FROM log_entries a", ["b", "a"]),
        ("SELECT | FROM log_entries WHERE true", []),
        ("SELECT | FROM", []),
        ("SELECT | FROM " + "measures, log_entries a JOIN measures b ON (((" * 400, ["a", "b"]),
    ],
)
def test_aliases_of_tables_are_found_anywhere_in_the_statement(sql, names):
    assert texts(sql, "alias") == names


@pytest.mark.parametrize("sql", ["SELECT 'lo|", "SELECT 1 -- lo|", "SELECT /* lo|", "SELECT 'it''s lo|', 1"])
def test_nothing_is_offered_in_texts_and_comments(sql):
    assert complete(sql) == []


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
    assert offered(shell, "%%micromegas_sql\nSELECT l.le| FROM log_entries l") == [("level", "column integer")]
    assert offered(shell, "rows = %sql SELECT va| FROM measures")[0] == ("value", "column double precision")


MAGIC = SqlMagic.micromegas_sql


@pytest.mark.parametrize(
    ("line", "cell", "name", "options", "sql"),
    [
        ("SELECT 1", None, None, {}, "SELECT 1"),
        ("df << SELECT 1", None, "df", {}, "SELECT 1"),
        ("", "SELECT 1\n", None, {}, "SELECT 1\n"),
        ("df <<", "SELECT 1\n", "df", {}, "SELECT 1\n"),
        ("\u00b5s <<", "SELECT 1", "\u03bcs", {}, "SELECT 1"),
        ("df << --begin 1h --limit=5", "SELECT 1", "df", {"begin": "1h", "limit": 5}, "SELECT 1"),
        ('--begin "2026-01-31 12:00:00Z" SELECT 1', None, None, {"begin": "2026-01-31 12:00:00Z"}, "SELECT 1"),
        ("--begin '1h' SELECT 'it''s'", None, None, {"begin": "1h"}, "SELECT 'it''s'"),
        ("--profile=-x SELECT 1", None, None, {"profile": "-x"}, "SELECT 1"),
        ("--plot SELECT 1", None, None, {"plot": True}, "SELECT 1"),
        ("--plot bar SELECT 1", None, None, {"plot": "bar"}, "SELECT 1"),
        ("a << --plot --limit 1", "SELECT 1", "a", {"plot": True, "limit": 1}, "SELECT 1"),
        ("--plot line", "SELECT 1", None, {"plot": "line"}, "SELECT 1"),
        ("--plot EXPLAIN", "SELECT 1", None, {"plot": True}, "EXPLAIN\nSELECT 1"),
        ("--plot SELECT", "time FROM t", None, {"plot": True}, "SELECT\ntime FROM t"),
        ("SELECT 1 << 2", None, None, {}, "SELECT 1 << 2"),
        ("SELECT 1 --begin of a comment", None, None, {}, "SELECT 1 --begin of a comment"),
        ("-- a comment", "SELECT 1", None, {}, "-- a comment\nSELECT 1"),
    ],
)
def test_the_line_is_taken_apart(line, cell, name, options, sql):
    parts = parse_sql_line(MAGIC, line, cell)

    given = {option: value for option, value in vars(parts.options).items() if value is not None and value is not False}
    assert (parts.name, given, parts.sql) == (name, options, sql)


@pytest.mark.parametrize(
    ("line", "cell", "what"),
    [
        ("", None, "The SQL statement is missing"),
        ("df <<", None, "The SQL statement is missing"),
        ("--beginning 1h SELECT 1", None, "--beginning is not an option. Did you mean --begin?"),
        ("--qwv SELECT 1", None, "--qwv is not an option. The options are --begin, --end"),
        ("--begin", "SELECT 1", "Argument --begin: expected one argument."),
        ("--explain=yes", "SELECT 1", "Argument --explain: ignored explicit argument 'yes'."),
        ("--plot=pie", "SELECT 1", "invalid choice: 'pie'"),
        ("--plot pie", "SELECT 1", "invalid choice: 'pie'"),
        ("\u2460 << SELECT 1", None, '"1" is not a valid variable name'),
        ("class << SELECT 1", None, '"class" is not a valid variable name'),
    ],
)
def test_a_line_that_cannot_be_understood_says_why(line, cell, what):
    with pytest.raises(UsageError, match=what):
        parse_sql_line(MAGIC, line, cell)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("%%sql\nSELECT lo| FROM t", "log_entries"),
        ("%%sql rows << --begin 1h --traceback\nSELECT lo|\nFROM t", "log_entries"),
        ("%%sql --begin '1 h' SELECT a,\nlo|", "log_entries"),
        ("%%sql SEL|\nFROM t", "SELECT"),
        ("x = 1\nrows = %sql --begin=1h SELECT lo|\ny = 2", "log_entries"),
        ("%sql SELECT lo| FROM t", "log_entries"),
        ("%%sql |\nSELECT 1", "--begin"),
        ("%%sql --be|\nSELECT 1", "--begin"),
        ("%%sql rows << -|", "--begin"),
        ("%sql --begin 1h --|", "--begin"),
        ("%%sql --format ar|\n", "arrow"),
        ("%%sql --format=|", "pandas"),
        ("%%sql --plot |\nSELECT 1", "line"),
        ("%sql --plot b|", "bar"),
        ("%sql --plot S|", "SELECT"),
        ("%%sql --plot\nSELECT lo|", "log_entries"),
        ("%micromegas_tables lo|", "log_entries"),
        ("%micromegas_tables --cou|", "--count"),
        ("%%sql --profile pr|\n", None),
        ("x = lo|", None),
        ("%%sq|l\nSELECT 1", None),
        ("text = '%sql' + lo|", None),
        ("%%sqlish\nSELECT lo|", None),
        ("print(%sql lo|)", None),
        ("%sql SELECT 1\nx = lo|", None),
    ],
)
def test_a_cursor_is_in_sql_at_an_option_or_elsewhere(shell, cell, expected):
    found = [text for text, _ in offered(shell, cell)]

    assert (expected in found) if expected else not {"log_entries", "--begin", "SELECT"} & set(found)


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


def test_the_first_look_waits_for_what_was_begun_without_waiting(cache, world):
    world.tables.may_answer.clear()
    cache.look_up(SETTINGS)
    assert world.tables.was_asked.wait(WAIT_SECONDS)
    release = threading.Timer(0.05, world.tables.may_answer.set)
    release.start()

    found = cache.look_up(SETTINGS, wait_seconds=WAIT_SECONDS)

    release.join()
    assert list(found.tables) == ["log_entries", "measures"]
    assert world.tables.asked_count == 1


def test_the_first_look_does_not_wait_for_the_functions(cache, monkeypatch):
    may_answer = threading.Event()
    rows = [{"routine_name": "date_bin"}]
    monkeypatch.setattr(completion, "_rows", lambda *_, **__: rows if may_answer.wait(WAIT_SECONDS) else [])

    found = cache.look_up(SETTINGS, wait_seconds=WAIT_SECONDS)

    assert (list(found.tables), found.functions) == (["log_entries", "measures"], ())
    may_answer.set()
    wait_for(cache)
    assert cache.look_up(SETTINGS).functions == ("date_bin",)


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
