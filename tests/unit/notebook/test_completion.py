import pytest

from micromegas_jupyter.notebook.completion.schema import Column, ServerSchema, Table
from micromegas_jupyter.notebook.completion.sql import MAX_CANDIDATES, MAX_CHARACTERS, Candidates, complete_sql


def table(name: str, *columns: str) -> Table:
    return Table(name=name, columns=tuple(Column(name=column, type_text="int64") for column in columns))


SCHEMA = ServerSchema(
    tables={
        found.name: found
        for found in (table("log_entries", "time", "level", "Upper Case", "order"), table("measures", "time", "value"))
    },
    functions=("date_bin", "count", "->"),
)


def complete(marked: str, schema: ServerSchema = SCHEMA) -> Candidates:
    """Return what may stand at the `|` in a statement."""
    before, after = marked.split("|")
    return complete_sql(before, after, schema, variables=lambda: ["max_level", "names"])


def texts(marked: str, *kinds: str) -> list[str]:
    return [candidate.text for candidate in complete(marked).found if not kinds or candidate.kind in kinds]


@pytest.mark.parametrize("sql", ["SELECT * FROM |", "SELECT * FROM measures, |", "SELECT * FROM measures JOIN |"])
def test_tables_are_offered_where_a_table_must_stand(sql: str) -> None:
    assert texts(sql) == ["log_entries", "measures"]


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
        ("WITH q AS (SELECT time AS t FROM measures) SELECT | FROM q", ["time", "value", "t"]),
    ],
)
def test_columns_of_the_statements_tables_come_first_and_in_their_order(sql: str, columns: list[str]) -> None:
    assert texts(sql, "column") == columns
    assert next(candidate.kind for candidate in complete(sql).found) == "column"


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
def test_behind_a_dot_there_are_the_columns_of_what_is_before_it(sql: str, columns: list[str]) -> None:
    assert texts(sql) == columns


def test_aliases_functions_keywords_and_expressions_are_offered() -> None:
    assert texts("SELECT lo| FROM log_entries AS logs", "alias", "table") == ["logs", "log_entries"]
    assert texts("SELECT da|", "function") == ["date_bin"]
    assert texts("WITH recent AS (SELECT 1) SELECT * FROM rec|") == ["recent"]
    assert texts("SELECT * FROM measures wh|") == ["where"]
    assert texts("SELECT * FROM measures WH|") == ["WHERE"]
    assert "SELECT" in texts("|")


def test_columns_of_all_tables_are_offered_before_the_tables_are_written() -> None:
    assert texts("SELECT va|", "column") == ["value"]
    assert texts("SELECT |", "column") == []


@pytest.mark.parametrize("sql", ["SELECT x::ti|", "SELECT cast(x AS ti|", "SELECT try_cast(x AS ti|"])
def test_types_are_offered_where_a_type_must_stand(sql: str) -> None:
    assert texts(sql) == ["time", "timestamp", "tinyint"]
    assert {candidate.kind for candidate in complete(sql).found} == {"type"}


@pytest.mark.parametrize(("sql", "names"), [(":|", ["max_level", "names"]), ("x = :ma|", ["max_level"])])
def test_behind_a_colon_there_are_the_notebooks_variables(sql: str, names: list[str]) -> None:
    assert texts(f"SELECT * FROM measures WHERE {sql}") == names


@pytest.mark.parametrize(
    "sql", ["SELECT 'ti|", "SELECT 1 -- ti|", "SELECT 1 /* ti|", "SELECT $$ti|", "SELECT 12|", "SELECT x AS ti|"]
)
def test_nothing_is_offered_inside_text_comments_and_new_names(sql: str) -> None:
    assert texts(sql) == []


def test_a_quoted_name_is_completed_with_its_quotes() -> None:
    found = complete('SELECT "up| FROM log_entries')

    assert (found.typed, found.found[0].text) == ('"up', '"Upper Case"')


def test_a_quote_that_the_editor_has_closed_is_not_closed_again() -> None:
    assert texts('SELECT "up|" FROM log_entries') == ['"Upper Case']


def test_a_name_that_could_steer_a_line_is_not_offered() -> None:
    schema = ServerSchema(tables={"t": table("t", "a\u202eb", "a\nb", "", "ab")})

    assert [found.text for found in complete("SELECT a| FROM t", schema).found if found.kind == "column"] == ["ab"]


def test_nothing_known_about_the_server_leaves_keywords() -> None:
    assert {found.kind for found in complete("SELECT | FROM t", ServerSchema()).found} == {"keyword"}


def test_what_is_offered_and_looked_at_is_bounded() -> None:
    many = ServerSchema(tables={"t": table("t", *(f"column_{number}" for number in range(5 * MAX_CANDIDATES)))})

    assert len(complete("SELECT | FROM t", many).found) == MAX_CANDIDATES
    assert complete("SELECT |" + " " * MAX_CHARACTERS).found == ()
