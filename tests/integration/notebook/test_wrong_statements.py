"""Statements that are wrong, in cells of a real kernel: what a person reads, word for word, and no more than that."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.integration.notebook.interrupting import kernel_of, served
from tests.integration.notebook.kernels import REPOSITORY

pytestmark = pytest.mark.integration

QUERY = re.compile(r"  query [0-9a-f]{8} · ")
READS_ONLY = (
    "✗ The statement would change something, and this server only reads. "
    "Only reading statements within the documented limits are accepted."
)
# By statement: the sentence, then the line of the statement and the caret below it, where there is a place.
WRONG = {
    "SELECT time, tagret, msg FROM log_entries": (
        "✗ There is no column named tagret. Did you mean target?",
        "    SELECT time, tagret, msg FROM log_entries",
        "                 ^ line 1, column 14",
    ),
    "SELECT n FROM MyTable": (
        '✗ There is no table named mytable. Did you mean "My Table"?',
        "    SELECT n FROM MyTable",
        "                  ^ line 1, column 15",
    ),
    "SELEC 1": (
        "✗ Expected an SQL statement here, not SELEC. Correct the statement.",
        "    SELEC 1",
        "    ^ line 1, column 1",
    ),
    'SELECT msg FROM log_entries WHERE msg = "x"': (
        "✗ There is no column named x. Write text in single quotes (') and names in double quotes.",
        '    SELECT msg FROM log_entries WHERE msg = "x"',
        "                                            ^ line 1, column 41",
    ),
    "SELECT msg FROM log_entries WHERE level = :level AND tagret = :word;": (
        "✗ There is no column named tagret. Did you mean target?",
        "    SELECT msg FROM log_entries WHERE level = :level AND tagret = :word;",
        "                                                         ^ line 1, column 54",
    ),
    "DROP TABLE log_entries": (READS_ONLY,),
    f"SELECT '{'x' * 140_000}'": (
        (
            "✗ The statement is longer than the 131072 bytes that this server allows. "
            "Only reading statements within the documented limits are accepted."
        ),
    ),
}


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    log_entries = {"time": pa.array([0], pa.timestamp("ns", "UTC")), "target": ["a"], "msg": ["x"]}
    pq.write_table(pa.table({**log_entries, "level": pa.array([1], pa.int32())}), folder / "log_entries.parquet")
    pq.write_table(pa.table({"exe": ["x"], "level": [1]}), folder / "processes.parquet")
    pq.write_table(pa.table({"n": [1]}), folder / "My Table.parquet")
    with (
        served(folder) as (uri, _audit),
        kernel_of(uri, tmp_path_factory.mktemp("home")) as running,
    ):
        running.run("level, levels, word = 1, [1, 2, 3], 'x'")
        yield running


def shown(kernel, source):
    """Run a cell that fails and return the lines that stand in place of a traceback."""
    (error,) = kernel.run(source).of("error")
    return list(error["traceback"])


@pytest.mark.parametrize("sql", WRONG, ids=lambda sql: sql[:60])
def test_a_wrong_statement_is_answered_with_its_lines(kernel, sql):
    *lines, last = shown(kernel, f"%%sql\n{sql}")

    assert tuple(lines) == WRONG[sql]
    assert QUERY.match(last)
    assert re.fullmatch(r"SQL00[12] · docs/errors\.md#sql00[12]", QUERY.sub("", last))


def test_the_statement_is_answered_without_a_python_traceback_or_a_path(kernel):
    cell = kernel.run("%%sql\nSELECT tagret FROM log_entries")

    everything = str([message["content"] for message in cell.messages])
    assert "Traceback" not in everything
    assert not re.search(r"site-packages|\.py\b", everything)
    assert str(REPOSITORY) not in everything


def test_a_traceback_is_shown_to_whoever_asks_for_it(kernel):
    lines = "\n".join(shown(kernel, "%%sql --traceback\nSELECT tagret FROM log_entries"))

    assert "Traceback (most recent call last)" in lines
    assert "InvalidStatement" in lines
    assert "There is no column named tagret. Did you mean target?" in lines
