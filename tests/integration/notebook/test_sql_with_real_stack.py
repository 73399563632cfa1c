"""What `%%sql` offers besides running a statement, in a real kernel over the demo's real server."""

import json
import re

import pytest

from tests.integration.notebook.kernels import run_unattended
from tests.integration.notebook.test_with_real_stack import wait_for_telemetry

pytestmark = pytest.mark.integration

LOAD = "%load_ext micromegas_jupyter"
VALUES = """
import enum, uuid, numpy as np, pandas as pd, pyarrow as pa
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
whole, real, yes, text, data = 7, 1.5, True, "it's {{not}} :this -- '", b"\\x00\\xff"
exact, day, unknown = Decimal("0.10"), date(2026, 11, 24), None
at, lasting = datetime(2026, 11, 24, 12, tzinfo=timezone.utc), timedelta(hours=1)
small, stamp, key = np.int32(3), pd.Timestamp("2026-11-24T12:00:00.000000001Z"), uuid.UUID(int=5)
ids, holes = pd.Series([1, 3, 99]), [2, None]
"""
TYPED = """%%sql typed << --format arrow
SELECT :whole AS whole, :real AS real, :yes AS yes, :text AS text, :data AS data, :exact AS exact, :day AS day,
  :unknown IS NULL AS unknown, :at AS at, :lasting AS lasting, :small AS small, :stamp AS stamp, :key AS key
"""
CHECK = """
row = typed.to_pylist()[0]
assert (row["whole"], row["real"], row["yes"], row["text"], row["data"]) == (whole, real, yes, text, data)
assert (row["exact"], row["day"], row["unknown"], row["at"]) == (exact, day, True, at)
assert (row["lasting"], row["small"], row["stamp"], row["key"]) == (pd.Timedelta(lasting), 3, stamp, str(key))
assert found["value"].tolist() == [1, 2, 3], found
print("as values")
"""
FORMATS = """
import pandas, polars, pyarrow
assert type(a) is pandas.DataFrame and type(b) is pyarrow.Table and type(c) is polars.DataFrame
assert len(a) == b.num_rows == c.height == 300_000
assert sum(batch.num_rows for batch in d) == 300_000
print("in four formats")
"""
SERIES = "SELECT value FROM generate_series(1, 300000)"


@pytest.fixture(autouse=True)
def _environment(stack, monkeypatch):
    for name, value in stack.service_environment().items():
        monkeypatch.setenv(name, value)


def test_values_formats_plans_connections_and_history_work_over_the_real_server(stack):
    run = run_unattended(
        LOAD,
        VALUES,
        TYPED,
        "found = %sql --format pandas SELECT value FROM generate_series(1, 9) WHERE value IN :ids OR value IN :holes",
        CHECK,
        f"%sql a << {SERIES}",
        f"%sql b << --format arrow {SERIES}",
        f"%sql c << --format polars {SERIES}",
        f"%sql d << --format reader {SERIES}",
        FORMATS,
        "%%sql --explain\nSELECT sum(value) FROM generate_series(1, 9) WHERE value > :whole",
        "%%sql --dry-run\nSELECT value, arrow_typeof(value) AS kind FROM generate_series(1, 9) WHERE value IN :ids",
        f"%micromegas_connect {stack.server.uri} --as here",
        "%sql --connection here --limit 2 SELECT value FROM generate_series(1, 9)",
        "%micromegas_queries",
        "again = %micromegas_queries --rerun 2\nprint(again['value'].tolist())",
        "%micromegas_queries --sql 1",
        "from micromegas_jupyter import quote_identifier\nname = quote_identifier('an \"odd\" name')",
        "get_ipython().run_line_magic('sql', f'odd << SELECT {name} FROM (SELECT 1 AS {name})')\nprint(list(odd))",
    )

    assert run.stopped_by is None
    assert run.outputs(4)[0].text == "as values\n"
    assert run.outputs(9)[-1].text == "in four formats\n"
    plan, columns, listed = (shown_text(run, cell) for cell in (10, 11, 14))
    assert plan.startswith("logical plan\n  ")
    assert re.search(r"^value +bigint +never$", columns, flags=re.MULTILINE)
    assert columns.endswith("It reads no files. The statement was not run.")
    assert shown_text(run, 12).startswith("--connection here means 127.0.0.1:")
    assert [line.split()[0] for line in listed.splitlines()[2:]] == ["1", "2", "3", "4", "5", "6", "7"]
    assert all(" done " in line for line in listed.splitlines()[2:])
    assert run.outputs(15)[-1].text == "[1, 2, 3]\n"
    assert shown_text(run, 16).startswith("%%sql typed << --format arrow\nSELECT :whole AS whole")
    assert run.outputs(18)[-1].text == "['an \"odd\" name']\n"


