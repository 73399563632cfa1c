"""Settings are valid once built; what the storage learns of callers who send rows."""

from dataclasses import replace
from pathlib import Path

import pytest

from micromegas_jupyter.core.protocols import AuthContext, TableAccess, WriteMode
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.flightsql.commands import IngestCommand
from micromegas_jupyter.server.ingest import build_request, build_write_id, parse_ingest_headers
from micromegas_jupyter.server.settings import FlightServerSettings, IngestSettings
from tests.fakes.validator import ALICE, INGESTER

SOME = TableAccess(filters={"notes": ()})
BOTH = replace(INGESTER, scopes=frozenset({"ingest", "read"}))


@pytest.mark.parametrize(
    "changes",
    [
        {"port": 65536},
        {"port": -1},
        {"certificate_file": Path("server.pem")},
        {"key_file": Path("server.key")},
        {"client_ca_file": Path("clients.pem")},
        {"max_concurrent_calls": 0},
        {"write_timeout_seconds": 0.0},
        {"connection_age_seconds": 0.0},
        {"max_rows": 0},
        {"ticket_life_seconds": 0.0},
        {"max_result_bytes": -1},
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        FlightServerSettings(**changes)  # type: ignore[arg-type]


def test_the_limits_of_ingest_are_greater_than_0() -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        IngestSettings(max_rows=0)


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
def test_only_callers_who_may_read_a_table_learn_of_its_columns(
    caller: AuthContext, table: str, may_read: bool
) -> None:
    command = IngestCommand(table=table, mode=WriteMode.APPEND)

    assert build_request(command, caller, write_id=None, max_tables=5).may_read is may_read


def test_makers_differ_by_issuer_and_subject_and_administrators_are_not_bounded() -> None:
    command = IngestCommand(table="notes", mode=WriteMode.CREATE)
    callers = [INGESTER, replace(INGESTER, subject="other"), replace(INGESTER, issuer="other"), ALICE]

    requests = [build_request(command, caller, write_id="ab", max_tables=5) for caller in callers]

    assert len({request.maker for request in requests}) == 4
    assert [request.most_tables for request in requests] == [5, 5, 5, None]
    assert [request.is_trusted for request in requests] == [False, False, False, True]


def test_a_write_id_reveals_nothing_and_depends_on_everything() -> None:
    ids = {
        build_write_id(caller, table, ingest_id)
        for caller in [("issuer", "alice"), ("issuera", "lice")]
        for table in ("t", "u")
        for ingest_id in ("1", "2")
    }

    assert len(ids) == 8
    assert all(len(found) == 64 and found.isalnum() for found in ids)


@pytest.mark.parametrize("name", ["x-micromegas-ingest-id", "x-micromegas-ingest-rows"])
def test_a_header_of_an_ingest_is_sent_once(name: str) -> None:
    with pytest.raises(UsageError, match="2 times"):
        parse_ingest_headers({name: ("1", "1")})
