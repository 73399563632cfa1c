"""Reads one `connect()` with marimo, pandas, Polars and JupySQL, in a process of its own; prints JSON.

`python consumers_child.py URI TOKEN with|without STEP…`: with or without `adbc_driver_manager`. Its standard input is
code for the step `run_example` or `run_cells`, which finds the connection as `client`.
"""

import contextlib
import io
import json
import sys
import warnings

import micromegas_jupyter
from micromegas_jupyter.auth import StaticTokenAuthProvider

URI, TOKEN, EXTRA, *STEPS = sys.argv[1:]
if EXTRA == "without":
    sys.modules["adbc_driver_manager"] = None  # as where it is not installed

SQL = "SELECT time, level, msg FROM log_entries ORDER BY time LIMIT 3"
c = micromegas_jupyter.connect(URI, auth_provider=StaticTokenAuthProvider(TOKEN))


def read_pandas():
    import pandas as pd

    frame = pd.read_sql(SQL, c)
    return [pd.__version__.split(".")[0], str(frame["time"].dtype), str(frame["level"].dtype), len(frame)]


def read_polars():
    import polars as pl

    frame = pl.read_database(SQL, c)
    return [str(frame.schema["time"]), str(frame.schema["level"]), frame.height]


def read_marimo():
    import marimo

    frame = marimo.sql(SQL, engine=c)
    return [str(frame.schema["time"]), str(frame.schema["level"]), frame.height]


def list_in_marimo():
    """Do what the panel of data sources does when a cell has defined `c` and the user opens a table."""
    from marimo._sql.get_engines import engine_to_data_source_connection, get_engines_from_variables

    ((name, engine),) = get_engines_from_variables([("c", c)])
    source = engine_to_data_source_connection(name, engine)
    (database,) = source.databases
    (schema,) = database.schemas
    details = engine.get_table_details(table_name="many", schema_name=schema.name, database_name=database.name)
    columns = {column.name: column.type for column in details.columns}
    return [type(engine).__name__, source.dialect, sorted(table.name for table in schema.tables), columns]


def list_by_another_name():
    """Return what the panel lists of a connection that tells marimo its own name, not PostgreSQL's."""
    from marimo._sql.get_engines import engine_to_data_source_connection, get_engines_from_variables

    c.adbc_get_info = lambda: {"vendor_name": "Micromegas"}
    ((name, engine),) = get_engines_from_variables([("c", c)])
    (database,) = engine_to_data_source_connection(name, engine).databases
    schemas = engine.get_schemas(database="", include_tables=True, include_table_details=False)
    return [database.schemas, schemas]


def run_example():
    names = {"client": c}
    exec(compile(sys.stdin.read(), "example", "exec"), names)
    return sorted(names["logs"].columns)


def run_cells():
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    shell.history_manager.enabled = False
    shell.user_ns["client"] = c
    result = shell.run_cell(sys.stdin.read()).result
    return [str(result.DataFrame()["time"].dtype), len(result)]


def main():
    found = {}
    for name in STEPS:
        with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("always", UserWarning)
            found[name] = globals()[name]()
        found[f"{name} warns"] = sorted({str(one.message)[:60] for one in caught if one.category is UserWarning})
    print(f"\n{json.dumps(found)}")
    c.close()


main()
