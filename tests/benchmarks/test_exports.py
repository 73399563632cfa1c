"""How many log records, and how many small exports, a server takes from exporters; printed, never judged."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest
from deltalake import DeltaTable

from tests.integration.otlp.test_retries import _serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

_ROOT = Path(__file__).parents[2]
_EXPORTERS = 4
_SECONDS = 60
_SMALL_SECONDS = 10


def export_for(seconds, url, *, records, at_once, is_kept=True):
    """Let exporters send for some seconds; return the answers, how long each took, and bytes of one request."""
    command = [sys.executable, "-m", "tests.benchmarks.exporters", url, *map(str, (seconds, records, at_once, is_kept))]
    children = [subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True) for _ in range(_EXPORTERS)]
    found = [json.loads(child.communicate()[0]) for child in children]
    statuses = sum((Counter(one["statuses"]) for one in found), Counter())
    return statuses, np.concatenate([one["took"] for one in found]), found[0]["bytes"]


def largest_mib(process):
    """Return the private memory of the largest descendant, which is the process that stores exports."""
    return max(one.memory_full_info().uss for one in process.children(recursive=True)) / 1024**2


@pytest.mark.parametrize(("records", "at_once"), [(1000, 10), (512, 4)])
def test_log_records(tmp_path, say, records, at_once):
    with _serving(tmp_path) as (child, url, _):
        server = psutil.Process(child.pid)
        export_for(3, url, records=records, at_once=at_once)
        before = largest_mib(server)
        statuses, took, size = export_for(_SECONDS, url, records=records, at_once=at_once)
        after = largest_mib(server)
    middle, late = np.percentile(took, [50, 99]) * 1000
    rate = statuses["200"] * records / _SECONDS
    say(
        f"{_EXPORTERS} exporters, {at_once} exports at once of {records} records, {size:,} bytes: "
        f"{rate:,.0f} records/s, "
        f"{middle:.0f}/{late:.0f} ms (p50/p99), answers {dict(statuses)}, the ingest process has "
        f"{before:,.0f} MiB, then {after:,.0f}"
    )


@pytest.mark.parametrize("at_once", [1, 16])
def test_small_exports(tmp_path, say, at_once):
    with _serving(tmp_path) as (_, url, _):
        export_for(2, url, records=1, at_once=at_once)
        kept, kept_took, _ = export_for(_SMALL_SECONDS, url, records=1, at_once=at_once)
        commits = DeltaTable(tmp_path / "log_entries").version()
        dropped, dropped_took, _ = export_for(_SMALL_SECONDS, url, records=1, at_once=at_once, is_kept=False)
    rates = [statuses["200"] / _SMALL_SECONDS for statuses in (kept, dropped)]
    say(
        f"{_EXPORTERS} exporters, {at_once} exports at once of 1 record: {rates[0]:,.0f} durable exports/s "
        f"({np.median(kept_took) * 1000:.0f} ms, {commits} commits), {rates[1]:,.0f}/s answered from memory "
        f"({np.median(dropped_took) * 1000:.0f} ms)"
    )
