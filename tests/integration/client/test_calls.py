"""What the client sends and what it makes of answers, against a scripted server."""

import gc
import json
import threading
from datetime import UTC, datetime

import psutil
import pyarrow as pa
import pytest

from micromegas_jupyter.client import transport
from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.errors import LoginRequired, Rejected, UnsupportedRequest, UsageError
from micromegas_jupyter.flightsql.commands import StatementQuery, parse_ticket
from tests.fakes.clock import FakeClock
from tests.fakes.flight_server import SMALL_TABLE, fail_plainly, fail_with, results, rows
from tests.fakes.waiting import wait_until
from tests.integration.client.conftest import FixedToken, RenewingToken

pytestmark = pytest.mark.integration

_RANGE = (datetime(2026, 1, 1, tzinfo=UTC), "2026-01-02T00:00:00Z")


def _accept_only(token):
    def answer(call):
        if call.metadata.get("authorization") != f"Bearer {token}":
            yield from fail_with(Rejected())(call)
        yield from rows(SMALL_TABLE)

    return answer


def test_a_query_is_one_call_with_upstreams_metadata(fake_server):
    client = FlightSQLClient(
        fake_server.uri,
        preserve_dictionary=True,
        auth_provider=FixedToken("abc"),
        client_entrypoint="cli-query",
        environ={"CLAUDE_CODE_SESSION_ID": "s-1"},
    )

    frame = client.query("SELECT 1;\n", *_RANGE)

    (call,) = fake_server.calls
    del call.metadata["user-agent"]
    assert frame["n"].tolist() == [1, 2, 3]
    assert call.method == "DoGet"
    assert parse_ticket(call.messages[0].ticket) == StatementQuery(sql="SELECT 1;\n")
    assert call.metadata == {
        "authorization": "Bearer abc",
        "query_range_begin": "2026-01-01T00:00:00+00:00",
        "query_range_end": "2026-01-02T00:00:00+00:00",
        "preserve_dictionary": "true",
        "x-client-type": "python",
        "x-client-agent": "none",
        "x-client-entrypoint": "cli-query",
        "x-client-session": "s-1",
    }


def test_a_range_without_an_end_ends_now(fake_server):
    client = FlightSQLClient(fake_server.uri, clock=FakeClock())

    client.query("SELECT 1", begin="2026-01-01T00:00:00Z")

    assert fake_server.calls[0].metadata["query_range_end"] == "2026-11-24T12:00:00+00:00"


def test_rows_come_as_frame_table_and_batches(client):
    frame = client.query("SELECT 1")
    table = client.query_arrow("SELECT 1")
    batches = list(client.query_stream("SELECT 1"))

    assert frame["n"].tolist() == [1, 2, 3]
    assert table == SMALL_TABLE
    assert pa.Table.from_batches(batches) == SMALL_TABLE


def test_a_reader_tells_the_servers_query_id_and_asks_for_few_rows(fake_server):
    def answer(call):
        call.context.send_initial_metadata((("x-micromegas-query-id", "q-7"),))
        yield from rows(SMALL_TABLE)

    fake_server.answers["DoGet"] = answer
    clock = FakeClock()

    with FlightSQLClient(fake_server.uri, clock=clock) as client, client.open_query("SELECT 1", limit=10) as reader:
        early = reader.query_id
        clock.advance(2)
        batches = list(reader)
        clock.advance(60)

    assert early == "q-7"
    assert (reader.schema, reader.rows, reader.elapsed_seconds) == (SMALL_TABLE.schema, 3, 2)
    assert reader.bytes_received == sum(map(pa.ipc.get_record_batch_size, batches))
    assert fake_server.calls[0].metadata["limit"] == "10"


def test_a_reader_that_nobody_keeps_is_stopped(client, fake_server):
    fake_server.answers["DoGet"] = fake_server.stall_after(*rows(SMALL_TABLE))

    next(client.open_query("SELECT 1"))
    gc.collect()

    assert fake_server.calls[0].ended.wait(30)


