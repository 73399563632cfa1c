"""Upstream's unmodified client: each of its methods, against this server with authentication on."""

import datetime as dt
import logging
import sys

import micromegas
import micromegas.admin
import micromegas.cli.query
import micromegas.perfetto
import pandas as pd
import pyarrow as pa
import pyarrow.flight
import pytest
from micromegas.auth import StaticTokenAuthProvider
from micromegas.flightsql.client import FlightSQLClient

from tests.fakes.telemetry_rows import NOON
from tests.integration.clients.serving import PROCESS_ID, STREAM_ID, audit_lines
from tests.integration.clients.wide_rows import sent_table

pytestmark = pytest.mark.integration

LATER = NOON + dt.timedelta(seconds=1)
COUNT_MEASURES = "SELECT count(*) AS n FROM measures"


def connect(server, who="bob", **arguments):
    return FlightSQLClient(server.uri, auth_provider=StaticTokenAuthProvider(server.tokens[who]), **arguments)


@pytest.fixture(scope="module")
def client(server):
    return connect(server)


@pytest.fixture(scope="module")
def administrator(server):
    return connect(server, "alice")


def test_query_gives_a_frame_of_every_type(client):
    frame = client.query("\n    SELECT * FROM wide ORDER BY id ;  \n")

    pd.testing.assert_frame_equal(frame, sent_table().to_pandas())


@pytest.mark.parametrize(
    ("begin", "end", "count"),
    [
        (NOON, LATER, 2),
        (f"{NOON:%F}T12:00:00Z", f"{NOON:%F}T12:00:01z", 2),
        (pd.Timestamp(NOON), pd.Timestamp(LATER), 2),
        (NOON, None, 60),
        (None, LATER, 60),
    ],
)
def test_times_of_each_kind_cut_what_is_read(client, begin, end, count):
    assert client.query(COUNT_MEASURES, begin, end)["n"].tolist() == [count]


def test_a_prepared_statement_describes_its_schema_and_runs(client):
    statement = client.prepare_statement("SELECT n, text FROM many WHERE n < 3 ORDER BY n")

    assert (statement.dataset_schema.names, statement.dataset_schema.types) == (["n", "text"], [pa.int64(), pa.utf8()])
    assert statement.query.startswith("SELECT n, text FROM many WHERE n < 3 ORDER BY n")
    (batch,) = client.prepared_statement_stream(statement)
    assert batch.column("n").to_pylist() == [0, 1, 2]


def test_a_process_is_found(client):
    frame = client.find_process(PROCESS_ID)

    assert frame[["process_id", "exe", "computer"]].to_numpy().tolist() == [[PROCESS_ID, "test", "lab"]]
    assert client.find_process("00000000-0000-4000-8000-000000000000").empty


@pytest.mark.parametrize(
    ("arguments", "count"), [({"process_id": PROCESS_ID}, 1), ({"tag_filter": "log"}, 1), ({"tag_filter": "cpu"}, 0)]
)
def test_streams_are_listed(client, arguments, count):
    frame = client.query_streams(NOON, LATER, 10, **arguments)

    assert frame["stream_id"].tolist() == [STREAM_ID] * count


def test_callers_are_recognised_by_what_the_client_says_of_itself(server, caplog, monkeypatch):
    monkeypatch.setenv("MICROMEGAS_CLIENT_AGENT", "robot")
    caplog.set_level(logging.INFO, logger="micromegas_jupyter.audit")

    connect(server, client_entrypoint="report").query("SELECT 1 AS recognised", NOON, LATER)

    (line,) = audit_lines(caplog, "SELECT 1 AS recognised")
    assert (line["client"], line["agent"], line["entrypoint"], line["user"]) == ("python", "robot", "report", "bob")
    assert len(line["session"]) == 36


def test_a_profile_of_upstream_lets_in(upstream_profile):
    client = micromegas.connect_with_profile(upstream_profile)

    assert client.query("SELECT 1 AS n")["n"].tolist() == [1]


def test_spans_and_blocks_of_a_stream_can_be_asked_for(client):
    spans = client.query_spans(NOON, LATER, 10, STREAM_ID)

    assert list(spans.columns)[:5] == ["id", "parent", "depth", "hash", "begin"]
    assert spans.empty
    assert client.query_blocks(NOON, LATER, 10, STREAM_ID)["processes.exe"].tolist() == []


def test_no_partition_is_incompatible(administrator):
    assert micromegas.admin.list_incompatible_partitions(administrator).empty


def test_a_process_has_no_trace_for_perfetto(administrator, tmp_path, capsys):
    micromegas.perfetto.write_process_trace(administrator, PROCESS_ID, NOON, LATER, str(tmp_path / "trace"))

    assert "No trace data found" in capsys.readouterr().out


# What this server does not have: a clear refusal, listed in docs/migration.md.
NOT_OFFERED = {
    "parse_block": f"SELECT * FROM parse_block('{STREAM_ID}')",
    "get_payload": f"SELECT get_payload('{PROCESS_ID}', '{STREAM_ID}', block_id) FROM blocks",
}


@pytest.mark.parametrize("name", NOT_OFFERED)
def test_what_this_server_does_not_have_is_refused_with_a_way_out(administrator, name):
    pattern = rf"There is no (function|table) named {name}\. .*block_id.*What of Micromegas isn't here.*SQL001"
    with pytest.raises(pa.ArrowInvalid, match=pattern):
        administrator.query(NOT_OFFERED[name])


@pytest.fixture
def query(upstream_profile, monkeypatch):
    """Run the command's own `main` with a profile that names this server and an API key."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["micromegas-query", "--profile", upstream_profile, *arguments])
        micromegas.cli.query.main()

    return run


def test_it_prints_a_table(query, capsys):
    query("SELECT id, word FROM wide WHERE id = 1", "--all")

    assert capsys.readouterr().out.splitlines()[2].split() == ["1", "naïve", "日本語", "\U0001f600"]


def test_it_sends_its_range(query, capsys):
    times = ("--begin", f"{NOON:%F}T12:00:00Z", "--end", f"{NOON:%F}T12:00:01Z")

    query("SELECT count(*) AS n FROM measures", *times, "--format", "csv")

    assert capsys.readouterr().out.split() == ["n", "2"]
