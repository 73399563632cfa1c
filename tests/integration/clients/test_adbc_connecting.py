"""ADBC's driver comes in, is turned away, is cancelled and runs out of time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import adbc_driver_flightsql.dbapi
import adbc_driver_manager
import pyarrow as pa
import pytest
from adbc_driver_flightsql import ConnectionOptions, DatabaseOptions, StatementOptions

import micromegas_jupyter
from tests.integration.clients.adbc import ENDLESS, adbc_connection, drain, fetch_rows
from tests.integration.clients.serving import MANY_COUNT

if TYPE_CHECKING:
    from adbc_driver_flightsql.dbapi import Connection, Cursor

    from tests.integration.clients.serving import ClientServer

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("who", ["alice", "bob", "reader", "loader"])
def test_a_signed_token_and_an_api_key_let_in(server: ClientServer, who: str) -> None:
    with adbc_connection(server, who) as connection:
        assert fetch_rows(connection, "SELECT 1") == [(1,)]


@pytest.mark.parametrize("who", ["bob", "reader"])
def test_a_password_is_exchanged_for_a_bearer(server: ClientServer, who: str) -> None:
    options = {"username": "anybody", "password": server.tokens[who]}

    with adbc_driver_flightsql.dbapi.connect(server.uri, db_kwargs=options, autocommit=True) as connection:
        assert fetch_rows(connection, "SELECT 1") == [(1,)]


def test_a_wrong_password_is_refused(server: ClientServer) -> None:
    options = {"username": "anybody", "password": "wrong"}

    with pytest.raises(adbc_driver_manager.ProgrammingError, match="AUTH010") as caught:
        adbc_driver_flightsql.dbapi.connect(server.uri, db_kwargs=options, autocommit=True)

    assert caught.value.status_code is adbc_driver_manager.AdbcStatusCode.UNAUTHENTICATED


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


def test_the_server_tells_its_name_and_versions(connection: Connection) -> None:
    info = connection.adbc_get_info()

    assert (info["vendor_name"], info["vendor_version"]) == ("micromegas_jupyter", micromegas_jupyter.__version__)


def test_headers_reach_the_query(server: ClientServer) -> None:
    prefix = DatabaseOptions.RPC_CALL_HEADER_PREFIX.value
    headers = {
        f"{prefix}limit": "5",
        f"{prefix}query_range_begin": "2026-11-24T12:00:00Z",
        f"{prefix}query_range_end": "2026-11-24T12:00:01Z",
        f"{prefix}x-client-type": "adbc",
    }

    with adbc_connection(server, **headers) as connection:
        assert len(fetch_rows(connection, "SELECT n FROM many")) == 5
        assert fetch_rows(connection, "SELECT count(*) FROM measures") == [(2,)]


def test_dictionaries_are_kept_on_request(server: ClientServer) -> None:
    prefix = DatabaseOptions.RPC_CALL_HEADER_PREFIX.value
    headers = {f"{prefix}preserve_dictionary": "true"}

    with adbc_connection(server, **headers) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT level, word FROM wide ORDER BY id")
        table = cursor.fetch_arrow_table()

    assert table.schema.types == [pa.dictionary(pa.int32(), pa.string()), pa.string()]
    assert table["level"].to_pylist() == ["info", "warn", None]


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_rows_arrive_compressed_on_request(server: ClientServer, compression: str) -> None:
    prefix = DatabaseOptions.RPC_CALL_HEADER_PREFIX.value
    headers = {f"{prefix}x-micromegas-compression": compression}

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


def test_a_clone_of_a_connection_is_a_connection(connection: Connection) -> None:
    with pytest.warns(match="Cannot disable autocommit"):
        clone = connection.adbc_clone()
    with clone:
        assert fetch_rows(clone, "SELECT 1") == [(1,)]

    assert fetch_rows(connection, "SELECT 2") == [(2,)]


def test_a_query_is_cancelled_while_it_is_read(connection: Connection) -> None:
    with connection.cursor(adbc_stmt_kwargs={StatementOptions.QUEUE_SIZE.value: "1"}) as cursor:
        cursor.execute(ENDLESS)

        cursor.adbc_cancel()

        with pytest.raises(OSError, match="cancel"):
            drain(cursor)


def test_after_a_cancelled_query_the_cursor_runs_the_next(cursor: Cursor) -> None:
    cursor.execute(ENDLESS)
    cursor.adbc_cancel()

    cursor.execute("SELECT 1")

    assert cursor.fetchall() == [(1,)]


@pytest.mark.parametrize("option", [StatementOptions.TIMEOUT_QUERY, StatementOptions.TIMEOUT_UPDATE])
def test_a_statement_that_takes_longer_than_allowed_ends(connection: Connection, option: StatementOptions) -> None:
    with (
        connection.cursor(adbc_stmt_kwargs={option.value: "0.000001"}) as cursor,
        pytest.raises(adbc_driver_manager.OperationalError, match="deadline") as caught,
    ):
        cursor.execute("SELECT ?", (1,))

    assert caught.value.status_code is adbc_driver_manager.AdbcStatusCode.TIMEOUT


def test_rows_that_take_longer_than_allowed_end(connection: Connection) -> None:
    with (
        connection.cursor(adbc_stmt_kwargs={StatementOptions.TIMEOUT_FETCH.value: "0.2"}) as cursor,
        pytest.raises((OSError, adbc_driver_manager.OperationalError), match="deadline"),
    ):
        drain(cursor, ENDLESS)