def test_static_headers_are_sent_and_deprecated(fake_server):
    with pytest.warns(DeprecationWarning, match="auth_provider"):
        client = FlightSQLClient(fake_server.uri, {"Authorization": "Bearer key-1"})

    client.query("SELECT 1")

    assert fake_server.calls[0].metadata["authorization"] == "Bearer key-1"


def test_a_provider_that_fails_lets_no_call_go_out(fake_server):
    class Failing:
        def get_token(self):
            raise RuntimeError("no tokens")

    client = FlightSQLClient(fake_server.uri, auth_provider=Failing())

    for call in (lambda: client.query("SELECT 1"), client.whoami, lambda: client.bulk_ingest("t", SMALL_TABLE)):
        with pytest.raises(LoginRequired):
            call()
    assert fake_server.calls == []


def test_a_refused_token_is_renewed_once_for_queries(fake_server):
    provider = RenewingToken()
    fake_server.answers["DoGet"] = _accept_only("t1")

    frame = FlightSQLClient(fake_server.uri, auth_provider=provider).query("SELECT 1")

    assert frame["n"].tolist() == [1, 2, 3]
    assert provider.invalidated == ["t0"]
    assert [call.metadata["authorization"] for call in fake_server.calls] == ["Bearer t0", "Bearer t1"]


def test_a_token_that_stays_refused_is_the_answer(fake_server):
    fake_server.answers["DoGet"] = _accept_only("another")

    with pytest.raises(Rejected):
        FlightSQLClient(fake_server.uri, auth_provider=RenewingToken()).query("SELECT 1")
    assert len(fake_server.calls) == 2


def test_the_server_says_who_the_caller_is(client, fake_server):
    answer = {"subject": "alice", "issuer": "https://id.example", "auth_type": "oidc", "is_admin": True}
    fake_server.answers["DoAction:MicromegasWhoAmI"] = results(json.dumps(answer).encode())

    identity = client.whoami()

    assert (identity.subject, identity.is_admin, identity.expires_at) == ("alice", True, None)
    for code in ("UNIMPLEMENTED", "INVALID_ARGUMENT"):
        fake_server.answers["DoAction:MicromegasWhoAmI"] = fail_plainly(code)
        with pytest.raises(UnsupportedRequest):
            client.whoami()


@pytest.mark.parametrize(
    "options",
    [
        {"headers": {"authorization": "Bearer a"}, "auth_provider": FixedToken("b")}, {"auth_provider": "token"},
        {"timeout_seconds": 0}, {"timeout_seconds": float("nan")}, {"timeout_seconds": "5"}, {"timeout_seconds": True},
        {"client_entrypoint": "a\nb"},
    ],
)  # fmt: skip
def test_arguments_that_cannot_be_used_are_refused(options):
    with pytest.raises(UsageError):
        FlightSQLClient("grpc://localhost:1", **options)


def test_a_token_is_not_given_to_a_plain_text_connection(fake_server):
    with pytest.raises(UsageError):
        FlightSQLClient("grpc://lake.example.com:50051", auth_provider=FixedToken("abc"))
    FlightSQLClient("grpc://lake.example.com:50051", auth_provider=FixedToken("abc"), allow_plaintext=True).close()


@pytest.mark.parametrize("sql", ["  \n", None, "SELECT '\ud800'"])
def test_what_is_no_statement_is_not_sent(client, fake_server, sql):
    with pytest.raises(UsageError):
        client.query(sql)
    assert fake_server.calls == []


def test_a_closed_client_makes_no_calls(client, fake_server):
    client.close()
    client.close()

    for call in (
        lambda: client.query("SELECT 1"),
        lambda: next(client.query_stream("SELECT 1")),
        client.whoami,
        lambda: client.bulk_ingest("t", SMALL_TABLE),
    ):
        with pytest.raises(UsageError, match="closed"):
            call()
    assert fake_server.calls == []


def test_closing_a_client_stops_its_readers(fake_server):
    fake_server.answers["DoGet"] = fake_server.stall_after(next(rows(SMALL_TABLE)))
    with FlightSQLClient(fake_server.uri) as client:
        reader = client.open_query("SELECT 1")

    assert fake_server.calls[0].ended.wait(30)
    with pytest.raises(UsageError):
        next(reader)


