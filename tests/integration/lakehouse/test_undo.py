"""Deletes and drops are undone through a server, in a folder and in a bucket."""

import datetime as dt
import json
import logging
import uuid
from contextlib import closing, contextmanager

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from micromegas_jupyter.auth import StaticTokenAuthProvider as Token
from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.config.server import ServerSettings
from micromegas_jupyter.core import storage as storage_module
from micromegas_jupyter.core.protocols import AuthContext, AuthType, TableAccess, WriteAccess
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import PermissionDenied, Unavailable, UsageError
from micromegas_jupyter.lake import dropped as dropped_module
from micromegas_jupyter.lake import maintenance
from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.lake.restore import RestoreRequest, restore_table
from micromegas_jupyter.lake.tables import Tables
from micromegas_jupyter.lake.writer import LakeWriter
from micromegas_jupyter.wiring.server import ServerStack
from tests.fakes.clock import FakeClock
from tests.fakes.validator import FakeValidator
from tests.integration.flight_harness import running_server
from tests.integration.lakehouse.faulty_s3 import BUCKET, FaultyS3, moto_server
from tests.integration.lakehouse.test_foreign_tables import read_with_duckdb

pytestmark = pytest.mark.integration

ROWS, MORE = pa.table({"id": [1, 2, 3]}), pa.table({"id": [4, 5]})
MILLISECOND = dt.timedelta(milliseconds=1)
HOUR = dt.timedelta(hours=1)
IDS = "SELECT id FROM t ORDER BY id"


@pytest.fixture(scope="module")
def moto():
    with moto_server() as port:
        yield port


@pytest.fixture
def s3(moto, monkeypatch):
    server = FaultyS3(moto)
    for name, value in server.environ.items():
        monkeypatch.setenv(name, value)
    yield server
    server.close()


@pytest.fixture
def bucket(s3):
    return Storage(f"s3://{BUCKET}/{uuid.uuid4().hex}")


@pytest.fixture(params=["folder", "bucket"])
def storage(request, tmp_path):
    return Storage(tmp_path / "lake") if request.param == "folder" else request.getfixturevalue("bucket")


def _context(name):
    return AuthContext(
        subject=name,
        issuer="https://id.example",
        auth_type=AuthType.OIDC,
        is_admin=name == "ada",
        table_access=TableAccess(filters={"t": ("id < 3",)}) if name == "eve" else None,
        write_access=WriteAccess(ingest=frozenset({"t"}), owns=frozenset({"t"}) if name == "owner" else frozenset()),
    )


@contextmanager
def _server(storage):
    validator = FakeValidator()
    validator.known = {name: _context(name) for name in ("ada", "owner", "bob", "eve")}
    with running_server(tables=Lake(storage), validator=validator, worker={"lake": storage.uri}) as running:
        yield running


@contextmanager
def _client(server, name):
    with FlightSQLClient(server.uri, auth_provider=Token(name)) as client:
        yield client


def _ids(client):
    return client.query_arrow(IDS)["id"].to_pylist()


def test_owners_and_administrators_undo_a_delete_and_a_drop_with_a_line_in_the_audit(tmp_path, caplog):
    storage = Storage(tmp_path / "lake")
    caplog.set_level(logging.INFO, "micromegas_jupyter.audit")
    with _server(storage) as server, _client(server, "owner") as owner, _client(server, "ada") as ada:
        ada.bulk_ingest("t", ROWS, mode="create")
        deleted = owner.delete_rows("t", "id > 1")
        assert (deleted, _ids(ada)) == (2, [1])
        owner.restore_table("t", to=deleted.undo.undo_to)
        assert _ids(ada) == [1, 2, 3]

        gone = owner.drop_table("t")
        assert gone.undo_until - gone.undo_to == 24 * HOUR + MILLISECOND
        for other in (owner, ada):
            assert "t" not in other.list_tables()
            assert "t" not in {one.name for one in other.table_summaries()}
            with pytest.raises(Exception, match=r"There is no table|No table|no table"):
                other.query_arrow(IDS)
        with _client(server, "bob") as bob:
            with pytest.raises(PermissionDenied):
                bob.restore_table("t", to=gone.undo_to)
            with pytest.raises(PermissionDenied):
                bob.restore_table("t", to=gone.undo_to)
        restored = owner.restore_table("t", to=gone.undo_to.isoformat())

        assert (restored.was_dropped, _ids(ada)) == (True, [1, 2, 3])
        with _client(server, "eve") as eve:
            assert _ids(eve) == [1, 2]
        assert ada.bulk_ingest("t", MORE).record_count == 2
        assert _ids(ada) == [1, 2, 3, 4, 5]
    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == "micromegas_jupyter.audit"]
    restores = [line for line in lines if line.get("operation") == "restore"]
    assert [(line["user"], line["table"], line["status"]) for line in restores] == [
        ("owner", "t", "ok"),
        ("bob", "t", "error"),
        ("bob", "t", "error"),
        ("owner", "t", "ok"),
    ]
    assert restores[0]["to"] == deleted.undo.undo_to.isoformat().replace("+00:00", "Z")


