"""One `connect()` in pandas, Polars, marimo, JupySQL and SQLAlchemy, with the extra `dbapi` and without."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

import micromegas_jupyter
from micromegas_jupyter import errors
from micromegas_jupyter.auth import OidcClientCredentialsProvider, StaticTokenAuthProvider
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from tests.architecture.guide_text import ROOT
from tests.integration.clients.guide_examples import CELL_EXAMPLES, MARIMO_EXAMPLES
from tests.integration.clients.serving import LOG_COUNT, TABLE_NAMES
from tests.integration.notebook.test_token_lifetime import short_token_stack
from tests.integration.release.test_environments import uv

pytestmark = pytest.mark.integration

CHILD = Path(__file__).with_name("consumers_child.py")
# What no other test needs; found before the packages of the tests' own environment.
PACKAGES = ("marimo==0.25.2", "pandas==3.1.1")
HINT = "pandas and Polars read row by row, which loses the nanosecon"
ARROW, ROWS = "Datetime(time_unit='ns', time_zone='UTC')", "Datetime(time_unit='us', time_zone='UTC')"


@pytest.fixture(scope="module")
def marimo(tmp_path_factory):
    """The folder of marimo and pandas 3."""
    folder = tmp_path_factory.mktemp("marimo")
    uv("pip", "install", "--python", sys.executable, "--target", str(folder), *PACKAGES)
    return folder


def read_with(server, extra, *steps, folder=None, code=""):
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, filter(None, (folder, ROOT))))}
    command = [sys.executable, CHILD, server.uri, server.tokens["bob"], extra, *steps]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False, input=code)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(next(line for line in done.stdout.split("\n") if line.startswith("{")))


def test_without_the_extra_both_read_rows_and_get_one_hint(server):
    found = read_with(server, "without", "read_polars", "read_pandas")

    assert found["read_polars"] == [ROWS, "Int64", 3]
    assert found["read_polars warns"] == [HINT]
    assert found["read_pandas"][1:] == ["datetime64[ns, UTC]", "int64", 3]
    assert HINT not in found["read_pandas warns"]


@pytest.mark.parametrize(
    ("extra", "in_pandas", "in_polars"),
    [
        ("with", ["datetime64[ns, UTC]", "int32"], [ARROW, "Int32"]),
        ("without", ["datetime64[us, UTC]", "int64"], [ROWS, "Int64"]),
    ],
)
def test_marimo_reads_arrow_data_and_lists_tables_beside_pandas_3_and_polars(
    server, marimo, extra, in_pandas, in_polars
):
    (example,) = MARIMO_EXAMPLES
    steps = ("read_pandas", "read_polars", "read_marimo", "run_example", "list_in_marimo", "list_by_another_name")
    found = read_with(server, extra, *steps, folder=marimo, code=example.text)

    assert found["read_pandas"] == ["3", *in_pandas, 3]
    assert found["read_polars"] == [*in_polars, 3]
    assert found["read_marimo"] == [ARROW, "Int32", 3]
    assert found["run_example"] == ["level", "msg", "time"]
    engine, dialect, tables, columns = found["list_in_marimo"]
    assert (engine, dialect, columns) == ("AdbcDBAPIEngine", "postgresql", {"n": "integer", "text": "string"})
    assert set(TABLE_NAMES) <= set(tables)
    # Once this fails, `workarounds/marimo_catalog.py` is not needed.
    assert found["list_by_another_name"] == [[], []]
    warned = [found[f"{step} warns"] for step in steps]
    assert warned[1:] == [[]] * 5
    assert [text[:27] for text in warned[0]] == ([] if extra == "with" else [HINT[:27], "pandas only supports SQLAlc"])


def test_the_guides_cells_run_with_jupysql(server):
    (example,) = CELL_EXAMPLES

    found = read_with(server, "with", "run_cells", code=example.text)
    assert found == {"run_cells": ["datetime64[ns, UTC]", 10], "run_cells warns": []}


def test_sqlalchemy_reads_statements_and_tables_over_a_connection(server):
    import sqlalchemy

    provider = StaticTokenAuthProvider(server.tokens["bob"])
    engine = sqlalchemy.create_engine(
        "adbc+flightsql://", creator=lambda: micromegas_jupyter.connect(server.uri, auth_provider=provider)
    )
    query = sqlalchemy.text("SELECT n FROM many WHERE n < :limit")

    assert len(pd.read_sql(query, engine, params={"limit": 3})) == 3
    frame = pd.read_sql_table("log_entries", engine)
    assert (len(frame), frame["properties"][0]) == (LOG_COUNT, {})
    with pytest.raises(errors.StatementRefused):
        frame[["level"]].to_sql("refused", engine)
    engine.dispose()


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("lifetime_seconds", "seconds"), [(2, 4), pytest.param(5, 600, marks=pytest.mark.long)])
def test_queries_outlive_tokens_without_a_visible_expiration(tmp_path, lifetime_seconds, seconds):
    with short_token_stack(tmp_path, token_lifetime_seconds=lifetime_seconds) as (provider, environ):
        secret = provider.service_secret.reveal()
        account = OidcClientCredentialsProvider(provider.issuer, provider.service_client_id, secret)
        with micromegas_jupyter.connect(environ["MICROMEGAS_ANALYTICS_URI"], auth_provider=account) as connection:
            calls = {
                "pandas": lambda: pd.read_sql("SELECT 1 AS n", connection)["n"].tolist() == [1],
                "parameters": lambda: connection.execute("SELECT ?", [2]).fetchall() == [(2,)],
                "tables": lambda: "log_entries" in connection.list_tables(),
            }
            early = connection.execute("SELECT value FROM generate_series(1, 8000000)")
            assert early.fetchone() == (1,)
            tokens, counts = {account.get_token()}, Counter()
            start_at = SYSTEM_CLOCK.monotonic()
            end_at, late_at = start_at + seconds, start_at + 1.5 * lifetime_seconds
            while (began_at := SYSTEM_CLOCK.monotonic()) < end_at:
                name, call = list(calls.items())[sum(counts[name] for name in calls) % len(calls)]
                try:
                    assert call(), name
                except (errors.Rejected, errors.LoginFailed):
                    # On a machine that stands still, a call can last longer than each of its tokens, and so can the
                    # request for one.
                    assert SYSTEM_CLOCK.monotonic() - began_at > lifetime_seconds
                    counts["slow"] += 1
                counts[name] += 1
                tokens.add(account.get_token())
                if "rest" not in counts and SYSTEM_CLOCK.monotonic() > late_at:  # the server would end it later
                    counts["rest"] += early.fetch_arrow_table().num_rows > 0
    print(f"{dict(counts)} with {len(tokens)} tokens in {seconds} s")
    assert counts["rest"] == 1
    assert counts["slow"] <= counts.total() // 100
    assert len(tokens) > seconds // lifetime_seconds // 2
