"""Rows that clients send: who may, what is accepted, what tables are made, and what a repeated call does."""

import json
import logging
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from adbc_driver_flightsql import DatabaseOptions
from adbc_driver_flightsql import dbapi as adbc
from adbc_driver_manager import AdbcStatusCode
from adbc_driver_manager import Error as AdbcError

from micromegas_jupyter.auth import StaticTokenAuthProvider
from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.core.jsonb import decode, encode, to_json
from micromegas_jupyter.core.protocols import WriteMode, WriteRequest
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.errors import PermissionDenied, TableExists, UsageError
from micromegas_jupyter.lake.tables import Tables
from micromegas_jupyter.lake.writer import LakeWriter
from tests.fakes.telemetry_rows import PAIRS, log_batch, sent_processes
from tests.integration.flight_harness import ALICE, FLIGHT
from tests.integration.ingest.lake_server import create_command, ingest_frames

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore:Cannot disable autocommit:Warning")]


VECTOR = bytes.fromhex("400000011000000410000005") + b"namevalue"
TYPED = encode({"n": 7, "deep": [1.5, True, None]}, is_signed=True)
DICTIONARY = pa.dictionary(pa.int32(), pa.binary())


@pytest.mark.parametrize(
    ("form", "properties", "expected"),
    [
        ("map", pa.array([[("name", "value")], []], pa.map_(pa.utf8(), pa.utf8())), [VECTOR, encode({})]),
        ("pairs", pa.array([[{"key": "name", "value": "value"}], None], PAIRS), [VECTOR, encode({})]),
        ("jsonb", pa.array([VECTOR, TYPED]), [VECTOR, TYPED]),
        ("dictionary", pa.array([TYPED, TYPED]).dictionary_encode(), [TYPED, TYPED]),
        ("pair dictionary",
         pa.DictionaryArray.from_arrays(pa.array([0, 0]), pa.array([[{"key": "name", "value": "value"}]], PAIRS)),
         [VECTOR, VECTOR]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_properties_of_every_form_come_back_as_binary_json(server, alice, form, properties, expected):
    names = f"{form}-1", f"{form}-2"
    sql = f"SELECT properties AS p FROM processes WHERE process_id LIKE '{form}-%' ORDER BY process_id"
    alice.bulk_ingest("processes", sent_processes(*names, properties=properties))

    flat = alice.query_arrow(sql)
    with FlightSQLClient(
        server.uri, auth_provider=StaticTokenAuthProvider("alice"), preserve_dictionary=True
    ) as keeping:
        kept = keeping.query_arrow(sql)

    assert (flat["p"].to_pylist(), kept["p"].to_pylist()) == (expected, expected)
    assert (flat.schema.field("p").type, kept.schema.field("p").type) == (pa.binary(), DICTIONARY)
    assert flat.schema.field("p").metadata[b"ARROW:FLIGHT:SQL:TYPE_NAME"] == b"jsonb"
    assert alice.query(sql)["p"].tolist() == [to_json(decode(one)) for one in expected]


def test_a_clients_list_of_tables_names_the_type(alice):
    field = alice.list_tables()["log_entries"].field("properties")

    assert (field.type, field.metadata[b"ARROW:FLIGHT:SQL:TYPE_NAME"]) == (pa.binary(), b"jsonb")
    assert alice.prepare_statement("SELECT properties FROM processes").dataset_schema.field(0).metadata == {
        b"ARROW:FLIGHT:SQL:TYPE_NAME": b"jsonb"
    }


def test_other_bytes_of_a_callers_table_are_as_they_were_sent(alice):
    blobs = [b"\x89PNG", encode({}), b""]
    alice.bulk_ingest("blobs_of_alice", pa.table({"blob": blobs}), mode="create")

    assert sorted(alice.query("SELECT blob FROM blobs_of_alice")["blob"]) == sorted(blobs)


def test_rows_are_there_once_the_answer_says_how_many(server, alice):
    answer = alice.bulk_ingest("processes", sent_processes("own-1", "own-2"))

    assert answer.record_count == 2
    found = alice.query_arrow("SELECT process_id, properties, last_update_time = insert_time AS same FROM processes "
                              "WHERE process_id LIKE 'own-%' ORDER BY 1")  # fmt: skip
    assert found.to_pydict() == {
        "process_id": ["own-1", "own-2"],
        "properties": [encode({"a": "b"})] * 2,
        "same": [True, True],
    }


def test_rows_that_were_read_here_are_accepted_as_they_are(server, alice):
    alice.bulk_ingest("log_entries", pa.Table.from_batches([log_batch([1, 2], writer="first")]))
    read = alice.query_arrow("SELECT * FROM log_entries WHERE target = 'first'")

    answer = alice.bulk_ingest("log_entries", read)

    assert answer.record_count == 2
    assert (
        sorted(server.column("SELECT msg FROM log_entries WHERE target = 'first'")) == ["first:1"] * 2 + ["first:2"] * 2
    )


@pytest.mark.parametrize(
    ("table", "rows", "words"),
    [
        ("images", sent_processes("x"), "The name images is reserved"),
        ("../processes", sent_processes("x"), "'../processes' is not a valid table name"),
        ("processes", sent_processes("x", exe=None), "The column exe of processes is missing"),
        ("processes", sent_processes("x", other=pa.array([1])), "doesn't have a column 'other'"),
        ("processes", sent_processes("x", exe=pa.array([1])), "The column exe has the type int64"),
        (
            "processes",
            sent_processes("x", process_id=pa.array([None], pa.utf8())),
            "A value in the column process_id is missing",
        ),
        ("processes", sent_processes("x", properties=pa.array([b"\0\1"])), "not binary JSON"),
    ],
    ids=["unknown table", "path", "missing column", "unknown column", "wrong type", "missing value", "not JSONB"],
)
def test_what_does_not_fit_is_refused_by_name_and_nothing_is_stored(server, alice, table, rows, words):
    before = server.files()

    with pytest.raises(UsageError, match=words):
        alice.bulk_ingest(table, rows)

    assert server.files() == before


def test_only_administrators_and_keys_for_it_may(server):
    with server.client("bob") as bob, pytest.raises(PermissionDenied, match="administrators"):
        bob.bulk_ingest("processes", sent_processes("bobs"))
    with server.client("service") as reader, pytest.raises(PermissionDenied):
        reader.bulk_ingest("processes", sent_processes("readers"))
    with server.client("collector") as collector:
        answer = collector.bulk_ingest("processes", sent_processes("collected"))

    assert answer.record_count == 1
    names = "('bobs', 'readers', 'collected')"
    assert server.column(f"SELECT process_id FROM processes WHERE process_id IN {names}") == ["collected"]


@pytest.mark.parametrize("target", ["micromegas_jupyter", "micromegas_jupyter.audit", "flightsql_query_audit"])
def test_a_key_cannot_forge_what_the_server_records(server, target):
    rows = pa.Table.from_batches([log_batch([1], writer=target), log_batch([2], writer="micromegas_jupyter_app")])

    with server.client("collector") as collector, pytest.raises(UsageError, match="reserved for the server's own logs"):
        collector.bulk_ingest("log_entries", rows)
    with server.client("alice") as alice:
        answer = alice.bulk_ingest("log_entries", rows)
    with server.client("collector") as collector:
        collector.bulk_ingest("log_entries", pa.Table.from_batches([log_batch([3], writer="micromegas_jupyter_app")]))

    assert answer.record_count == 2


def test_each_ingest_leaves_one_audit_line(server, alice, caplog):
    caplog.set_level(logging.INFO, "micromegas_jupyter.audit")

    alice.bulk_ingest("processes", sent_processes("told"))
    with pytest.raises(UsageError):
        alice.bulk_ingest("nowhere", sent_processes("told"))

    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == "micromegas_jupyter.audit"]
    fields = ("action", "user", "table", "mode", "rows", "status")
    logged = [tuple(line[field] for field in fields) for line in lines]
    assert logged == [
        ("ingest", "alice", "processes", "append", 1, "ok"),
        ("ingest", "alice", "nowhere", "append", 0, "error"),
    ]
    assert lines[1]["error_class"] == "user"
    assert lines[0]["received_bytes"] > 0


def test_each_ingest_is_counted(server, alice):
    def count(name, **labels):
        registry = server.flight.server.metrics.registry
        return registry.get_sample_value(f"micromegas_server_ingest_{name}_total", labels) or 0

    before = (count("rows"), count("bytes"), count("calls", outcome="ok"), count("calls", outcome="error"))
    alice.bulk_ingest("processes", sent_processes("counted"))
    with pytest.raises(UsageError):
        alice.bulk_ingest("nowhere", sent_processes("counted"))

    assert count("rows") == before[0] + 1
    assert count("bytes") > before[1]
    assert (count("calls", outcome="ok"), count("calls", outcome="error")) == (before[2] + 1, before[3] + 1)


_WHEN = datetime(2026, 11, 25, 12, tzinfo=UTC)
_ID = uuid.UUID("12345678-1234-5678-1234-567812345678")


@pytest.fixture(scope="module")
def connection(server):
    kwargs = {DatabaseOptions.AUTHORIZATION_HEADER.value: "Bearer alice"}
    with adbc.connect(server.uri, db_kwargs=kwargs, autocommit=True) as opened:
        yield opened


def _ingest(connection, table, rows, mode="create"):
    with connection.cursor() as cursor:
        return cursor.adbc_ingest(table, rows, mode=mode)


def test_a_table_is_made_filled_and_read(server, connection):
    created = _ingest(connection, "orders", pa.table({"id": [1, 2], "name": ["a", None]}))
    appended = _ingest(connection, "orders", pa.table({"name": ["c"], "id": pa.array([3], pa.int8())}), "append")
    either = _ingest(connection, "orders", pa.table({"id": [4]}), "create_append")

    assert (created, appended, either) == (2, 1, 1)
    with server.client("bob") as bob:
        assert bob.query_arrow("SELECT * FROM orders ORDER BY id").to_pydict() == {
            "id": [1, 2, 3, 4],
            "name": ["a", None, "c", None],
        }
        assert bob.list_tables()["orders"].names == ["id", "name"]


def test_every_kept_type_reads_back(server, connection):
    values = {
        "flag": pa.array([True, None]),
        "small": pa.array([-1, None], pa.int8()),
        "real": pa.array([1.5, None]),
        "money": pa.array([Decimal("1.10"), None], pa.decimal128(20, 2)),
        "day": pa.array([date(2026, 1, 1), None], pa.date64()),
        "seconds": pa.array([_WHEN.replace(tzinfo=None), None], pa.timestamp("s")),
        "zoned": pa.array([_WHEN, None], pa.timestamp("us", "Europe/Paris")),
        "text": pa.array(["ü", None], pa.large_utf8()),
        "view": pa.array(["a longer text than twelve", None], pa.string_view()),
        "word": pa.array(["a", None]).dictionary_encode(),
        "bytes": pa.array([b"\0", None], pa.large_binary()),
        "fixed": pa.array([b"ab", None], pa.binary(2)),
        "list": pa.array([["a", None], None], pa.large_list(pa.utf8())),
        "pair": pa.array([[1, 2], None], pa.list_(pa.int32(), 2)),
        "struct": pa.array([{"a": 1, "b": ["x"]}, None]),
        "map": pa.array([[("k", 1)], None], pa.map_(pa.utf8(), pa.int64())),
        "pairs": pa.array([[{"key": "a", "value": "b"}], None], PAIRS),
        "runs": pc.run_end_encode(pa.array(["same", None])),
        "listed": pa.array([["a", "b"], None], pa.list_view(pa.utf8())),
        "largely": pa.array([[1], None], pa.large_list_view(pa.uint8())),
        "tiny": pa.array([255, None], pa.uint8()),
        "huge": pa.array([2**64 - 1, None], pa.uint64()),
        "half": pa.array([1.5, None], pa.float16()),
        "round": pa.array([Decimal(1200), None], pa.decimal128(2, -2)),
        "wide": pa.array([Decimal("1.5"), None], pa.decimal256(38, 1)),
        "key": pa.array([_ID.bytes, None], pa.uuid()),
        "keys": pa.ListArray.from_arrays([0, 1, 1], pa.array([_ID.bytes], pa.uuid()), mask=pa.array([False, True])),
        "json": pa.array(['{"a": 1}', None], pa.json_()),
        "bool8": pa.array([True, None]).cast(pa.int8()).cast(pa.bool8()),
    }
    table = pa.table(values)

    _ingest(connection, "kinds", table)
    _ingest(connection, "kinds", table, "append")

    with server.client("alice") as client:
        found = client.query_arrow("SELECT * FROM kinds")
    expected = {name: column.to_pylist() * 2 for name, column in values.items()}
    expected["seconds"] = [_WHEN.replace(tzinfo=None), None] * 2
    expected |= {"key": [_ID.bytes, None] * 2, "keys": [[_ID.bytes], None] * 2, "bool8": [1, None] * 2}
    assert [str(found.schema.field(name).type) for name in ("huge", "key", "json", "bool8", "round")] == [
        "decimal128(20, 0)", "binary", "string", "int8", "decimal128(4, 0)",
    ]  # fmt: skip
    assert found.to_pydict() == expected


@pytest.mark.parametrize(
    "name",
    ["", "Orders", "1st", "a" * 64, "a-b", "a/b", "../a", "a.b", "a b", "ä", "_private", "a\0b", "blocks", "a\nb"],
)
def test_a_name_that_could_be_misread_is_refused(server, name):
    sink = LakeWriter(Storage(server.root))
    before = server.files()

    with pytest.raises(UsageError):
        sink.open_write(WriteRequest(table=name, mode=WriteMode.CREATE), pa.schema({"id": pa.int64()}))

    assert server.files() == before


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pa.array([None]), "null"),
        (pa.array([[None]]), "list<item: null>"),
        (pa.array([{"a": 1}], pa.struct([])), "struct<>"),
        (pa.array([time(1, 2)], pa.time64("us")), "time64"),
        (pa.array([timedelta(seconds=1)]), "duration"),
        (pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])]), "union"),
        (pa.array([["a"]], pa.list_(pa.string_view())), "string_view inside"),
        (pa.array([[[1]]], pa.list_(pa.list_view(pa.int8()))), "list_view"),
        (pa.array([[1, 2]], pa.list_(pa.int8(), 2)).cast(pa.fixed_shape_tensor(pa.int8(), [2])), "fixed_shape_tensor"),
    ],
    ids=[
        "null",
        "list of null",
        "empty struct",
        "time",
        "duration",
        "union",
        "view inside",
        "list view inside",
        "tensor",
    ],
)
def test_a_type_that_is_not_kept_is_refused_by_column(connection, column, kind):
    with pytest.raises(AdbcError, match=rf"column 'odd' has the type .*{kind}"):
        _ingest(connection, "odd", pa.table({"odd": column}))


