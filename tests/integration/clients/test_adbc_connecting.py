"""ADBC's driver comes in, is turned away, is cancelled and runs out of time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import adbc_driver_flightsql.dbapi
import adbc_driver_manager
import pytest
from adbc_driver_flightsql import ConnectionOptions, DatabaseOptions, StatementOptions

from tests.integration.clients.adbc import ENDLESS, adbc_connection, drain, fetch_rows
from tests.integration.clients.serving import MANY_COUNT

if TYPE_CHECKING:
    from adbc_driver_flightsql.dbapi import Connection

    from tests.integration.clients.serving import ClientServer

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("who", ["bob", "reader"])
def test_a_signed_token_and_an_api_key_let_in(server: ClientServer, who: str) -> None:
    with adbc_connection(server, who) as connection:
        assert fetch_rows(connection, "SELECT 1") == [(1,)]


@pytest.mark.parametrize("who", ["bob", "reader"])
def test_a_password_is_exchanged_for_a_bearer(server: ClientServer, who: str) -> None:
    options = {"username": "anybody", "password": server.tokens[who]}

    with adbc_driver_flightsql.dbapi.connect(server.uri, db_kwargs=options, autocommit=True) as connection:
        assert fetch_rows(connection, "SELECT 1") == [(1,)]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "The call carries no credential"),
        ({DatabaseOptions.AUTHORIZATION_HEADER.value: "Bearer wrong"}, "does not accept this credential"),
    ],
)
def test_without_an_acceptable_credential_no_statement_runs(
    server: ClientServer, options: dict[str, str], text: str
) -> None:
    with (
        adbc_driver_flightsql.dbapi.connect(server.uri, db_kwargs=options, autocommit=True) as connection,
        connection.cursor() as cursor,
        pytest.raises(adbc_driver_manager.ProgrammingError, match=text) as caught,
    ):
        cursor.execute("SELECT 1")

    assert caught.value.status_code is adbc_driver_manager.AdbcStatusCode.UNAUTHENTICATED


def test_a_key_that_may_only_ingest_reads_nothing(server: ClientServer) -> None:
    with (
        adbc_connection(server, "collector") as connection,
        connection.cursor() as cursor,
        pytest.raises(adbc_driver_manager.ProgrammingError, match="AUTH020") as caught,
    ):
        cursor.execute("SELECT 1")

    assert caught.value.status_code is adbc_driver_manager.AdbcStatusCode.UNAUTHORIZED


def test_rows_arrive_compressed_on_request(server: ClientServer) -> None:
    headers = {f"{DatabaseOptions.RPC_CALL_HEADER_PREFIX.value}x-micromegas-compression": "zstd"}

    with adbc_connection(server, **headers) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT n, text FROM many ORDER BY n")
        table = cursor.fetch_arrow_table()

    assert table["n"].to_pylist() == list(range(MANY_COUNT))
    assert table["text"][MANY_COUNT - 1].as_py() == f"row {MANY_COUNT - 1}"


def test_without_autocommit_reading_works_and_commit_changes_nothing(server: ClientServer) -> None:
    options = {DatabaseOptions.AUTHORIZATION_HEADER.value: server.bearer()}

    with pytest.warns(match="Cannot disable autocommit"):
        connection = adbc_driver_flightsql.dbapi.connect(server.uri, db_kwargs=options)
    with connection:
        assert fetch_rows(connection, "SELECT 1") == [(1,)]
        connection.commit()
        connection.rollback()
        assert fetch_rows(connection, "SELECT 2") == [(2,)]


def test_the_session_has_fixed_options(connection: Connection) -> None:
    options = connection.adbc_connection.get_option(ConnectionOptions.OPTION_SESSION_OPTIONS.value)

    assert json.loads(options) == {"catalog": "", "schema": "", "timezone": "UTC"}
    assert (connection.adbc_current_catalog, connection.adbc_current_db_schema) == ("", "")
    with pytest.raises(adbc_driver_manager.ProgrammingError, match="catalog"):
        connection.adbc_current_catalog = "other"
    with pytest.raises(adbc_driver_manager.ProgrammingError, match="schema"):
        connection.adbc_current_db_schema = "other"


def test_a_query_is_cancelled_while_it_is_read(connection: Connection) -> None:
    with connection.cursor(adbc_stmt_kwargs={StatementOptions.QUEUE_SIZE.value: "1"}) as cursor:
        cursor.execute(ENDLESS)

        cursor.adbc_cancel()

        with pytest.raises(OSError, match="cancel"):
            drain(cursor)


def test_a_statement_that_takes_longer_than_allowed_ends(connection: Connection) -> None:
    with (
        connection.cursor(adbc_stmt_kwargs={StatementOptions.TIMEOUT_QUERY.value: "0.000001"}) as cursor,
        pytest.raises(adbc_driver_manager.OperationalError, match="deadline") as caught,
    ):
        cursor.execute("SELECT ?", (1,))

    assert caught.value.status_code is adbc_driver_manager.AdbcStatusCode.TIMEOUT
