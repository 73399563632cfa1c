"""Many writers, foreign ones and compaction among them, that are killed at any moment."""

import sys

import pytest

from tests.integration.lakehouse.faulty_s3 import BUCKET, environ_of, moto_server
from tests.integration.lakehouse.writing import kill_at_random

KILLS, LONG_KILLS = 1, 200


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.long)])
def root(request, tmp_path, monkeypatch):
    if request.param == "folder":
        yield tmp_path / "lake"
        return
    with moto_server() as port:
        for name, value in environ_of(port).items():
            monkeypatch.setenv(name, value)
        yield f"s3://{BUCKET}/lake"


@pytest.mark.timeout(3600)
def test_no_row_is_lost_or_doubled_by_kills(root, pytestconfig, capsys):
    kills = LONG_KILLS if pytestconfig.getoption("--long") else KILLS

    # Nine clients of ours and a foreign one; a person who compacts, and the server's maintenance.
    facts = kill_at_random(root, kills=kills, roles=["ingest"] * 3 + ["plain", "compact", "maintain"])

    with capsys.disabled():
        print(f"\n{root}: {kills} kills: {facts}", file=sys.stderr)
