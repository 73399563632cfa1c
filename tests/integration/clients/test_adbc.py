"""ADBC's driver: coming in, every way to fetch, every type, parameters, the catalog, errors, limits of time."""

import datetime as dt
import json
from decimal import Decimal

import adbc_driver_flightsql.dbapi
import adbc_driver_manager
import micromegas.auth
import micromegas.flightsql.client
import pandas as pd
import pyarrow as pa
import pytest
from adbc_driver_flightsql import ConnectionOptions, DatabaseOptions, StatementOptions

from micromegas_jupyter.auth import StaticTokenAuthProvider
from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.telemetry.tables import ROLE_KEY
from tests.integration.clients.adbc import ENDLESS, adbc_connection, drain, fetch_rows
from tests.integration.clients.serving import MANY_COUNT, TABLE_NAMES
from tests.integration.clients.wide_rows import NAMES, sent_table

pytestmark = pytest.mark.integration


def test_rows_are_fetched_as_a_table(cursor):
    cursor.execute("SELECT * FROM wide ORDER BY id")

    table = cursor.fetch_arrow_table()

    assert table.schema.types == sent_table().schema.types
    assert table.to_pylist() == sent_table().to_pylist()


def test_all_schemas_of_a_statement_have_the_same_roles(server, cursor):
    sql = (
        "SELECT date_trunc('minute', time) AS minute, name, max(value) AS v, count(*) AS n FROM measures GROUP BY 1, 2"
    )
    roles = [b"time", b"category", b"measure", b"measure"]

    with FlightSQLClient(server.uri, auth_provider=StaticTokenAuthProvider(Secret(server.tokens["bob"]))) as client:
        schemas = [client.prepare_statement(sql).dataset_schema, client.query_arrow(sql).schema]
        frame = client.query(sql)
    _, of_info = cursor.adbc_execute_partitions(sql)
    schemas += [of_info, cursor.adbc_execute_schema(sql)]
    cursor.execute(sql)
    table = cursor.fetch_arrow_table()
    upstream = micromegas.flightsql.client.FlightSQLClient(
        server.uri, auth_provider=micromegas.auth.StaticTokenAuthProvider(server.tokens["bob"])
    )

    assert [field.metadata[ROLE_KEY] for field in table.schema] == roles
    assert all(one.equals(table.schema, check_metadata=True) for one in schemas)
    order = ["minute", "name"]
    pd.testing.assert_frame_equal(
        upstream.query(sql).sort_values(order, ignore_index=True), frame.sort_values(order, ignore_index=True)
    )
    assert frame["n"].sum() == 60


def test_a_partition_is_read_by_another_connection_of_the_caller(server, cursor):
    with adbc_connection(server) as other, other.cursor() as reader:
        partitions, schema = cursor.adbc_execute_partitions("SELECT n FROM many WHERE n < 3 ORDER BY n")
        (partition,) = partitions
        reader.adbc_read_partition(partition)
        rows = reader.fetchall()

    assert schema == pa.schema({"n": pa.int64()})
    assert rows == [(0,), (1,), (2,)]


def test_a_prepared_statement_describes_its_parameters_and_runs(cursor):
    parameters = cursor.adbc_prepare("SELECT ? + 1 AS a")
    cursor.execute("SELECT ? + 1 AS a", (41,))

    assert parameters == pa.schema({"0": pa.int64()})
    assert cursor.fetchall() == [(42,)]


NOON = dt.datetime(2026, 11, 24, 12, 0, 0, 123456, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (-(2**63), "Int64"), (float("inf"), "Float64"), ("it's; DROP TABLE x -- naïve 日本語", "Utf8"),
        (b"\x00\xff", "Binary"), (True, "Boolean"), (dt.date(1969, 12, 31), "Date32"),
        (dt.time(23, 59, 59, 1), "Time64(µs)"), (dt.timedelta(days=-1, microseconds=1), "Duration(µs)"),
        (Decimal("-1.25"), "Decimal128(3, 2)"), (None, "Null"), ([1, None], "List(Int64)"),
    ],
)  # fmt: skip
def test_a_value_arrives_as_what_it_is(cursor, value, kind):
    cursor.execute("SELECT ? AS a, arrow_typeof(?) AS kind", (value, value))

    assert cursor.fetchall() == [(value, kind)]


@pytest.mark.parametrize(
    ("sql", "values", "text"),
    [
        ("SELECT ? + 1 AS a", None, "parameter"),
        ("SELECT ? AS a, ? AS b", (1,), "parameter"),
        ("SELECT ? AS a", (1, 2), "placeholder"),
        ("SELECT n FROM many WHERE n = ?", ("not a number",), "SQL001"),
    ],
)
def test_values_that_do_not_fit_are_refused(cursor, sql, values, text):
    with pytest.raises(adbc_driver_manager.ProgrammingError, match=text):
        cursor.execute(sql, values).fetchall()


def test_several_rows_of_values_run_a_statement_once_for_each(cursor):
    cursor.execute("SELECT n, text FROM many WHERE n = ?", pa.table({"0": [5, -1, 7]}))

    assert cursor.fetchall() == [(5, "row 5"), (7, "row 7")]


@pytest.mark.parametrize("who", ["bob", "reader"])
def test_a_signed_token_and_an_api_key_let_in(server, who):
    with adbc_connection(server, who) as connection:
        assert fetch_rows(connection, "SELECT 1") == [(1,)]


@pytest.mark.parametrize("who", ["bob", "reader"])
def test_a_password_is_exchanged_for_a_bearer(server, who):
    options = {"username": "anybody", "password": server.tokens[who]}

    with adbc_driver_flightsql.dbapi.connect(server.uri, db_kwargs=options, autocommit=True) as connection:
        assert fetch_rows(connection, "SELECT 1") == [(1,)]


