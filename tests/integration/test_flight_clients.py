"""Real clients, in one process with each other: pyarrow's, ADBC's and upstream's unmodified one."""

import adbc_driver_flightsql.dbapi
import pyarrow as pa
import pyarrow.flight
import pytest
from adbc_driver_flightsql import DatabaseOptions

from micromegas_jupyter.flightsql.commands import messages, pack_any, statement_ticket
from tests.integration.flight_harness import LARGE, WORDS

pytestmark = pytest.mark.integration

WRONG = "SELECT tagret FROM log_entries"
NUMBERS_SCHEMA = pa.schema([pa.field("n", pa.int64(), nullable=False)])
OPTIONS = pyarrow.flight.FlightCallOptions(headers=[(b"authorization", b"Bearer alice")], timeout=60)


@pytest.fixture
def adbc(flight):
    options = {DatabaseOptions.AUTHORIZATION_HEADER.value: "Bearer alice"}
    with adbc_driver_flightsql.dbapi.connect(flight.uri, db_kwargs=options, autocommit=True) as connection:
        yield connection


def test_pyarrow_follows_flight_info_to_the_rows(flight):
    descriptor = pyarrow.flight.FlightDescriptor.for_command(pack_any(messages.CommandStatementQuery(query=WORDS)))

    with pyarrow.flight.connect(flight.uri) as client:
        info = client.get_flight_info(descriptor, OPTIONS)
        table = client.do_get(info.endpoints[0].ticket, OPTIONS).read_all()

    assert info.schema == table.schema
    assert table["word"].to_pylist() == ["a", "b", "a"]


def test_pyarrow_reads_a_large_batch_in_small_messages(flight):
    with pyarrow.flight.connect(flight.uri) as client:
        reader = client.do_get(pyarrow.flight.Ticket(statement_ticket(LARGE)), OPTIONS)
        chunks = [chunk.data for chunk in reader]

    assert max(chunk.nbytes for chunk in chunks) <= 2 * 1024 * 1024
    assert pa.Table.from_batches(chunks)["n"].to_pylist() == list(range(1_000_000))


def test_pyarrow_exchanges_a_password(flight):
    with pyarrow.flight.connect(flight.uri) as client:
        assert client.authenticate_basic_token("anybody", "alice") == (b"authorization", b"Bearer alice")


def test_pyarrow_sees_a_status_as_its_own_class(flight):
    with pyarrow.flight.connect(flight.uri) as client, pytest.raises(pa.ArrowInvalid, match=r"SQL001.*line 1"):
        client.do_get(pyarrow.flight.Ticket(statement_ticket(WRONG)), OPTIONS).read_all()


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_real_clients_read_compressed_rows(flight, compression):
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


def test_adbc_describes_the_database(adbc):
    (catalog,) = adbc.adbc_get_objects(depth="tables").read_all().to_pylist()

    (schema,) = catalog["catalog_db_schemas"]
    assert [table["table_name"] for table in schema["db_schema_tables"]] == ["log_entries", "processes"]
    assert adbc.adbc_get_table_schema("processes").names == ["process_id", "start_time", "last_update_time"]
    assert adbc.adbc_get_table_types() == ["table"]
    assert adbc.adbc_get_info()["vendor_name"] == "micromegas_jupyter"
