"""What a large DataFrame costs beside upstream's client; printed, never judged."""

import sys

import pytest
from pandas.testing import assert_frame_equal

from tests.benchmarks.measuring import LONG_ROWS, ROWS, TABLE, bench, load_text

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of a process's memory as Linux tells it"),
]

COLUMNS = "id, part, amount, name, time, word"
SQL = f"SELECT {COLUMNS} FROM {TABLE}"
ALL_DIFFERENT = f"SELECT id, part, amount, message, time, word FROM {TABLE}"
KEPT = ", dictionaries kept"
LONG_TRIES = 9
MADE = """
SELECT value AS id, value % 1000 AS part, CAST(value AS DOUBLE) / 3 AS amount, concat('name-', value % 5000) AS name,
       to_timestamp(value) AS time, value % 7 = 0 AS flag
FROM generate_series(1, {rows})
"""
# All 5M rows take twice as much.
FEW_BATCHES_MIB = 100


@pytest.fixture(scope="module")
def running(pytestconfig, tmp_path_factory):
    row_count = LONG_ROWS if pytestconfig.getoption("--long") else ROWS
    with bench(tmp_path_factory.mktemp("bench"), row_count=row_count) as serving:
        yield serving


@pytest.fixture
def tries(request):
    return LONG_TRIES if request.config.getoption("--long") else 1


def beside(title, costs, of):
    base = costs[of]
    lines = [
        f"  {way}: CPU {cost.cpu_seconds * 1e3:.0f} ms ({cost.cpu_seconds / base.cpu_seconds:.2f}), "
        f"peak {cost.peak_mib:.0f} MiB ({cost.peak_mib / base.peak_mib:.2f}), wall {cost.wall_seconds * 1e3:.0f} ms "
        f"({cost.wall_seconds / base.wall_seconds:.2f})"
        for way, cost in costs.items()
    ]
    return "\n".join([f"\n{title}, {load_text()}; in brackets the ratio to {of}:", *lines])


def pytest_generate_tests(metafunc):
    if "suffix" in metafunc.fixturenames:
        cases = {"defaults": (SQL, ""), "dictionaries": (SQL, KEPT), "texts": (ALL_DIFFERENT, "")}
        # Each takes a while, in several processes.
        names = list(cases) if metafunc.config.getoption("--long") else ["defaults"]
        metafunc.parametrize(("sql", "suffix"), [cases[name] for name in names], ids=names)


def test_a_large_frame_beside_upstreams_client(running, tries, capsys, sql, suffix):
    ways = [f"upstream{suffix}", f"ours{suffix}", f"ours{suffix}, ArrowDtype"]
    if not suffix:
        ways += ["%%sql", "%%sql --dtype pyarrow"]

    costs, frames = running.compare(dict.fromkeys(ways, sql), tries=tries)

    expected = frames.pop(ways[0])
    for way, found in frames.items():
        if "rrow" in way:
            assert_same_values(found, expected)
        else:
            assert_frame_equal(found, expected)
            assert found.equals(expected)
    with capsys.disabled():
        print(beside(f"{running.row_count:,} rows x 6 columns, {sql}", costs, ways[0]), file=sys.stderr)


def assert_same_values(frame, expected):
    assert frame.columns.tolist() == expected.columns.tolist()
    for name in expected:
        nulls = expected[name].isna()
        assert frame[name].isna().equals(nulls), name
        present = frame[name][~nulls].to_numpy(dtype=object), expected[name][~nulls].to_numpy(dtype=object)
        assert (present[0] == present[1]).all(), name


def test_a_reader_holds_a_few_batches_whatever_the_size(request, running, capsys):
    rows = 50_000_000 if request.config.getoption("--long") else 5_000_000
    made = MADE.format(rows=rows)

    cost = running.run("%%sql --format reader", made)

    assert cost.rows == rows
    assert cost.peak_mib < FEW_BATCHES_MIB
    with capsys.disabled():
        print(
            f"\n{rows / 1e6:.0f}M rows x 6 columns through %%sql --format reader, {load_text()}: memory grew by "
            f"{cost.peak_mib:.0f} MiB at the most, in {cost.wall_seconds:.1f} s",
            file=sys.stderr,
        )
