"""Clients of other make against our server, and our client with a provider of other make, in one process."""

import adbc_driver_flightsql.dbapi
import pandas as pd
import pytest
from adbc_driver_flightsql import DatabaseOptions
from micromegas.auth import StaticTokenAuthProvider as UpstreamStaticTokenAuthProvider
from micromegas.flightsql.client import FlightSQLClient as UpstreamClient

from micromegas_jupyter import FlightSQLClient, wiring
from micromegas_jupyter.demo.provider.scripted_person import ScriptedPerson

pytestmark = pytest.mark.integration

SQL = "SELECT time, level, target, msg FROM log_entries ORDER BY time DESC LIMIT 3"


@pytest.fixture
def provider(person):
    settings = wiring.load_client_settings(environ=person)
    with ScriptedPerson(person="alice") as browser:
        return wiring.login(settings, browser=browser, environ=person)


def test_the_unmodified_upstream_client_queries_with_our_provider(stack, provider):
    client = UpstreamClient(stack.server.uri, auth_provider=provider)

    frame = client.query(SQL)

    assert isinstance(frame, pd.DataFrame)
    assert list(frame.columns) == ["time", "level", "target", "msg"]
    assert len(frame) == 3


def test_the_upstream_client_streams_and_prepares(stack, provider):
    client = UpstreamClient(stack.server.uri, auth_provider=provider)

    batches = list(client.query_stream(SQL))
    prepared = client.prepare_statement(SQL)

    assert sum(batch.num_rows for batch in batches) == 3
    assert prepared.dataset_schema.names == ["time", "level", "target", "msg"]


def test_the_upstream_client_sends_a_time_range(stack, provider):
    client = UpstreamClient(stack.server.uri, auth_provider=provider)

    frame = client.query("SELECT count(*) AS n FROM log_entries", "2001-01-01T00:00:00Z", "2001-01-02T00:00:00Z")

    assert frame["n"][0] == 0


def test_our_client_accepts_a_provider_of_upstream(stack, provider):
    upstream_provider = UpstreamStaticTokenAuthProvider(provider.get_token())

    with FlightSQLClient(stack.server.uri, auth_provider=upstream_provider) as client:
        frame = client.query(SQL)

    assert len(frame) == 3


def test_adbc_executes_and_fetches_with_a_bearer_token(stack, provider):
    options = {DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {provider.get_token()}"}

    with (
        adbc_driver_flightsql.dbapi.connect(stack.server.uri, db_kwargs=options, autocommit=True) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(SQL)
        table = cursor.fetch_arrow_table()

    assert table.num_rows == 3
    assert table.column_names == ["time", "level", "target", "msg"]


def test_adbc_binds_parameters(stack, provider):
    options = {DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {provider.get_token()}"}

    with (
        adbc_driver_flightsql.dbapi.connect(stack.server.uri, db_kwargs=options, autocommit=True) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT ? AS a, ? AS b", ("it's; DROP TABLE x --", 7))
        row = cursor.fetchone()

    assert row == ("it's; DROP TABLE x --", 7)
