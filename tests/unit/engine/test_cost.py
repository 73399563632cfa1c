"""What a statement will read: never less than it reads, and nothing that depends on hidden rows."""

import os
import statistics
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.resources import files

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from micromegas_jupyter.core import jsonb
from micromegas_jupyter.core.protocols import TableAccess, WriteMode, WriteRequest
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.engine.contract import TimeRange
from micromegas_jupyter.engine.plans.cost import FOOTER_BYTES
from micromegas_jupyter.errors import MicromegasError, ScanTooLarge
from micromegas_jupyter.executors.worker import with_estimate
from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.lake.writer import LakeWriter
from micromegas_jupyter.telemetry.tables import TABLES
from tests.unit.engine.conftest import asking
from tests.unit.engine.hidden_worlds import FILES, WORLDS, write_world
from tests.unit.engine.test_roles import PROCESS, STATEMENTS

SCALE, SCALE_LONG = 0.02, 0.1
DAY_NS = 86_400 * 10**9
BEGIN_NS = 20_000 * DAY_NS
FILES_OF_TABLE = 3
#: These fail on made-up values, have no rows, or join all rows with all.
LEFT_OUT = (
    "histogram_quantile", "jsonb_elements", "orders", "EXPLAIN", "histograms, log_entries", "log_entries, measures",
    "measures, log_entries", "log_entries) l,", "l JOIN measures", "measures b", "measures AS log_entries",
    "measures, otel_spans", "AS l ON true", PROCESS,
)  # fmt: skip
TELEMETRY = [sql for sql, _ in STATEMENTS if not any(one in sql for one in LEFT_OUT)]
VALUES = {"?": ("0", 3), "$name": ("name", "name 1"), "$worst": ("worst", 3), "$first": ("first", datetime.now(UTC))}
WIDE = "SELECT * FROM logs"