def test_finer_times_are_rejected_by_row_unless_they_are_to_be_cut(server, alice):
    times = pa.array([1_000, -1, 1_999], pa.timestamp("ns", "Asia/Tokyo"))

    with pytest.raises(UsageError, match=r"'t'.* in row 2"):
        alice.bulk_ingest("fine", pa.table({"t": times}), mode="create")
    alice.bulk_ingest("fine", pa.table({"t": times}), mode="create", times="truncate")

    assert server.column("SELECT CAST(t AS BIGINT) AS us FROM fine ORDER BY us") == [-1, 1, 1]


def test_a_table_is_made_once_unless_it_is_to_be_replaced(server, connection):
    _ingest(connection, "once", pa.table({"id": [1]}))

    with pytest.raises(AdbcError, match=r"once already exists\. Append to it.*USE002") as existing:
        _ingest(connection, "once", pa.table({"id": [2]}))
    with server.client("alice") as alice, pytest.raises(TableExists):
        alice.create_table("once", pa.schema({"id": pa.int64()}))
    with server.client("alice") as alice, pytest.raises(TableExists):
        alice.bulk_ingest("once", pa.table({"id": [2]}), mode="create")
    with server.client("alice") as alice, pytest.raises(TableExists, match="no column 'other'"):
        alice.bulk_ingest("once", pa.table({"other": [2]}), mode="create_append")
    with pytest.raises(AdbcError, match="There is no table 'absent'"):
        _ingest(connection, "absent", pa.table({"id": [3]}), "append")

    assert existing.value.status_code is AdbcStatusCode.ALREADY_EXISTS
    assert server.column("SELECT id FROM once") == [1]
    assert _ingest(connection, "once", pa.table({"name": ["other columns"]}), "replace") == 1
    assert server.column("SELECT * FROM once") == ["other columns"]


