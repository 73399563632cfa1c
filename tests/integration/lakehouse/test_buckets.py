"""A lake in a bucket: the same promises, also when S3 fails."""

import re
import uuid
from contextlib import closing

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from micromegas_jupyter.config.server import ServerSettings
from micromegas_jupyter.core import storage as storage_module
from micromegas_jupyter.core.protocols import WriteMode, WriteRequest
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.errors import ResourcesExhausted, Unavailable, UsageError
from micromegas_jupyter.lake import maintenance
from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.lake.restore import RestoreRequest, restore_table
from micromegas_jupyter.lake.tables import Tables
from micromegas_jupyter.lake.writer import LakeWriter
from micromegas_jupyter.wiring.server import ServerStack
from tests.fakes.waiting import wait_until
from tests.integration.lakehouse.faulty_s3 import BUCKET, FaultyS3, moto_server
from tests.integration.lakehouse.role_credentials import role_credentials
from tests.unit.engine.conftest import asking
from tests.unit.engine.test_span_times import SPANS, shifted, spans
from tests.unit.executors.test_views import definition

ROWS = pa.table({"id": [1, 2, 3]})
ENTRY = re.compile(r"/_delta_log/[0-9]{20}\.json")


@pytest.fixture(scope="module")
def moto():
    with moto_server() as port:
        yield port


@pytest.fixture
def s3(moto):
    server = FaultyS3(moto)
    yield server
    server.close()


@pytest.fixture
def storage(s3, monkeypatch):
    for name in ("_REQUEST_SECONDS", "_RETRY_SECONDS", "_MAX_RETRIES"):
        monkeypatch.setattr(storage_module, name, 1)
    return Storage(f"s3://{BUCKET}/{uuid.uuid4().hex}", environ=s3.environ)


@pytest.fixture
def tables(storage):
    return Tables(storage)


@pytest.fixture
def writer(storage, tables):
    tables.create("t", ROWS.schema)
    opened = LakeWriter(storage, interval_seconds=0)
    opened.append("t", ROWS).result()
    yield opened
    opened.close()


@pytest.fixture
def count(storage):
    return lambda table="t": DeltaTable(storage.child_uri(table), storage_options=storage.options).count()


def on_entries(fault):
    return lambda method, path: fault if method == "PUT" and ENTRY.search(path) else None


@pytest.mark.parametrize("fault", ["applied 500", "applied close"])
def test_a_commit_whose_answer_is_lost_counts_once(s3, writer, count, fault):
    s3.fault = on_entries(fault)

    assert writer.append("t", ROWS, write_id="a").result() == 3
    assert writer.append("t", ROWS).result() == 3

    assert count() == 9


def test_a_server_reports_at_startup_a_bucket_that_does_not_exist(s3, monkeypatch):
    for name, value in s3.environ.items():
        monkeypatch.setenv(name, value)
    settings = ServerSettings(lake="s3://nowhere/some/prefix", port=0, http_port=0, disable_auth=True)

    with pytest.raises(Unavailable, match="bucket nowhere, region us-east-1, prefix some/prefix") as failure:
        ServerStack(settings, environ={})

    assert "does not exist" in failure.value.what
    assert "secret" not in str(failure.value)


@pytest.mark.parametrize("fault", [500, 503, "close", "hang"])
def test_nothing_is_acknowledged_while_s3_fails(s3, writer, count, fault):
    s3.fault = lambda method, path: fault
    with pytest.raises(Unavailable) as failure:
        writer.append("t", ROWS, write_id="a").result()
    s3.fault = lambda method, path: None
    s3.released.set()

    assert "127.0.0.1" not in str(failure.value)
    assert f"bucket {BUCKET}, region us-east-1, prefix" in failure.value.remedy
    assert count() == 3
    assert writer.append("t", ROWS, write_id="a").result() == 3
    assert count() == 6


def test_rows_whose_commit_is_refused_are_not_acknowledged_and_can_be_sent_again(s3, writer, count):
    s3.fault = on_entries(403)
    with pytest.raises(Unavailable, match="The bucket rejected the server's credentials"):
        writer.append("t", ROWS, write_id="a").result()
    assert count() == 3

    s3.fault = lambda method, path: None

    assert [writer.append("t", ROWS, write_id="a").result() for _ in range(2)] == [3, 3]
    assert count() == 6


def test_an_outcome_that_is_not_known_is_called_so(s3, writer, count):
    has_committed = []

    def fault(method, path):
        if method == "PUT" and ENTRY.search(path):
            has_committed.append(path)
            return "applied close"
        return "close" if has_committed else None

    s3.fault = fault
    with pytest.raises(Unavailable, match="It is unknown"):
        writer.append("t", ROWS, write_id="a").result()
    s3.fault = lambda method, path: None

    assert writer.append("t", ROWS, write_id="a").result() == 3
    assert count() == 6


def test_writers_of_one_id_at_once_store_it_once(storage, writer, count):
    others = [LakeWriter(storage, interval_seconds=0) for _ in range(3)]
    ids = [f"write-{number}" for number in range(10)]

    futures = [one.append("t", ROWS, write_id=name) for name in ids for one in [writer, *others]]

    assert {future.result() for future in futures} == {3}
    for one in others:
        one.close()
    assert count() == 3 + 3 * len(ids)


