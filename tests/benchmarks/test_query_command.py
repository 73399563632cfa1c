"""What `micromegas query` costs as a whole process: its first row, its rows a second, its memory."""

import json
import os
import subprocess
import sys

import pytest

from micromegas_jupyter.core.system import SYSTEM_CLOCK
from tests.fakes.waiting import wait_until
from tests.integration.executors.server_process import ROOT, ServerProcess

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]

SQL = (
    "SELECT value AS n, 'request ' || value AS msg, to_timestamp(value) AS time, value / 3.0 AS amount "
    "FROM generate_series(1, {rows})"
)
ROWS, LONG_ROWS = 100_000, 10_000_000
HEAD_LINES = {"csv": 1, "table": 2, "jsonl": 0}
# A process's peak begins with that of the one that starts it, so a small one does.
CHILD = """
import json, resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([code, used.ru_maxrss / 1024, used.ru_utime + used.ru_stime]), file=sys.stderr)
"""
# What gRPC and Arrow hold when the command is slower than the server; all rows would take hundreds.
MORE_MIB = 64


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("query")
    (folder / "lake").mkdir()
    options = ("--no-telemetry", "--no-http")
    with ServerProcess(folder / "server", lake=folder / "lake", keys={}, options=options, memory_mib=1024) as running:
        yield running


def _measure(uri, rows, file_format, target):
    """Return lines, seconds to the first byte and to the last, MiB at the peak, seconds of processor time."""
    output = () if target is None else ("--output", str(target))
    start, first, lines = SYSTEM_CLOCK.monotonic(), None, 0
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, sys.executable, "-m", "micromegas_jupyter.cli", "query", SQL.format(rows=rows),
         "--uri", uri, "--format", file_format, *output],
        cwd=ROOT, env={**os.environ, "MICROMEGAS_CONFIG_DIR": "/nowhere"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        if target is not None:
            wait_until(lambda: target.exists() or any(p.stat().st_size for p in target.parent.glob(".*.tmp")), "a row")
            first = SYSTEM_CLOCK.monotonic() - start
        while data := os.read(process.stdout.fileno(), 1 << 20):
            first = first or SYSTEM_CLOCK.monotonic() - start
            lines += data.count(b"\n")
        errors = process.stderr.read().decode()
    code, peak, processor = json.loads(errors)
    assert code == 0, errors
    if target is not None:
        with target.open("rb") as file:
            lines = sum(1 for _ in file)
        target.unlink()
    return lines, first, SYSTEM_CLOCK.monotonic() - start, peak, processor


@pytest.mark.parametrize("file_format", list(HEAD_LINES))
def test_rows_of_a_large_result_come_at_once_and_in_constant_memory(server, pytestconfig, tmp_path, say, file_format):
    rows = LONG_ROWS if pytestconfig.getoption("--long") else ROWS

    for target in (None, tmp_path / "rows"):
        _, _, _, small, base = _measure(server.uri, rows // 10, file_format, target)
        lines, first, all_seconds, peak, processor = _measure(server.uri, rows, file_format, target)

        assert lines == rows + HEAD_LINES[file_format]
        assert peak < small + MORE_MIB
        say(
            f"{rows:,} rows as {file_format} to a {'pipe' if target is None else 'file'}: first after {first:.2f} s, "
            f"all after {all_seconds:.1f} s, {rows * 0.9 / (processor - base):,.0f} rows a second of processor time, "
            f"{peak:.0f} MiB ({small:.0f} MiB for a tenth)"
        )
