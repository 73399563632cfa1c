"""`micromegas serve` as it runs for others: a process of its own, TLS, clients with certificates."""

from types import SimpleNamespace

import adbc_driver_flightsql.dbapi
import pytest
from adbc_driver_flightsql import DatabaseOptions

from micromegas_jupyter.core.storage import Storage
from tests.fakes.certificates import Authority
from tests.integration.clients.adbc import fetch_rows
from tests.integration.clients.serving import LOG_COUNT, make_access, write_telemetry
from tests.integration.executors.server_process import ServerProcess

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]  # several processes start

COUNT = "SELECT count(*) FROM log_entries WHERE target = 'app'"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A running server; `options` are ADBC's for a caller whose certificate it accepts."""
    folder = tmp_path_factory.mktemp("served")
    write_telemetry(Storage(folder / "lake"))
    environ, tokens = make_access(folder)
    authority = Authority(folder)
    server, client = authority.issue("server"), authority.issue("client")
    files = ("--tls-certificate", server.certificate_file, "--tls-key", server.key_file)
    options = {
        DatabaseOptions.TLS_ROOT_CERTS.value: authority.ca_file.read_text(),
        DatabaseOptions.MTLS_CERT_CHAIN.value: client.certificate_file.read_text(),
        DatabaseOptions.MTLS_PRIVATE_KEY.value: client.key_file.read_text(),
    }
    more = ("--tls-client-ca", str(authority.ca_file), "--no-telemetry", "--no-http", "--drain-timeout", "1")
    with ServerProcess(
        folder / "server", lake=folder / "lake", keys={}, options=(*map(str, files), *more), variables=environ
    ) as running:
        yield SimpleNamespace(uri=running.uri, tokens=tokens, options=options)


@pytest.mark.parametrize("who", ["bob", "reader"])
def test_a_client_with_certificate_and_credential_is_served(served, who):
    options = {**served.options, DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {served.tokens[who]}"}

    with adbc_driver_flightsql.dbapi.connect(served.uri, db_kwargs=options, autocommit=True) as connection:
        assert fetch_rows(connection, COUNT) == [(LOG_COUNT,)]
