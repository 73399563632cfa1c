"""One server for each module of these tests."""

import json
from types import SimpleNamespace

import pytest


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server with authentication on, over telemetry and plain Parquet."""
    from tests.integration.clients.serving import running_client_server

    with running_client_server(tmp_path_factory.mktemp("clients")) as running:
        yield running


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory):
    """The same with TLS, for service accounts of a provider: `provider`, the server, and the text of its authority."""
    from micromegas_jupyter.demo.provider import DemoProvider
    from micromegas_jupyter.server.settings import TlsFiles
    from tests.fakes.certificates import Authority
    from tests.integration.clients.serving import running_client_server

    authority = Authority(tmp_path_factory.mktemp("authority"))
    pair = authority.issue("server")
    files = TlsFiles(certificate_file=pair.certificate_file, key_file=pair.key_file)
    with (
        DemoProvider() as provider,
        running_client_server(tmp_path_factory.mktemp("clients"), provider=provider, tls_files=files) as running,
    ):
        yield SimpleNamespace(provider=provider, server=running, authority=authority.ca_file.read_text())


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
