"""Tables of other programs with deletion vectors and mapped columns: in buckets, and those of other projects' tests."""

import math
import tarfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, QueryBuilder

from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.errors import Unavailable
from micromegas_jupyter.lake.served_folder import ServedFolder
from tests.fakes.delta_tables import delete_rows, write_mapped
from tests.fakes.leak_statements import write_tables, wrong_statements
from tests.integration.lakehouse.faulty_s3 import BUCKET, FaultyS3, moto_server
from tests.unit.engine.conftest import Asker, asking
from tests.unit.engine.test_deleted_rows import FILTERS, SWAPPED, swapped_file
from tests.unit.lake.test_restore import check_vectors_are_restored

pytestmark = [pytest.mark.integration, pytest.mark.slow]

DATA = Path(__file__).parents[4] / "shared" / "data"


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
def storage(s3):
    return Storage(f"s3://{BUCKET}/some tables")


@pytest.mark.long
@pytest.mark.parametrize("names", [("few",), ("many",)], ids=["few", "many"])
def test_no_statement_notices_a_deleted_row_in_a_bucket(storage, names):
    write_tables(storage, names)

    with asking(ServedFolder(storage)) as ask:
        administrator = Asker(ask.engine, ask.tables, replace(ask.caller, is_admin=True))
        assert wrong_statements(administrator, names) == []
        assert wrong_statements(ask.seeing(FILTERS), names) == []


@pytest.mark.parametrize(
    ("mode", "count"),
    [("id", 6), pytest.param("id", 40, marks=pytest.mark.long), pytest.param("name", 40, marks=pytest.mark.long)],
)
def test_columns_in_a_bucket_have_their_tables_names(storage, mode, count):
    files = [swapped_file(number if count == 40 else 6 * number) for number in range(count)]
    write_mapped(storage, "t", files, mode=mode, physical=SWAPPED)
    wanted = pa.concat_tables(files, promote_options="default").to_pylist()

    with asking(ServedFolder(storage)) as ask:
        assert ask.table("SELECT * FROM t ORDER BY a").to_pylist() == wanted
        delete_rows(storage, "t", lambda _, rows: range(0, rows, 3))
        assert ask.table("SELECT * FROM t ORDER BY a").to_pylist() == [row for row in wanted if row["a"] % 10 % 3]
        number = wanted[7]["a"]
        sql = f"SELECT a, s['x'] AS x FROM t WHERE (b = -{number} OR a = {number}) AND CAST(s['y'] AS BIGINT) > 0"
        assert ask.rows(sql) == [{"a": number, "x": number}]
        assert ask.seeing({"t": (f"a < {number + 1}",)}).rows("SELECT max(a) AS a FROM t") == [{"a": number}]


def test_deletion_vectors_in_a_bucket_are_restored(storage):
    check_vectors_are_restored(storage, "id")


@pytest.mark.parametrize("count", [40, pytest.param(1000, marks=pytest.mark.long)])
def test_a_new_version_costs_no_reads_of_vectors_until_it_is_queried(s3, storage, count):
    write_mapped(storage, "t", [pa.table({"a": [n, -1]}) for n in range(count)], mode="name", physical={"a": "x"})
    folder, requests, no_fault = ServedFolder(storage), [], s3.fault

    with asking(folder) as ask:
        assert ask.rows("SELECT count(*) AS c FROM t") == [{"c": 2 * count}]
        path = delete_rows(storage, "t", lambda *_: [1])
        s3.fault = lambda method, url: requests.append(url)
        (table,) = folder.snapshot("SELECT * FROM t")
        assert len(table.files.vectors) == count
        assert not [url for url in requests if "deletion_vector" in url]
        assert ask.rows("SELECT count(*) AS c, min(a) AS a FROM t") == [{"c": count, "a": 0}]
        assert 0 < len([url for url in requests if "deletion_vector" in url]) <= 10
        s3.fault = no_fault
        content, _ = storage.read(path)
        storage.write(path, content[:-1])
        with asking(folder) as other, pytest.raises(Unavailable, match=r"The table t.* a deletion vector"):
            other.rows("SELECT count(*) FROM t")
        storage.delete(path)
        with asking(folder) as other, pytest.raises(Unavailable, match=r"The table t .*files were removed"):
            other.rows("SELECT count(*) FROM t")


