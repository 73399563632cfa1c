"""Follows: every row exactly once, whatever happens to the table, its servers, and its readers' rights meanwhile."""

import datetime as dt
import itertools
import json
import logging
import threading
import time
import uuid
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain

import psutil
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from micromegas_jupyter.auth import StaticTokenAuthProvider as Token
from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.config.server import ServerSettings
from micromegas_jupyter.core.protocols import AuthContext, AuthType, TableAccess, WriteAccess
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.errors import (
    CursorExpired,
    DeadlineExceeded,
    InvalidStatement,
    MicromegasError,
    QueryDenied,
    ScanTooLarge,
    UnsupportedStatement,
    UsageError,
)
from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.wiring.server import ServerStack
from tests.fakes.validator import FakeValidator
from tests.fakes.waiting import wait_until
from tests.integration.flight_harness import running_server
from tests.integration.lakehouse.faulty_s3 import BUCKET, environ_of, moto_server
from tests.integration.lakehouse.test_materialized_views import CREATE

pytestmark = pytest.mark.integration

SQL = "SELECT id FROM t"
FILTERS = {"eve": {"t": ("team = 'red'",)}, "mallory": {"other": ()}}


def _context(name):
    filters = FILTERS.get(name)
    return AuthContext(
        subject=name,
        issuer="https://id.example",
        auth_type=AuthType.OIDC,
        is_admin=name == "ada",
        table_access=None if filters is None else TableAccess(filters=filters),
        write_access=WriteAccess(creates=frozenset({"*"})) if name == "owner" else WriteAccess(),
    )


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    return Storage(tmp_path_factory.mktemp("lake"))


@contextmanager
def _serving(storage):
    validator = FakeValidator()
    validator.known = {name: _context(name) for name in ("ada", "owner", "bob", "eve", "mallory")}
    with running_server(tables=Lake(storage), validator=validator, worker={"lake": storage.uri}) as running:
        yield running


@pytest.fixture(scope="module")
def server(lake):
    with _serving(lake) as running:
        yield running


@contextmanager
def _client(server, name="owner"):
    with FlightSQLClient(server.uri, auth_provider=Token(name)) as client:
        yield client


def _rows(*ids, team="red"):
    return pa.table({"id": pa.array(ids, pa.int64()), "team": [team] * len(ids)})


@pytest.fixture
def owner(server):
    with _client(server) as client:
        client.bulk_ingest("t", _rows(0), mode="replace")
        yield client
        client.drop_table("t")


def _ids(table):
    return table["id"].to_pylist() if table.num_rows else []


def _read_all(follow):
    found = []
    while ids := _ids(follow.read(0)):
        found += ids
    return found


def test_a_follow_returns_the_rows_that_are_committed_after_its_start(owner):
    with owner.follow(SQL, poll_seconds=20) as follow:
        assert follow.schema.names == ["id"]
        assert follow.read(0).num_rows == 0
        owner.bulk_ingest("t", _rows(1, 2))
        assert _ids(follow.read()) == [1, 2]
        waiting = threading.Thread(target=lambda: owner.bulk_ingest("t", _rows(3)))
        waiting.start()
        assert _ids(next(follow)) == [3]
        waiting.join()
        assert (follow.rows, follow.reconnects) == (3, 0)


def test_a_large_commit_is_returned_in_parts_at_any_server_of_the_lake(owner, server, lake):
    follow = owner.follow(SQL)
    owner.bulk_ingest("t", _rows(*range(1, 25_001)))
    owner.bulk_ingest("t", _rows(25_001))
    parts = [_ids(follow.read())]
    with _serving(lake) as other, _client(other) as client:
        continued = client.follow(SQL, cursor=follow.cursor)
        parts += [_ids(continued.read()) for _ in range(2)]
        assert continued.read(0).num_rows == 0
        assert continued.schema.names == ["id"]
    assert [len(one) for one in parts] == [10_000, 10_000, 5_001]
    assert [*chain.from_iterable(parts)] == list(range(1, 25_002))


