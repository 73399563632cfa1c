"""Sail tells nothing of hidden rows, and what it answers is what the embedded engine answers."""

import contextlib

import pytest

from micromegas_jupyter.config.server import EngineDialect
from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.gateway.rewrite import rewrite
from tests.integration.gateway import sail
from tests.unit.gateway.corpus import CORPUS, LESS_ON_SAIL, MORE_ON_SAIL
from tests.unit.gateway.worlds import ACCESS, SCHEMAS, embedded, outcome, rows_of_world

pytestmark = pytest.mark.integration

TYPES = {
    "int64": "BIGINT",
    "int32": "INT",
    "string": "STRING",
    "double": "DOUBLE",
    "bool": "BOOLEAN",
    "date32[day]": "DATE",
    "timestamp[us, tz=UTC]": "TIMESTAMP",
}


def view_of(name, table):
    """Return the statement for a view of the rows."""

    def written(value):
        return "NULL" if value is None else "'" + str(value).replace("\\", "\\\\").replace("'", "\\'") + "'"

    columns = ", ".join(
        f"CAST(col{number} AS {TYPES[str(field.type)]}) AS `{field.name}`"
        for number, field in enumerate(table.schema, start=1)
    )
    # Without rows, VALUES has no columns.
    rows = [*table.to_pylist(), dict.fromkeys(table.column_names)]
    values = ", ".join(f"({', '.join(map(written, row.values()))})" for row in rows)
    first = table.column_names[0]
    query = f"SELECT * FROM (SELECT {columns} FROM VALUES {values}) WHERE `{first}` IS NOT NULL"
    return f"CREATE OR REPLACE TEMP VIEW `{name}` AS {query}"


def test_sail_tells_nothing_of_hidden_rows_and_answers_as_the_embedded_engine(tmp_path):
    texts = {}
    for sql in CORPUS:
        with contextlib.suppress(MicromegasError):
            texts[sql] = rewrite(sql, access=ACCESS, tables=SCHEMAS, dialect=EngineDialect.SPARK).sql
    worlds = []
    with sail.running(tmp_path) as engine:
        for number in (0, 1):
            for name, table in rows_of_world(number).items():
                engine.run(view_of(name, table))
            worlds.append({sql: outcome(lambda _, text=text: engine.run(text), sql) for sql, text in texts.items()})
    with embedded(tmp_path) as ask_embedded:
        expected = {sql: outcome(ask_embedded, sql) for sql in texts}

    assert worlds[0] == worlds[1]
    other = {sql: rows for sql, rows in worlds[0].items() if rows != expected[sql]}
    assert {sql for sql, rows in other.items() if rows is not None} == MORE_ON_SAIL
    assert {sql for sql, rows in other.items() if rows is None} == LESS_ON_SAIL
    assert sum(rows is not None for rows in worlds[0].values()) >= 275
