"""A server is built from its settings: it is safe to reach, and each part gets its limits in its own units."""

import json
import threading
import tomllib
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.config.access import RateLimits
from micromegas_jupyter.config.server import ServerSettings
from micromegas_jupyter.core.protocols import TableSnapshot
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.engine.contract import EngineSettings, StatementRequest
from micromegas_jupyter.engine.datafusion_engine import DataFusionEngine
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.server.cut_off import DenyList
from micromegas_jupyter.wiring import server
from micromegas_jupyter.wiring.server import (
    DEFAULT_ROW_FILTERS,
    ServerStack,
    build_flight_settings,
    build_pool_settings,
    build_worker_options,
    can_read_tables,
    check_exposure,
    find_denials_file,
    make_spill_folder,
    open_tables,
)
from tests.architecture.guide_text import ROOT
from tests.fakes.fixed_tables import CALLER, FixedTables, data_files

TLS = {"tls_certificate": Path("cert.pem"), "tls_key": Path("key.pem")}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"disable_auth": True},
        {"host": "::1", "http_host": "localhost"},
        {"host": "0.0.0.0", "http_host": "0.0.0.0", **TLS},
        {"http_host": "0.0.0.0", "no_http": True},
        {"host": "0.0.0.0", "http_host": "0.0.0.0", "insecure": True, "disable_auth": True},
    ],
)
def test_it_may_run(options):
    check_exposure(ServerSettings(**options))


def test_a_server_with_another_sql_parser_does_not_start(tmp_path, monkeypatch):
    other = tmp_path / "sqlglot-30.1.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: sqlglot\nVersion: 30.1.0\n")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(ConfigurationError, match=r"30\.1\.0") as raised:
        ServerStack(ServerSettings(disable_auth=True, lake=str(tmp_path / "lake")))

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["optional-dependencies"]["gateway"] == [raised.value.remedy.removeprefix("Run: pip install ")]


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"host": "0.0.0.0"}, "--host"),
        ({"host": "127.example"}, "--host"),
        ({"http_host": "0.0.0.0"}, "--http-host"),
        ({"host": "10.0.0.1", "disable_auth": True}, "--disable-auth"),
        ({"host": "0.0.0.0", "disable_auth": True, **TLS}, "--disable-auth"),
        ({"tls_certificate": Path("cert.pem")}, "--tls-certificate"),
        ({"tls_key": Path("key.pem")}, "--tls-certificate"),
        ({"tls_certificate": Path("cert.pem"), "insecure": True}, "--tls-certificate"),
        ({"tls_client_ca": Path("ca.pem"), "insecure": True}, "--tls-client-ca"),
    ],
)
def test_it_may_not_run(options, key):
    with pytest.raises(ConfigurationError) as caught:
        check_exposure(ServerSettings(**options))

    assert caught.value.key == key


@pytest.mark.parametrize(
    "name",
    [
        "max_rows", "max_result_mib", "max_message_mib", "max_metadata_kib", "max_calls", "max_calls_per_caller",
        "read_timeout_seconds", "write_timeout_seconds", "ticket_lifetime_seconds", "upload_timeout_seconds",
        "connection_idle_timeout_seconds", "max_connection_age_seconds", "max_ingest_mib", "max_ingests",
        "max_ingests_per_caller", "max_tables_per_caller", "query_timeout_seconds", "max_queries", "memory_mib",
        "max_queries_per_caller", "max_ended_per_caller", "queue_timeout_seconds", "statement_memory_mib", "spill_mib",
        "max_statement_bytes",
    ],
)  # fmt: skip
def test_each_limit_takes_effect(name):
    def build(settings):
        return (
            build_flight_settings(settings, rate_limits=RateLimits(), reserved_port=None),
            build_pool_settings(settings),
            build_worker_options(settings, lake=None, denials_file=None, spill_folder=Path("/spill")),
        )

    settings = ServerSettings()

    assert build(settings) != build(replace(settings, **{name: getattr(settings, name) // 8 + 5}))


def test_no_limit_is_zero_and_spawned_executors_wait_in_smaller_numbers(monkeypatch):
    settings = ServerSettings(query_timeout_seconds=0, connection_idle_timeout_seconds=0)
    monkeypatch.setattr(server, "can_fork", lambda: False)
    pool = build_pool_settings(settings, spare_executors=3)
    flight = build_flight_settings(settings, rate_limits=RateLimits(), reserved_port=1)

    assert (pool.spare_executors, pool.statement_timeout_seconds, flight.connection_idle_seconds) == (2, None, None)
    assert (flight.port, flight.is_port_reserved) == (1, True)


@pytest.mark.parametrize("becomes", ["gone", "file"])
def test_tables_whose_folder_is_gone_cannot_be_read(tmp_path, becomes):
    root = tmp_path / "lake"
    root.mkdir()
    storage = Storage(root)
    lake = Lake(storage)
    before = can_read_tables(lake, storage)

    root.rmdir()
    if becomes == "file":
        root.write_text("no folder")

    assert (before, can_read_tables(lake, storage)) == (True, False)


def _build_without_auth(tmp_path, **environ):
    settings = ServerSettings(lake=tmp_path / "lake", port=0, no_http=True, disable_auth=True)
    ServerStack(settings, environ=environ).stop()


def test_a_folder_with_any_file_is_not_an_empty_lake(tmp_path):
    (tmp_path / "(1).csv").write_text("n\n1\n")

    assert not isinstance(open_tables(str(tmp_path))[1], Lake)


def test_a_server_ends_although_its_storage_hangs(tmp_path, monkeypatch, caplog):
    may_end = threading.Event()
    monkeypatch.setattr(server, "_LAST_WRITE_SECONDS", 0.05)
    monkeypatch.setattr(DenyList, "write_hits", lambda _: may_end.wait(30))

    _build_without_auth(tmp_path)
    may_end.set()

    assert "does not answer" in caplog.text


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"MICROMEGAS_API_KEYS": "", "OTHER": "x"}, []),
        ({"MICROMEGAS_API_KEYS": "[]", "MICROMEGAS_ADMINS": '["a@b.c"]'}, ["MICROMEGAS_API_KEYS, MICROMEGAS_ADMINS"]),
    ],
)  # fmt: skip
def test_an_access_configuration_that_is_not_used_is_named_in_the_log(tmp_path, caplog, environ, named):
    _build_without_auth(tmp_path, **environ)

    assert [record.settings for record in caplog.records if hasattr(record, "settings")] == named


