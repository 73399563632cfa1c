"""What callers learn of the files that a statement reads, and that callers with row filters learn nothing."""

import json
import logging
from contextlib import ExitStack
from dataclasses import replace

import pytest

from micromegas_jupyter.auth import StaticTokenAuthProvider
from micromegas_jupyter.cli import main, query_commands
from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.client.query_reader import ScanCounts, TableCounts, parse_estimate
from micromegas_jupyter.core.protocols import TableAccess
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import ScanTooLarge
from tests.fakes.fixed_tables import FixedTables
from tests.fakes.validator import BOB as BOB_CONTEXT
from tests.fakes.validator import FakeValidator
from tests.fakes.waiting import wait_until
from tests.integration.flight_harness import ALICE, BOB, NUMBERS, decode_rows, result_of, running_server
from tests.unit.engine.hidden_worlds import FILES, WORLDS, write_world

pytestmark = pytest.mark.integration

COUNTS = "x-micromegas-counts"
#: It reads all files and runs for much longer than a test.
LONG = "SELECT count(*) AS n FROM logs CROSS JOIN generate_series(1, 1000000000000) AS s(n) WHERE id + n < 0"
#: They differ with each run.
MEASURED = {"query_id", "began_at", "seconds", "peak_memory_bytes"}
#: What bob sees of these is the same in both worlds; in the second one, more files are read.
STATEMENTS = (
    "SELECT count(*) AS n FROM logs",
    "SELECT id FROM logs WHERE level = 99",
    "SELECT id FROM logs WHERE msg LIKE 'secret%' OR id = 7",
    "SELECT max(x) AS n FROM logs JOIN other ON id = log_id",
    "SELECT id FROM logs ORDER BY id LIMIT 3",
    "EXPLAIN SELECT id FROM logs WHERE level = 99",
    "EXPLAIN ANALYZE SELECT id FROM logs WHERE level = 99",
)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """Servers over two worlds; bob sees only some rows of `logs`."""
    with ExitStack() as stack:
        found = []
        for number in WORLDS:
            validator = FakeValidator()
            access = TableAccess(filters={"logs": ("exe = 'x'",), "other": ("exe = 'x'",)})
            validator.known["bob"] = replace(BOB_CONTEXT, table_access=access)
            validator.known["carol"] = replace(validator.known["bob"], max_scan_bytes=1)
            validator.known["dan"] = replace(BOB_CONTEXT, max_scan_bytes=100_000)
            tables = FixedTables(write_world(number, tmp_path_factory.mktemp("world")))
            found.append(stack.enter_context(running_server(tables=tables, validator=validator)))
        yield found


def _client(flight, name):
    return FlightSQLClient(flight.uri, auth_provider=StaticTokenAuthProvider(Secret(name)))


def _read(flight, sql):
    with _client(flight, "alice") as client, client.open_query(sql) as reader:
        reader.read_all()
        return reader.counts


def test_counts_come_at_the_end_of_statements_that_read_tables(worlds):
    counts = _read(worlds[0], "SELECT sum(value) FROM logs WHERE id < 10")

    assert (counts.files, counts.total, counts.rows, counts.explained) == (2, FILES, 10, ())
    assert counts.bytes > 0
    assert _read(worlds[0], NUMBERS) is None
    assert COUNTS not in worlds[0].query(NUMBERS, metadata=ALICE).trailing


def test_an_explain_lists_what_its_tables_would_take(worlds):
    counts = _read(worlds[0], "EXPLAIN SELECT * FROM logs JOIN other ON id = log_id WHERE id < 10")

    (logs,) = [table for table in counts.explained if table.name == "logs"]
    assert logs == TableCounts(name="logs", files=2, total=FILES, size=logs.size, rows=10)
    assert logs.size > 0
    assert [table.name for table in counts.explained] == ["logs", "other"]
    assert counts == ScanCounts(files=0, total=2 * FILES, bytes=0, rows=0, explained=counts.explained)


def _received(flight, sql):
    """Return all that bob receives, but for the id."""
    answer = flight.query(sql, metadata=BOB)
    rows = None if answer.error else decode_rows(answer.replies).to_pylist()
    error = None if answer.error is None else (type(answer.error), answer.error.what, answer.error.remedy)
    names = {name: value for name, value in answer.trailing.items() if not name.endswith("-bin")}
    return rows, error, answer.code, names, answer.initial.keys()