def test_a_read_has_at_most_eight_mebibytes(owner):
    texts = [f"{number:09d}" * (1 << 17) for number in range(10)]
    follow = owner.follow("SELECT id, team FROM t")
    owner.bulk_ingest("t", pa.table({"id": pa.array(range(10), pa.int64()), "team": texts}))
    parts = []
    while (part := follow.read(0)).num_rows:
        parts.append(part)
    assert pa.concat_tables(parts)["team"].to_pylist() == texts
    assert len(parts) > 1
    assert all(one.nbytes <= 8 * 1024 * 1024 for one in parts)


def test_compaction_adds_nothing_and_hides_nothing_until_files_are_removed(owner, lake):
    follow = owner.follow(SQL)
    late = owner.follow(SQL)
    owner.bulk_ingest("t", _rows(1))
    owner.bulk_ingest("t", _rows(2))
    assert _ids(follow.read()) == [1, 2]
    table = DeltaTable(lake.child_uri("t"))
    table.optimize.compact()
    owner.bulk_ingest("t", _rows(3))
    assert _ids(follow.read()) == [3]
    cursor = late.cursor
    assert _read_all(late) == [1, 2, 3]
    before = table.history()[-1]["timestamp"]
    DeltaTable(lake.child_uri("t")).vacuum(0, enforce_retention_duration=False, dry_run=False)
    with pytest.raises(CursorExpired, match="removed") as expired:
        owner.follow(SQL, cursor=cursor).read()
    assert expired.value.restart_from is not None
    assert abs(expired.value.restart_from.timestamp() * 1000 - before) < 60_000
    assert follow.read(0).num_rows == 0


def test_deleted_rows_are_not_returned_and_those_that_were_kept_not_again(owner):
    follow = owner.follow(SQL)
    owner.bulk_ingest("t", _rows(1, 2))
    assert _ids(follow.read()) == [1, 2]
    owner.delete_rows("t", "id = 1")
    owner.bulk_ingest("t", _rows(3))
    owner.bulk_ingest("t", _rows(4))
    owner.delete_rows("t", "id = 3")
    assert _read_all(follow) == [4]
    owner.bulk_ingest("t", _rows(5))
    owner.bulk_ingest("t", _rows(6, 7))
    owner.delete_rows("t", "id = 6")
    assert _ids(follow.read()) == [5]
    with pytest.raises(CursorExpired, match="changed or deleted"):
        follow.read()


def test_rows_that_a_restore_brings_back_are_not_new(owner):
    follow = owner.follow(SQL)
    owner.bulk_ingest("t", _rows(1))
    assert _ids(follow.read()) == [1]
    before = owner.table_history("t")[0].committed_at
    owner.delete_rows("t", "id >= 0")
    owner.restore_table("t", to=before)
    owner.bulk_ingest("t", _rows(2))
    assert _read_all(follow) == [2]


def test_a_replaced_table_is_followed_and_another_one_with_its_name_is_not(owner):
    follow = owner.follow(SQL)
    owner.bulk_ingest("t", _rows(1), mode="replace")
    assert _ids(follow.read()) == [1]
    owner.drop_table("t")
    with pytest.raises(InvalidStatement, match="t"):
        follow.read(0)
    owner.bulk_ingest("t", _rows(2), mode="create")
    with pytest.raises(CursorExpired, match="another"):
        follow.read(0)


def test_a_follow_begins_at_a_time(owner):
    owner.bulk_ingest("t", _rows(1))
    committed_at = owner.table_history("t")[0].committed_at
    owner.bulk_ingest("t", _rows(2))
    assert _read_all(owner.follow(SQL, begin=committed_at)) == [2]
    assert _read_all(owner.follow(SQL, begin=committed_at - dt.timedelta(days=1))) == [0, 1, 2]
    assert _read_all(owner.follow("SELECT id FROM t WHERE id > :least", committed_at, {"least": 2})) == []


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM t",
        "SELECT DISTINCT id FROM t",
        "SELECT id FROM t ORDER BY id",
        "SELECT id FROM t LIMIT 3",
        "SELECT a.id FROM t a JOIN t b ON a.id = b.id",
        "SELECT a.id FROM t a, t b",
        "SELECT id FROM t UNION ALL SELECT id FROM t",
        "SELECT id FROM t WHERE id IN (SELECT id FROM t)",
        "SELECT id FROM t WHERE random() < 0.5",
        "SELECT row_number() OVER () FROM t",
        "SELECT id FROM (SELECT id FROM t)",
        "SELECT unnest([id, id]) FROM t",
        "EXPLAIN SELECT id FROM t",
        "SELECT * FROM processes",
        "SELECT * FROM information_schema.tables",
        "SELECT id FROM table_at('t', 0)",
        "SELECT 1",
    ],
)
def test_other_statements_are_rejected(owner, sql):
    with pytest.raises(UnsupportedStatement, match="cannot be followed"):
        owner.follow(sql)


