"""`POST /sql`: Flight's rows as an Arrow IPC stream, errors that no client can miss, and who may call it."""

import http.client
import io
import json
import logging
import shutil
import subprocess
from contextlib import closing

import pyarrow as pa
import pytest
from pyarrow import flight

from micromegas_jupyter.auth.static import StaticTokenAuthProvider
from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.config.access import RateLimits
from micromegas_jupyter.config.server import ServerSettings
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import ResourcesExhausted
from micromegas_jupyter.flightsql.commands import statement_ticket
from micromegas_jupyter.wiring.server import is_sql_served
from tests.fakes.fixed_tables import FixedTables, write_log_entries
from tests.fakes.servers import ENDLESS, FAILS_LATE, LARGE, NUMBERS, WAITING, WORDS
from tests.fakes.waiting import wait_until
from tests.integration.agents.harness import TIMEOUT_SECONDS, read_raw, serving_agents

pytestmark = pytest.mark.integration

APP = "https://app.example"
AUDIT = "micromegas_jupyter.audit"
SLOW = "SELECT count(*) AS n FROM generate_series(1, 1000000000) AS a, generate_series(1, 1000000000) AS b"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    tables = FixedTables([write_log_entries(tmp_path_factory.mktemp("tables"), 2)])
    with serving_agents(tables=tables, origins=[APP], max_result_bytes=64 * 1024 * 1024) as running:
        yield running


@pytest.fixture
def alice(served):
    return served.agent("alice")


@pytest.fixture
def bob(served):
    return served.agent("bob")


def test_the_rows_are_those_of_flight(served, alice):
    cases = [
        (NUMBERS, {}),
        (LARGE, {}),
        (LARGE, {"x-micromegas-compression": "lz4"}),
        (WORDS, {"preserve_dictionary": "true"}),
        ("SELECT value AS n, [value] AS l, 'é' AS t FROM generate_series(1, 10) WHERE value > 10", {}),
        ("SELECT arrow_cast('x', 'Utf8View') AS v, NULL AS n FROM generate_series(1, 3)", {}),
    ]
    with flight.connect(served.server.uri) as client:
        for sql, headers in cases:
            options = [
                (name.encode(), text.encode()) for name, text in {"authorization": "Bearer alice", **headers}.items()
            ]
            ticket = flight.Ticket(statement_ticket(sql))
            expected = client.do_get(ticket, flight.FlightCallOptions(headers=options)).read_all()
            found = alice.sql(sql, headers=headers, preserve_dictionary="preserve_dictionary" in headers)

            assert (found.status, found.headers["content-type"]) == (200, "application/vnd.apache.arrow.stream")
            assert found.headers["x-micromegas-query-id"]
            assert found.body.endswith(b"\xff\xff\xff\xff\0\0\0\0")
            assert found.table.equals(expected, check_metadata=True), sql


def test_a_range_values_and_a_limit_choose_rows(alice):
    counted = "SELECT count(*) AS n FROM log_entries"
    hour = alice.sql("SELECT CAST(min(time) AS VARCHAR) AS t FROM log_entries").table["t"][0].as_py()[:13]
    ranges = [{}, {"begin": f"{hour}:00:00Z", "end": f"{hour}:59:59Z"}, {"begin": "2020-01-01T00:00:00Z"}]
    values = {"a": "x' OR 1=1", "b": 7, "c": None}

    assert [alice.sql(counted, **one).table["n"].to_pylist() for one in ranges] == [[8], [4], [8]]
    assert alice.sql("SELECT :a AS a, :b AS b, :c AS c", params=values).table.to_pylist() == [values]
    assert alice.sql("SELECT ? AS a", params=[1.5]).table.to_pylist() == [{"a": 1.5}]
    assert alice.sql(ENDLESS, limit=3).table["n"].to_pylist() == [1, 2, 3]