@pytest.mark.usefixtures("s3")
def test_a_server_on_a_bucket_undoes_a_delete_and_a_drop(bucket):
    settings = ServerSettings(lake=bucket.uri, port=0, no_http=True, disable_auth=True, no_telemetry=True)
    with ServerStack(settings, environ={}) as server, FlightSQLClient(server.uri) as client:
        client.bulk_ingest("t", ROWS, mode="create")
        deleted = client.delete_rows("t", "id > 1")
        planned = client.restore_table("t", to=0, dry_run=True)
        assert (planned.restored_version, planned.missing_files, _ids(client)) == (0, (), [1])
        client.restore_table("t", to=deleted.undo.undo_to)
        assert _ids(client) == [1, 2, 3]
        gone = client.drop_table("t")
        assert "t" not in client.list_tables()
        client.bulk_ingest("t", MORE, mode="create")
        assert _ids(client) == [4, 5]
        client.drop_table("t")

        client.restore_table("t", to=gone.undo_to)

        assert _ids(client) == [1, 2, 3]
        client.bulk_ingest("t", MORE)
        assert _ids(client) == [1, 2, 3, 4, 5]
        assert client.query_arrow("SELECT id FROM table_at('t', 0) ORDER BY id")["id"].to_pylist() == [1, 2, 3]
        assert client.query_arrow("SELECT is_readable FROM table_history('t')")["is_readable"].to_pylist()[-1] is True


def _restore(storage, time, **options):
    clock = options.pop("clock", SYSTEM_CLOCK)
    return restore_table(Tables(storage), RestoreRequest("t", time, **options), clock=clock)


def _count(storage):
    return DeltaTable(storage.child_uri("t"), storage_options=storage.options).count()


def _create(storage, rows, **options):
    with closing(LakeWriter(storage, interval_seconds=0)) as writer:
        Tables(storage).create("t", rows.schema, **options)
        writer.append("t", rows).result()


def test_tables_that_had_a_name_one_after_the_other_come_back_one_at_a_time(storage):
    drops = []
    for number in (1, 2):
        _create(storage, pa.table({"id": list(range(number))}), owner=str(number))
        drops.append(Tables(storage).drop("t"))
    _create(storage, ROWS)

    with pytest.raises(UsageError, match="Drop the new one"):
        _restore(storage, drops[0] - MILLISECOND)
    Tables(storage).drop("t")
    for index in (1, 0):
        assert _restore(storage, drops[index] - MILLISECOND).was_dropped
        assert (_count(storage), Tables(storage).owner("t")) == (index + 1, str(index + 1))
        drops[index] = Tables(storage).drop("t")
    assert Tables(storage).list() == ()


def test_other_readers_read_a_restored_table(tmp_path):
    storage = Storage(tmp_path / "lake")
    _create(storage, ROWS)
    for where in ("id = 1", "id = 2"):
        deleted = Tables(storage).delete("t", where)
        DeltaTable(storage.child_uri("t")).create_checkpoint()
    _restore(storage, deleted.committed_at - MILLISECOND)

    found = read_with_duckdb(storage.child_uri("t"), "SELECT id FROM {} ORDER BY id")

    assert found["id"].to_pylist() == [2, 3]


def test_a_bucket_keeps_a_dropped_table_for_a_day_and_not_longer(bucket):
    _create(bucket, ROWS)
    first = Tables(bucket).drop("t")
    _create(bucket, MORE)
    Tables(bucket).drop("t")
    now = dt.datetime.now(dt.UTC)

    maintenance.run_round(bucket, clock=FakeClock(now + 24.5 * HOUR))
    assert len({entry.path.rpartition("/")[0] for entry in bucket.list("_micromegas/dropped")}) > 0
    assert _restore(bucket, first - MILLISECOND).was_dropped
    Tables(bucket).drop("t")
    report = maintenance.run_round(bucket, clock=FakeClock(dt.datetime.now(dt.UTC) + 26 * HOUR))

    assert report.status.done["removed_tables"] == 2
    assert list(bucket.list("t")) == []
    assert list(bucket.list("_micromegas/dropped")) == []
    Tables(bucket).create("t", ROWS.schema)
    assert Tables(bucket).list() == ("t",)


