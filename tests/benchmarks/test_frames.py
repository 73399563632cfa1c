"""What a large DataFrame costs beside upstream's client; printed, never judged."""

import json
import os
import secrets
import statistics
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pandas.testing import assert_frame_equal

from tests.integration.executors.server_process import ROOT, ServerProcess

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of a process's memory as Linux tells it"),
]

ROWS, LONG_ROWS, LONG_TRIES = 200_000, 1_000_000, 9
SQL = "SELECT id, part, amount, name, time, word FROM events"
ALL_DIFFERENT = "SELECT id, part, amount, message, time, word FROM events"
MADE = """
SELECT value AS id, value % 1000 AS part, CAST(value AS DOUBLE) / 3 AS amount, concat('name-', value % 5000) AS name,
       to_timestamp(value) AS time, value % 7 = 0 AS flag
FROM generate_series(1, {rows})
"""
# All 5M rows take twice as much.
FEW_BATCHES_MIB = 100


def write_rows(folder, count):
    """Write the rows that all are asked for: numbers, nulls, few and many different texts, a time, words."""
    numbers = np.arange(count)
    table = pa.table(
        {
            "id": numbers,
            "part": pa.array(numbers % 1000, mask=numbers % 17 == 0),
            "amount": pa.array(numbers / 3, mask=numbers % 11 == 0),
            "name": [None if number % 13 == 0 else f"name-{number % 5000}" for number in range(count)],
            "time": pa.array(numbers * 1_000_000_007).cast(pa.timestamp("ns", "UTC")),
            "word": pa.DictionaryArray.from_arrays(pa.array((numbers % 6).astype("int32")), pa.array([*"abcdef"])),
            "message": [f"request {number} was answered" for number in range(count)],
        }
    )
    pq.write_table(table, folder / "events.parquet", row_group_size=count // 8)


@pytest.fixture(scope="module")
def run(pytestconfig, tmp_path_factory):
    """Runs a statement in one of the ways of `query_child`, in a process of its own, and returns what it cost."""
    folder = tmp_path_factory.mktemp("bench")
    served, own = folder / "served", folder / "own"
    served.mkdir()
    own.mkdir(mode=0o700)
    write_rows(served, LONG_ROWS if pytestconfig.getoption("--long") else ROWS)
    key, key_file = secrets.token_hex(32), own / "key"
    key_file.touch(mode=0o600)
    key_file.write_text(key, encoding="ascii")
    environ = {**os.environ, "MICROMEGAS_CONFIG_DIR": str(own), "IPYTHONDIR": str(own)}

    with ServerProcess(
        folder / "server", lake=served, keys={"bench": key}, options=("--no-telemetry",), memory_mib=1024
    ) as server:
        configuration = {"uri": server.uri, "api_key_file": str(key_file)}
        (own / "config.json").write_text(json.dumps(configuration), encoding="utf-8")

        def measure(way, sql, kept_at=""):
            done = subprocess.run(
                [sys.executable, "-m", "tests.benchmarks.query_child"],
                input=json.dumps({"way": way, "sql": sql, "uri": server.uri, "key": key, "kept_at": str(kept_at)}),
                capture_output=True,
                text=True,
                timeout=600,
                env=environ,
                cwd=ROOT,
                check=False,
            )
            assert done.returncode == 0, done.stderr[-2000:]
            return json.loads(done.stdout)

        yield measure


def pytest_generate_tests(metafunc):
    if "suffix" in metafunc.fixturenames:
        kept = ", dictionaries kept"
        cases = {"defaults": (SQL, ""), "dictionaries": (SQL, kept), "texts": (ALL_DIFFERENT, "")}
        # Each takes a while, in several processes.
        names = list(cases) if metafunc.config.getoption("--long") else ["defaults"]
        metafunc.parametrize(("sql", "suffix"), [cases[name] for name in names], ids=names)


def test_a_large_frame_beside_upstreams_client(run, pytestconfig, tmp_path, say, sql, suffix):  # noqa: PLR0917
    ways = [f"upstream{suffix}", f"ours{suffix}", f"ours{suffix}, ArrowDtype"]
    if not suffix:
        ways += ["%%sql", "%%sql --dtype pyarrow"]
    tries = LONG_TRIES if pytestconfig.getoption("--long") else 1
    costs = [{way: run(way, sql, tmp_path / way.replace("%", "")) for way in ways} for _ in range(tries)]
    # In the order of `id`, as the server's partitions run side by side.
    expected, *found = (
        pd.read_pickle(tmp_path / way.replace("%", "")).sort_values("id", ignore_index=True) for way in ways
    )

    for way, frame in zip(ways[1:], found, strict=True):
        if "rrow" in way:
            assert_same_values(frame, expected)
        else:
            assert_frame_equal(frame, expected)
            assert frame.equals(expected)
    say("\n".join([f"{len(expected):,} rows x 6 columns, {sql}; to {ways[0]}:", *ratios(costs, ways)]))


def ratios(costs, ways):
    medians = {
        way: {name: statistics.median(cost[way][name] for cost in costs) for name in ("processor", "peak", "wall")}
        for way in ways
    }
    base = medians[ways[0]]
    for way in ways[1:]:
        yield f"  {way}: " + ", ".join(f"{name} {figure / base[name]:.2f}" for name, figure in medians[way].items())


def assert_same_values(frame, expected):
    assert frame.columns.tolist() == expected.columns.tolist()
    for name in expected:
        nulls = expected[name].isna()
        assert frame[name].isna().equals(nulls), name
        present = frame[name][~nulls].to_numpy(dtype=object), expected[name][~nulls].to_numpy(dtype=object)
        assert (present[0] == present[1]).all(), name


def test_a_reader_holds_a_few_batches_whatever_the_size(run, pytestconfig, say):
    rows = 50_000_000 if pytestconfig.getoption("--long") else 5_000_000

    cost = run("%%sql --format reader", MADE.format(rows=rows))

    assert cost["rows"] == rows
    assert cost["peak"] < FEW_BATCHES_MIB
    say(f"{rows:,} rows through %%sql --format reader: {cost['peak']:.0f} MiB more at the most, {cost['wall']:.1f} s")
