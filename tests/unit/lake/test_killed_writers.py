"""Writers that are killed at any moment, in short; tests/integration/lakehouse has the long form."""

import json
import subprocess
import sys

import pyarrow as pa
from deltalake import DeltaTable

from tests.integration.lakehouse.writing import kill_at_random


def test_rows_are_stored_once_when_writers_are_killed(tmp_path):
    kill_at_random(tmp_path / "lake", kills=1, roles=["ingest", "ingest", "plain"])


def test_a_full_disk_is_reported_and_nothing_is_stored_in_part(tmp_path):
    arguments = [sys.executable, "-m", "tests.integration.lakehouse.writing", "fill", tmp_path / "lake", "1000000"]
    outcomes = json.loads(subprocess.run(arguments, stdout=subprocess.PIPE, check=True).stdout)

    assert [outcomes[0], outcomes[3]] == [1, 1]
    assert [outcome[0] for outcome in outcomes[1:3]] == ["ResourcesExhausted"] * 2
    assert str(tmp_path) not in str(outcomes)
    assert DeltaTable(tmp_path / "lake" / "kept").to_pyarrow_table() == pa.table({"data": [b"few", b"few"]})
    assert not DeltaTable.is_deltatable(str(tmp_path / "lake" / "other"))
