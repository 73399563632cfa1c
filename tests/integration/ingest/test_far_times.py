"""Rows of the years 1 and 9999: sent, read, and compared by each client, and written in each format."""

import csv
import hashlib
import io
import json
import shutil
import subprocess
import sys
from contextlib import closing
from datetime import UTC, date, datetime

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from adbc_driver_flightsql import DatabaseOptions
from adbc_driver_flightsql import dbapi as adbc
from micromegas.auth import StaticTokenAuthProvider as UpstreamAuth
from micromegas.flightsql.client import FlightSQLClient as UpstreamClient

from micromegas_jupyter.access.config import ReloadingValidator
from micromegas_jupyter.cli.query_commands import RowOptions, write_rows
from micromegas_jupyter.core.protocols import WriteMode, WriteRequest
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.lake.writer import LakeWriter
from micromegas_jupyter.notebook.results.grid import ResultGrid, RowsView
from tests.fakes.clock import FakeClock
from tests.fakes.telemetry_rows import log_batch
from tests.integration.ingest.lake_server import lake_server

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore:Cannot disable autocommit:Warning")]

FIRST, LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
TIMES = [FIRST, datetime(2026, 11, 25, 12, tzinfo=UTC), LAST, None]
TEXTS = ["0001-01-01T00:00:00", "2026-11-25T12:00:00", "9999-12-31T23:59:59.999999"]
ALL = "SELECT id, z, local, day FROM far ORDER BY id"
ROWS = pa.table(
    {
        "id": range(4),
        "z": pa.array(TIMES, pa.timestamp("us", "UTC")),
        "local": pa.array([time and time.replace(tzinfo=None) for time in TIMES], pa.timestamp("us")),
        "day": pa.array([time and time.date() for time in TIMES], pa.date32()),
    }
)


@pytest.fixture(scope="module")
def alice(server):
    with server.client("alice") as client:
        client.bulk_ingest("far", ROWS, mode="create")
        client.bulk_ingest("log_entries", pa.Table.from_batches([log_batch(range(3), writer="far")]))
        yield client


@pytest.fixture(scope="module")
def cursor(server, alice):
    options = {DatabaseOptions.AUTHORIZATION_HEADER.value: "Bearer alice"}
    with adbc.connect(server.uri, db_kwargs=options) as connection, connection.cursor() as opened:
        yield opened


def test_our_client_reads_and_sends_them_as_arrow_polars_and_pandas(alice):
    table = alice.query_arrow(ALL)
    frame = alice.query(ALL)
    rows = pl.from_arrow(table)

    assert table.cast(ROWS.schema) == ROWS
    assert (str(frame["z"].dtype), str(frame["local"].dtype)) == ("datetime64[us, UTC]", "datetime64[us]")
    assert [time.isoformat() for time in frame["local"][:3]] == TEXTS
    assert rows["z"].to_list() == TIMES
    for name, sent in {"by_pandas": pa.Table.from_pandas(frame), "by_polars": rows.to_arrow()}.items():
        alice.bulk_ingest(name, sent, mode="create")
        assert alice.query_arrow(ALL.replace("far", name)).column("z").to_pylist() == TIMES


def test_adbc_reads_them_in_each_way(cursor):
    cursor.execute(ALL)
    assert cursor.fetchall() == [tuple(row.values()) for row in ROWS.to_pylist()]
    cursor.execute(ALL)
    assert [time.isoformat() for time in cursor.fetch_df()["local"][:3]] == TEXTS
    cursor.execute(ALL)
    assert cursor.fetch_polars()["z"].to_list() == TIMES


def test_upstreams_client_reads_them_and_its_own_tables_as_before(server, alice):
    upstream = UpstreamClient(server.uri, auth_provider=UpstreamAuth("alice"))

    assert [time.isoformat() for time in upstream.query(ALL)["local"][:3]] == TEXTS
    logs = upstream.query("SELECT time, insert_time FROM log_entries WHERE target = 'far'")
    assert [str(kind) for kind in logs.dtypes] == ["datetime64[ns, UTC]"] * 2
    assert len(logs) == 3


@pytest.mark.parametrize("time", [FIRST, LAST], ids=["first", "last"])
@pytest.mark.parametrize("column", ["z", "local", "day"])
def test_parameters_find_them(alice, cursor, time, column):
    value = time.date() if column == "day" else time
    sql = f"SELECT id FROM far WHERE {column} = $1"
    expected = [TIMES.index(time)]

    assert alice.query_arrow(sql, params=[value]).column("id").to_pylist() == expected
    cursor.execute(sql.replace("$1", "?"), [value])
    assert [row[0] for row in cursor.fetchall()] == expected


def test_aggregates_and_joins_keep_them(alice):
    sql = "SELECT min(z), max(z), min(local), max(local), min(day), max(day) FROM far"
    (ends,) = alice.query_arrow(sql).to_pylist()
    joined = alice.query_arrow("SELECT a.id FROM far a JOIN far b ON a.z = b.z AND a.local = b.local ORDER BY a.id")
    mixed = alice.query_arrow("SELECT count(*) AS n FROM far JOIN log_entries l ON far.z > l.time WHERE target = 'far'")

    naive = FIRST.replace(tzinfo=None), LAST.replace(tzinfo=None)
    assert list(ends.values()) == [FIRST, LAST, *naive, date(1, 1, 1), date(9999, 12, 31)]
    assert joined.column("id").to_pylist() == [0, 1, 2]
    assert mixed.column("n").to_pylist()[0] >= 3
    assert alice.query_arrow("SELECT id FROM far WHERE z - INTERVAL '1 day' > now()").column("id").to_pylist() == [2]


