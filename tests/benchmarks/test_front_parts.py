"""What the parts of the front cost for one statement; printed, never judged."""

import json
import sys

import pytest

from tests.benchmarks import front_parts

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="there is no uvloop"),
]


def test_the_front_by_parts(tmp_path, pytestconfig, say):
    count = 3000 if pytestconfig.getoption("--long") else 500

    costs = front_parts.run(tmp_path, count=count)

    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert {line["sql"] for line in lines} == {front_parts.SQL}
    assert len(lines) == count + 1
    table = [f"{name:15} {cost:7.0f}" for name, cost in costs.items()]
    say("\n".join(["microseconds of the front's processor time for one SELECT 1", *table]))
