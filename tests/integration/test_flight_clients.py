"""Real clients, in one process with each other: pyarrow's, ADBC's and upstream's unmodified one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import adbc_driver_flightsql.dbapi
import adbc_driver_manager
import pandas as pd
import pyarrow as pa
import pyarrow.flight
import pytest
from adbc_driver_flightsql import DatabaseOptions
from micromegas.flightsql.client import FlightSQLClient as UpstreamClient

from micromegas_jupyter.flightsql import messages
from micromegas_jupyter.flightsql.commands import pack_any, statement_ticket
from tests.integration.flight_harness import LARGE, NUMBERS, WORDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.flight_harness import FlightHarness

pytestmark = pytest.mark.integration

WRONG = "SELECT tagret FROM log_entries"
NUMBERS_SCHEMA = pa.schema([pa.field("n", pa.int64(), nullable=False)])
OPTIONS = pyarrow.flight.FlightCallOptions(headers=[(b"authorization", b"Bearer alice")], timeout=60)


class StaticToken:
    """Upstream's idea of an authentication provider."""

    def get_token(self) -> str:
        return "alice"


@pytest.fixture
def upstream(flight: FlightHarness) -> UpstreamClient:
    return UpstreamClient(flight.uri, auth_provider=StaticToken())


@pytest.fixture
def adbc(flight: FlightHarness) -> Iterator[adbc_driver_flightsql.dbapi.Connection]:
    options = {DatabaseOptions.AUTHORIZATION_HEADER.value: "Bearer alice"}
    with adbc_driver_flightsql.dbapi.connect(flight.uri, db_kwargs=options, autocommit=True) as connection:
        yield connection


def test_pyarrow_follows_flight_info_to_the_rows(flight: FlightHarness) -> None:
    descriptor = pyarrow.flight.FlightDescriptor.for_command(pack_any(messages.CommandStatementQuery(query=WORDS)))

    with pyarrow.flight.connect(flight.uri) as client:
        info = client.get_flight_info(descriptor, OPTIONS)
        table = client.do_get(info.endpoints[0].ticket, OPTIONS).read_all()

    assert info.schema == table.schema
    assert table["word"].to_pylist() == ["a", "b", "a"]


def test_pyarrow_reads_a_large_batch_in_small_messages(flight: FlightHarness) -> None:
    with pyarrow.flight.connect(flight.uri) as client:
        reader = client.do_get(pyarrow.flight.Ticket(statement_ticket(LARGE)), OPTIONS)
        chunks = [chunk.data for chunk in reader]

    assert max(chunk.nbytes for chunk in chunks) <= 2 * 1024 * 1024
    assert pa.Table.from_batches(chunks)["n"].to_pylist() == list(range(1_000_000))


def test_pyarrow_exchanges_a_password(flight: FlightHarness) -> None:
    with pyarrow.flight.connect(flight.uri) as client:
        assert client.authenticate_basic_token("anybody", "alice") == (b"authorization", b"Bearer alice")


def test_pyarrow_sees_a_status_as_its_own_class(flight: FlightHarness) -> None:
    with pyarrow.flight.connect(flight.uri) as client, pytest.raises(pa.ArrowInvalid, match=r"SQL001.*line 1"):
        client.do_get(pyarrow.flight.Ticket(statement_ticket(WRONG)), OPTIONS).read_all()


def test_adbc_executes_and_fetches(adbc: adbc_driver_flightsql.dbapi.Connection) -> None:
    with adbc.cursor() as cursor:
        cursor.execute(NUMBERS)
        table = cursor.fetch_arrow_table()

    assert table == pa.table({"n": [1, 2, 3]}, NUMBERS_SCHEMA)