def _column(field, count, first, rng):  # noqa: PLR0911 - one for each kind of type
    kind = field.type
    if pa.types.is_dictionary(kind):
        return _column(field.with_type(kind.value_type), count, first, rng).dictionary_encode().cast(kind)
    if pa.types.is_timestamp(kind):
        # A day in each file.
        times = BEGIN_NS + first * DAY_NS + np.sort(rng.integers(0, DAY_NS, count))
        return pa.array(times // (1 if kind.unit == "ns" else 1000)).cast(kind)
    if pa.types.is_integer(kind):
        return pa.array(rng.integers(1, 6 if field.name == "level" else 900, count), kind)
    if pa.types.is_boolean(kind):
        return pa.array(rng.integers(0, 2, count).astype(bool))
    if pa.types.is_floating(kind):
        return pa.array(rng.normal(size=count), kind)
    if pa.types.is_string(kind):
        texts = 10**9 if field.name == "msg" else 20
        return pa.array([f"{field.name} {one}" for one in rng.integers(0, texts, count)])
    if pa.types.is_list(kind):
        offsets = pa.array(range(0, 2 * count + 1, 2), pa.int32())
        return pa.ListArray.from_arrays(offsets, _column(kind.value_field, 2 * count, first, rng)).cast(kind)
    if pa.types.is_struct(kind):
        return pa.StructArray.from_arrays([_column(one, count, first, rng) for one in kind], fields=list(kind))
    if field.name.endswith("_id"):
        size = kind.byte_width if pa.types.is_fixed_size_binary(kind) else 8
        return pa.array([rng.bytes(size) for _ in range(count)], kind)
    documents = [jsonb.encode({"country": "fr", "k": number}) for number in range(50)]
    return pa.array([documents[one] for one in rng.integers(0, 50, count)], kind)


def _store(writer, name, rows, mode, **options):
    write = writer.open_write(WriteRequest(table=name, mode=mode, **options), rows.schema)
    for batch in rows.combine_chunks().to_batches():
        write.write(batch)
    write.commit()


@pytest.fixture(scope="module")
def telemetry(tmp_path_factory):
    """A lake with a file for each of some days in each table of the data model."""
    storage, rng = Storage(tmp_path_factory.mktemp("telemetry")), np.random.default_rng(1)
    with closing(LakeWriter(storage, interval_seconds=0)) as writer:
        for table in TABLES:
            for number in range(FILES_OF_TABLE):
                columns = [_column(field, 2000, number, rng) for field in table.schema]
                rows = pa.Table.from_arrays(columns, schema=table.schema)
                _store(writer, table.name, rows, WriteMode.APPEND, is_trusted=True, is_own=True)
    with asking(Lake(storage), target_partitions=2) as asker:
        yield asker


@pytest.fixture(scope="module")
def tpch(tmp_path_factory, request):
    """A lake of TPC-H, and its queries."""
    storage = Storage(tmp_path_factory.mktemp("tpch"))
    (extension,) = (files("duckdb_extension_tpch") / "extensions" / f"v{duckdb.__version__}").iterdir()
    scale = SCALE_LONG if request.config.getoption("--long") else SCALE
    with duckdb.connect() as connection, closing(LakeWriter(storage, interval_seconds=0)) as writer:
        connection.load_extension(str(extension))
        connection.execute(f"CALL dbgen(sf={scale})")
        for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall():
            order = {"lineitem": "ORDER BY l_shipdate", "orders": "ORDER BY o_orderdate"}.get(name, "")
            rows = connection.execute(f"FROM {name} {order}").to_arrow_table()
            step = -(-rows.num_rows // 3) if order else rows.num_rows
            for first in range(0, rows.num_rows, step):
                _store(writer, name, rows.slice(first, step), WriteMode.CREATE_OR_APPEND)
        queries = [sql for (sql,) in connection.execute("SELECT query FROM tpch_queries()").fetchall()]
    with asking(Lake(storage), target_partitions=2) as asker:
        yield asker, queries


def estimated(asker, sql, **options):
    """Return the bytes that a statement will read."""
    return sum(one.size for one in asker.plan(sql, is_estimated=True, **options).explained)


def ratios(asker, statements):
    """Return estimates over what was read with footers, for statements that read any bytes; none is lower."""
    found = []
    for sql in statements:
        values = dict(value for mark, value in VALUES.items() if mark in sql)
        parameters = pa.RecordBatch.from_pylist([values]) if values else None
        planned = asker.plan(sql, is_estimated=True, parameters=parameters)
        list(planned.batches())
        size, read = sum(one.size for one in planned.explained), planned.statistics.bytes_scanned
        assert size >= read, sql
        footers = planned.statistics.files_read * FOOTER_BYTES  # which the engine doesn't count
        found += [size / (read + footers)] if read else []
    return found


def test_estimates_of_telemetry_are_never_low_and_mostly_close(telemetry):
    assert len(TELEMETRY) >= 40
    found = ratios(telemetry.as_administrator(), TELEMETRY)

    print(f"telemetry: {len(found)} statements, median {statistics.median(found):.2f}, highest {max(found):.1f}")
    assert statistics.median(found) <= 1.2


@pytest.mark.slow  # DuckDB's extension makes the tables
def test_estimates_of_tpch_are_never_low_and_mostly_close(tpch):
    asker, queries = tpch
    found = ratios(asker, queries)

    print(f"TPC-H: {len(found)} queries, median {statistics.median(found):.2f}, highest {max(found):.1f}")
    assert len(found) == 22
    assert statistics.median(found) <= 1.2


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ("SELECT level FROM log_entries", "SELECT msg FROM log_entries"),
        ("SELECT msg FROM log_entries WHERE time >= '2024-10-05'", "SELECT time, msg FROM log_entries"),
        ("SELECT msg FROM log_entries ORDER BY time DESC LIMIT 5", "SELECT msg FROM log_entries"),
        ("SELECT msg FROM log_entries", "SELECT msg FROM log_entries WHERE level > (SELECT avg(value) FROM measures)"),
        ("SELECT msg FROM log_entries", "SELECT msg FROM log_entries UNION ALL SELECT msg FROM log_entries"),
        ("SELECT count(*) FROM log_stats", "SELECT count(*) FROM log_stats, measures WHERE value > 0"),
        ("SELECT 1", "SELECT sum(count) FROM log_stats"),
        ("SELECT 1", "SELECT max(histogram['count']) FROM histogram_increases"),
        ("SELECT 1", f"SELECT msg FROM view_instance('log_entries', '{PROCESS}')"),
    ],
)
def test_an_estimate_counts_columns_files_and_every_scan(telemetry, less, more):
    asker = telemetry.as_administrator()

    assert 0 <= estimated(asker, less) < estimated(asker, more)


