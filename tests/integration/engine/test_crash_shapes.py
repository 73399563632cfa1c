"""The guard's limits hold: the largest accepted statement of each dangerous shape neither crashes nor stalls."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.engine.crash_shapes import SHAPES

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[3]


def test_the_largest_accepted_statements_leave_the_process_alive(pytestconfig: pytest.Config) -> None:
    words = ["--exact"] if pytestconfig.getoption("--long") else []
    finished = subprocess.run(
        [sys.executable, "-m", "tests.integration.engine.crash_shapes", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )

    done = [line.partition(":")[0] for line in finished.stdout.splitlines()]
    assert done == list(SHAPES), finished.stderr[-2000:]
    assert finished.returncode == 0