def test_hidden_rows_show_in_nothing_that_a_follow_returns(owner, server):
    with _client(server, "eve") as eve:

        def world(*hidden):
            follow = eve.follow(SQL)
            read = []
            for number in range(3):
                for count in hidden:
                    owner.bulk_ingest("t", _rows(*range(count), team="blue"))
                owner.bulk_ingest("t", _rows(number))
            for count in hidden:
                owner.bulk_ingest("t", _rows(*range(count), team="blue"))
            for _ in range(2):
                table = follow.read(0)
                read.append((table.schema, _ids(table), len(follow.cursor), follow.rows))
            return read

        assert world() == world(1, 10_500)
        follow = eve.follow(SQL)
        owner.bulk_ingest("t", _rows(1, team="blue"))
        assert follow.read(0.5).num_rows == 0
    with _client(server, "mallory") as mallory:
        errors = []
        for name in ("t", "u"):
            with pytest.raises(InvalidStatement) as unknown:
                mallory.follow(f"SELECT id FROM {name}")
            errors.append(unknown.value.what.replace(f" {name}.", " …."))
        assert errors[0] == errors[1] == "There is no table named …."


def test_a_cursor_is_of_one_caller_statement_and_role(owner, server):
    cursor = owner.follow(SQL).cursor
    owner.bulk_ingest("t", _rows(1))
    owner.bulk_ingest("u", _rows(1), mode="replace")
    owner.drop_table("u")
    flipped = cursor[:-3] + ("A" if cursor[-3] != "A" else "B") + cursor[-2:]
    swapped, longer = f"mt1.{cursor[4:].swapcase()}", f"mt1.{'A' * 4000}"
    for text in (flipped, cursor[:40], cursor[:-4], "mt1.", longer, swapped, f"{cursor}="):
        with pytest.raises(UsageError, match="not issued to you"):
            owner.follow(SQL, cursor=text).read(0)
    for sql in ("SELECT id  FROM t", "SELECT id FROM u", "SELECT team FROM t"):
        with pytest.raises(UsageError, match="a different statement"):
            owner.follow(sql, cursor=cursor).read(0)
    with _client(server, "bob") as bob, pytest.raises(UsageError, match="not issued to you"):
        bob.follow(SQL, cursor=cursor).read(0)
    validator, access = server.validator, TableAccess(filters={"t": ("team = 'blue'",)})
    with _client(server, "eve") as eve:
        mine = eve.follow(SQL)
        validator.known["eve"] = replace(_context("eve"), table_access=access)
        try:
            with pytest.raises(UsageError, match="rights to the table have changed"):
                mine.read(0)
        finally:
            validator.known["eve"] = _context("eve")
        owner.bulk_ingest("t", _rows(2))
        assert _ids(mine.read()) == [2]
    assert _read_all(owner.follow(SQL, cursor=cursor)) == [1, 2]


def test_rights_that_are_removed_end_the_next_read(owner, server):
    with _client(server, "eve") as eve:
        follow = eve.follow(SQL)
        owner.bulk_ingest("t", _rows(1))
        server.validator.known["eve"] = replace(_context("eve"), table_access=TableAccess(filters={"other": ()}))
        try:
            with pytest.raises(UsageError, match="rights to the table have changed"):
                follow.read(0)
        finally:
            server.validator.known["eve"] = _context("eve")
        assert _ids(follow.read()) == [1]


def test_a_limit_of_scanned_bytes_does_not_apply_to_files_that_are_added(owner, server):
    server.validator.known["eve"] = replace(_context("eve"), max_scan_bytes=1)
    try:
        with _client(server, "eve") as eve:
            follow = eve.follow(SQL)
            owner.bulk_ingest("t", _rows(1, team="blue"))
            owner.bulk_ingest("t", _rows(2))
            assert _read_all(follow) == [2]
            with pytest.raises(ScanTooLarge):
                eve.query_arrow(SQL)
    finally:
        server.validator.known["eve"] = _context("eve")