def test_a_bare_limit_counts_one_row_group_of_each_file(tmp_path):
    rows = pa.table({"n": np.random.default_rng(1).integers(0, 2**62, 600_000)})
    storage = Storage(tmp_path)
    with closing(LakeWriter(storage, interval_seconds=0)) as writer:
        _store(writer, "t", rows, WriteMode.CREATE)
    with asking(Lake(storage), target_partitions=2) as asker:
        limited, filtered, everything = (
            estimated(asker, f"SELECT n FROM t {end}") for end in ("LIMIT 9", "WHERE n > 5 LIMIT 9", "")
        )
        list((planned := asker.plan("SELECT n FROM t LIMIT 9")).batches())

    assert planned.statistics.bytes_scanned <= limited < 0.6 * everything
    assert filtered == everything


def limited(asker, max_scan_bytes, filters=None):
    """Return one who asks as a caller with roles that limit what is read."""
    access = None if filters is None else TableAccess(filters=filters)
    return replace_caller(asker, max_scan_bytes=max_scan_bytes, table_access=access)


def replace_caller(asker, **changes):
    return type(asker)(asker.engine, asker.tables, replace(asker.caller, **changes))


def rejection(asker, sql, **options):
    """Return the error for a statement, None if it may run."""
    try:
        asker.plan(sql, **options)
    except ScanTooLarge as error:
        return error.what, error.remedy, error.code, error.limit
    return None


def test_a_rejection_names_the_columns_and_days_that_cost_most(telemetry):
    sql = "SELECT time, msg FROM log_entries"
    # Without roles, the server's own records are hidden.
    size = estimated(telemetry, sql)

    assert rejection(limited(telemetry, size), sql) is None
    what, _, code, limit = rejection(limited(telemetry, size - 1), sql)
    assert (code, limit) == ("SQL010", "scan_bytes")
    assert "Most expensive columns: log_entries." in what
    assert "log_entries.msg (" in what
    assert "Most expensive days: 2024-10-0" in what
    assert rejection(limited(telemetry, size - 1), f"EXPLAIN {sql}") is None
    assert rejection(limited(telemetry, size - 1), f"EXPLAIN ANALYZE {sql}")[2] == code


def test_rows_of_parameters_are_counted_together(telemetry):
    sql = "SELECT msg FROM log_entries WHERE level > ?"
    values = pa.record_batch({"0": [1, 2, 3]})
    size = estimated(telemetry, sql, parameters=values.slice(0, 1))
    planned = limited(telemetry, 2 * size).plan(sql, parameters=values)

    assert limited(telemetry, 1).plan(sql).parameter_schema.names == ["0"]
    with pytest.raises(ScanTooLarge):
        list(planned.batches())
    list(limited(telemetry, 3 * size).plan(sql, parameters=values).batches())


def test_a_rejected_statement_reads_no_data(tmp_path):
    """Files keep their footers only."""
    storage = Storage(tmp_path)
    with closing(LakeWriter(storage, interval_seconds=0)) as writer:
        for number in range(3):
            _store(writer, "t", pa.table({"n": range(number, 10_000)}), WriteMode.CREATE_OR_APPEND)
    for path in tmp_path.glob("t/*.parquet"):
        content = path.read_bytes()
        footer = int.from_bytes(content[-8:-4], "little") + 8
        path.write_bytes(bytes(len(content) - footer) + content[-footer:])
    with asking(Lake(storage)) as asker:
        assert rejection(limited(asker, 1000), "SELECT sum(n) FROM t") is not None
        with pytest.raises(MicromegasError):
            list(limited(asker, 10**9).plan("SELECT sum(n) FROM t").batches())


# What decides about a caller with a row filter.

