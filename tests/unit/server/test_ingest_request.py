"""What the storage is told of who sends rows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from micromegas_jupyter.contracts import AuthContext, TableAccess, WriteMode
from micromegas_jupyter.flightsql.ingest_command import IngestCommand
from micromegas_jupyter.server.ingest import build_request
from tests.fakes.validator import ALICE, INGESTER

SOME = TableAccess(filters={"notes": ()})
BOTH = replace(INGESTER, scopes=frozenset({"ingest", "read"}))


@pytest.mark.parametrize(
    ("caller", "table", "may_read"),
    [
        (INGESTER, "notes", False),
        (BOTH, "notes", True),
        (replace(BOTH, table_access=SOME), "notes", True),
        (replace(BOTH, table_access=SOME), "pay", False),
        (ALICE, "pay", True),
    ],
)
def test_columns_are_told_to_whoever_may_read_the_table(caller: AuthContext, table: str, may_read: bool) -> None:
    command = IngestCommand(table=table, mode=WriteMode.APPEND)

    assert build_request(command, caller, write_id=None, most_tables=5).may_read is may_read


def test_makers_are_told_apart_by_issuer_and_subject_and_administrators_are_not_bounded() -> None:
    command = IngestCommand(table="notes", mode=WriteMode.CREATE)
    callers = [INGESTER, replace(INGESTER, subject="other"), replace(INGESTER, issuer="other"), ALICE]

    requests = [build_request(command, caller, write_id="ab", most_tables=5) for caller in callers]

    assert len({request.maker for request in requests}) == 4
    assert [request.most_tables for request in requests] == [5, 5, 5, None]
    assert [request.is_trusted for request in requests] == [False, False, False, True]
