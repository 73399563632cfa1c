"""Materialized views over Flight SQL: administrators define them in upstream's DDL, and all read them as tables."""

import sys

import pytest
from micromegas.cli import views as upstream

from micromegas_jupyter.auth import StaticTokenAuthProvider as Token
from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.core.protocols import AuthContext, AuthType, TableAccess
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.errors import InvalidStatement, PermissionDenied, TableExists, UnsupportedRequest, UsageError
from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.lake.writer import LakeWriter
from tests.fakes.telemetry_rows import log_batch
from tests.fakes.validator import FakeValidator
from tests.integration.flight_harness import running_server

pytestmark = pytest.mark.integration

CREATE = """CREATE MATERIALIZED VIEW per_minute WITH (
  extract_query = $$
    SELECT date_bin(INTERVAL '1 minute', time) AS time_bin, msg, count(*) AS n
      FROM log_entries
     WHERE insert_time >= '{begin}' AND insert_time < '{end}'
     GROUP BY 1, 2
  $$,
  count_src_query = $$
    SELECT sum(nb_objects) AS count FROM blocks WHERE insert_time >= '{begin}' AND insert_time < '{end}'
  $$,
  merge_partitions_query = $$
    SELECT time_bin, msg, sum(n) AS n FROM {source} GROUP BY 1, 2
  $$,
  update_group = 4000,
  time_column = 'time_bin'
)"""


def _context(name):
    access = None if name == "alice" else TableAccess(filters={"log_entries": ()})
    return AuthContext(
        subject=name, issuer="https://id.example", auth_type=AuthType.OIDC, is_admin=name == "alice",
        table_access=access,
    )  # fmt: skip


@pytest.fixture
def storage(tmp_path):
    storage = Storage(tmp_path / "lake")
    writer = LakeWriter(storage, interval_seconds=0)
    writer.append("log_entries", log_batch([0, 1, 2])).result()
    writer.close()
    return storage


@pytest.fixture
def harness(storage):
    validator = FakeValidator()
    validator.known = {name: _context(name) for name in ("alice", "bob")}
    with running_server(
        tables=Lake(storage), validator=validator, worker={"lake": storage.uri}, pool={"max_executors": 2}
    ) as running:
        yield running


@pytest.fixture
def admin(harness):
    with FlightSQLClient(harness.uri, auth_provider=Token("alice")) as client:
        yield client


def _rows(client, sql):
    return [tuple(row.values()) for row in client.query_arrow(sql).to_pylist()]


def test_administrators_create_replace_and_drop_views(admin):
    assert _rows(admin, CREATE) == [("per_minute", "created")]
    assert _rows(admin, "SELECT msg, n FROM per_minute ORDER BY msg") == [("w:0", 1), ("w:1", 1), ("w:2", 1)]
    with pytest.raises(TableExists):
        admin.query_arrow(CREATE)

    assert _rows(admin, CREATE.replace("CREATE", "CREATE OR REPLACE")) == [("per_minute", "replaced")]
    assert _rows(admin, "DROP MATERIALIZED VIEW per_minute;") == [("per_minute", "dropped")]
    assert _rows(admin, "DROP MATERIALIZED VIEW IF EXISTS per_minute") == [("per_minute", "not_found")]
    with pytest.raises(UsageError):
        admin.query_arrow("DROP MATERIALIZED VIEW per_minute")
