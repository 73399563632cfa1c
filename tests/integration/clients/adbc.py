"""ADBC connections to the tests' server; the driver's own words for its options, in one place."""

from contextlib import contextmanager

import adbc_driver_flightsql.dbapi
from adbc_driver_flightsql import DatabaseOptions

# More rows than anybody waits for; the server sends them only as fast as they are read.
ENDLESS = "SELECT value FROM generate_series(1, 100000000000)"


@contextmanager
def adbc_connection(server, who="bob", **options):
    """Connect with a bearer token; `options` are further options of the database."""
    settings = {DatabaseOptions.AUTHORIZATION_HEADER.value: server.bearer(who), **options}
    with adbc_driver_flightsql.dbapi.connect(server.uri, db_kwargs=settings, autocommit=True) as connection:
        yield connection


def fetch_rows(connection, sql):
    """Run one statement with a cursor of its own; the driver's short cuts leave theirs open."""
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def drain(cursor, sql=None):
    """Read all rows, of `sql` or of the statement that runs already, and keep none."""
    if sql is not None:
        cursor.execute(sql)
    for _batch in cursor.fetch_record_batch():
        pass
