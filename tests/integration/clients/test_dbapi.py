"""`FlightSQLClient` as a connection of PEP 249 and ADBC, read by pandas 2, Polars, and plain Python."""

import json
from datetime import UTC, datetime

import pandas as pd
import polars as pl
import pytest

import micromegas_jupyter
from micromegas_jupyter import FlightSQLClient, errors
from micromegas_jupyter.auth import StaticTokenAuthProvider
from tests.integration.clients.serving import LOG_COUNT

pytestmark = pytest.mark.integration

LOGS = "SELECT time, level, msg FROM log_entries ORDER BY time LIMIT 3"


@pytest.fixture
def connection(server):
    """What `connect` returns to a user who is no administrator."""
    provider = StaticTokenAuthProvider(server.tokens["bob"])
    with micromegas_jupyter.connect(server.uri, auth_provider=provider) as opened:
        yield opened


def test_the_package_is_a_module_of_pep_249():
    names = ("apilevel", "threadsafety", "paramstyle")

    assert [getattr(micromegas_jupyter, name) for name in names] == ["2.0", 2, "qmark"]
    assert micromegas_jupyter.TimestampFromTicks(0) == micromegas_jupyter.Timestamp(1970, 1, 1)
    assert micromegas_jupyter.DateFromTicks(86400) == micromegas_jupyter.Date(1970, 1, 2)
    assert micromegas_jupyter.TimeFromTicks(61) == micromegas_jupyter.Time(0, 1, 1)
    assert micromegas_jupyter.Binary(b"x") == b"x"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.InvalidStatement, "ProgrammingError"), (errors.UsageError, "ProgrammingError"),
        (errors.PermissionDenied, "ProgrammingError"), (errors.UnsupportedStatement, "NotSupportedError"),
        (errors.StatementRefused, "NotSupportedError"), (errors.ResourcesExhausted, "OperationalError"),
        (errors.Unavailable, "OperationalError"), (errors.LoginRequired, "OperationalError"),
        (errors.ConfigurationError, "InterfaceError"), (errors.InternalError, "InternalError"),
    ],
)  # fmt: skip
def test_every_error_is_one_of_pep_249(connection, error, kind):
    assert issubclass(error, getattr(micromegas_jupyter, kind))
    assert getattr(connection, kind) is getattr(micromegas_jupyter, kind)
    assert issubclass(error, connection.Error)


def test_a_cursor_fetches_rows_in_each_way(connection):
    sql = "SELECT value AS n FROM generate_series(1, 10)"
    with connection.cursor() as cursor:
        assert cursor.execute(sql) is cursor
        assert cursor.fetchone() == (1,)
        assert cursor.fetchmany() == [(2,)]
        cursor.arraysize = 2
        assert cursor.fetchmany() == [(3,), (4,)]
        assert cursor.fetchmany(3) == [(5,), (6,), (7,)]
        assert next(iter(cursor)) == (8,)
        assert cursor.fetchall() == [(9,), (10,)]
        assert cursor.fetchone() is None
        assert cursor.rowcount == -1
    with pytest.raises(connection.ProgrammingError, match="closed"):
        cursor.execute(sql)


def test_a_cursor_without_a_result_says_so(connection):
    cursor = connection.cursor()

    assert cursor.description is None
    with pytest.raises(connection.ProgrammingError, match="no result"):
        cursor.fetchall()


def test_a_description_has_names_and_types_that_equal_the_type_objects(connection):
    cursor = connection.execute("SELECT time, msg, level, X'00' AS data FROM log_entries LIMIT 0")
    types = [getattr(micromegas_jupyter, name) for name in ("DATETIME", "STRING", "NUMBER", "BINARY")]

    assert [column[0] for column in cursor.description] == ["time", "msg", "level", "data"]
    assert [[code == kind for kind in types] for _, code, *_ in cursor.description] == [
        [row == column for column in range(4)] for row in range(4)
    ]
    assert all(code != micromegas_jupyter.ROWID for _, code, *_ in cursor.description)


def test_question_marks_are_bound_in_order_and_not_within_text(connection):
    cursor = connection.cursor()
    cursor.execute("SELECT '?', ? AS a, ? AS b", ("it's", None))
    assert cursor.fetchall() == [("?", "it's", None)]
    cursor.executemany("SELECT ? + 1 AS n", [(1,), (2,)])
    assert cursor.fetchall() == [(3,)]
    cursor.execute("SELECT count(*) FROM log_entries WHERE time < ?", [micromegas_jupyter.Timestamp(2100, 1, 1)])
    assert cursor.fetchall() == [(LOG_COUNT,)]


def test_rows_have_times_with_a_zone_and_json_text(connection):
    cursor = connection.execute("SELECT time, properties FROM log_entries ORDER BY time LIMIT 1")
    ((time, properties),) = cursor.fetchall()

    assert type(time) is datetime
    assert time.tzinfo is not None
    assert json.loads(properties) is not None
    assert time.astimezone(UTC).year == 2026


def test_nanoseconds_are_cut_in_rows_and_kept_in_arrow_data(connection):
    time, duration = "'Timestamp(Nanosecond, Some(\"+00:00\"))'", "'Duration(Nanosecond)'"
    sql = f"SELECT arrow_cast(1000001, {time}) AS t, arrow_cast(1001, {duration}) AS d"

    ((time, duration),) = connection.execute(sql).fetchall()
    assert (time, duration.microseconds) == (datetime(1970, 1, 1, microsecond=1000, tzinfo=UTC), 1)
    assert connection.execute(sql).fetch_arrow_table().column("t")[0].value == 1_000_001
    assert connection.execute(sql).fetch_record_batch().read_all().num_rows == 1
    assert connection.execute(sql).fetch_df()["t"][0].nanosecond == 1
    assert connection.execute(sql).fetch_polars()["t"].dt.nanosecond().to_list() == [1_000_001]


