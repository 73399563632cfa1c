"""`micromegas serve` as it runs for others: two worker processes behind one port, TLS, clients with certificates."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import adbc_driver_flightsql.dbapi
import adbc_driver_manager
import pyarrow as pa
import pyarrow.flight
import pytest
from adbc_driver_flightsql import DatabaseOptions

from micromegas_jupyter.flightsql.commands import statement_ticket
from micromegas_jupyter.lakehouse import Lake
from tests.fakes.certificates import Authority
from tests.fakes.telemetry_rows import log_batch
from tests.integration.clients.adbc import ENDLESS, drain, fetch_rows
from tests.integration.clients.serving import LOG_COUNT, make_access, write_telemetry
from tests.integration.workers.serving import Serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from adbc_driver_flightsql.dbapi import Connection

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]  # several processes start

# Each new connection goes to one of the two workers; that all of these go to one happens once in 2 ** 11.
CONNECTIONS = 12
COUNT = "SELECT count(*) FROM log_entries WHERE target = 'app'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A running server; `options` are ADBC's for a caller whose certificate it accepts."""

    uri: str
    tokens: dict[str, str]
    options: dict[str, str]

    @contextmanager
    def connect(self, who: str = "bob") -> Iterator[Connection]:
        options = {**self.options, DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {self.tokens[who]}"}
        with adbc_driver_flightsql.dbapi.connect(self.uri, db_kwargs=options, autocommit=True) as connection:
            yield connection


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
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
    with Serving(
        folder / "lake", *map(str, files), "--tls-client-ca", str(authority.ca_file), "--no-telemetry", "--no-http",
        "--drain-seconds", "1", environ=environ,
    ) as running:  # fmt: skip
        yield Served(uri=running.uri, tokens=tokens, options=options)


@pytest.mark.parametrize("who", ["alice", "bob", "reader", "loader"])
def test_a_client_with_certificate_and_credential_is_served(served: Served, who: str) -> None:
    with served.connect(who) as connection:
        assert fetch_rows(connection, COUNT) == [(LOG_COUNT,)]


def test_a_client_without_a_certificate_is_not(served: Served) -> None:
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


def test_values_are_bound_whichever_worker_answers(served: Served) -> None:
    for number in range(CONNECTIONS):
        with served.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT msg FROM log_entries WHERE msg = ? OR msg = ?", ("nothing", f"app:{number}"))
            assert cursor.fetchall() == [(f"app:{number}",)]


def test_a_partition_is_read_through_any_worker(served: Served) -> None:
    with served.connect() as connection, connection.cursor() as cursor:
        (partition,), _schema = cursor.adbc_execute_partitions(COUNT)

        for _ in range(CONNECTIONS):
            with served.connect() as other, other.cursor() as reader:
                reader.adbc_read_partition(partition)
                assert reader.fetchall() == [(LOG_COUNT,)]


def test_rows_that_one_worker_took_are_seen_through_any(served: Served) -> None:
    for number in range(CONNECTIONS // 2):
        with served.connect("loader") as writer, writer.cursor() as cursor:
            rows = pa.Table.from_batches([log_batch(range(10), writer=f"worker-{number}")])
            assert cursor.adbc_ingest("log_entries", rows, mode="append") == 10
        with served.connect() as reader:
            sql = f"SELECT count(*) FROM log_entries WHERE target = 'worker-{number}'"
            assert fetch_rows(reader, sql) == [(10,)]


def test_a_cancelled_query_leaves_the_connection_usable(served: Served) -> None:
    with served.connect() as connection:
        with connection.cursor() as cursor:
            cursor.execute(ENDLESS)
            cursor.adbc_cancel()
            with pytest.raises(OSError, match="cancel"):
                drain(cursor)

        assert fetch_rows(connection, "SELECT 1") == [(1,)]


def test_the_catalog_is_the_same_through_any_worker(served: Served) -> None:
    answers = []
    for _ in range(CONNECTIONS // 2):
        with served.connect() as connection:
            answers.append(connection.adbc_get_objects(depth="columns").read_all().to_pylist())

    assert answers == [answers[0]] * len(answers)


def test_pyarrow_comes_in_with_a_certificate(served: Served) -> None:
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
