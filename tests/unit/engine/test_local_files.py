"""Local files that change or go away are noticed, and small tables are read by one partition."""

import tempfile
import time
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.core.protocols import TableSnapshot
from micromegas_jupyter.engine.tables import needs_statistics
from micromegas_jupyter.errors import MicromegasError, Unavailable
from tests.fakes.fixed_tables import data_files
from tests.unit.engine.conftest import asking

COUNT = "SELECT count(*) AS n, max(n) AS m FROM t"


def write(path, *numbers):
    pq.write_table(pa.table({"n": pa.array(numbers, pa.int64())}), path)


@pytest.fixture(params=[3, 8], ids=["few files", "linked files"])
def count(request, tmp_path):
    for number in range(request.param):
        write(tmp_path / f"{number} é%25.parquet", number)
    return request.param


@pytest.fixture
def ask(count, tmp_path):
    files = data_files(*(tmp_path / f"{number} é%25.parquet" for number in range(count)))
    with asking([TableSnapshot(name="t", schema=pa.schema({"n": "int64"}), files=files)]) as asker:
        yield asker


def test_a_file_that_is_written_anew_is_read_anew(ask, count, tmp_path):
    assert [ask.rows(COUNT) for _ in range(3)] == [[{"n": count, "m": count - 1}]] * 3

    write(tmp_path / "1 é%25.parquet", *range(5000))

    assert [ask.rows(COUNT) for _ in range(3)] == [[{"n": count + 4999, "m": 4999}]] * 3


@pytest.mark.parametrize("is_known", [False, True])
def test_a_file_that_is_gone_is_an_error_until_it_is_back(ask, count, tmp_path, is_known):
    path = tmp_path / "1 é%25.parquet"
    if is_known:
        ask.rows(COUNT)
    planned = ask.plan(COUNT)
    path.rename(tmp_path / "away")
    with suppress(Unavailable):  # or it has no rows: it went away after it was looked for
        list(planned.batches())

    with pytest.raises(Unavailable):
        ask.rows(COUNT)
    (tmp_path / "away").rename(path)

    assert [ask.rows(COUNT) for _ in range(3)] == [[{"n": count, "m": count - 1}]] * 3


def test_a_file_that_was_away_while_a_statement_listed_it_is_read_by_the_next(ask, count, tmp_path):
    planned = ask.plan(COUNT)
    path = tmp_path / "1 é%25.parquet"
    path.rename(tmp_path / "away")
    with suppress(Unavailable):
        list(planned.batches())
    (tmp_path / "away").rename(path)

    assert [ask.rows(COUNT) for _ in range(3)] == [[{"n": count, "m": count - 1}]] * 3


def test_a_folder_that_was_away_while_a_statement_listed_it_is_soon_read_again(tmp_path):
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    paths = [folders[number % 2] / f"{number}.parquet" for number in range(8)]
    for number, path in enumerate(paths):
        write(path, number)
    table = TableSnapshot(name="t", schema=pa.schema({"n": "int64"}), files=data_files(*paths))
    with asking([table]) as ask:
        planned = ask.plan(COUNT)
        folders[0].rename(tmp_path / "away")
        with suppress(Unavailable):
            list(planned.batches())
        (tmp_path / "away").rename(folders[0])

        deadline = time.monotonic() + 30
        while (found := ask.rows(COUNT)) != [{"n": 8, "m": 7}] and time.monotonic() < deadline:
            time.sleep(0.05)
        assert found == [{"n": 8, "m": 7}]


def test_paths_are_not_shown(ask, tmp_path):
    for sql in ("EXPLAIN SELECT * FROM t", "EXPLAIN ANALYZE SELECT * FROM t", "EXPLAIN VERBOSE SELECT * FROM t"):
        shown = str(ask.rows(sql))
        assert not any(path in shown for path in (".parquet", "scans-", tempfile.gettempdir(), str(tmp_path))), shown
    (tmp_path / "1 é%25.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(MicromegasError) as error:
        ask.rows(COUNT)
    assert not any(path in str(error.value) for path in (".parquet", "scans-", tempfile.gettempdir(), str(tmp_path)))


@pytest.mark.parametrize(("filters", "partitions"), [(None, 1), ({"t": ("n >= 0",)}, 3)])
def test_small_tables_are_read_by_one_partition_unless_they_hide_rows(ask, filters, partitions):
    asker = ask if filters is None else ask.seeing(filters)
    for _ in range(2):
        planned = asker.plan("SELECT n, count(*) FROM t GROUP BY n", partitions=3)
        shown = planned._frame.execution_plan().display_indent()
        assert ("RepartitionExec" in shown) == (partitions > 1)
        list(planned.batches())
        # The next statement has its own number.
        other = ask.plan("SELECT value, count(*) FROM generate_series(1, 100000) GROUP BY 1", partitions=3)
        assert "3)" in other._frame.execution_plan().display_indent()
        list(other.batches())


@pytest.mark.parametrize(("filters", "is_filtered_later"), [(None, True), ({"t": ("n >= 0",)}, False)])
def test_fragments_are_filtered_after_they_are_decoded_unless_they_hide_rows(ask, filters, is_filtered_later):
    asker = ask if filters is None else ask.seeing(filters)

    planned = asker.plan("SELECT n FROM t WHERE n > 0")

    shown = planned._frame.execution_plan().display_indent()
    assert ("FilterExec: n@0 > 0" in shown) == is_filtered_later
    list(planned.batches())


@pytest.mark.parametrize(
    ("sql", "needs_them"),
    [
        ("SELECT n, count(*) FROM t GROUP BY n ORDER BY n", False),
        ("SELECT n, count(*) FROM t WHERE n > 1 GROUP BY n", True),
        ("SELECT a.n + 1 FROM t a", False),
        ("SELECT count(*) FROM t", True),
        ("SELECT n FROM t LIMIT 1", True),
        ("SELECT a.n FROM t a JOIN t b USING (n)", True),
        ("SELECT n FROM t WHERE n = (SELECT 1)", True),
    ],
)
def test_footers_are_read_before_plans_that_they_make_better(ask, sql, needs_them):
    assert needs_statistics(ask.plan(sql)._frame.logical_plan().display_indent()) == needs_them
