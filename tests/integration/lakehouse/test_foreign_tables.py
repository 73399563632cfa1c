"""Tables that others write and read: in a bucket, and with other programs than this one."""

import datetime as dt
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from importlib.resources import files

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from adbc_driver_flightsql import dbapi
from deltalake import DeltaTable, write_deltalake

from micromegas_jupyter.core.protocols import TableAccess
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.errors import InvalidStatement, Unavailable
from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.lake.maintenance import optimize
from micromegas_jupyter.lake.served_folder import ServedFolder
from micromegas_jupyter.lake.tables import Tables
from micromegas_jupyter.lake.writer import LakeWriter
from tests.fakes.telemetry_rows import log_batch
from tests.fakes.validator import BOB, FakeValidator
from tests.integration.flight_harness import running_server
from tests.integration.lakehouse.faulty_s3 import BUCKET, FaultyS3, moto_server
from tests.unit.engine.conftest import asking
from tests.unit.lake.test_served_folder import assert_same_as_delta

pytestmark = [pytest.mark.integration]
ORDERS = pa.table({"n": range(60), "shop": ["eu", "us", "a/b c"] * 20, "word": ["x", None] * 30})


@pytest.fixture
def s3(monkeypatch):
    """An S3 whose requests a test sees, with a bucket that this process's environment lets anybody here use."""
    with moto_server() as port:
        proxy = FaultyS3(port)
        for name, value in proxy.environ.items():
            monkeypatch.setenv(name, value)
        yield proxy
        proxy.close()


@pytest.fixture
def bucket(s3):
    """The address of an empty prefix."""
    return f"s3://{BUCKET}/some tables"


@pytest.mark.slow
def test_tables_in_a_bucket_give_deltas_own_rows_after_each_change(bucket):
    storage = Storage(bucket)
    path, options = f"{bucket}/orders", storage.options
    write_deltalake(path, ORDERS, partition_by=["shop"], storage_options=options)

    with asking(ServedFolder(storage)) as ask:
        assert_same_as_delta(ask, path, options)
        write_deltalake(path, ORDERS, mode="append", storage_options=options)
        assert ask.rows("SELECT count(*) AS c FROM orders") == [{"c": 120}]
        DeltaTable(path, storage_options=options).delete("n % 3 = 1")
        DeltaTable(path, storage_options=options).delete("shop = 'a/b c' AND word IS NULL")
        DeltaTable(path, storage_options=options).optimize.compact()
        more = ORDERS.slice(0, 3).append_column("extra", pa.array([1.5, None, 2.5]))
        write_deltalake(path, more, mode="append", schema_mode="merge", storage_options=options)
        assert "extra" in ask.rows("SELECT * FROM orders LIMIT 1")[0]
        found = ask.rows("SELECT shop, count(*) AS c, count(extra) AS e FROM orders GROUP BY shop ORDER BY shop")
    theirs = DeltaTable(path, storage_options=options).to_pyarrow_table()
    wanted = "SELECT shop, count(*) AS c, count(extra) AS e FROM theirs GROUP BY shop ORDER BY shop"
    counted = duckdb.from_arrow(theirs).query("theirs", wanted)
    assert found == counted.to_arrow_table().to_pylist()
    with asking(ServedFolder(Storage(path))) as ask:
        assert ask.rows(wanted.replace("theirs", "orders")) == found


SAIL = """
import sys
from pysail.flight import FlightSqlServer

server = FlightSqlServer()
server.start()
print(server.listening_address[1], flush=True)
sys.stdin.read()
"""


def read_with_duckdb(path, sql):
    (extension,) = (files("duckdb_extension_delta") / "extensions" / f"v{duckdb.__version__}").iterdir()
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.load_extension(str(extension))
        return connection.execute(sql.format(f"delta_scan('{path}')")).to_arrow_table()


def read_with_polars(path, sql):
    return pl.SQLContext(t=pl.scan_delta(path)).execute(sql.format("t"), eager=True).to_arrow()


