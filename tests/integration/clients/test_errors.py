"""Each error of the server, as each client raises it; docs/clients.md has the table that is held here."""

import adbc_driver_flightsql.dbapi
import adbc_driver_manager
import pyarrow as pa
import pyarrow.flight
import pytest
from micromegas.auth import StaticTokenAuthProvider
from micromegas.flightsql.client import FlightSQLClient as UpstreamClient

from micromegas_jupyter import FlightSQLClient
from micromegas_jupyter.auth import StaticTokenAuthProvider as OwnTokenAuthProvider
from micromegas_jupyter.errors import MicromegasError, error_classes
from tests.architecture.guide_text import read_page, table_rows
from tests.integration.clients.adbc import fetch_rows
from tests.integration.flight_harness import running_server

pytestmark = pytest.mark.integration

_TITLE = "## What an error looks like"
ROWS = [
    tuple(cell.replace("`", "") for cell in row)
    for row in table_rows(read_page("clients.md").partition(_TITLE)[2])
    if row[0].strip("`") in error_classes()
]
WHAT = "It did not work, naïvely."


SQL = "SELECT * FROM anything"


class FailingTables:
    """Tables that cannot be listed, for the reason that a test sets."""

    failure: MicromegasError

    def snapshot(self):
        raise self.failure


TABLES = FailingTables()


@pytest.fixture(scope="module")
def failing():
    with running_server(tables=TABLES) as harness:
        yield harness


@pytest.fixture(autouse=True)
def _failure(request):
    if "row" in request.fixturenames:
        code = request.getfixturevalue("row")[0]
        TABLES.failure = error_classes()[code](WHAT)


@pytest.fixture(scope="module")
def adbc(failing):
    options = {"adbc.flight.sql.authorization_header": "Bearer alice"}
    with adbc_driver_flightsql.dbapi.connect(failing.uri, db_kwargs=options, autocommit=True) as connection:
        yield connection


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_status_is_the_one_in_the_table(failing, row):
    answer = failing.query(SQL)

    assert answer.code.name == row[1]
    assert WHAT in answer.text


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_pyarrow_and_upstreams_client_raise_what_the_table_says(failing, row):
    client = UpstreamClient(failing.uri, auth_provider=StaticTokenAuthProvider("alice"))

    with pytest.raises(Exception, match=WHAT) as caught:
        client.query(SQL)

    assert type(caught.value) is (getattr(pa, row[2], None) or getattr(pyarrow.flight, row[2]))
    assert f"[{row[0]}]" in str(caught.value)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_adbc_raises_what_the_table_says(adbc, row):
    with pytest.raises(adbc_driver_manager.Error, match=WHAT) as caught:
        fetch_rows(adbc, SQL)

    kind, _, status = row[3].partition(" ")
    assert type(caught.value).__name__ == kind
    assert caught.value.status_code.name == status.strip("()")
    assert f"[{row[0]}]" in str(caught.value)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_our_client_raises_what_the_table_says(failing, row):
    with (
        FlightSQLClient(failing.uri, auth_provider=OwnTokenAuthProvider("alice"), timeout_seconds=5) as client,
        pytest.raises(MicromegasError, match=WHAT) as caught,
    ):
        client.query(SQL)

    assert type(caught.value) is error_classes()[row[0]]
    assert type(caught.value).__name__ == row[4]
    assert caught.value.query_id is not None
