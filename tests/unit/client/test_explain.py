"""What people read about files that queries scan: progress, counts, and plans."""

from types import SimpleNamespace

import msgspec
import pyarrow as pa
import pytest

from micromegas_jupyter.client.explain import positions_without_explain, read_plan
from micromegas_jupyter.client.query_reader import ScanCounts, ScanFollower, ScanProgress, TableCounts, parse_counts
from micromegas_jupyter.errors import InvalidStatement, UnsupportedRequest
from tests.fakes.clock import FakeClock


def following(*answers):
    """Return a follower of scripted answers, its clock, and what is left of them."""
    left = list(answers)

    def find(_query_id):
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    clock = FakeClock()
    return ScanFollower(find, clock), clock, left


def test_progress_is_asked_for_once_a_second_after_the_first():
    follower, clock, left = following(None, ScanProgress(files=812, scanned=0.379), ScanProgress(files=1, scanned=1.0))
    texts = []
    for _ in range(12):
        texts.append(follower.text("id"))
        clock.advance(0.3)

    unknown = [""] * 8
    assert texts == [*unknown, *["scanned 37 % of 812 files"] * 4]
    assert len(left) == 1


def test_a_server_that_does_not_tell_is_not_asked_again():
    follower, clock, left = following(UnsupportedRequest("No."), ScanProgress(files=1, scanned=1.0))
    clock.advance(2)

    assert follower.text(None) == ""
    assert [follower.text("id"), clock.advance(60), follower.text("id")] == ["", None, ""]
    assert len(left) == 1


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        (ScanCounts(12, 120, 3_400_000, 2_000_000), "12 of 120 files, 3.4 MB, 2,000,000 rows"),
        (ScanCounts(1, 1, 900, 1), "1 of 1 file, 900 B, 1 row"),
        (ScanCounts(None, 3, None, None), "some of 3 files"),
    ],
)
def test_counts_are_one_clause(counts, text):
    assert counts.text() == text


def test_a_plan_is_followed_by_what_its_tables_would_take():
    rows = pa.table({"plan_type": ["logical_plan"], "plan": ["Limit\n  TableScan"]})
    explained = (TableCounts("log_entries", 3, 40, 2_000, None), TableCounts("b\x1b", 0, 1, None, 0))
    counts = ScanCounts(0, 41, 0, 0, explained)

    lines = read_plan(SimpleNamespace(read_all=lambda: rows, counts=counts)).splitlines()

    assert lines == [
        "logical plan", "  Limit", "    TableScan", "",
        "files to read", "  log_entries: 3 of 40 files, 2.0 kB", r"  b\x1b: 0 of 1 file, 0 rows",
    ]  # fmt: skip
    assert read_plan(SimpleNamespace(read_all=lambda: rows, counts=None)).splitlines() == lines[:3]


def test_errors_point_into_the_statement_that_is_explained():
    with pytest.raises(InvalidStatement) as caught, positions_without_explain():
        raise InvalidStatement("No.", line=3, column=5)

    assert (caught.value.line, caught.value.column) == (2, 5)


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan"), "1"])
def test_a_share_that_is_none_is_not_shown(share):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"files": 1, "scanned": share}, ScanProgress)


@pytest.mark.parametrize(
    "text",
    [
        f'{{"files": 1, "total": 2, "bytes": {"9" * 400}, "rows": 1}}',
        '{"files": 1, "total": 2, "bytes": -1, "rows": 1}',
        '{"files": 1, "total": 2, "bytes": 1, "rows": 1, "more": ' + "[" * 4000,
        '{"files": 1, "total": 2, "bytes": 1, "rows": 1, "more": "\ud800"}',
        f'{{"files": 1, "total": 2, "bytes": 1, "rows": 1, "explained": [["a", 1, 2, {"9" * 400}]]}}',
    ],
)
def test_counts_that_are_none_are_not_shown(text):
    assert parse_counts(text) is None