def test_a_table_that_is_restored_during_maintenance_keeps_its_old_files(bucket, monkeypatch):
    now = dt.datetime.now(dt.UTC)
    _create(bucket, ROWS)
    dropped_at = Tables(bucket, clock=FakeClock(now + 20 * HOUR)).drop("t")
    remove = maintenance.remove_dropped

    def remove_slowly(*arguments, **options):
        _restore(bucket, dropped_at - MILLISECOND, clock=FakeClock(now + 26 * HOUR))
        return remove(*arguments, **options)

    monkeypatch.setattr(maintenance, "remove_dropped", remove_slowly)
    maintenance.run_round(bucket, clock=FakeClock(now + 26 * HOUR))

    assert DeltaTable(bucket.child_uri("t"), storage_options=bucket.options).to_pyarrow_table().num_rows == 3


@pytest.mark.usefixtures("fail_soon")
@pytest.mark.parametrize("number", [pytest.param(3, marks=pytest.mark.long), 8])  # of 8 changes
def test_a_move_that_is_cut_short_is_finished_by_the_next_call(bucket, s3, monkeypatch, number):
    """A new table takes the name of a dropped one, whose objects move away: one request fails, then all do."""
    _create(bucket, ROWS)
    dropped_at = Tables(bucket).drop("t")
    changes = []

    def fault(method, path):
        if method in {"PUT", "POST", "DELETE"} and "lease" not in path:
            changes.append(path)
        return "close" if len(changes) >= number else None

    monkeypatch.setattr(dropped_module, "_LEASE_SECONDS", 0.5)
    s3.fault = fault
    with pytest.raises(Unavailable):
        Tables(bucket).create("t", MORE.schema, owner="bob")
    s3.fault = lambda method, path: None
    monkeypatch.setattr("micromegas_jupyter.lake.lease.TAKE_OVER_SECONDS", 0.1)
    monkeypatch.setattr(dropped_module, "_LEASE_SECONDS", 30)
    if Tables(bucket).list():
        Tables(bucket).drop("t")

    assert _restore(bucket, dropped_at - MILLISECOND).was_dropped
    assert _count(bucket) == 3


@pytest.mark.usefixtures("fail_soon")
@pytest.mark.parametrize("number", [4, pytest.param(9, marks=pytest.mark.long)])
def test_a_restore_that_is_cut_short_leaves_the_table_dropped_and_is_repeated(bucket, s3, monkeypatch, number):
    _create(bucket, ROWS)
    before = dt.datetime.now(dt.UTC)
    Tables(bucket).delete("t", "id = 1")
    Tables(bucket).drop("t")
    _create(bucket, MORE)  # so that it has to be moved back
    Tables(bucket).drop("t")
    changes = []

    def fault(method, path):
        if method in {"PUT", "POST", "DELETE"} and "lease" not in path:
            changes.append(path)
        return "close" if len(changes) >= number else None

    monkeypatch.setattr(dropped_module, "_LEASE_SECONDS", 0.5)
    s3.fault = fault
    with pytest.raises(Unavailable):
        _restore(bucket, before)
    s3.fault = lambda method, path: None
    assert Tables(bucket).list() == ()
    monkeypatch.setattr("micromegas_jupyter.lake.lease.TAKE_OVER_SECONDS", 0.1)
    monkeypatch.setattr(dropped_module, "_LEASE_SECONDS", 30)

    assert _restore(bucket, before).was_dropped
    assert _count(bucket) == 3


@pytest.fixture
def fail_soon(monkeypatch):
    for name in ("_RETRY_SECONDS", "_MAX_RETRIES"):
        monkeypatch.setattr(storage_module, name, 1)


def test_two_replicas_on_a_bucket_see_a_drop_and_a_restore_at_once(bucket):
    first, second = Lake(bucket), Lake(bucket)
    _create(bucket, ROWS)

    def listed(lake, sql):
        return "t" in {one.name for one in lake.snapshot(sql)}

    assert [listed(lake, IDS) for lake in (first, second)] == [True, True]
    dropped_at = Tables(bucket).drop("t")
    assert [listed(lake, sql) for lake in (first, second) for sql in (IDS, None, "SELECT 1")] == [False] * 6
    _restore(bucket, dropped_at - MILLISECOND)
    assert [listed(lake, sql) for lake in (first, second) for sql in (IDS, None, "SELECT 1")] == [True] * 6


