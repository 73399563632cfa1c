"""Each error of the server, as each client raises it; docs/clients.md has the table that is held here."""

import adbc_driver_flightsql.dbapi
import adbc_driver_manager
import pyarrow as pa
import pyarrow.flight
import pytest
from micromegas.auth import StaticTokenAuthProvider
from micromegas.flightsql.client import FlightSQLClient as UpstreamClient

from micromegas_jupyter.errors import error_classes
from tests.architecture.guide_text import read_page, table_rows
from tests.integration.clients.adbc import fetch_rows
from tests.integration.flight_harness import running_server

pytestmark = pytest.mark.integration

_TITLE = "## What an error looks like"
ROWS = [
    (code, *(cell.replace("`", "") for cell in row[1:]))
    for row in table_rows(read_page("clients.md").partition(_TITLE)[2])
    for code in row[0].replace("`", "").split(", ")
    if code in error_classes()
]
WHAT = "It did not work, naïvely."


SQL = "SELECT * FROM anything"


class FailingTables:
    """Tables that cannot be listed, for the reason that a test sets."""

    failure = None

    def snapshot(self, sql=None):
        raise self.failure


TABLES = FailingTables()


@pytest.fixture(scope="module")
def failing():
    with running_server(tables=TABLES) as harness:
        yield harness


@pytest.fixture(scope="module")
def adbc(failing):
    options = {"adbc.flight.sql.authorization_header": "Bearer alice"}
    with adbc_driver_flightsql.dbapi.connect(failing.uri, db_kwargs=options, autocommit=True) as connection:
        yield connection


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_each_client_raises_what_the_table_says(failing, adbc, row):
    code, status, of_pyarrow, of_adbc = row
    TABLES.failure = error_classes()[code](WHAT)
    upstream = UpstreamClient(failing.uri, auth_provider=StaticTokenAuthProvider("alice"))

    answer = failing.query(SQL)
    with pytest.raises(Exception, match=WHAT) as by_pyarrow:
        upstream.query(SQL)
    with pytest.raises(adbc_driver_manager.Error, match=WHAT) as by_adbc:
        fetch_rows(adbc, SQL)

    assert (answer.code.name, WHAT in answer.text) == (status, True)
    assert type(by_pyarrow.value) is (getattr(pa, of_pyarrow, None) or getattr(pyarrow.flight, of_pyarrow))
    assert f"{type(by_adbc.value).__name__} ({by_adbc.value.status_code.name})" == of_adbc
    assert f"[{code}]" in str(by_pyarrow.value)
    assert f"[{code}]" in str(by_adbc.value)
    assert type(answer.error) is error_classes()[code]  # which our client raises (client/test_failures.py)
