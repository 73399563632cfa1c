"""`micromegas serve --lake` on plain Parquet files: served as they are, new ones too, and never written to."""

import json
import os
import stat
import subprocess
import sys
from contextlib import suppress
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet
import pytest

from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.config.server import ServerSettings
from micromegas_jupyter.errors import ConfigurationError, InvalidStatement, MicromegasError
from micromegas_jupyter.wiring.server import ServerStack
from tests.integration.executors.server_process import ServerProcess, wait_until

pytestmark = pytest.mark.integration

COMMAND = [sys.executable, "-m", "micromegas_jupyter.cli", "serve", "--port", "0", "--disable-auth", "--lake"]


def _write(path, values):
    path.parent.mkdir(exist_ok=True)
    beside = path.with_suffix(".new")
    pyarrow.parquet.write_table(pa.table({"id": values}), beside)
    beside.rename(path)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parquet")
    _write(folder / "orders.parquet", [1, 2])
    _write(folder / "log_entries" / "2026.parquet", [3])
    _write(folder / "df_settings.parquet", [4])  # a name that is the engine's own in another schema
    (folder / "broken.parquet").write_bytes(b"not Parquet")
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["id", "id"])
    pyarrow.parquet.write_table(twice, folder / "twice.parquet")  # no table: it must not take the others along
    with ServerProcess(
        tmp_path_factory.mktemp("log"), lake=folder, keys={}, options=("--log-format", "json")
    ) as server:
        yield SimpleNamespace(folder=folder, uri=server.uri, server=server)


def test_its_tables_are_served_without_conditions_that_are_for_telemetry(served):
    with FlightSQLClient(served.uri) as client:
        orders = client.query("SELECT sum(id) AS total FROM orders")
        entries = client.query("SELECT id FROM log_entries")
        tables = client.query("SHOW TABLES")

    assert orders["total"].tolist() == [3]
    assert entries["id"].tolist() == [3]
    own = tables[tables["table_schema"] == "public"]["table_name"]
    assert sorted(own) == ["df_settings", "log_entries", "orders"]


def test_every_line_of_the_log_is_json_and_queries_are_in_the_audit_file(served):
    with FlightSQLClient(served.uri) as one, FlightSQLClient(served.uri) as other:
        for client, word in ((one, "first"), (other, "second")):
            client.query(f"SELECT '{word}' AS word")
    for word in ("first", "second"):
        wait_until(lambda word=word: served.server.audit_lines(sql=f"SELECT '{word}' AS word"), "a line of the audit")

    lines = [json.loads(line) for line in served.server.log_file.read_text().splitlines()]
    said = [line["message"] for line in lines]
    assert any("read only, without telemetry · tables: df_settings, log_entries, orders" in line for line in said)
    assert any(line.startswith("broken.parquet is left out") for line in said)
    assert any(line.startswith("twice.parquet is left out") for line in said)
    assert {line["level"] for line in lines} <= {"INFO", "WARNING"}
    assert not [line for line in lines if "audit" in line]
    assert stat.S_IMODE(served.server.audit_file.stat().st_mode) == 0o600


def test_a_new_file_becomes_a_table_and_nothing_is_written_into_the_folder(served):
    before = sorted(entry.name for entry in served.folder.rglob("*"))
    with FlightSQLClient(served.uri) as client:
        with pytest.raises(InvalidStatement):
            client.query("SELECT * FROM later")
        _write(served.folder / "later.parquet", [4])
        wait_until(lambda: _rows_of_later(client) == [4], "the new table")

    assert sorted(entry.name for entry in served.folder.rglob("*")) == sorted([*before, "later.parquet"])


def _rows_of_later(client):
    with suppress(InvalidStatement):
        return client.query("SELECT id FROM later")["id"].tolist()
    return None


def test_rows_are_not_taken(served):
    with FlightSQLClient(served.uri) as client, pytest.raises(MicromegasError):
        client.bulk_ingest("orders", pa.table({"id": [5]}))

    assert pyarrow.parquet.read_table(served.folder / "orders.parquet")["id"].to_pylist() == [1, 2]


def test_a_folder_of_something_else_is_refused_before_anything_is_written(tmp_path):
    (tmp_path / "letter.txt").write_text("hello")

    with pytest.raises(ConfigurationError) as caught:
        ServerStack(ServerSettings(no_http=True, lake=tmp_path, port=0, disable_auth=True), environ={})

    assert caught.value.key == "--lake"
    assert [entry.name for entry in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("is_table_inside", [False, True])
def test_a_damaged_delta_table_is_refused_by_the_command(tmp_path, *, is_table_inside):
    table = tmp_path / "served" / "events" if is_table_inside else tmp_path / "served"
    _write(tmp_path / "rows.parquet", [1])
    (table / "_delta_log").mkdir(parents=True)
    (tmp_path / "rows.parquet").rename(table / "rows.parquet")

    refused = _serve(tmp_path, str(tmp_path / "served"))

    assert refused.returncode == 2
    assert f"{'events' if is_table_inside else 'served'} is left out: its log cannot be read" in refused.stderr
    assert sorted(entry.name for entry in table.iterdir()) == ["_delta_log", "rows.parquet"]


@pytest.mark.parametrize("scheme", ["file", "hdfs+x"])
def test_an_address_of_storage_elsewhere_is_refused_by_the_command(tmp_path, scheme):
    refused = _serve(tmp_path, f"{scheme}://bucket/lake")

    assert refused.returncode == 2
    assert f"Tables cannot be stored in {scheme}: locations." in refused.stderr
    assert list(tmp_path.iterdir()) == []


def _serve(working_folder, lake):
    variables = {name: value for name, value in os.environ.items() if not name.startswith("MICROMEGAS_")}
    return subprocess.run(
        [*COMMAND, lake], env=variables, cwd=working_folder, capture_output=True, text=True, check=False,
        timeout=120,
    )  # fmt: skip