def test_errors_before_the_first_rows_are_responses(served, alice):
    found = alice.sql("SELECT nn FROM log_entries")
    bodies = [
        b"",
        b"[]",
        b"\xff",
        b'{"sql":1}',
        b'{"sql":""}',
        b'{"sql":"SELECT 1","sql":"SELECT 2"}',
        b'{"query":"SELECT 1"}',
    ]
    wrong = [
        *(alice.send(body, path="/sql") for body in bodies),
        alice.sql("SELECT 1", timeout_seconds=-1),
        alice.sql("SELECT 1", begin="yesterday"),
        alice.sql("SELECT 1", params={"a": [1]}),
        alice.sql("SELECT 1", headers={"x_micromegas_read_only": "maybe"}),
    ]
    old = read_raw(
        served.port,
        b"POST /sql HTTP/1.0\r\nHost: 127.0.0.1\r\nAuthorization: Bearer alice\r\nContent-Type: application/json\r\n"
        b'Content-Length: 19\r\n\r\n{"sql": "SELECT 1"}',
    )

    assert (found.status, found.json["code"], found.json["line"]) == (400, "SQL001", 1)
    assert found.json["query_id"] == found.headers["x-micromegas-query-id"]
    assert {(one.status, one.json["code"]) for one in wrong} == {(400, "USE001")}
    assert b" 400 " in old.partition(b"\r\n")[0]
    assert b"Results need HTTP/1.1." in old
    assert served.agent(None).sql("SELECT 1").status == 401
    assert served.agent("collector").sql("SELECT 1").status == 403
    assert alice.send(b"", path="/sql", method="GET").status == 405


def test_an_error_after_the_first_rows_is_never_a_result(served, alice, tmp_path):
    too_many = "SELECT value AS n, repeat('x', 100) AS t FROM generate_series(1, 10000000)"
    for sql in (FAILS_LATE, too_many, WAITING):
        with closing(alice.open({"sql": sql}, path="/sql")) as connection, connection.getresponse() as answer:
            if sql == WAITING:
                alice.call("cancel_query", query_id=answer.headers["x-micromegas-query-id"])
            with pytest.raises(http.client.IncompleteRead) as cut:
                answer.read()
        received = cut.value.partial

        assert answer.status == 200
        with pa.ipc.open_stream(io.BytesIO(received)) as reader, pytest.raises((pa.ArrowInvalid, OSError)):
            reader.read_all()  # what a program reads that doesn't look at how the response ended
    curl = [
        shutil.which("curl"), "-sS", "-o", tmp_path / "rows", "-H", "Authorization: Bearer alice",
        "-H", "Content-Type: application/json", "-d", json.dumps({"sql": FAILS_LATE}),
        f"http://127.0.0.1:{served.port}/sql",
    ]  # fmt: skip
    assert subprocess.run(curl, timeout=TIMEOUT_SECONDS, check=False, capture_output=True).returncode == 18


def test_every_end_is_quick_and_has_its_own_cause(served, bob, caplog):
    causes = {}

    def ended(what, act):
        count = len(lines())
        began_at = SYSTEM_CLOCK.monotonic()
        act()
        wait_until(lambda: len(lines()) > count, "the audit line")
        (line,) = lines()[count:]
        causes[what] = (line["status"], line.get("ended_for"), line.get("error_class"))
        assert SYSTEM_CLOCK.monotonic() - began_at < 5  # a second, on a machine that does nothing else

    def lines():
        return [json.loads(one.getMessage()) for one in caplog.records if one.name == AUDIT]

    def begin(sql):
        connection = bob.open({"sql": sql}, path="/sql")
        (running,) = wait_until(
            lambda: [one for one in bob.running() if one["is_running"]], "the query has an executor"
        )
        return connection, running["query_id"]

    with caplog.at_level(logging.INFO, logger=AUDIT):
        for name, sql in (("disconnect", SLOW), ("disconnect while reading", ENDLESS)):
            connection, _ = begin(sql)
            ended(name, connection.close)
        connection, query_id = begin(SLOW)
        ended("cancel_query", lambda: bob.call("cancel_query", query_id=query_id))
        canceled = connection.getresponse()
        assert (canceled.status, json.loads(canceled.read())["code"]) == (499, "SQL006")
        connection.close()
        ended("timeout", lambda: bob.sql(SLOW, timeout_seconds=0.5))

        def read_all():
            with pytest.raises(http.client.IncompleteRead):
                bob.sql(ENDLESS)

        ended("size", read_all)

    assert causes == {
        "disconnect": ("incomplete", "disconnected", None),
        "disconnect while reading": ("incomplete", "disconnected", None),
        "cancel_query": ("incomplete", "cancelled", None),
        "timeout": ("error", "request_timeout", "user"),
        "size": ("error", None, "resource"),
    }
    assert bob.running() == []


