"""Runs ADBC's validation suite against this server: a plugin of pytest for the suite's own environment.

Tables are created by ingest, as there is no DDL: a case's setup runs in DuckDB, and its rows are ingested.
"""

import dataclasses
import functools
import json
import re

import adbc_driver_flightsql
import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.flight
import pytest
from adbc_drivers_validation import model, quirks
from adbc_drivers_validation.tests import query as query_tests
from adbc_drivers_validation.tests import statement as statement_tests

_AS_ALICE = pyarrow.flight.FlightCallOptions(headers=[(b"authorization", b"Bearer alice")])
# What these do besides reading needs INSERT, UPDATE, or DELETE.
_INSERTS = ("test_rows_affected", "test_parameter_null_typed", "test_query_bind_dictionary")
_STORED = {
    **{pa.timestamp(unit, zone): pa.timestamp("us", zone) for unit in ("s", "ms", "ns") for zone in (None, "UTC")},
    pa.decimal128(2, -2): pa.decimal128(4, 0),
}
_LITERALS = {
    "type/literal/timestamp": pa.timestamp("ns"),
    "type/literal/time": pa.time64("ns"),
}
# How this dialect writes what these cases select.
_QUERIES = {
    "type/literal/binary": "SELECT X'e38193e38293e381abe381a1e381afe38081e4b896e7958cefbc81' AS res",
    "type/literal/timestamptz": (
        """SELECT arrow_cast('2023-05-15 13:45:30', 'Timestamp(Microsecond, Some("UTC"))') AS res"""
    ),
}
_SIZED = re.compile(r"\b(TIMESTAMP|TIME|TIMESTAMPTZ|TIMESTAMP WITH TIME ZONE|BLOB|VARBINARY|BINARY|BYTEA)\s*\(\d+\)")


def _as_stored(table, literal=None):
    """Return the rows with the types that are stored; nanoseconds are cut to microseconds."""
    kinds = [literal or _STORED.get(kind, kind) for kind in table.schema.types]
    schema = pa.schema([field.with_type(kind) for field, kind in zip(table.schema, kinds, strict=True)])
    return table.cast(schema, safe=False)


@dataclasses.dataclass
class StoredSelect(model.SelectQuery):
    """A case whose result has the types that are stored, or that literals have."""

    literal: pa.DataType | None = None
    text: str | None = None

    def query(self):
        return self.text or super().query()

    def expected_schema(self):
        return self.expected_result().schema

    def expected_result(self):
        rows = model.try_txtcase(self.expected_path, model.query_table, ["expected"], super().expected_schema())
        for index, field in enumerate(rows.schema):
            if field.type in {pa.timestamp("ns"), pa.timestamp("ns", "UTC")}:  # DuckDB rounds down
                count = rows[index].cast(pa.int64())
                cut = pc.divide(count, 1000)
                down = pc.subtract(cut, pc.less(count, pc.multiply(cut, 1000)).cast(pa.int64()))
                rows = rows.set_column(index, field.name, down.cast(pa.timestamp("us", field.type.tz)))
        return _as_stored(rows, self.literal)


@dataclasses.dataclass
class StoredIngest(model.IngestQuery):
    """A case whose rows come back with the types that are stored; nanoseconds are whole microseconds."""

    def input(self):
        rows = super().input()
        for index, field in enumerate(rows.schema):
            if pa.types.is_timestamp(field.type) and field.type.unit == "ns":
                whole = rows[index].cast(pa.timestamp("us", field.type.tz), safe=False)
                rows = rows.set_column(index, field, whole.cast(field.type))
        return rows

    def expected_schema(self):
        return self.expected().schema

    def expected(self):
        path = self.expected_path or self.input_path
        return _as_stored(model.try_txtcase(path, model.query_table, ["expected", "input"], super().expected_schema()))


class Micromegas(model.DriverQuirks):
    name = "micromegas"
    driver = "adbc_driver_flightsql"
    driver_name = "ADBC Flight SQL Driver - Go"
    vendor_name = "micromegas_jupyter"
    vendor_version = re.compile(r".*")
    short_version = "0"
    features = model.DriverFeatures(
        connection_get_table_schema=True,
        get_objects=True,
        statement_bind=True,
        statement_bulk_ingest=True,
        statement_execute_schema=True,
        statement_prepare=True,
        statement_get_parameter_schema=True,
        statement_rows_affected=True,
        quirk_foundry=False,
        current_catalog="",
        current_schema="",
    )
    setup = model.DriverSetup(
        database={"uri": model.FromEnv("MICROMEGAS_URI"), "adbc.flight.sql.authorization_header": "Bearer alice"}
    )
    queries_paths = ()

    @functools.cached_property
    def query_set(self):
        """The suite's cases with this server's types and dialect."""
        cases = model.base_query_set().queries
        return model.QuerySet({name: dataclasses.replace(case, query=_adapt(case)) for name, case in cases.items()})

    def is_table_not_found(self, table_name, error):
        return "There is no table" in str(error)

    def try_drop_table(self, cursor, *, table_name, **_unused):
        with pyarrow.flight.connect(self.setup.database["uri"].get_or_raise()) as client:
            body = json.dumps({"operation": "drop", "table": table_name}).encode()
            try:
                list(client.do_action(("MicromegasTables", body), _AS_ALICE))
            except pa.ArrowInvalid as error:
                if not self.is_table_not_found(table_name, error):
                    raise

    def split_statement(self, statement):
        return quirks.split_statement(statement, dialect="duckdb")


def _adapt(case):
    values = vars(case.query)
    if isinstance(case.query, model.IngestQuery):
        return StoredIngest(**values)
    return StoredSelect(**values, literal=_LITERALS.get(case.name), text=_QUERIES.get(case.name))


def _set_up(driver, conn, case):
    statements = driver.split_statement(case.query.setup_query() or "")
    with duckdb.connect() as database, conn.cursor() as cursor:
        database.execute("SET TimeZone='UTC'")
        for statement in statements:
            sized = _SIZED.sub(r"\1", statement.replace("DROP TABLE test", "DROP TABLE IF EXISTS test"))
            database.execute(re.sub(r"\bX'(\w*)'", r"from_hex('\1')", sized))
        for (name,) in database.execute("SELECT table_name FROM duckdb_tables()").fetchall():
            driver.try_drop_table(cursor, table_name=name)
            cursor.adbc_ingest(name, database.execute(f'FROM "{name}"').to_arrow_table(), mode="create")


query_tests._setup_query = _set_up
QUIRKS = [Micromegas()]


@pytest.fixture(scope="module")
def sample_table(driver, conn):
    """What the suite's fixture makes by CREATE TABLE."""
    rows = pa.table({"id": pa.array([1], pa.int32()), "value": ["a"]})
    with conn.cursor() as cursor:
        cursor.adbc_ingest("sample_table", rows, mode="replace")
    return "sample_table"


del statement_tests.TestStatement.sample_table


@pytest.fixture(scope="session")
def driver(request):
    return QUIRKS[0]


@pytest.fixture(scope="session")
def driver_path():
    return adbc_driver_flightsql._driver_path()


def pytest_generate_tests(metafunc):
    metafunc.module.generate_tests(QUIRKS, metafunc)


def pytest_collection_modifyitems(items):
    for item in items:
        is_insert = item.originalname == "test_query" and ":type/bind/" in item.name
        if is_insert or item.originalname in _INSERTS:
            item.add_marker(pytest.mark.skip(reason="INSERT"))