def unpack(archive, folder, names):
    with tarfile.open(archive) as packed:
        members = [one for one in packed.getmembers() if names is None or any(f"{name}/" in one.name for name in names)]
        packed.extractall(folder, members=members, filter="data")
    return sorted(folder.rglob("_delta_log"))


def plain(value):
    """Return a value in a form in which those of Spark and ours are equal."""
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: plain(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if hasattr(value, "tzinfo"):
        return value.isoformat().removesuffix("+00:00")
    return value


def rows_of(table):
    names = sorted(table.column_names)
    return sorted(str([plain(row[name]) for name in names]) for row in table.to_pylist())


def ask_table(path):
    with asking(ServedFolder(Storage(path))) as ask:
        return rows_of(ask.table(f'SELECT * FROM "{path.name}"'))


#: Its expected rows have a text where the table has a null.
WRONG_GOLDENS = {"data-reader-partition-values"}
#: One for each kind of table.
SOME_GOLDENS = (
    "dv-partitioned-with-checkpoint",
    "dv-with-columnmapping",
    "table-with-columnmapping-mode-id",
    "data-reader-timestamp_ntz-id-mode",
    "parquet-all-types",
    "v2-checkpoint-json",
    "v2-checkpoint-parquet",
)


@pytest.mark.parametrize("names", [SOME_GOLDENS, pytest.param(None, marks=pytest.mark.long)], ids=["some", "all"])
def test_golden_tables_of_delta_kernel_have_their_expected_rows(tmp_path, names):
    found, wrong = 0, []
    for log in unpack(DATA / "delta-golden" / "golden_tables.tar.xz", tmp_path, names):
        path = log.parent
        expected = [pq.read_table(one) for one in sorted((path.parent / "expected").rglob("*.parquet"))]
        if path.parent.name in WRONG_GOLDENS or not (path.parent / "expected").is_dir():
            continue
        found += 1
        wanted = rows_of(pa.concat_tables(expected, promote_options="permissive")) if expected else []
        if ask_table(path) != wanted:
            wrong.append(path.parent.name)

    assert wrong == []
    assert found >= (70 if names is None else len(SOME_GOLDENS))


#: Of variants, which Arrow has no type for.
UNREAD = {"spark-variant-checkpoint"}
SOME_TABLES = ("table-with-dv-small", "table_with_column_mapping", "checkpoint-v2-table", "cdf-table-with-cdc-and-dvs")


def read_others(path):
    """Return the rows of a table as deltalake and DuckDB read it."""
    from importlib.resources import files

    (extension,) = (files("duckdb_extension_delta") / "extensions" / f"v{duckdb.__version__}").iterdir()

    def by_deltalake():
        return pa.table(QueryBuilder().register("t", DeltaTable(str(path))).execute("SELECT * FROM t").read_all())

    def by_duckdb():
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.load_extension(str(extension))
            return connection.execute(f"SELECT * FROM delta_scan('{path}')").to_arrow_table()

    for read in (by_deltalake, by_duckdb):
        with suppress(Exception):
            yield rows_of(read())


@pytest.mark.parametrize("names", [SOME_TABLES, pytest.param(None, marks=pytest.mark.long)], ids=["some", "all"])
def test_tables_of_delta_rs_have_the_rows_that_others_read(tmp_path, names):
    found, wrong = 0, []
    for log in unpack(DATA / "delta-rs" / "test_tables.tar.xz", tmp_path, names):
        theirs = list(read_others(log.parent))
        if log.parent.name in UNREAD or not theirs:
            continue
        found += 1
        if ask_table(log.parent) not in theirs:
            wrong.append(log.parent.name)

    assert wrong == []
    assert found >= (39 if names is None else len(SOME_TABLES))