def read_with_sail(path, sql):
    with subprocess.Popen(
        [sys.executable, "-c", SAIL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            address = f"grpc://127.0.0.1:{int(process.stdout.readline())}"
            with dbapi.connect(address, autocommit=True) as connection, connection.cursor() as cursor:
                cursor.execute(sql.format(f"delta.`{path}`"))
                return cursor.fetch_arrow_table()
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("read", [read_with_duckdb, read_with_polars, read_with_sail])
def test_other_programs_read_our_tables_as_we_do(tmp_path, read):
    storage, tables = Storage(tmp_path), Tables(Storage(tmp_path))
    days = [dt.date(2026, 11, 1 + number % 3) for number in range(60)]
    times = pa.array(range(60), pa.timestamp("us", "UTC"))
    orders = ORDERS.append_column("day", [days]).append_column("time", times)
    tables.create("orders", orders.schema, partition_by=["day"])
    with closing(LakeWriter(storage, interval_seconds=0)) as writer:
        for rows in (orders, orders.slice(40)):
            writer.append("orders", rows).result()
        tables.delete("orders", "n % 7 = 3")
        tables.add_column("orders", pa.field("extra", pa.float64()))
        writer.append("orders", orders.slice(0, 5).append_column("extra", [[0.5, None, 1.5, 2.5, -0.0]])).result()
        assert optimize(storage, "orders")["removed_files"] > 0
        writer.append("orders", orders.slice(4, 3)).result()
        writer.append("log_entries", log_batch(range(5))).result()
        tables.delete("log_entries", "msg = 'w:3'")

    with asking(Lake(storage)) as ask:
        for table, count, sql in (
            (
                "orders",
                13,
                "SELECT * FROM {} WHERE day = DATE '2026-11-02' AND word IS NULL ORDER BY n, extra NULLS LAST",
            ),
            ("log_entries", 2, "SELECT process_id, time, level, target, msg FROM {} WHERE msg > 'w:1' ORDER BY time"),
        ):
            ours = ask.table(sql.format(table))
            assert ours.num_rows == count
            assert read(storage.child_uri(table), sql).cast(ours.schema).equals(ours)


def test_why_a_table_cannot_be_read_is_told_only_to_those_who_may_see_it(tmp_path):
    for name in ("good", "bad", "worse"):
        write_deltalake(str(tmp_path / name), ORDERS)
    (tmp_path / "worse/_delta_log" / f"{0:020}.json").write_text("no log")
    entry = tmp_path / "bad/_delta_log" / f"{0:020}.json"
    entry.write_text(
        entry.read_text().replace('"configuration":{', '"configuration":{"delta.columnMapping.mode":"name"')
    )
    validator = FakeValidator()
    validator.known["bob"] = replace(BOB, table_access=TableAccess(filters={"good": ()}))

    with running_server(tables=ServedFolder(Storage(tmp_path)), validator=validator) as flight:
        told = {
            (who, name): flight.query(f"SELECT * FROM {name}", metadata=(("authorization", f"Bearer {who}"),)).error
            for who in ("alice", "bob")
            for name in ("bad", "worse", "none")
        }

    assert type(told["alice", "bad"]) is type(told["alice", "worse"]) is Unavailable
    assert "column mapping" in told["alice", "bad"].what
    for name in ("bad", "worse", "none"):
        assert (type(told["bob", name]), told["bob", name].what) == (
            InvalidStatement,
            f"There is no table named {name}.",
        )
        assert told["bob", name].remedy == told["bob", "none"].remedy


def test_no_statement_lists_the_folders_of_a_table_in_a_bucket_before_it_reads_many_files(s3, bucket):
    storage = Storage(bucket)
    days = pa.table({"day": [f"a/b {number:02}" for number in range(40)], "n": range(40)})
    path, options = storage.child_uri("days"), storage.options
    write_deltalake(path, days, partition_by=["day"], storage_options=options)
    folder, listed, objects = ServedFolder(storage), [], {}

    def note(method, path):
        if "list-type" in path and "_delta_log" not in path and "days%2F" in path:
            listed.append(path)
        if method == "HEAD":
            objects[path] = True

    with asking(folder) as ask:
        s3.fault = note
        assert ask.rows("SELECT sum(n) AS s FROM days WHERE day IN ('a/b 01', 'a/b 20', 'a/b 39')") == [{"s": 60}]
        assert (listed, len(objects)) == ([], 3)
        assert ask.rows("SELECT sum(n) AS s FROM days") == [{"s": 780}]
        assert len(listed) == 1
        (gone,) = [entry.path for entry in storage.list("days") if "day=a%2Fb%2020/" in entry.path]
        storage.delete(gone)
        for sql in ("SELECT sum(n) FROM days WHERE day IN ('a/b 01', 'a/b 20')", "SELECT sum(n) FROM days"):
            with pytest.raises(Unavailable, match="removed or replaced"):
                ask.rows(sql)


@pytest.mark.slow
def test_an_object_that_vanishes_is_an_error_and_not_fewer_rows(bucket):
    storage = Storage(bucket)
    path, options = f"{bucket}/orders", storage.options
    write_deltalake(path, ORDERS, storage_options=options)
    write_deltalake(path, ORDERS, mode="append", storage_options=options)
    folder = ServedFolder(storage)
    file = DeltaTable(path, storage_options=options).file_uris()[0]

    with asking(folder) as ask:
        assert ask.rows("SELECT count(*) AS c FROM orders") == [{"c": 120}]
        storage.delete(f"orders/{file.rpartition('/')[2]}")
        with pytest.raises(Unavailable):
            ask.rows("SELECT * FROM orders")