def shown_text(run, cell):
    """Return the text of a cell's last output."""
    last = run.outputs(cell)[-1]
    return last.text if last.output_type == "stream" else last.data["text/plain"]


def test_a_range_arrows_types_tables_and_a_service_account_by_options(stack):
    wait_for_telemetry(stack)
    run = run_unattended(
        LOAD,
        "%micromegas_login --service-account",
        "%micromegas_whoami",
        "old = %sql --begin 2020-01-01T00:00:00Z --end 2020-01-02T00:00:00Z --format pandas SELECT 1 FROM log_entries",
        "typed = %sql --dtype pyarrow --format pandas SELECT 1 AS one\nprint(typed.dtypes['one'], len(old))",
        "%micromegas_tables log_entries --count",
        "%env MICROMEGAS_RESULT_ROWS=0",
        "%sql SELECT value FROM generate_series(1, 100)",
        "%micromegas_queries --all",
    )

    assert run.stopped_by is None
    assert stack.service_environment()["MICROMEGAS_OIDC_CLIENT_ID"] in shown_text(run, 2)
    assert run.outputs(4)[-1].text == "int64[pyarrow] 0\n"
    assert re.search(r"log_entries +\d+ +20\d\d-", shown_text(run, 5))
    assert "<script" not in run.outputs(7)[-1].data["text/html"]
    assert "generate_series(1, 100)" in shown_text(run, 8)


def test_what_runs_on_the_server_is_listed_and_ended_from_another_cell(stack):
    cancel = "get_ipython().run_line_magic('micromegas_cancel', reader.query_id[:8])"
    run = run_unattended(
        LOAD,
        "%micromegas_login --service-account",
        "%sql reader << --format reader SELECT value AS endless FROM generate_series(1, 1000000000000)",
        "%micromegas_queries --server",
        f"{cancel}\ntry:\n    reader.read_all()\nexcept Exception as error:\n    print(type(error).__name__)",
        f"try:\n    {cancel}\nexcept Exception as error:\n    print(error)",
    )

    assert run.stopped_by is None
    head, _, row, note = shown_text(run, 3).splitlines()
    assert head.split() == ["query", "user", "started", "time", "memory", "SQL"]
    assert row.endswith("SELECT value AS endless FROM generate_series(1, 1000000000000)")
    assert note.startswith("%micromegas_cancel")
    assert run.outputs(4)[-1].text.splitlines() == [f"✓ query {row[:8]} was cancelled", "QueryCancelled"]
    assert "You have no running query with the ID" in run.outputs(5)[-1].text


def test_charts_are_saved_with_a_picture_and_say_why_there_is_none(stack):
    run = run_unattended(
        LOAD,
        "%micromegas_login --service-account",
        "%%sql --plot\nSELECT to_timestamp(value) AS time, value AS load FROM generate_series(1, 50)",
        "%%sql named << --plot bar --x half --y value --format arrow\n"
        "SELECT value % 2 = 0 AS half, value FROM generate_series(1, 50)",
        "%sql --plot SELECT value FROM generate_series(1, 50)",
        "%sql --plot --y valu SELECT value FROM generate_series(1, 50)",
        "%micromegas_queries --sql 2",
    )

    assert run.stopped_by is None
    shown = [output.data for cell in (2, 3, 4) for output in run.outputs(cell) if "data" in output]
    charts = [data for data in shown if "<img" in data.get("text/html", "")]
    assert [chart["text/plain"].splitlines()[0] for chart in charts] == [
        "line chart: load over time",
        "bar chart: value by half",
        "hist chart: value",
    ]
    for chart in charts:
        image, table = chart["text/html"].split(">", maxsplit=1)
        assert image.startswith("<img data-micromegas-chart")
        assert "<table>" in table
    assert "Did you mean value?" in run.outputs(5)[-2].text
    assert shown_text(run, 6).startswith("%%sql named << --format arrow --plot bar --x half --y value\nSELECT")


