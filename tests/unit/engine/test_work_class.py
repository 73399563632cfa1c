"""Which statements are likely to be heavy is told from plan and file sizes before they run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.engine import WorkClass
from micromegas_jupyter.engine.scanner import scan
from micromegas_jupyter.engine.work_class import estimate_work

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.engine.conftest import Asker

SMALL = (
    "SELECT 1",
    "SELECT * FROM log_entries WHERE level < 3 ORDER BY time LIMIT 10",
    "SELECT level, count(*) FROM log_entries GROUP BY level",
    "SELECT a.level FROM log_entries a JOIN log_entries b ON a.process_id = b.process_id",
    "SELECT a.level FROM log_entries a, log_entries b WHERE a.process_id = b.process_id",
    "SELECT value FROM generate_series(1, 99999)",
    "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 9) SELECT * FROM r",
    "SHOW TABLES",
    "EXPLAIN SELECT 1",
)
HEAVY = (
    "SELECT value FROM generate_series(1, 1000000)",
    "SELECT count(*) FROM generate_series(1, 20000) a, generate_series(1, 20000) b",
    "SELECT count(*) FROM generate_series(1, 20000) a JOIN generate_series(1, 20000) b ON a.value < b.value",
    "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 90000) SELECT * FROM r",
)


@pytest.mark.parametrize("sql", SMALL)
def test_what_reads_little_is_small(ask: Asker, sql: str) -> None:
    assert ask.plan(sql).work_class is WorkClass.SMALL


@pytest.mark.parametrize("sql", HEAVY)
def test_what_makes_or_multiplies_many_rows_is_heavy(ask: Asker, sql: str) -> None:
    assert ask.plan(sql).work_class is WorkClass.HEAVY


def _file(folder: Path, size: int) -> str:
    path = folder / f"{size}.parquet"
    with path.open("wb") as file:
        file.truncate(size)
    return str(path)


@pytest.mark.parametrize(
    ("plan", "size", "expected"),
    [
        ("TableScan: spans", 16 << 20, WorkClass.SMALL),
        ("TableScan: spans", (16 << 20) + 1, WorkClass.HEAVY),
        ("Cross Join:\n  TableScan: spans", 256 << 10, WorkClass.SMALL),
        ("Cross Join:\n  TableScan: spans", (256 << 10) + 1, WorkClass.HEAVY),
        ("  Inner Join:  Filter: a.k < b.k", (256 << 10) + 1, WorkClass.HEAVY),
        ("  Inner Join:  Filter: a.k = b.k", (256 << 10) + 1, WorkClass.SMALL),
        ("  Left Join: Using a.k = b.k", (256 << 10) + 1, WorkClass.SMALL),
    ],
)
def test_the_size_of_the_files_decides_and_less_where_rows_multiply(
    tmp_path: Path, plan: str, size: int, expected: WorkClass
) -> None:
    assert estimate_work(plan, scan("SELECT 1"), [_file(tmp_path, size)]) is expected


def test_files_add_up_and_remote_ones_count_as_if_they_were_not_tiny(tmp_path: Path) -> None:
    remote = [f"s3://lake/{number}.parquet" for number in range(4)]

    assert estimate_work("TableScan: spans", scan("SELECT 1"), remote) is WorkClass.SMALL
    assert estimate_work("TableScan: spans", scan("SELECT 1"), [*remote, _file(tmp_path, 1)]) is WorkClass.HEAVY


def test_a_file_that_is_gone_is_left_to_whoever_reads_it(tmp_path: Path) -> None:
    assert estimate_work("TableScan: x", scan("SELECT 1"), [str(tmp_path / "gone.parquet")]) is WorkClass.SMALL
