"""Earlier versions of tables through a server: who may read them, which rows they see, and what the audit has of it."""

import datetime as dt
import json
import logging
from contextlib import contextmanager

import pyarrow as pa
import pytest

from micromegas_jupyter.auth import StaticTokenAuthProvider as Token
from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.core.protocols import AuthContext, AuthType, TableAccess, WriteAccess
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.errors import InvalidStatement, MicromegasError, PermissionDenied
from micromegas_jupyter.lake.lake import Lake
from tests.fakes.validator import FakeValidator
from tests.integration.flight_harness import running_server

pytestmark = pytest.mark.integration

ROWS = pa.table({"id": [1, 2, 3], "team": ["red", "blue", "red"]})
AT = "SELECT id FROM table_at('t', {}) ORDER BY id"
FILTERS = {"eve": {"t": ("team = 'red'",)}, "mallory": {"other": ()}}


def _context(name):
    filters = FILTERS.get(name)
    creates = frozenset({"t", "other"}) if name == "owner" else frozenset()
    return AuthContext(
        subject=name,
        issuer="https://id.example",
        auth_type=AuthType.OIDC,
        is_admin=name == "ada",
        table_access=None if filters is None else TableAccess(filters=filters),
        write_access=WriteAccess(creates=creates),
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server with a table of three rows, of which `owner`, who created it, then deleted two."""
    storage, validator = Storage(tmp_path_factory.mktemp("lake")), FakeValidator()
    validator.known = {name: _context(name) for name in ("ada", "owner", "bob", "eve", "mallory")}
    with running_server(tables=Lake(storage), validator=validator, worker={"lake": storage.uri}) as running:
        with _client(running, "owner") as owner:
            owner.bulk_ingest("t", ROWS, mode="create")
            owner.delete_rows("t", "id > 1")
        yield running


@contextmanager
def _client(server, name):
    with FlightSQLClient(server.uri, auth_provider=Token(name)) as client:
        yield client


def _ids(client, sql, **options):
    return client.query_arrow(sql, **options)["id"].to_pylist()


def test_owners_and_administrators_read_deleted_rows_and_others_only_if_the_table_allows_it(server):
    with _client(server, "owner") as owner, _client(server, "ada") as ada:
        for client in (owner, ada):
            assert _ids(client, AT.format(0)) == [1, 2, 3]
            assert _ids(client, AT.format(1)) == [1]
        assert _ids(owner, AT.format(":version"), params={"version": 0}) == [1, 2, 3]
        deleted_at = owner.table_history("t")[0].committed_at
        before = deleted_at - dt.timedelta(milliseconds=1)
        if before >= owner.table_history("t")[1].committed_at:
            assert _ids(owner, AT.format(f"TIMESTAMP '{before.isoformat()}'")) == [1, 2, 3]
        assert _ids(owner, AT.format(f"'{deleted_at.isoformat()}'")) == [1]
        for name in ("bob", "eve"):
            with _client(server, name) as client:
                for sql in (AT.format(0), AT.format(1), "SELECT * FROM table_history('t')", f"EXPLAIN {AT.format(0)}"):
                    with pytest.raises(PermissionDenied, match="earlier versions"):
                        client.query_arrow(sql)
                with pytest.raises(PermissionDenied):
                    client.set_time_travel("t", "readers")

        owner.set_time_travel("t", "readers")
        try:
            assert ada.describe_table("t").time_travel == "readers"
            for name, seen in (("bob", [1, 2, 3]), ("eve", [1, 3])):
                with _client(server, name) as client:
                    assert client.describe_table("t").time_travel == "readers"
                    assert _ids(client, AT.format(0)) == seen
                    assert _ids(client, AT.format("?"), params=[0]) == seen
        finally:
            owner.set_time_travel("t", "owners")
        with _client(server, "eve") as eve, pytest.raises(PermissionDenied):
            eve.query_arrow(AT.format(0))


def test_the_history_of_a_filtered_caller_has_no_counts(server):
    sql = "SELECT version, operation, rows_added, rows_removed, is_readable FROM table_history('t') WHERE version < 2"
    with _client(server, "owner") as owner, _client(server, "eve") as eve:
        assert owner.query_arrow(f"{sql} ORDER BY version").to_pylist() == [
            {"version": 0, "operation": "CREATE TABLE", "rows_added": 3, "rows_removed": 0, "is_readable": True},
            {"version": 1, "operation": "DELETE", "rows_added": 1, "rows_removed": 3, "is_readable": True},
        ]
        owner.set_time_travel("t", "readers")
        found = eve.query_arrow(sql)
        owner.set_time_travel("t", "owners")
    assert found["rows_added"].to_pylist() == found["rows_removed"].to_pylist() == [None, None]


def test_a_table_that_the_caller_may_not_see_does_not_exist_for_them(server):
    with _client(server, "mallory") as mallory:
        for sql in ("SELECT * FROM table_at('{}', 0)", "SELECT * FROM table_history('{}')"):
            errors = []
            for name in ("t", "nothing"):
                with pytest.raises(InvalidStatement) as refused:
                    mallory.query_arrow(sql.format(name))
                errors.append((refused.value.what.replace(f" {name}.", " …."), refused.value.remedy))
            assert errors[0] == errors[1]
            assert errors[0][0] == "There is no table named …."


def test_a_version_that_never_was_is_named(server):
    with _client(server, "owner") as owner:
        with pytest.raises(InvalidStatement, match="has no version 1000"):
            owner.query_arrow(AT.format(1000))
        with pytest.raises(InvalidStatement, match="no version as early as 2001-01-01"):
            owner.query_arrow(AT.format("'2001-01-01'"))
        with pytest.raises(MicromegasError):
            owner.query_arrow("SELECT id FROM t FOR SYSTEM_TIME AS OF '2026-01-01'")


def test_the_audit_names_the_table(server, caplog):
    caplog.set_level(logging.INFO, "micromegas_jupyter.audit")
    with _client(server, "owner") as owner, _client(server, "bob") as bob:
        owner.query_arrow(AT.format(0))
        owner.query_arrow("SELECT version FROM table_history('t')")
        with pytest.raises(PermissionDenied):
            bob.query_arrow(AT.format(0))
    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == "micromegas_jupyter.audit"]
    asked = [line for line in lines if "table_" in line.get("sql", "")]
    assert [(line["user"], line["status"], line.get("reads")) for line in asked] == [
        ("owner", "ok", {"t": ["id"]}),
        ("owner", "ok", {"t": []}),
        ("bob", "error", None),
    ]
