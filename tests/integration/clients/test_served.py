"""`micromegas serve` as it runs for others: a process of its own, TLS, clients with certificates."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass

import adbc_driver_flightsql.dbapi
import adbc_driver_manager
import pyarrow.flight
import pytest
from adbc_driver_flightsql import DatabaseOptions

from micromegas_jupyter.flightsql.commands import statement_ticket
from micromegas_jupyter.lake.lake import Lake
from tests.fakes.certificates import Authority
from tests.integration.clients.adbc import fetch_rows
from tests.integration.clients.serving import LOG_COUNT, make_access, write_telemetry
from tests.integration.executors.server_process import ServerProcess

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]  # several processes start

COUNT = "SELECT count(*) FROM log_entries WHERE target = 'app'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A running server; `options` are ADBC's for a caller whose certificate it accepts."""

    uri: str
    tokens: dict[str, str]
    options: dict[str, str]

    @contextmanager
    def connect(self, who="bob"):
        options = {**self.options, DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {self.tokens[who]}"}
        with adbc_driver_flightsql.dbapi.connect(self.uri, db_kwargs=options, autocommit=True) as connection:
            yield connection


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    write_telemetry(Lake(folder / "lake"))
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
        yield Served(uri=running.uri, tokens=tokens, options=options)


@pytest.mark.parametrize("who", ["bob", "reader"])
def test_a_client_with_certificate_and_credential_is_served(served, who):
    with served.connect(who) as connection:
        assert fetch_rows(connection, COUNT) == [(LOG_COUNT,)]


def test_a_client_without_a_certificate_is_not(served):
    options = {
        DatabaseOptions.TLS_ROOT_CERTS.value: served.options[DatabaseOptions.TLS_ROOT_CERTS.value],
        DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {served.tokens['bob']}",
    }

    with (
        pytest.raises(adbc_driver_manager.OperationalError, match="Unavailable") as caught,
        adbc_driver_flightsql.dbapi.connect(served.uri, db_kwargs=options, autocommit=True) as connection,
    ):
        fetch_rows(connection, "SELECT 1")

    assert caught.value.status_code is adbc_driver_manager.AdbcStatusCode.IO


def test_pyarrow_comes_in_with_a_certificate(served):
    headers = [(b"authorization", f"Bearer {served.tokens['reader']}".encode())]
    options = pyarrow.flight.FlightCallOptions(headers=headers, timeout=60)

    with pyarrow.flight.connect(
        served.uri,
        tls_root_certs=served.options[DatabaseOptions.TLS_ROOT_CERTS.value],
        cert_chain=served.options[DatabaseOptions.MTLS_CERT_CHAIN.value],
        private_key=served.options[DatabaseOptions.MTLS_PRIVATE_KEY.value],
    ) as client:
        table = client.do_get(pyarrow.flight.Ticket(statement_ticket(COUNT)), options).read_all()

    assert table.column(0).to_pylist() == [LOG_COUNT]