def test_a_spill_directory_that_is_no_folder_stops_the_server(tmp_path):
    with pytest.raises(ConfigurationError) as caught:
        make_spill_folder(tmp_path / "missing")

    assert caught.value.key == "--spill-directory"
    assert str(tmp_path) not in str(caught.value)


def test_files_of_a_server_may_be_named_from_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spill").mkdir()
    settings = ServerSettings(query_denials_file=Path("denials.json"), lake="lake")

    with closing(make_spill_folder(Path("spill"))) as folder:
        assert folder.path.parent == tmp_path / "spill"
    assert find_denials_file(settings, None) == str(tmp_path / "denials.json")


@pytest.mark.parametrize("variable", ["MICROMEGAS_ACCESS_CONFIG", "MICROMEGAS_API_KEY_FILE"])
@pytest.mark.parametrize("content", [None, "{not JSON"])
def test_an_access_configuration_that_could_not_be_used_stops_the_start(tmp_path, variable, content):
    path = tmp_path / "named.json"
    if content is not None:
        path.write_text(content)

    with pytest.raises(ConfigurationError) as caught:
        _build_without_auth(tmp_path, **{variable: str(path)})

    assert caught.value.key.startswith(variable)
    assert str(tmp_path) not in str(caught.value)


_OF_OTHERS = [
    "micromegas_jupyter.access",
    "micromegas_jupyter.audit",
    "micromegas_jupyter.audit.access",
    "micromegas_jupyter.engine.security.conditions",
    "micromegas_jupyter.executors",
    "micromegas_jupyter.lake.maintenance",
    "micromegas_jupyter.server",
    "micromegas_jupyter.supervisor",
    "micromegas_jupyter.supervisor.worker",
    "flightsql_query_audit",
]
_OF_EVERYBODY = [None, "game", "micromegas_jupyter", "micromegas_jupyter.client", "micromegas_jupyter.supervisors"]


def test_executors_of_a_lake_get_its_row_filters(tmp_path):
    options = build_worker_options(ServerSettings(), lake=Storage(tmp_path), denials_file=None, spill_folder=tmp_path)

    assert options.engine.default_conditions == DEFAULT_ROW_FILTERS


@pytest.mark.parametrize(("is_admin", "expected"), [(False, _OF_EVERYBODY), (True, [*_OF_OTHERS, *_OF_EVERYBODY])])
def test_lines_about_other_people_are_for_administrators(tmp_path, is_admin, expected):
    rows = pa.table({"target": pa.array([*_OF_OTHERS, *_OF_EVERYBODY], pa.string())})
    pq.write_table(rows, tmp_path / "rows.parquet")
    table = TableSnapshot(name="log_entries", schema=rows.schema, files=data_files(tmp_path / "rows.parquet"))
    settings = EngineSettings(default_conditions=DEFAULT_ROW_FILTERS)
    engine = DataFusionEngine(FixedTables([table]), settings)

    request = StatementRequest(sql="SELECT target FROM log_entries")
    planned = engine.plan(request, replace(CALLER, is_admin=is_admin))
    seen = [row["target"] for batch in planned.batches() for row in batch.to_pylist()]

    engine.close()
    assert seen == expected


def test_a_server_with_another_engine_rejects_roles_that_limit_what_is_read(tmp_path):
    config = tmp_path / "access.json"
    config.write_text('{"roles": {"analyst": {"tables": ["t"], "max_scan_bytes": 5}}}')
    settings = ServerSettings(engine="grpc://127.0.0.1:9", lake="", spill_directory=tmp_path)
    environ = {
        "MICROMEGAS_ACCESS_CONFIG": str(config),
        "MICROMEGAS_API_KEYS": json.dumps([{"name": "a", "sha256": "0" * 64}]),
    }

    with pytest.raises(ConfigurationError, match="'analyst' has max_scan_bytes") as raised:
        ServerStack(settings, environ=environ)

    assert raised.value.key == "roles.analyst.max_scan_bytes"