def test_a_key_that_may_only_ingest_reads_nothing(server):
    with (
        adbc_connection(server, "collector") as connection,
        connection.cursor() as cursor,
        pytest.raises(adbc_driver_manager.ProgrammingError, match="AUTH020") as caught,
    ):
        cursor.execute("SELECT 1")

    assert caught.value.status_code is adbc_driver_manager.AdbcStatusCode.UNAUTHORIZED


def test_rows_arrive_compressed_on_request(server):
    headers = {f"{DatabaseOptions.RPC_CALL_HEADER_PREFIX.value}x-micromegas-compression": "zstd"}

    with adbc_connection(server, **headers) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT n, text FROM many ORDER BY n")
        table = cursor.fetch_arrow_table()

    assert table["n"].to_pylist() == list(range(MANY_COUNT))
    assert table["text"][MANY_COUNT - 1].as_py() == f"row {MANY_COUNT - 1}"


def test_without_autocommit_reading_works_and_commit_changes_nothing(server):
    options = {DatabaseOptions.AUTHORIZATION_HEADER.value: server.bearer()}

    with pytest.warns(match="Cannot disable autocommit"):
        connection = adbc_driver_flightsql.dbapi.connect(server.uri, db_kwargs=options)
    with connection:
        assert fetch_rows(connection, "SELECT 1") == [(1,)]
        connection.commit()
        connection.rollback()
        assert fetch_rows(connection, "SELECT 2") == [(2,)]


def test_the_session_has_fixed_options(connection):
    options = connection.adbc_connection.get_option(ConnectionOptions.OPTION_SESSION_OPTIONS.value)

    assert json.loads(options) == {"catalog": "", "schema": "", "timezone": "UTC"}
    assert (connection.adbc_current_catalog, connection.adbc_current_db_schema) == ("", "")
    with pytest.raises(adbc_driver_manager.ProgrammingError, match="catalog"):
        connection.adbc_current_catalog = "other"
    with pytest.raises(adbc_driver_manager.ProgrammingError, match="schema"):
        connection.adbc_current_db_schema = "other"


def test_a_query_is_cancelled_while_it_is_read(connection):
    with connection.cursor(adbc_stmt_kwargs={StatementOptions.QUEUE_SIZE.value: "1"}) as cursor:
        cursor.execute(ENDLESS)

        cursor.adbc_cancel()

        with pytest.raises(OSError, match="cancel"):
            drain(cursor)


def test_a_statement_that_takes_longer_than_allowed_ends(connection):
    with (
        connection.cursor(adbc_stmt_kwargs={StatementOptions.TIMEOUT_QUERY.value: "0.000001"}) as cursor,
        pytest.raises(adbc_driver_manager.OperationalError, match="deadline") as caught,
    ):
        cursor.execute("SELECT ?", (1,))

    assert caught.value.status_code is adbc_driver_manager.AdbcStatusCode.TIMEOUT


def tables(connection, **filters):
    return [
        table
        for catalog in connection.adbc_get_objects(**filters).read_all().to_pylist()
        for schema in catalog["catalog_db_schemas"]
        for table in schema["db_schema_tables"] or []
    ]


def table_names(connection, **filters):
    return sorted(table["table_name"] for table in tables(connection, depth="tables", **filters))


def test_depth_tables(connection):
    found = tables(connection, depth="tables")

    assert sorted(table["table_name"] for table in found if not table["table_name"].startswith("__")) == TABLE_NAMES
    assert {table["table_type"] for table in found} == {"table"}
    assert {table["table_columns"] for table in found} == {None}


def test_depth_columns(connection):
    (wide,) = [table for table in tables(connection, depth="columns") if table["table_name"] == "wide"]

    assert [column["column_name"] for column in wide["table_columns"]] == ["id", *NAMES]
    assert [column["ordinal_position"] for column in wide["table_columns"]] == list(range(1, len(NAMES) + 2))


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"table_name_filter": "under_score"}, ["underXscore", "under_score"]),
        ({"table_name_filter": r"under\_score"}, ["under_score"]), ({"table_name_filter": "MANY"}, []),
        ({"table_name_filter": "m*"}, []), ({"table_name_filter": "%score"}, ["underXscore", "under_score"]),
        *(({"table_name_filter": "many", **filters}, ["many"] * is_there) for filters, is_there in (
            ({"catalog_filter": ""}, True), ({"catalog_filter": "other"}, False), ({"db_schema_filter": "%"}, True),
            ({"db_schema_filter": "other"}, False), ({"table_types_filter": ["view"]}, False),
            ({"table_types_filter": ["view", "table"]}, True))),
    ],
)  # fmt: skip
def test_tables_are_filtered_by_pattern_catalog_schema_and_type(connection, filters, expected):
    assert table_names(connection, **filters) == expected


def test_columns_are_filtered_by_pattern(connection):
    (wide,) = tables(connection, depth="columns", table_name_filter="wide", column_name_filter="u%")

    assert [column["column_name"] for column in wide["table_columns"]] == [name for name in NAMES if name[0] == "u"]


def test_a_table_has_its_schema(connection):
    assert connection.adbc_get_table_schema("wide").names == sent_table().column_names
    assert connection.adbc_get_table_schema("under_score") == pa.schema({"a": pa.int64()})
    with pytest.raises(adbc_driver_manager.ProgrammingError, match="NOT_FOUND"):
        connection.adbc_get_table_schema("nothing")