def test_rows_of_one_id_are_stored_once(server, alice):
    rows = pa.Table.from_batches([log_batch([1, 2], writer="repeated")])
    ingest_id = str(uuid.uuid4())

    counts = [alice.bulk_ingest("log_entries", rows, ingest_id=ingest_id).record_count for _ in range(3)]
    others = alice.bulk_ingest("log_entries", rows, ingest_id=str(uuid.uuid4())).record_count

    assert (counts, others) == ([2, 2, 2], 2)
    assert server.column("SELECT count(*) FROM log_entries WHERE target = 'repeated'") == [4]


@pytest.mark.parametrize("mode", ["append", "create", "create_append"])
def test_calls_of_one_id_at_once_store_one(server, mode):
    name, callers = f"raced_by_{mode}", 4
    ingest_id = str(uuid.uuid4())
    together = threading.Barrier(callers)
    if mode == "append":
        with server.client("alice") as client:
            client.bulk_ingest(name, pa.table({"id": pa.array([], pa.int64())}), mode="create")

    def send():
        with server.client("alice") as client:
            together.wait(60)
            return client.bulk_ingest(name, pa.table({"id": [1]}), mode=mode, ingest_id=ingest_id).record_count

    with ThreadPoolExecutor(callers) as threads:
        counts = [future.result() for future in [threads.submit(send) for _ in range(callers)]]

    assert counts == [1] * callers
    assert server.column(f"SELECT id FROM {name}") == [1]


