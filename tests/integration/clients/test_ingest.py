"""Rows are sent by ADBC and by upstream's client, by those who may."""

import adbc_driver_manager
import pyarrow as pa
import pytest
from micromegas.auth import StaticTokenAuthProvider
from micromegas.flightsql.client import FlightSQLClient

from tests.fakes.telemetry_rows import log_batch
from tests.integration.clients.adbc import adbc_connection, fetch_rows
from tests.integration.clients.wide_rows import sent_table, wide_table

pytestmark = pytest.mark.integration


def rows_of(target, count=3):
    """Log entries that a test finds again by their target."""
    return pa.Table.from_batches([log_batch(range(count), writer=target)])


def stored(connection, target):
    ((count,),) = fetch_rows(connection, f"SELECT count(*) FROM log_entries WHERE target = '{target}'")
    assert isinstance(count, int)
    return count


def ingest(server, who, table, rows, **options):
    with adbc_connection(server, who) as connection, connection.cursor() as cursor:
        return cursor.adbc_ingest(table, rows, **{"mode": "append", **options})


@pytest.mark.parametrize(("who", "mode"), [("alice", "append"), ("loader", "create_append"), ("collector", "append")])
def test_adbc_sends_rows_that_everybody_sees_at_once(server, connection, who, mode):
    target = f"{who}-{mode}"

    assert ingest(server, who, "log_entries", rows_of(target), mode=mode) == 3
    assert stored(connection, target) == 3


def test_adbc_makes_a_table_of_every_type_that_is_kept_once_and_adds_to_it(server, connection):
    not_kept = ["clock"]
    rows = wide_table().drop_columns(not_kept)
    with pytest.raises(adbc_driver_manager.ProgrammingError, match=r"'clock' has the type time64.*USE001"):
        ingest(server, "alice", "made", wide_table(), mode="create")
    assert ingest(server, "alice", "made", rows, mode="create") == 3
    with pytest.raises(adbc_driver_manager.ProgrammingError, match=r"made already exists.*USE002"):
        ingest(server, "alice", "made", rows, mode="create")

    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM made ORDER BY id")
        assert cursor.fetch_arrow_table().to_pylist() == sent_table().drop_columns(not_kept).to_pylist()
    assert ingest(server, "alice", "made", rows, mode="append") == 3
    assert fetch_rows(connection, "SELECT count(*) FROM made") == [(6,)]
    assert connection.adbc_get_table_schema("made").names == rows.column_names


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"mode": "replace"}, adbc_driver_manager.ProgrammingError, "belongs to the data model.*USE001"),
        ({"mode": "create"}, adbc_driver_manager.ProgrammingError, "log_entries already exists.*USE002"),
        ({"temporary": True}, adbc_driver_manager.NotSupportedError, "Temporary.*SQL007"),
        ({"catalog_name": "other"}, adbc_driver_manager.NotSupportedError, "catalog.*SQL007"),
        ({"db_schema_name": "other"}, adbc_driver_manager.NotSupportedError, "schema.*SQL007"),
    ],
)
def test_what_would_take_rows_away_or_put_them_elsewhere_is_refused(server, connection, options, kind, text):
    with pytest.raises(kind, match=text):
        ingest(server, "alice", "log_entries", rows_of("refused"), **options)

    assert stored(connection, "refused") == 0


@pytest.mark.parametrize("who", ["alice", "collector"])
def test_upstreams_client_sends_rows(server, connection, who):
    client = FlightSQLClient(server.uri, auth_provider=StaticTokenAuthProvider(server.tokens[who]))

    assert client.bulk_ingest("log_entries", rows_of(f"upstream-{who}")).record_count == 3
    assert client.bulk_ingest("log_entries", rows_of(f"upstream-{who}", 0)).record_count == 0
    assert stored(connection, f"upstream-{who}") == 3
