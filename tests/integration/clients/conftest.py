"""One server for each module of these tests."""

import json

import pytest


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server with authentication on, over telemetry and plain Parquet."""
    from tests.integration.clients.serving import running_client_server

    with running_client_server(tmp_path_factory.mktemp("clients")) as running:
        yield running


@pytest.fixture(scope="module")
def connection(server):
    """ADBC's connection of a person who is no administrator."""
    from tests.integration.clients.adbc import adbc_connection

    with adbc_connection(server) as connected:
        yield connected


@pytest.fixture
def cursor(connection):
    """A cursor of its own for each test."""
    with connection.cursor() as opened:
        yield opened


@pytest.fixture
def upstream_profile(server, tmp_path, monkeypatch):
    """Return the name of a profile in upstream's configuration: this server, and an API key in a file."""
    import micromegas.cli.config

    (tmp_path / "reader.key").write_text(server.tokens["reader"])
    profile = {"uri": server.uri, "api_key_file": str(tmp_path / "reader.key")}
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"profiles": {"lab": profile}, "default_profile": "lab"}))
    monkeypatch.setattr(micromegas.cli.config, "CONFIG_PATH", config)
    return "lab"