def test_each_format_of_the_command_has_them(alice, tmp_path):
    table = alice.query_arrow(ALL)

    def written(file_format):
        path = tmp_path / f"rows.{file_format}"
        is_binary = file_format in {"parquet", "arrow"}
        with path.open("wb" if is_binary else "w", **({} if is_binary else {"newline": ""})) as output:
            write_rows(table.schema, table.to_batches(), output, RowOptions(file_format=file_format))
        return path

    texts = [time.isoformat(timespec="microseconds").removesuffix("+00:00") for time in TIMES[:3]]
    zoned = [f"{text}Z" for text in texts]
    assert [row["z"] for row in json.loads(written("json").read_text())][:3] == zoned
    assert [json.loads(line)["z"] for line in written("jsonl").read_text().splitlines()][:3] == zoned
    assert [row["local"] for row in csv.DictReader(io.StringIO(written("csv").read_text()))][:3] == texts
    assert all(text in written(kind).read_text() for kind in ("table", "markdown") for text in texts)
    assert pq.read_table(written("parquet")).column("z").to_pylist() == TIMES
    with pa.ipc.open_file(written("arrow")) as file:
        assert file.read_all().column("z").to_pylist() == TIMES


def test_the_grid_shows_them(alice):
    grid = ResultGrid(RowsView(alice.query_arrow(ALL)), result_rows=4)

    shown = json.dumps(grid.first, default=str)

    assert "failed" not in shown
    assert all(year in shown for year in ("0001-01-01", "9999-12-31"))


ROLES = {
    "current": {"tables": {"terms": "local = TIMESTAMP '9999-12-31 23:59:59.999999'"}},
    "dated": {"tables": {"terms": "z < '9999-12-31' AND day <= DATE '9999-12-31'"}},
}


@pytest.fixture(scope="module")
def filtered(tmp_path_factory):
    """Open a client whose key has a role."""
    root, config = tmp_path_factory.mktemp("terms"), tmp_path_factory.mktemp("access") / "access.json"
    keys = [
        {"name": role, "sha256": hashlib.sha256(f"the-key-of-{role}-here".encode()).hexdigest(), "roles": [role]}
        for role in ROLES
    ]
    config.write_text(json.dumps({"api_keys": keys, "roles": ROLES}))
    writer = LakeWriter(Storage(root))
    write = writer.open_write(WriteRequest(table="terms", mode=WriteMode.CREATE), ROWS.schema)
    write.write(ROWS.to_batches()[0])
    write.commit()
    writer.close()
    with (
        closing(ReloadingValidator({"MICROMEGAS_ACCESS_CONFIG": str(config)}, clock=FakeClock())) as validator,
        lake_server(root, validator=validator) as served,
    ):
        yield lambda role: served.client(f"the-key-of-{role}-here")


@pytest.mark.parametrize(("role", "ids"), [("current", {2}), ("dated", {0, 1})])
def test_conditions_on_rows_hold_for_far_times(filtered, role, ids):
    conditions = {
        "true": {0, 1, 2, 3},
        "local = TIMESTAMP '9999-12-31 23:59:59.999999'": {2},
        "z >= '9999-12-31'": {2},
        "z > now() - INTERVAL '1 day'": {2},
        "z <= '2026-12-31' OR day = DATE '0001-01-01'": {0, 1},
        "z IS NULL": {3},
        "CAST(z AS BIGINT) > 0": {1, 2},
    }

    with filtered(role) as client:
        found = {
            condition: set(client.query_arrow(f"SELECT id FROM terms WHERE {condition}").column("id").to_pylist())
            for condition in conditions
        }
        (ends,) = client.query_arrow("SELECT min(z) AS a, max(z) AS b FROM terms").to_pylist()
        below = client.query_arrow("SELECT id FROM terms WHERE z < $1", params=[LAST]).column("id").to_pylist()

    assert found == {condition: expected & ids for condition, expected in conditions.items()}
    assert (ends["a"], ends["b"]) == (TIMES[min(ids)], TIMES[max(ids)])
    assert set(below) == ids & {0, 1}


@pytest.mark.slow
def test_pandas_of_the_other_major_version_shows_them(alice, tmp_path):
    other = "pandas>=3,<4" if pd.__version__ < "3" else "pandas<3"
    with pa.ipc.new_file(tmp_path / "far.arrow", ROWS.schema) as file:
        file.write_table(alice.query_arrow(ALL).cast(ROWS.schema))
    code = (
        "import sys; import pandas as pd; import pyarrow as pa; "
        "frame = pa.ipc.open_file(sys.argv[1]).read_all().to_pandas(); "
        "print(frame['z'].dtype, *(time.isoformat() for time in frame['local'][:3]), sep='|')"
    )
    program = shutil.which("uv")
    assert program is not None, "uv is not installed; run: pip install uv"
    options = ("--no-project", "--python", sys.executable, "--with", other, "--with", f"pyarrow=={pa.__version__}")
    done = subprocess.run(
        [program, "-q", "run", *options, "python", "-c", code, str(tmp_path / "far.arrow")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert done.stdout.strip().split("|") == ["datetime64[us, UTC]", *TEXTS]