def test_a_follow_is_audited_at_its_start_each_minute_and_at_its_end(owner, caplog, monkeypatch):
    def lines():
        found = [json.loads(one.getMessage()) for one in caplog.records if one.name == "micromegas_jupyter.audit"]
        return [one for one in found if "follow" in one]

    with caplog.at_level(logging.INFO):
        with owner.follow(SQL) as follow:
            for number in range(3):
                owner.bulk_ingest("t", _rows(number))
                follow.read()
            monkeypatch.setattr("micromegas_jupyter.server.tails._AUDIT_SECONDS", 0.0)
            follow.read(0)
        found = lines()
    assert [(one["follow"], one["output_rows"], one["status"]) for one in found] == [
        ("start", 0, "ok"),
        ("running", 3, "ok"),
        ("end", 3, "ok"),
    ]
    assert len({one["query_id"] for one in found}) == 1
    assert {one["sql"] for one in found} == {SQL}


def test_a_follow_that_its_client_leaves_is_audited_as_incomplete(owner, caplog, monkeypatch):
    monkeypatch.setattr("micromegas_jupyter.server.tails._ABANDONED_SECONDS", 0.05)
    with caplog.at_level(logging.INFO):
        owner.follow(SQL)
        wait_until(lambda: any('"incomplete"' in one.getMessage() for one in caplog.records), "the line")


def test_a_read_that_takes_too_long_is_repeated(owner, monkeypatch):
    follow = owner.follow(SQL, max_reconnects=1)
    with monkeypatch.context() as patch:
        patch.setattr("micromegas_jupyter.client.follow._SLACK_SECONDS", -1.5)
        with pytest.raises(DeadlineExceeded):
            follow.read(2)
    assert follow.reconnects == 1
    owner.bulk_ingest("t", _rows(1))
    assert _ids(follow.read()) == [1]


