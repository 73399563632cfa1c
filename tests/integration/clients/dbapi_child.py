"""Everything that `flightsql-dbapi` and its SQLAlchemy dialect do, one answer for each; prints them as JSON.

Runs in a process of its own: `python dbapi_child.py HOST PORT TOKEN API_KEY`. Its standard input holds examples to
run, too: a JSON object from name to Python text, which finds `uri` and `token`.
"""

import contextlib
import json
import sys
from functools import partial

import flightsql
import flightsql.sqlalchemy
import pyarrow as pa
import sqlalchemy

HOST, PORT, TOKEN, API_KEY = sys.argv[1:]
WIDE = "SELECT id, flag, word, price, blob, day, f64 FROM wide WHERE id < 3 ORDER BY id"


def open_client(**credential):
    return flightsql.FlightSQLClient(host=HOST, port=int(PORT), insecure=True, **credential)


def open_engine(**further):
    query = {"insecure": "true", "token": API_KEY, **further}
    return sqlalchemy.create_engine(
        sqlalchemy.engine.URL.create("datafusion+flightsql", host=HOST, port=int(PORT), query=query)
    )


client = open_client(token=TOKEN)
connection = flightsql.connect(client)
engine = open_engine()
preparing_engine = open_engine(**{"feature-sqlalchemy-prepared-statements": "on"})


def read(info):
    (endpoint,) = info.endpoints
    return client.do_get(endpoint.ticket).read_all().to_pylist()


def run(sql, parameters=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters) if parameters else cursor.execute(sql)
        return cursor.fetchall()


def prepare():
    with client.prepare("SELECT ? + 1 AS a") as statement:
        return read(statement.execute(pa.record_batch({"0": [41]})))


def fetch_all(statement, values=()):
    with preparing_engine.connect() as connected:
        return [list(row) for row in connected.execute(statement, *values)]


def with_table():
    table = sqlalchemy.Table("many", sqlalchemy.MetaData(), autoload_with=preparing_engine)
    return fetch_all(sqlalchemy.select(table.c.n, table.c.text).where(table.c.n == 5).where(table.c.text == "row 5"))


STEPS = {
    "execute": lambda: read(client.execute("SELECT 1 AS a")),
    "password": lambda: len(open_client(user="anybody", password=API_KEY).execute("SELECT 1").endpoints),
    "tables": lambda: [row["table_name"] for row in read(client.get_tables(table_name_filter_pattern="m%"))],
    "sql info": lambda: read(client.get_sql_info([0, 3])),
    "prepare": prepare,
    "rows": lambda: run(WIDE),
    "parameters": lambda: run("SELECT ?, ?, ?, ?, ?", [1, 1.5, "it's", b"x", True]),
    "condition": lambda: run("SELECT n FROM many WHERE n BETWEEN ? AND ? AND text <> ? ORDER BY n", [1, 3, "row 2"]),
    "columns": lambda: [column["name"] for column in connection.flightsql_get_columns("many")],
    "engine text": lambda: fetch_all(sqlalchemy.text("SELECT n FROM many WHERE n < :most ORDER BY n"), [{"most": 2}]),
    "engine prepared": with_table,
    "engine tables": lambda: sorted(set(sqlalchemy.inspect(engine).get_table_names()) & {"many", "log_entries"}),
    "engine columns": lambda: [
        [column["name"], str(column["type"])] for column in sqlalchemy.inspect(engine).get_columns("many")
    ],
}


def run_example(text):
    # As in a new process, where nobody has told SQLAlchemy of the dialect yet.
    sqlalchemy.dialects.registry.impls.pop("datafusion.flightsql", None)
    sys.modules.pop("flightsql.sqlalchemy", None)
    exec(compile(text, "example", "exec"), {"uri": f"grpc://{HOST}:{PORT}", "token": API_KEY})
    return "ran"


def main():
    answers = {}
    examples = {name: partial(run_example, text) for name, text in json.load(sys.stdin).items()}
    for name, step in {**STEPS, **examples}.items():
        try:
            answers[name] = step()
        except Exception as error:  # noqa: BLE001 - what it raises is the answer
            answers[name] = f"{type(error).__name__}: {error}"
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(answers, default=str))


main()