ROLE = {"logs": ("exe = 'x'",), "other": ()}
SEARCHES = (
    WIDE,
    "SELECT id FROM logs",
    "SELECT count(*) FROM logs",
    "SELECT id FROM logs WHERE id > 4000",
    "SELECT id FROM logs WHERE level = 99",
    "SELECT msg FROM logs WHERE at > '2090-01-01'",
    "SELECT id FROM logs ORDER BY at DESC LIMIT 3",
    "SELECT id FROM logs LIMIT 1",
    "SELECT n FROM other JOIN logs ON id = log_id WHERE day = '2024-01-03'",
    "EXPLAIN ANALYZE SELECT id FROM logs",
)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    folders = [tmp_path_factory.mktemp("world") for _ in WORLDS]
    found = [asking(write_world(number, folder)) for number, folder in zip(WORLDS, folders, strict=True)]
    with found[0] as first, found[1] as second:
        yield first, second


@pytest.mark.parametrize("sql", SEARCHES)
@pytest.mark.parametrize("max_scan_bytes", [1, 10**12])
def test_rejections_of_a_caller_with_a_row_filter_are_alike_in_both_worlds(worlds, sql, max_scan_bytes):
    found = []
    for world in worlds:
        try:
            found.append(rejection(limited(world, max_scan_bytes, ROLE), sql))
        except MicromegasError as error:
            found.append((error.what, error.remedy))

    assert found[0] == found[1]
    if max_scan_bytes == 1 and "EXPLAIN" not in sql:
        assert found[0][2] == "SQL010"
        assert "may read more than the 1 B" in found[0][0]


def test_what_a_statement_asks_for_decides_nothing_of_a_caller_with_a_row_filter(worlds):
    sizes = sum(os.stat(file.path).st_size for file in worlds[1].tables.tables[0].files)  # noqa: PTH116 - one sum
    statements = [sql for sql in SEARCHES if "other" not in sql and "EXPLAIN" not in sql]

    for allowed, is_rejected in ((sizes - 1, True), (sizes, False)):
        found = {rejection(limited(worlds[1], allowed, ROLE), sql) for sql in statements}
        assert len(found) == 1
        assert (found != {None}) == is_rejected
    assert rejection(limited(worlds[1], sizes - 1), "SELECT id FROM logs WHERE id < 10") is None


def test_roles_and_whole_days_decide_of_a_caller_with_a_row_filter(telemetry):
    begin = datetime.fromtimestamp(BEGIN_NS / 10**9, UTC)
    (table,) = [one for one in telemetry.tables.snapshot() if one.name == "log_entries"]
    size = min(os.stat(file.path).st_size for file in table.files)  # noqa: PTH116 - one number
    largest = max(os.stat(file.path).st_size for file in table.files)  # noqa: PTH116 - one number

    def fits(allowed, first, last):
        days = TimeRange(begin=begin + first, end=begin + last)
        asker = limited(telemetry, allowed, {"log_entries": ("exe = 'exe 1'",)})
        return rejection(asker, "SELECT msg FROM log_entries", time_range=days) is None

    hour = timedelta(hours=1)
    for first, last in ((hour, 2 * hour), (0 * hour, 23 * hour), (13 * hour, 14 * hour)):
        assert fits(largest, first, last)
        assert not fits(size - 1, first, last)
    assert not fits(largest, hour, 25 * hour)
    assert fits(2 * largest, hour, 25 * hour)


@pytest.mark.parametrize("sql", [*SEARCHES[:-1], "SELECT n FROM other, logs"])
def test_a_caller_with_a_row_filter_gets_no_estimate(worlds, sql):
    schemas = [with_estimate(world.seeing(ROLE).plan(sql, is_estimated=True)) for world in worlds]

    assert schemas[0].equals(schemas[1], check_metadata=True)
    assert b"micromegas.estimate" not in (schemas[0].metadata or {})
    assert b"micromegas.estimate" in with_estimate(worlds[0].plan(sql, is_estimated=True)).metadata


def test_nothing_is_estimated_unless_it_is_wanted(worlds, monkeypatch):
    monkeypatch.setattr(
        "micromegas_jupyter.engine.datafusion_engine.estimate", lambda *_, **__: pytest.fail("estimated")
    )

    assert worlds[0].plan(WIDE).explained == []
    assert len(worlds[0].tables.tables[0].files) == FILES
