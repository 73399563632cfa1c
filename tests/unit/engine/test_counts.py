"""Files, bytes and rows of statements: at their end, while they run, and in an EXPLAIN; nothing of hidden rows."""

import pytest

from micromegas_jupyter.engine.contract import ScanProgress, TableFiles
from micromegas_jupyter.errors import StatementRefused
from tests.unit.engine.conftest import asking
from tests.unit.engine.hidden_worlds import FILES, WORLDS, write_world

ROWS = FILES * 5
SEEING_SOME = {"logs": ("exe = 'x'",), "other": ()}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with asking(write_world(0, tmp_path_factory.mktemp("world")), target_partitions=2) as asker:
        yield asker


def finished(asker, sql, **options):
    planned = asker.plan(sql, **options)
    list(planned.batches())
    return planned


def counts(planned):
    found = planned.statistics
    return found.files_read, found.files_total, found.rows_scanned


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT sum(value) FROM logs", (FILES, FILES, ROWS)),
        ("SELECT sum(value) FROM logs WHERE id < 10", (2, FILES, 10)),
        ("SELECT sum(value) FROM logs WHERE msg LIKE '%7' AND id < 10", (2, FILES, 10)),
        ("SELECT count(*) FROM logs a JOIN logs b ON a.id = b.id", (FILES, FILES, 2 * ROWS)),
        ("SELECT count(*) FROM logs JOIN other ON id = log_id", (2 * FILES, 2 * FILES, 2 * ROWS)),
        ("SELECT 1 AS logs", (0, 0, 0)),
        ("EXPLAIN SELECT sum(value) FROM logs", (0, FILES, 0)),
    ],
)
def test_a_statement_counts_the_files_and_rows_that_it_reads(world, sql, expected):
    assert counts(finished(world, sql)) == expected


def test_a_statement_over_rows_of_parameters_counts_those_of_all(world):
    import pyarrow as pa

    values = pa.record_batch({"0": [10, 20]})

    planned = finished(world, "SELECT sum(value) FROM logs WHERE id < ?", parameters=values)

    assert counts(planned) == (2 + 4, 2 * FILES, 10 + 20)
    assert not planned.hides_rows


def test_an_explain_tells_what_the_log_knows_of_the_files_that_are_needed(world):
    everything, some = (world.plan(f"EXPLAIN SELECT * FROM logs{where}") for where in ("", " WHERE id < 10"))

    sizes = [one.explained[0].size for one in (everything, some)]
    assert everything.explained == [TableFiles("logs", FILES, FILES, sizes[0], ROWS)]
    assert some.explained == [TableFiles("logs", 2, FILES, sizes[1], 10)]
    assert 0 < sizes[1] < sizes[0]
    assert world.plan("SELECT * FROM logs").explained == []


def test_progress_is_the_share_of_files_that_are_scanned(world):
    planned = world.plan("SELECT a.id FROM logs a CROSS JOIN logs b CROSS JOIN other")
    before = planned.progress()
    batches = planned.batches()
    next(batches)
    during = planned.progress()
    batches.close()

    assert before is planned.progress() is None
    assert during == ScanProgress(2 * FILES, 1.0) or (during.files == 2 * FILES and 0 < during.scanned < 1)


@pytest.mark.parametrize("sql", ["SELECT id FROM logs", "SELECT id FROM other JOIN logs ON id = log_id"])
def test_a_caller_who_sees_some_rows_of_a_table_has_no_progress(world, sql):
    planned = world.seeing(SEEING_SOME).plan(sql)
    batches = planned.batches()
    next(batches)

    assert planned.hides_rows
    assert planned.progress() is None


def test_filters_of_a_table_that_is_not_read_hide_nothing(world):
    assert not world.seeing(SEEING_SOME).plan("SELECT n FROM other").hides_rows


def test_an_explain_of_a_table_with_hidden_rows_is_refused_alike_in_both_worlds(tmp_path):
    errors = []
    for number in WORLDS:
        with asking(write_world(number, tmp_path / str(number))) as asker, pytest.raises(StatementRefused) as caught:
            asker.seeing(SEEING_SOME).plan("EXPLAIN SELECT id FROM logs WHERE level = 99")
        errors.append((caught.value.what, caught.value.remedy))

    assert errors[0] == errors[1]
