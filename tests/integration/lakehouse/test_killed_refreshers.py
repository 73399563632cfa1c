"""A view with three refreshers, late rows, compaction, retention, and deletions, all of which are killed."""

import random
import sys

import pytest

from tests.integration.lakehouse.faulty_s3 import BUCKET, environ_of, moto_server
from tests.integration.lakehouse.refreshing import Child, compare, make

KILLS, LONG_KILLS, PROGRESS_KILLS = 1, 100, 10
ROLES = ("write", "refresh", "refresh", "refresh", "change")


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
def test_a_view_equals_the_direct_query_whatever_is_killed(root, pytestconfig, capsys):
    kills, rows = LONG_KILLS if pytestconfig.getoption("--long") else KILLS, []
    make(root)
    children = [Child(role, root) for role in ROLES]
    try:
        for child in children:
            child.wait_for_work()
        recent: list[int] = []
        for number in range(1, kills + 1):
            # Not one of the last, which are starting: that takes much longer than anything else here.
            killed = random.choice([one for one in range(len(children)) if one not in recent])
            recent = [*recent, killed][-2:]
            children[killed].wait_for_work()
            children[killed].kill()
            rows.append(compare(root))
            children[killed] = Child(ROLES[killed], root)
            if number % PROGRESS_KILLS == 0:
                with capsys.disabled():
                    print(f"\n{root}: {number} kills, {rows[-1]} groups", file=sys.stderr, flush=True)
    finally:
        for child in children:
            child.kill()
    rows.append(compare(root))

    with capsys.disabled():
        print(f"\n{root}: {kills} kills, {rows[-1]} groups, {len(rows)} comparisons", file=sys.stderr)