def test_a_profile_and_a_connection_can_be_named_wherever_a_magic_takes_one(stack, monkeypatch, tmp_path):
    service = stack.service_environment()
    monkeypatch.delenv("MICROMEGAS_OIDC_CLIENT_SECRET")
    for name in ("ANALYTICS_URI", "OIDC_ISSUER", "OIDC_CLIENT_ID", "OIDC_AUDIENCE"):
        monkeypatch.delenv(f"MICROMEGAS_{name}")
    secret = tmp_path / "secret"
    secret.write_text(service["MICROMEGAS_OIDC_CLIENT_SECRET"])
    secret.chmod(0o600)
    issuer = {"issuer": service["MICROMEGAS_OIDC_ISSUER"], "audience": service["MICROMEGAS_OIDC_AUDIENCE"]}
    job = {
        "uri": service["MICROMEGAS_ANALYTICS_URI"],
        "client_id": service["MICROMEGAS_OIDC_CLIENT_ID"],
        "issuers": [issuer],
        "client_secret_file": str(secret),
    }
    profiles = {"job": job, "elsewhere": {"uri": "grpc://127.0.0.1:1"}}
    (tmp_path / "config.json").write_text(json.dumps({"profiles": profiles, "default_profile": "elsewhere"}))
    monkeypatch.setenv("MICROMEGAS_CONFIG_DIR", str(tmp_path))

    run = run_unattended(
        LOAD,
        "%sql --profile job SELECT current_user() AS who",
        "%micromegas_tables processes --profile job",
        "%micromegas_connect --profile job --as there",
        "%micromegas_tables processes --connection there",
        "%sql --connection there SELECT current_user() AS who",
        "%micromegas_doctor --profile job",
        "%micromegas_logout --profile job",
        "%micromegas_login --profile job --service-account",
        "%micromegas_connect",
    )

    assert run.stopped_by is None
    assert [service["MICROMEGAS_OIDC_CLIENT_ID"] in shown_text(run, cell) for cell in (1, 5)] == [True, True]
    assert ["cpu_brand" in shown_text(run, cell) for cell in (2, 4)] == [True, True]
    assert "✓ settings: profile job" in shown_text(run, 6)
    assert shown_text(run, 7).startswith("There is no sign-in to end")
    assert "job" in shown_text(run, 9)


@pytest.mark.slow
def test_another_extensions_sql_magic_stays_and_ours_has_its_longer_name():
    run = run_unattended("%load_ext sql", LOAD, "%%micromegas_sql\nSELECT 1 AS one", "%sql --help")

    assert run.outputs(1)[-1].text == "Another extension provides %%sql; use %%micromegas_sql for this one.\n"
    assert "one" in shown_text(run, 2)
    assert "jupysql" in str(run.outputs(3))


#: Cells that fail, and lines of what is shown instead.
WRONG = {
    "%%sql --explain\nSELECT tagret\nFROM log_entries": ["    SELECT tagret", "           ^ line 1, column 8"],
    "%%sql --dry-run\nSELECT 1,\n  tagret FROM log_entries": ["      tagret FROM", "      ^ line 2, column 3"],
    "%%sql\nSELECT '{{x}}'": ["    SELECT '{{x}}'", "            ^ line 1, column 9"],
    "%sql --formt arrow SELECT 1": ["Did you mean --format?"],
    "%sql --connection nobody SELECT 1": ['There is no connection named "nobody"'],
    "%sql DROP TABLE log_entries": ["this server is read-only", " · SQL002 · more: %micromegas_explain SQL002"],
}
WITH_TRACEBACK = "%%sql --traceback\nSELECT tagret FROM log_entries"
UNLOADED = "%sql SELECT 1"


@pytest.fixture(scope="module")
def shown(stack, tmp_path_factory):
    """The last output of each of these cells in one kernel."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**stack.service_environment(), "HOME": str(tmp_path_factory.mktemp("home"))}.items():
            patch.setenv(name, value)
        cells = (LOAD, *WRONG, WITH_TRACEBACK, "%unload_ext micromegas_jupyter", UNLOADED)
        run = run_unattended(*cells, allow_errors=True)
    # A slow machine shows the progress line before.
    return {source: output[-1] for number, source in enumerate(cells) if (output := run.outputs(number))}


def test_the_extension_can_be_unloaded(shown):
    assert "UsageError" in str(shown[UNLOADED])


@pytest.mark.parametrize("source", WRONG)
def test_errors_are_lines_with_their_place_and_no_traceback(shown, source):
    text = "\n".join(shown[source].traceback)

    assert text.startswith("✗ ")
    assert all(line in text for line in WRONG[source])
    assert not re.search(r"Traceback|site-packages|\.py\b", text)


def test_a_traceback_is_shown_to_whoever_asks_for_it(shown):
    text = "\n".join(shown[WITH_TRACEBACK].traceback)

    assert "Traceback (most recent call last)" in text
    assert "There is no column named tagret. Did you mean target?" in text