def test_a_restore_during_which_another_table_takes_the_name_leaves_that_alone(bucket, s3):
    _create(bucket, ROWS)
    deleted = Tables(bucket).delete("t", "id = 1")
    acts = []

    def fault(method, path):
        if method == "PUT" and path.endswith(f"t/_delta_log/{3:020}.json") and not acts:
            acts.append(Tables(bucket).drop("t"))
            Tables(bucket).create("t", MORE.schema)

    s3.fault = fault
    with pytest.raises(UsageError, match="There is no table"):
        _restore(bucket, deleted.committed_at - MILLISECOND)

    assert acts
    assert [entry.path for entry in bucket.list("t")] == [f"t/_delta_log/{0:020}.json"]
    assert _count(bucket) == 0


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda storage: Tables(storage).delete("t", "id = 1"), id="delete"),
        pytest.param(lambda storage: maintenance.optimize(storage, "t"), id="optimize", marks=pytest.mark.long),
    ],
)
def test_a_change_during_which_the_table_is_dropped_leaves_nothing_behind(bucket, s3, change):
    _create(bucket, ROWS)
    _create_more(bucket)
    drops = []

    def fault(method, path):
        if method == "PUT" and path.endswith(f"t/_delta_log/{3:020}.json") and not drops:
            drops.append(None)
            drops[0] = Tables(bucket).drop("t")
            Tables(bucket).create("t", MORE.schema)

    s3.fault = fault
    with pytest.raises(UsageError, match="There is no table"):
        change(bucket)

    assert _count(bucket) == 0
    Tables(bucket).drop("t")
    _restore(bucket, drops[0] - MILLISECOND)
    assert _count(bucket) == 5


def _create_more(storage):
    with closing(LakeWriter(storage, interval_seconds=0)) as writer:
        writer.append("t", MORE).result()


def test_a_write_that_was_under_way_while_a_table_was_dropped_is_not_in_it(bucket, s3):
    """Its log entry comes after the marker, and the table is restored before the writer takes it back."""
    _create(bucket, ROWS)
    drops = []

    def fault(method, path):
        if method == "PUT" and path.endswith(f"{2:020}.json") and not drops:
            drops.append(None)
            drops[0] = Tables(bucket).drop("t")

    s3.fault = fault
    with closing(LakeWriter(bucket, interval_seconds=0)) as writer, pytest.raises(UsageError, match="was dropped"):
        writer.append("t", MORE).result()
    _restore(bucket, drops[0] - MILLISECOND)

    assert _count(bucket) == 3
    with closing(LakeWriter(bucket, interval_seconds=0)) as writer:
        writer.append("t", MORE).result()
    assert _count(bucket) == 5


def test_rows_that_are_stored_right_before_a_drop_come_back(bucket, s3):
    """Their upload ends between the look at the table and the marker."""
    _create(bucket, ROWS)

    def fault(method, path):
        if method == "PUT" and path.endswith("_micromegas_dropped"):
            s3.fault = lambda *_: None
            with closing(LakeWriter(bucket, interval_seconds=0)) as writer:
                writer.append("t", MORE).result()

    s3.fault = fault
    dropped_at = Tables(bucket).drop("t")
    _restore(bucket, dropped_at - MILLISECOND)

    assert _count(bucket) == 5


def test_a_write_during_whose_end_the_table_is_dropped_and_restored_leaves_no_gap_in_the_log(bucket, s3):
    _create(bucket, ROWS)
    drops, restores = [], []

    def fault(method, path):
        if not path.endswith(f"{2:020}.json"):
            return
        if method == "PUT" and not drops:
            drops.append(None)
            drops[0] = Tables(bucket).drop("t")
        elif method == "GET" and drops and not restores:  # the writer is about to take its entry back
            restores.append(None)
            _restore(bucket, drops[0] - MILLISECOND)

    s3.fault = fault
    with closing(LakeWriter(bucket, interval_seconds=0)) as writer, pytest.raises(Unavailable, match="It is unknown"):
        writer.append("t", MORE, write_id="id").result()

    assert restores
    assert _count(bucket) in {3, 5}
    with closing(LakeWriter(bucket, interval_seconds=0)) as writer:
        writer.append("t", MORE, write_id="id").result()
    assert _count(bucket) == 5


def test_a_table_is_not_created_over_one_whose_first_log_entries_were_cleaned_up(bucket):
    _create(bucket, ROWS)
    DeltaTable(bucket.child_uri("t"), storage_options=bucket.options).create_checkpoint()
    bucket.delete(f"t/_delta_log/{0:020}.json")

    with pytest.raises(UsageError, match="The table t already exists"):
        Tables(bucket).create("t", MORE.schema)