@pytest.mark.parametrize("sql", STATEMENTS)
def test_a_caller_with_a_row_filter_receives_the_same_in_both_worlds(worlds, sql, caplog):
    with caplog.at_level(logging.INFO, logger="micromegas_jupyter.audit"):
        found = [_received(flight, sql) for flight in worlds]
    lines = [json.loads(one.getMessage()) for one in caplog.records if one.name == "micromegas_jupyter.audit"]

    assert found[0] == found[1]
    assert COUNTS not in found[0][3]
    if found[0][0] is not None:
        assert {"files_read", "files_total", "rows_scanned", "bytes_scanned"} <= lines[0].keys()
        assert lines[0]["files_total"] < lines[1]["files_total"]


def _ask(flight, metadata, **request):
    return json.loads(result_of(flight.act("MicromegasQueries", json.dumps(request).encode(), metadata=metadata)))


def _query_id(reading):
    return dict(reading.initial_metadata())["x-micromegas-query-id"]


def test_progress_is_for_callers_who_see_all_rows(worlds):
    seen = []
    for flight in worlds:
        readings = [flight.read(LONG, metadata=metadata) for metadata in (BOB, ALICE)]
        of_bob, of_alice = map(_query_id, readings)
        with _client(flight, "alice") as client:
            # Bob's has run for longer.
            wait_until(lambda: client.query_progress(of_alice) is not None, "progress is known")  # noqa: B023
            progress = client.query_progress(of_alice)
            listed = {one.query_id: one for one in client.running_queries()}
        asked = [_ask(flight, metadata, operation="progress", query_id=of_bob) for metadata in (BOB, ALICE)]
        (own,) = _ask(flight, BOB, operation="list")["queries"]
        others = _ask(flight, BOB, operation="progress", query_id=of_alice)
        for reading in readings:
            reading.cancel()
        flight.wait_until_quiet()

        assert progress.files >= FILES
        assert 0 < progress.scanned <= 1
        assert listed[of_alice].files == progress.files
        assert asked == [{"progress": None}] * 2
        assert others == {"progress": None}
        assert (listed[of_bob].files, listed[of_bob].scanned) == (None, None)
        seen.append({name: own[name] for name in own if name not in MEASURED})

    assert seen[0] == seen[1]
    assert {"files", "scanned"} <= seen[0].keys()


def _describe(flight, name, *arguments):
    with _client(flight, name) as client:
        return client.describe_statement(*arguments)


def test_a_schema_tells_what_a_statement_would_read(worlds):
    schema = _describe(worlds[0], "alice", "SELECT id, msg FROM logs WHERE id < 10")
    bound = _describe(worlds[0], "alice", "SELECT id, msg FROM logs WHERE id < :id", None, None, {"id": 10})
    estimate = parse_estimate(schema)

    assert schema.names == ["id", "msg"]
    assert (estimate.files, estimate.rows, [one.name for one in estimate.tables]) == (2, 10, ["logs"])
    assert estimate.bytes > 0
    assert parse_estimate(bound) == estimate
    assert parse_estimate(_describe(worlds[0], "alice", "SELECT 1")).text() == "reads no files"


@pytest.mark.parametrize("sql", [sql for sql in STATEMENTS if "EXPLAIN" not in sql])
def test_a_caller_with_a_row_filter_gets_no_estimate_and_the_same_rejection_in_both_worlds(worlds, sql):
    schemas = [_describe(flight, "bob", sql) for flight in worlds]
    errors = []
    for flight in worlds:
        with pytest.raises(ScanTooLarge) as caught:
            _describe(flight, "carol", sql)
        errors.append((caught.value.what, caught.value.remedy))

    assert schemas[0].equals(schemas[1], check_metadata=True)
    assert parse_estimate(schemas[0]) is None
    assert errors[0] == errors[1]


def test_a_role_limits_what_a_statement_reads(worlds):
    with _client(worlds[0], "dan") as client:
        assert len(client.query_arrow("SELECT id FROM logs WHERE id < 10")) == 10
        with pytest.raises(ScanTooLarge, match=r"would read about .* of 36 files.*allow only 100 kB.*logs\.id \("):
            client.query_arrow("SELECT id FROM logs")
        assert parse_estimate(client.describe_statement("SELECT id FROM logs WHERE id < 10")).files == 2


def test_the_command_shows_columns_and_what_would_be_read(worlds, monkeypatch, capsys):
    # Only the sign-in is left out.
    monkeypatch.setattr(query_commands, "open_query_client", lambda _: _client(worlds[0], "alice"))
    command = ["query", "SELECT id, msg FROM logs WHERE id < 10", "--all", "--dry-run"]
    assert main.run(command) == 0
    shown = capsys.readouterr()
    assert main.run([*command, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)

    assert shown.out == "id   int64\nmsg  string\n"
    assert shown.err.startswith("It reads about ")
    assert shown.err.endswith(" of 2 files, 10 rows.\n")
    assert [one["column"] for one in found["columns"]] == ["id", "msg"]
    assert (found["estimate"]["files"], found["estimate"]["rows"]) == (2, 10)