def test_cancel_ends_the_wait(owner):
    with owner.follow(SQL, poll_seconds=20) as follow:
        threading.Timer(0.3, follow.cancel).start()
        assert list(follow) == []


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A client, who is an administrator, of a server that records itself."""
    folder = tmp_path_factory.mktemp("recorded")
    settings = ServerSettings(no_http=True, lake=folder, port=0, disable_auth=True, telemetry_interval_seconds=0.2)
    with ServerStack(settings, environ={}) as stack, FlightSQLClient(stack.uri) as client:
        found = "SELECT count(*) AS n FROM log_entries"
        wait_until(lambda: client.query_arrow(found)["n"].to_pylist() != [0], "the server recorded its start")
        yield client


def _until_marked(follow):
    """Log a line; return the lines that are read until it is."""
    log, mark, found = logging.getLogger("marking"), uuid.uuid4().hex, []
    log.setLevel(logging.INFO)
    log.info(mark)
    while mark not in found:
        found += follow.read(20)["msg"].to_pylist()
    return found[: found.index(mark)]


def test_a_follow_of_the_log_does_not_feed_itself(recorded):
    with recorded.follow("SELECT msg FROM log_entries") as follow:
        before = [*_until_marked(follow), *_until_marked(follow)]
        assert ['"follow":"start"' in one for one in before if '"follow"' in one] == [True]
        for _ in range(20):
            follow.read(0.1)
        between = _until_marked(follow)
        follow_id = json.loads(next(one for one in before if '"follow"' in one))["query_id"]
    assert len(between) < 20
    assert not [one for one in between if follow_id in one]
    lines = f'SELECT msg FROM log_entries WHERE msg LIKE \'{{"query_id":"{follow_id}%\''
    wait_until(lambda: recorded.query_arrow(lines).num_rows >= 2, "the lines of its start and end")
    assert recorded.query_arrow(lines).num_rows == 2


def test_a_denial_ends_the_next_read(recorded):
    sql = f"SELECT id, 1 AS marker_{uuid.uuid4().hex} FROM denied"
    recorded.bulk_ingest("denied", _rows(0), mode="create")
    follow = recorded.follow(sql)
    made = recorded.query_arrow(f"SELECT msg FROM deny_queries('sql LIKE ''%{sql[-30:]}''', 'a test')")
    recorded.bulk_ingest("denied", _rows(1))
    with pytest.raises(QueryDenied):
        follow.read(0)
    recorded.query_arrow(f"SELECT remove_query_denial('{made['msg'][0]}')")
    assert _ids(follow.read()) == [1]


def test_views_are_not_followed_nor_with_the_cursor_of_a_table(recorded):
    recorded.bulk_ingest("t", _rows(0), mode="create")
    recorded.query_arrow(CREATE)
    cursor = recorded.follow(SQL).cursor
    for name in ("per_minute", "log_stats", "processes", "histogram_increases"):
        with pytest.raises(UnsupportedStatement, match="cannot be followed"):
            recorded.follow(f"SELECT * FROM {name}")
        with pytest.raises(UsageError, match="a different statement"):
            recorded.follow(f"SELECT * FROM {name}", cursor=cursor).read(0)


@pytest.mark.slow
def test_rows_in_a_bucket_are_returned_once_across_compaction(monkeypatch):
    with moto_server() as port:
        for name, value in environ_of(port).items():
            monkeypatch.setenv(name, value)
        storage = Storage(f"s3://{BUCKET}/{uuid.uuid4().hex}")
        settings = ServerSettings(no_http=True, lake=storage.uri, port=0, disable_auth=True)
        with ServerStack(settings, environ={}) as stack, FlightSQLClient(stack.uri) as client:
            client.bulk_ingest("t", _rows(0), mode="create")
            follow, late = client.follow(SQL), client.follow(SQL)
            client.bulk_ingest("t", _rows(1))
            client.bulk_ingest("t", _rows(2, 3))
            assert _ids(follow.read()) == [1, 2, 3]
            table = DeltaTable(storage.child_uri("t"), storage_options=storage.options)
            assert table.optimize.compact()["numFilesRemoved"] == 3
            client.bulk_ingest("t", _rows(4))
            assert _read_all(follow) == [4]
            assert _read_all(late) == [1, 2, 3, 4]


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [5, pytest.param(600, marks=pytest.mark.long)])
def test_a_thousand_rows_a_second_are_returned_once_each_across_a_restart(tmp_path, seconds):
    def start(port):
        settings = ServerSettings(no_http=True, lake=tmp_path, port=port, disable_auth=True)
        return ServerStack(settings, environ={}).__enter__()

    stacks = [start(0)]
    uri = stacks[0].uri

    def restart():
        stacks.pop().__exit__(None, None, None)
        stacks.append(start(int(uri.rpartition(":")[2])))

    rows, is_over, sizes, longest = itertools.count(), threading.Event(), [], 0.0

    def write():
        """Add 250 rows four times a second, each batch until it is acknowledged."""
        with FlightSQLClient(uri) as client:
            while not is_over.wait(0.25):
                ids, ingest_id = [*itertools.islice(rows, 250)], str(uuid.uuid4())
                while True:
                    with suppress(MicromegasError):
                        client.bulk_ingest("t", _rows(*ids), ingest_id=ingest_id)
                        break

    with FlightSQLClient(uri) as client:
        client.bulk_ingest("t", _rows(-1), mode="create")
        follow = client.follow(SQL, max_reconnects=100)
        writers = [threading.Thread(target=write) for _ in range(2)]
        for one in writers:
            one.start()
        # How often each row was returned, in memory that doesn't grow.
        found, ends_at = bytearray(10_000 * seconds), time.monotonic() + seconds

        def count(ids):
            for one in ids:
                found[one] += 1

        restarting = threading.Timer(seconds / 2, restart)
        restarting.start()
        while time.monotonic() < ends_at:
            began = time.monotonic()
            count(_ids(follow.read(1)))
            longest = max(longest, time.monotonic() - began)
            sizes.append(psutil.Process().memory_info().rss)
        is_over.set()
        restarting.join()
        for one in writers:
            one.join()
        count(_read_all(follow))
        total = next(rows)
    stacks.pop().__exit__(None, None, None)

    growth_bytes = sizes[-1] - sizes[len(sizes) // 10]
    print(f"{total:,} rows, {follow.reconnects} reconnects, {growth_bytes / 1e6:+.0f} MB, longest read {longest:.1f} s")
    assert found[:total] == b"\x01" * total
    assert not any(found[total:])
    assert total > 100 * seconds
    assert growth_bytes < 20_000_000
