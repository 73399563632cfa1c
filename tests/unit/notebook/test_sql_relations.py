import pytest

from micromegas_jupyter.notebook.completion.sql import Relation, Relations, find_relations, scan

COLUMNS = {"logs": ("time", "msg"), "values": ("time", "value")}


def relations(sql: str) -> Relations:
    return find_relations(scan(sql), lambda name: COLUMNS.get(name, ()))


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT * FROM logs", [("logs", "")]),
        ("SELECT * FROM logs l, other AS o WHERE x", [("logs", "l"), ("other", "o")]),
        ("SELECT * FROM a JOIN b ON a.x = b.x LEFT JOIN c USING (x)", [("a", ""), ("b", ""), ("c", "")]),
        ('SELECT * FROM db."Big" "B" GROUP BY 1', [("Big", "B")]),
        ("SELECT * FROM view_instance('logs', 'x') v LIMIT 1", [("view_instance", "v")]),
        ("SELECT (SELECT max(x) FROM b WHERE b.y = a.y) FROM a", [("b", ""), ("a", "")]),
        ("FROM", []),
        ("SELECT * FROM WHERE", []),
        ("SELECT * FROM logs,", [("logs", "")]),
        ("SELECT * FROM (", [("", "")]),
    ],
)
def test_tables_and_their_aliases_are_found_however_far_the_statement_is(
    sql: str, expected: list[tuple[str, str]]
) -> None:
    assert [(relation.name, relation.alias) for relation in relations(sql).tables] == expected


@pytest.mark.parametrize(
    ("query", "outputs"),
    [
        ("SELECT time, l.msg, count(*) AS n, 1 one, upper(msg) FROM logs l", ("time", "msg", "n", "one")),
        ("SELECT * FROM logs", ("time", "msg")),
        ("SELECT DISTINCT l.*, v.value FROM logs l", ("time", "msg", "value")),
        ("SELECT * FROM (SELECT value AS v FROM values)", ("v",)),
        ("VALUES (1)", ()),
        ("", ()),
    ],
)
def test_the_columns_of_a_query_in_the_statement_are_told_as_far_as_they_have_names(
    query: str, outputs: tuple[str, ...]
) -> None:
    assert relations(f"SELECT 1 FROM ({query}) q").tables[0] == Relation(name="", alias="q", outputs=outputs)
    assert relations(f"WITH q AS ({query}) SELECT 1 FROM q").expressions == {"q": outputs}


def test_expressions_may_name_their_columns_and_build_on_each_other() -> None:
    found = relations("WITH RECURSIVE a (x, y) AS (SELECT 1, 2), b AS (SELECT * FROM a) SELECT 1 FROM b")

    assert found.expressions == {"a": ("x", "y"), "b": ("x", "y")}


@pytest.mark.parametrize(
    "part", ["(SELECT * FROM ", "WITH a AS (SELECT * FROM ", "FROM a, b JOIN c ON (", "(((", ")))"]
)
def test_deep_nesting_ends(part: str) -> None:
    assert isinstance(relations("SELECT * FROM " + part * 400), Relations)