def test_adbc_binds_parameters(adbc: adbc_driver_flightsql.dbapi.Connection) -> None:
    with adbc.cursor() as cursor:
        cursor.execute("SELECT ? AS n", (42,))
        table = cursor.fetch_arrow_table()

    assert table == pa.table({"n": [42]}, NUMBERS_SCHEMA)


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_real_clients_read_compressed_rows(flight: FlightHarness, compression: str) -> None:
    headers = [(b"authorization", b"Bearer alice"), (b"x-micromegas-compression", compression.encode())]
    options = {
        DatabaseOptions.AUTHORIZATION_HEADER.value: "Bearer alice",
        f"{DatabaseOptions.RPC_CALL_HEADER_PREFIX.value}x-micromegas-compression": compression,
    }

    with pyarrow.flight.connect(flight.uri) as client:
        call = pyarrow.flight.FlightCallOptions(headers=headers, timeout=60)
        by_pyarrow = client.do_get(pyarrow.flight.Ticket(statement_ticket(LARGE)), call).read_all()
    with (
        adbc_driver_flightsql.dbapi.connect(flight.uri, db_kwargs=options, autocommit=True) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(LARGE)
        by_adbc = cursor.fetch_arrow_table()

    assert by_pyarrow == by_adbc
    assert by_adbc["n"].to_pylist() == list(range(1_000_000))


def test_adbc_binds_several_rows(adbc: adbc_driver_flightsql.dbapi.Connection) -> None:
    with adbc.cursor() as cursor:
        cursor.execute("SELECT ? AS n", pa.record_batch({"0": pa.array([1, 2, 3])}))
        assert cursor.fetchall() == [(1,), (2,), (3,)]


def test_adbc_reads_a_partition_after_its_statement_was_closed(adbc: adbc_driver_flightsql.dbapi.Connection) -> None:
    with adbc.cursor() as cursor:
        partitions, _ = cursor.adbc_execute_partitions(NUMBERS)
    with adbc.cursor() as cursor:
        cursor.adbc_read_partition(partitions[0])
        assert cursor.fetchall() == [(1,), (2,), (3,)]


def test_adbc_is_told_what_to_do_instead_of_an_update(adbc: adbc_driver_flightsql.dbapi.Connection) -> None:
    with adbc.cursor() as cursor, pytest.raises(adbc_driver_manager.ProgrammingError, match="not executemany"):
        cursor.executemany("SELECT ? AS n", [(1,), (2,)])


def test_adbc_reads_session_options(adbc: adbc_driver_flightsql.dbapi.Connection) -> None:
    assert (adbc.adbc_current_catalog, adbc.adbc_current_db_schema) == ("", "")
    with pytest.raises(adbc_driver_manager.ProgrammingError, match="invalid value"):
        adbc.adbc_current_catalog = "other"


def test_adbc_describes_the_database(adbc: adbc_driver_flightsql.dbapi.Connection) -> None:
    (catalog,) = adbc.adbc_get_objects(depth="tables").read_all().to_pylist()

    (schema,) = catalog["catalog_db_schemas"]
    assert [table["table_name"] for table in schema["db_schema_tables"]] == ["log_entries", "processes"]
    assert adbc.adbc_get_table_schema("processes").names == ["process_id", "start_time", "last_update_time"]
    assert adbc.adbc_get_table_types() == ["table"]
    assert adbc.adbc_get_info()["vendor_name"] == "micromegas_jupyter"


def test_adbc_signs_in_with_a_password(flight: FlightHarness) -> None:
    options = {"username": "anybody", "password": "alice"}

    with (
        adbc_driver_flightsql.dbapi.connect(flight.uri, db_kwargs=options, autocommit=True) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(NUMBERS)
        assert cursor.fetchall() == [(1,), (2,), (3,)]


def test_adbc_learns_what_is_wrong(adbc: adbc_driver_flightsql.dbapi.Connection) -> None:
    with adbc.cursor() as cursor, pytest.raises(adbc_driver_manager.ProgrammingError, match="SQL001"):
        cursor.execute(WRONG)


def test_upstreams_client_queries(upstream: UpstreamClient) -> None:
    frame = upstream.query(f"\n   {NUMBERS} ; ", begin="2026-01-01T00:00:00Z", end="2026-01-02T00:00:00Z")

    pd.testing.assert_frame_equal(frame, pd.DataFrame({"n": [1, 2, 3]}))


def test_upstreams_client_streams_and_keeps_dictionaries(flight: FlightHarness, upstream: UpstreamClient) -> None:
    keeping = UpstreamClient(flight.uri, auth_provider=StaticToken(), preserve_dictionary=True)

    batches = list(upstream.query_stream(NUMBERS))
    kinds = [client.query_arrow(WORDS).schema.field("word").type for client in (upstream, keeping)]

    assert [batch.num_rows for batch in batches] == [3]
    assert kinds == [pa.string(), pa.dictionary(pa.int32(), pa.string())]


def test_upstreams_client_prepares_shows_and_runs_a_statement(upstream: UpstreamClient) -> None:
    statement = upstream.prepare_statement(NUMBERS)

    assert statement.query.startswith(f"{NUMBERS}\n-- prepared ")
    assert statement.dataset_schema == NUMBERS_SCHEMA
    assert [batch.num_rows for batch in upstream.prepared_statement_stream(statement)] == [3]


def test_upstreams_client_is_recognised_in_the_engine(upstream: UpstreamClient) -> None:
    assert upstream.query("SELECT current_user() AS who")["who"].tolist() == ["alice"]