@pytest.fixture
def gated(fake_server):
    """A server that sends one batch, and two more once the returned event is set."""
    may_go_on = threading.Event()

    def answer(call):
        schema, batch, *_ = rows(SMALL_TABLE)
        yield from (schema, batch)
        while not (call.ended.wait(0.02) or may_go_on.is_set()):
            pass
        yield from (batch, batch)

    fake_server.answers["DoGet"] = answer
    return may_go_on


def _is_connected(server):
    found = psutil.Process().net_connections("tcp")
    return any(one.raddr and one.raddr.port == server.port and one.status == "ESTABLISHED" for one in found)


def test_a_client_that_keeps_its_readers_closes_after_the_last(fake_server, gated):
    client = FlightSQLClient(fake_server.uri)
    readers = [client.open_query("SELECT 1") for _ in range(4)]
    first = [next(reader).num_rows for reader in readers]

    client.close(keeps_readers=True)
    with pytest.raises(UsageError, match="closed"):
        client.query("SELECT 1")
    readers.pop().close()
    readers.pop()  # collected
    gc.collect()
    assert fake_server.calls[2].ended.wait(60)
    assert fake_server.calls[3].ended.wait(60)
    was_in_use, was_connected = client.is_in_use, _is_connected(fake_server)
    gated.set()
    rest = [sum(batch.num_rows for batch in reader) for reader in readers]

    assert (first, rest) == ([3] * 4, [6] * 2)
    assert (was_in_use, was_connected) == (True, True)
    wait_until(lambda: not client.is_in_use, "the last reader has ended")
    wait_until(lambda: not _is_connected(fake_server), "the connection is closed")


def test_a_query_begins_if_its_client_is_retired_while_a_token_is_fetched(fake_server):
    class SlowToken(RenewingToken):
        def get_token(self):
            client.close(keeps_readers=True)
            return super().get_token()

    fake_server.answers["DoGet"] = lambda _call: rows(SMALL_TABLE)
    client = FlightSQLClient(fake_server.uri, auth_provider=SlowToken())

    assert client.query("SELECT 1")["n"].tolist() == [1, 2, 3]
    wait_until(lambda: not client.is_in_use and not _is_connected(fake_server), "the connection is closed")


def test_closing_a_client_later_stops_the_readers_that_it_kept(fake_server, gated):
    client = FlightSQLClient(fake_server.uri)
    reader = client.open_query("SELECT 1")
    client.close(keeps_readers=True)

    client.close()

    assert fake_server.calls[0].ended.wait(60)
    with pytest.raises(UsageError):
        next(reader)


def test_a_kept_reader_neither_renews_its_credential_nor_starts_again(fake_server):
    may_fail, provider = threading.Event(), RenewingToken()

    def answer(call):
        yield next(rows(SMALL_TABLE))
        assert may_fail.wait(60)
        yield from fail_with(Rejected())(call)

    fake_server.answers["DoGet"] = answer
    client = FlightSQLClient(fake_server.uri, auth_provider=provider)
    reader = client.open_query("SELECT 1")

    client.close(keeps_readers=True)
    may_fail.set()

    with pytest.raises(Rejected):
        next(reader)
    assert (provider.invalidated, len(fake_server.calls)) == ([], 1)


def test_closing_leaves_a_call_that_is_being_started_its_connection(client, fake_server, monkeypatch):
    # The Flight library crashes when a connection is closed while a call starts: a kernel died of it.
    fake_server.answers["DoGet"] = lambda _call: rows(SMALL_TABLE)
    build_options = transport._options

    def close_first(call):
        client._transport.uses.close()
        return build_options(call)

    monkeypatch.setattr(transport, "_options", close_first)

    assert client.query("SELECT 1")["n"].tolist() == [1, 2, 3]
    with pytest.raises(UsageError, match="closed"):
        client.query("SELECT 1")