def test_a_table_dropped_and_made_anew_gets_no_rows_of_the_old_one(storage, writer, tables, count):
    write = writer.open_write(WriteRequest(table="t", mode=WriteMode.APPEND), ROWS.schema)
    write.write(ROWS.to_batches()[0])
    Tables(storage).drop("t")
    tables.create("t", pa.schema([("other", pa.utf8())]))

    with pytest.raises(UsageError):
        write.commit()

    assert count() == 0
    assert [entry.path for entry in storage.list("t")] == [f"t/_delta_log/{0:020}.json"]


def test_a_table_that_an_earlier_version_began_to_drop_is_removed(storage, writer, tables):
    storage.write("t/_delta_log/_micromegas_dropped", b"{}")
    assert (tables.list(), tables.find("t")) == ((), None)
    with pytest.raises(UsageError):
        writer.append("t", ROWS).result()

    maintenance.run_round(storage)

    assert list(storage.list("t")) == []
    tables.create("t", ROWS.schema)
    assert tables.list() == ("t",)


def test_a_table_is_created_with_its_rows_by_one_of_many(storage, count):
    writers = [LakeWriter(storage) for _ in range(3)]
    made = []
    for one in writers:
        write = one.open_write(WriteRequest(table="u", mode=WriteMode.CREATE_OR_APPEND), ROWS.schema)
        write.write(ROWS.to_batches()[0])
        made.append(write)

    assert [write.commit() for write in made] == [3, 3, 3]

    for one in writers:
        one.close()
    assert count("u") == 9


def test_a_bucket_that_is_not_there_is_reported(s3):
    storage = Storage("s3://absent/lake", environ=s3.environ)
    with pytest.raises(Unavailable):
        Tables(storage).create("t", ROWS.schema)


@pytest.mark.slow
def test_credentials_of_an_instance_are_renewed(s3, monkeypatch, tmp_path):
    for name, value in s3.environ.items():
        monkeypatch.setenv(name, value)
    with role_credentials("instance", monkeypatch, tmp_path) as given:
        storage = Storage(f"s3://{BUCKET}/{uuid.uuid4().hex}")
        tables = Tables(storage)
        tables.create("t", ROWS.schema)
        with closing(LakeWriter(storage, interval_seconds=0)) as writer, asking(Lake(storage)) as ask:

            def works(write_id):
                try:
                    writer.append("t", ROWS, write_id=write_id).result()
                    return ask.rows("SELECT sum(id) AS s FROM t") and tables.delete("t", "id > 3").rows == 0
                except Unavailable:  # the library asks for new ones at most ten times a second
                    return False

            for key in ("first", "second"):
                given.key = s3.valid_key = key
                wait_until(lambda: works(key), "the renewed credentials are used")  # noqa: B023 - in this round
            assert ask.rows("SELECT count(*) AS c FROM t") == [{"c": 6}]


@pytest.mark.slow
def test_spans_in_a_bucket_are_as_long_as_their_duration(s3, storage, monkeypatch):
    for name, value in s3.environ.items():
        monkeypatch.setenv(name, value)
    times, process_id = [(at, at + 1_007 * at) for at in range(1, 2_000, 333)], str(uuid.uuid4())
    with closing(LakeWriter(storage, interval_seconds=0)) as writer, asking(Lake(storage)) as ask:
        for part in (times[::2], times[1::2]):
            writer.append(SPANS, spans(*part, process_id=process_id)).result()
        for _ in range(2):
            for source in (SPANS, f"view_instance('{SPANS}', '{process_id}')"):
                rows = ask.table(f"SELECT start_time, end_time, duration FROM {source} ORDER BY start_time")
                assert shifted(rows.select(["start_time", "end_time"])) == times
                assert rows["duration"].to_pylist() == [end - begin for begin, end in times]
            maintenance.optimize(storage, SPANS)


@pytest.mark.slow
def test_the_limit_of_views_holds_in_a_bucket_and_after_a_restore(storage, tables, monkeypatch):
    monkeypatch.setattr("micromegas_jupyter.lake.tables.MAX_VIEWS", 1)
    schema = pa.schema({"time_bin": pa.timestamp("us", "UTC"), "msg": pa.utf8(), "n": pa.int64()})

    def create(name):
        facts = {"source": "log_entries", "owner": "ann", "updated_by": "ann", "replaces": False}
        tables.create_view(definition(name=name), schema, **facts)

    create("one")
    with pytest.raises(ResourcesExhausted, match="1 materialized view"):
        create("two")
    tables.drop_view("one")
    create("one")  # whose name a dropped view has
    tables.drop_view("one")
    create("two")
    with pytest.raises(ResourcesExhausted, match="1 materialized view"):
        restore_table(tables, RestoreRequest("one", 0, None))
    tables.drop_view("two")
    restore_table(tables, RestoreRequest("one", 0, None))

    assert tables.list() == ("one",)