def test_a_wrong_statement_raises_the_clients_own_error(connection):
    with pytest.raises(connection.ProgrammingError) as raised:
        connection.execute("SELECT nothing FROM log_entries")

    assert isinstance(raised.value, errors.InvalidStatement)
    assert raised.value.remedy
    connection.commit()
    connection.rollback()


def test_adbc_methods_list_tables_and_their_columns(connection):
    objects = connection.adbc_get_objects(table_name_filter="under_score", column_name_filter="a%").read_all()
    (schemas,) = objects.column("catalog_db_schemas").to_pylist()
    (schema,) = schemas

    assert [table["table_name"] for table in schema["db_schema_tables"]] == ["underXscore", "under_score"]
    assert [[c["column_name"] for c in table["table_columns"]] for table in schema["db_schema_tables"]] == [[], ["a"]]
    assert connection.adbc_get_table_schema("under_score").names == ["a"]
    assert connection.adbc_get_info()["driver_name"] == "micromegas_jupyter"
    with pytest.raises(connection.ProgrammingError):
        connection.adbc_get_table_schema("under_score", db_schema_filter="other")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"depth": "catalogs"}, [("", None)]), ({"depth": "db_schemas"}, [("", [None])]),
        ({"depth": "tables", "table_types_filter": ["VIEW"]}, [("", [[]])]), ({"catalog_filter": "other"}, []),
        ({"db_schema_filter": "other"}, [("", [])]),
    ],
)  # fmt: skip
def test_adbc_objects_end_at_their_depth(connection, options, expected):
    rows = connection.adbc_get_objects(**options).read_all().to_pylist()
    found = [
        (
            row["catalog_name"],
            row["catalog_db_schemas"] and [one["db_schema_tables"] for one in row["catalog_db_schemas"]],
        )
        for row in rows
    ]

    assert [(name, schemas) for name, schemas in found] == [(name, schemas) for name, schemas in expected]


def test_adbc_objects_have_the_drivers_own_schema(server, connection):
    from tests.integration.clients.adbc import adbc_connection

    with adbc_connection(server) as adbc:
        assert types_of(connection.adbc_get_objects().schema) == types_of(adbc.adbc_get_objects().schema)


def types_of(schema):
    """Return the types with the names that a list gives its items removed."""
    return [str(field.type).replace(" not null", "") for field in schema]


def test_pandas_keeps_nanoseconds_and_zone_without_a_warning(connection):
    frame = pd.read_sql(LOGS, connection)

    assert str(frame["time"].dtype) == "datetime64[ns, UTC]"
    assert str(frame["level"].dtype) == "int32"
    assert len(pd.read_sql_table("under_score", connection)) == 1


def test_polars_keeps_nanoseconds_and_zone(connection):
    frame = pl.read_database(LOGS, connection)
    batches = pl.read_database("SELECT * FROM many", connection, iter_batches=True)
    bound = pl.read_database(
        "SELECT count(*) AS n FROM many WHERE n < ?", connection, execute_options={"parameters": [7]}
    )

    assert frame.schema["time"] == pl.Datetime("ns", "UTC")
    assert sum(batch.height for batch in batches) == 300_000
    assert bound["n"].to_list() == [7]


class Plain(FlightSQLClient):
    """A connection with the same methods and another type."""


def test_pandas_and_polars_go_by_the_type_of_a_connection(server):
    """Once this fails, `workarounds/connection_types.py` is not needed."""
    with Plain(server.uri, auth_provider=StaticTokenAuthProvider(server.tokens["bob"])) as plain:
        assert pl.read_database(LOGS, plain).schema["time"].time_unit == "us"
        plain.adbc_get_objects().read_all()
        with pytest.warns(UserWarning, match="only supports SQLAlchemy"):
            pd.read_sql("SELECT n FROM many LIMIT 1", plain)


def test_pandas_writes_a_table_and_adds_to_it(server):
    provider = StaticTokenAuthProvider(server.tokens["loader"])
    frame = pd.DataFrame({"time": pd.to_datetime(["2026-11-24T12:00:00Z"]), "n": [1]})
    with micromegas_jupyter.connect(server.uri, auth_provider=provider) as connection:
        assert frame.to_sql("from_pandas", connection, index=False) == 1
        assert frame.to_sql("from_pandas", connection, index=False, if_exists="append") == 1
        with pytest.raises(ValueError, match="already exists"):
            frame.to_sql("from_pandas", connection, index=False)
        with pytest.raises(errors.UnsupportedRequest):
            connection.cursor().adbc_ingest("from_pandas", frame, db_schema_name="other")
        assert pd.read_sql("SELECT n FROM from_pandas", connection)["n"].tolist() == [1, 1]


def test_a_query_is_cancelled_through_its_cursor(connection):
    from tests.integration.clients.adbc import ENDLESS

    cursor = connection.execute(ENDLESS)
    cursor.adbc_cancel()
    with pytest.raises(errors.QueryCancelled):
        cursor.fetchall()
    reader = cursor.execute(ENDLESS).fetch_record_batch()
    cursor.close()
    with pytest.raises(connection.ProgrammingError, match="closed"):
        reader.read_all()
