"""`micromegas serve --lake` on plain Parquet files: served as they are, new ones too, and never written to."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.parquet
import pytest

from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.config.server import ServerSettings
from micromegas_jupyter.errors import ConfigurationError, InvalidStatement, MicromegasError
from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.wiring import ServerStack
from micromegas_jupyter.wiring.server import open_tables

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration

DEADLINE_SECONDS = 120.0


class ServedFolder(NamedTuple):
    """A folder and the server over it."""

    folder: Path
    ready: dict[str, str]
    log: Path


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
    command = [sys.executable, "-m", "micromegas_jupyter.cli", "serve", "--lake", str(folder), "--port", "0"]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("MICROMEGAS_")}
    log = tmp_path_factory.mktemp("log") / "server.log"
    audit = log.with_name("audit.log")
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            [*command, "--disable-auth", "--ready-json", "--log-format", "json", "--audit-log", str(audit)],
            env=variables,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as server,
    ):
        assert server.stdout is not None
        try:
            yield ServedFolder(folder, json.loads(server.stdout.readline()), log)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(DEADLINE_SECONDS)


def test_its_tables_are_served_without_conditions_that_are_for_telemetry(served):
    with FlightSQLClient(served.ready["uri"]) as client:
        orders = client.query("SELECT sum(id) AS total FROM orders")
        entries = client.query("SELECT id FROM log_entries")
        tables = client.query("SHOW TABLES")

    assert orders["total"].tolist() == [3]
    assert entries["id"].tolist() == [3]
    own = tables[tables["table_schema"] == "public"]["table_name"]
    assert sorted(own) == ["df_settings", "log_entries", "orders"]


def test_the_start_says_what_is_served_and_what_is_left_out(served):
    said = [line["message"] for line in _lines(served.log)]

    assert any("read only, without telemetry · tables: df_settings, log_entries, orders" in line for line in said)
    assert any(line.startswith("broken.parquet is left out") for line in said)
    assert any(line.startswith("twice.parquet is left out") for line in said)


def test_every_line_of_the_log_is_json_and_queries_are_in_the_audit_file(served):
    with FlightSQLClient(served.ready["uri"]) as one, FlightSQLClient(served.ready["uri"]) as other:
        for client, word in ((one, "first"), (other, "second")):
            client.query(f"SELECT '{word}' AS word")
    audit = served.log.with_name("audit.log")
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not {"SELECT 'first' AS word", "SELECT 'second' AS word"} <= {line.get("sql") for line in _lines(audit)}:
        assert time.monotonic() < deadline
        time.sleep(0.05)

    assert {line["level"] for line in _lines(served.log)} <= {"INFO", "WARNING"}
    assert not [line for line in _lines(served.log) if "audit" in line]
    assert stat.S_IMODE(audit.stat().st_mode) == 0o600


def _lines(log):
    return [json.loads(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]


def test_a_new_file_becomes_a_table_and_nothing_is_written_into_the_folder(served):
    before = sorted(entry.name for entry in served.folder.rglob("*"))
    with FlightSQLClient(served.ready["uri"]) as client:
        with pytest.raises(InvalidStatement):
            client.query("SELECT * FROM later")
        _write(served.folder / "later.parquet", [4])
        frame = _query_until_it_is_there(client)

    assert frame == [4]
    assert sorted(entry.name for entry in served.folder.rglob("*")) == sorted([*before, "later.parquet"])


def _query_until_it_is_there(client):
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        try:
            found = client.query("SELECT id FROM later")["id"].tolist()
        except InvalidStatement:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        else:
            return found


def test_rows_are_not_taken(served):
    with FlightSQLClient(served.ready["uri"]) as client, pytest.raises(MicromegasError):
        client.bulk_ingest("orders", pa.table({"id": [5]}))

    assert pyarrow.parquet.read_table(served.folder / "orders.parquet")["id"].to_pylist() == [1, 2]


def test_a_folder_of_something_else_is_refused_before_anything_is_written(tmp_path):
    (tmp_path / "letter.txt").write_text("hello")

    with pytest.raises(ConfigurationError) as caught:
        ServerStack(ServerSettings(no_http=True, lake=tmp_path, port=0, disable_auth=True), environ={})

    assert caught.value.key == "--lake"
    assert [entry.name for entry in tmp_path.iterdir()] == ["letter.txt"]


def test_a_file_in_place_of_the_folder_is_a_setting_that_cannot_be_used(tmp_path):
    (tmp_path / "letter.txt").write_text("hello")

    with pytest.raises(ConfigurationError, match="is a file") as caught:
        open_tables(tmp_path / "letter.txt")

    assert (caught.value.key, caught.value.exit_code) == ("--lake", 2)


def test_an_empty_folder_becomes_a_lake(tmp_path):
    assert isinstance(open_tables(tmp_path), Lake)


@pytest.mark.parametrize("is_table_inside", [False, True])
def test_a_delta_table_is_refused_by_the_command(tmp_path, *, is_table_inside):
    table = tmp_path / "served" / "events" if is_table_inside else tmp_path / "served"
    _write(tmp_path / "rows.parquet", [1])
    (table / "_delta_log").mkdir(parents=True)
    (tmp_path / "rows.parquet").rename(table / "rows.parquet")

    refused = _serve(tmp_path, str(tmp_path / "served"))

    assert refused.returncode == 2
    assert f"{'events' if is_table_inside else 'The folder'} is a Delta table" in refused.stderr
    assert sorted(entry.name for entry in table.iterdir()) == ["_delta_log", "rows.parquet"]


@pytest.mark.parametrize("scheme", ["s3", "gs", "az", "file", "hdfs+x"])
def test_an_address_of_storage_elsewhere_is_refused_by_the_command(tmp_path, scheme):
    refused = _serve(tmp_path, f"{scheme}://bucket/lake")

    assert refused.returncode == 2
    assert f"{scheme}:// is not supported" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def _serve(working_folder, lake):
    command = [sys.executable, "-m", "micromegas_jupyter.cli", "serve", "--lake", lake, "--port", "0", "--disable-auth"]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("MICROMEGAS_")}
    return subprocess.run(
        command,
        env=variables,
        cwd=working_folder,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
