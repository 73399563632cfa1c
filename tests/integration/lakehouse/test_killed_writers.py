"""Many writers, foreign ones and compaction among them, that are killed at any moment."""

import sys

import pytest

from tests.integration.lakehouse.writing import kill_at_random

KILLS, LONG_KILLS = 1, 200


@pytest.mark.timeout(3600)
def test_no_row_is_lost_or_doubled_by_kills(tmp_path, pytestconfig, capsys):
    kills = LONG_KILLS if pytestconfig.getoption("--long") else KILLS

    # Nine clients of ours and a foreign one; a person who compacts, and the server's maintenance.
    facts = kill_at_random(tmp_path / "lake", kills=kills, roles=["ingest"] * 3 + ["plain", "compact", "maintain"])

    with capsys.disabled():
        print(f"\n{kills} kills: {facts}", file=sys.stderr)