def test_an_id_is_for_one_set_of_rows(alice):
    alice.bulk_ingest("processes", sent_processes("a"), ingest_id="of-one-row")

    with pytest.raises(UsageError, match="This ID was already used to store 1 row, but this call has 2"):
        alice.bulk_ingest("processes", sent_processes("a", "b"), ingest_id="of-one-row")


def test_an_id_is_one_callers_own(server, alice):
    rows = pa.Table.from_batches([log_batch([1], writer="two callers")])

    alice.bulk_ingest("log_entries", rows, ingest_id="the-same")
    with server.client("collector") as collector:
        collector.bulk_ingest("log_entries", rows, ingest_id="the-same")

    assert server.column("SELECT count(*) FROM log_entries WHERE target = 'two callers'") == [2]


@pytest.mark.parametrize(
    "header",
    [
        ("x-micromegas-ingest-id", "with blank"),
        ("x-micromegas-ingest-id", "x" * 129),
        ("x-micromegas-ingest-rows", "-1"),
    ],
    ids=lambda header: f"{header[0]}={header[1][:12]}",
)
def test_headers_that_cannot_be_read_are_refused(server, header):
    frames = ingest_frames(create_command("never_made"), pa.table({"id": [1]}))

    answer = server.flight.call(FLIGHT + "DoPut", *frames, metadata=(*ALICE, header))

    assert type(answer.error) is UsageError
    assert "never_made" not in server.column("SELECT table_name FROM information_schema.tables")


def test_rows_that_do_not_all_come_are_not_stored(server):
    frames = ingest_frames(create_command("cut_off"), pa.table({"id": [1, 2]}))

    answer = server.flight.call(FLIGHT + "DoPut", *frames, metadata=(*ALICE, ("x-micromegas-ingest-rows", "3")))

    assert type(answer.error) is UsageError
    assert answer.error.what == "2 of 3 rows have arrived; none were stored."
    assert "cut_off" not in server.column("SELECT table_name FROM information_schema.tables")


def test_columns_that_another_process_adds_are_listed_at_once(server):
    elsewhere = Tables(Storage(server.root))
    for name in ("wide", "narrow"):
        elsewhere.create(name, pa.schema([("id", pa.int64())]))
    listing = "SELECT column_name FROM information_schema.columns WHERE table_name LIKE 'w%' ORDER BY ordinal_position"
    assert server.column(listing) == ["id"]

    elsewhere.add_column("wide", pa.field("added", pa.string()))

    assert server.column(listing) == ["id", "added"]