def test_a_client_that_does_not_read_is_ended_without_a_traceback(caplog):
    with (
        caplog.at_level(logging.INFO, logger=AUDIT),
        serving_agents(pool={"write_timeout_seconds": 0.2}) as served,
        closing(served.agent().open({"sql": ENDLESS}, path="/sql")),
    ):
        wait_until(lambda: any(one.name == AUDIT for one in caplog.records), "the audit line")

    assert [json.loads(one.getMessage())["ended_for"] for one in caplog.records if one.name == AUDIT] == [
        "stalled_reader"
    ]
    assert [one.getMessage() for one in caplog.records if one.levelno >= logging.ERROR] == []


def test_the_audit_shows_who_called_how_and_whether_read_only(served, bob, caplog):
    with caplog.at_level(logging.INFO, logger=AUDIT):
        for headers in ({}, {"x_micromegas_read_only": "true", "x_client_type": "dashboard"}):
            assert bob.sql(NUMBERS, headers=headers).status == 200
    found = [json.loads(one.getMessage()) for one in caplog.records if one.name == AUDIT]

    assert [(one["user"], one["client"], one["read_only"], one["output_rows"]) for one in found] == [
        ("bob", "http", False, 3),
        ("bob", "dashboard", True, 3),
    ]


def test_only_pages_of_allowed_origins_get_rows(served, alice):
    statuses = {
        origin: (
            alice.sql("SELECT 1", headers={"Origin": origin}).status,
            served.agent(None).sql("SELECT 1", headers={"Origin": origin}).status,
        )
        for origin in (
            APP,
            "http://localhost:3000",
            f"http://127.0.0.1:{served.port}",
            "null",
            "https://app.example.evil.example",
            f"{APP}:8443",
        )
    }
    allowed, denied = (alice.send(b"", path="/sql", method="OPTIONS", Origin=one) for one in (APP, "http://localhost"))
    shown = alice.sql("SELECT 1", headers={"Origin": APP}).headers

    assert statuses.pop(APP) == (200, 401)
    assert set(statuses.values()) == {(403, 403)}
    assert (allowed.status, allowed.headers["access-control-allow-origin"]) == (204, APP)
    assert (denied.status, "access-control-allow-origin" in denied.headers) == (403, False)
    assert (shown["access-control-allow-origin"], shown["vary"]) == (APP, "Origin")
    assert alice.sql("SELECT 1", headers={"Host": f"evil.example:{served.port}"}).status == 403
    assert "access-control-allow-origin" not in alice.sql("SELECT 1").headers


def test_a_caller_has_one_rate_and_one_number_of_calls():
    limits = RateLimits(calls_per_second=0.01, burst_calls=4)
    with serving_agents(rate_limits=limits, max_calls_per_caller=1) as served:
        alice = served.agent()
        with (
            closing(alice.open({"sql": ENDLESS}, path="/sql")) as connection,
            closing(FlightSQLClient(served.server.uri, auth_provider=StaticTokenAuthProvider("alice"))) as client,
        ):
            connection.getresponse()
            with pytest.raises(ResourcesExhausted, match="calls open"):
                client.query_arrow("SELECT 1")
            assert alice.sql("SELECT 1").json["code"] == ResourcesExhausted.code
        statuses = [alice.request("tools/list").status, alice.sql("SELECT 1").status]

    assert statuses == [200, 429]


@pytest.mark.parametrize(
    ("settings", "is_served"),
    [
        ({}, True),
        ({"disable_auth": True}, True),
        ({"no_mcp": True}, True),
        ({"no_sql": True}, False),
        ({"no_http": True}, False),
        ({"http_host": "0.0.0.0"}, False),
        ({"http_host": "0.0.0.0", "public_url": "https://lake.example"}, True),
        ({"http_host": "0.0.0.0", "public_url": "https://lake.example", "disable_auth": True}, False),
    ],
)
def test_rows_are_served_beyond_this_machine_with_a_public_url_and_authentication_only(settings, is_served):
    assert is_sql_served(ServerSettings(**settings)) is is_served
