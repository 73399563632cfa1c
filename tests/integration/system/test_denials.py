"""An administrator denies a query, on a whole server: no way to ask for it is left, and the denial can be found."""

import uuid

import pyarrow as pa
import pytest
from adbc_driver_flightsql import dbapi
from pyarrow import flight

from micromegas_jupyter import FlightSQLClient
from micromegas_jupyter.cli.main import run
from micromegas_jupyter.config.server import ServerSettings
from micromegas_jupyter.engine.scanner import sql_hash
from micromegas_jupyter.errors import QueryCancelled, QueryDenied
from micromegas_jupyter.flightsql.commands import messages, pack_any
from micromegas_jupyter.wiring.server import ServerStack
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with ServerStack(
        ServerSettings(
            no_http=True,
            lake=tmp_path_factory.mktemp("lake"),
            port=0,
            disable_auth=True,
            telemetry_interval_seconds=0.2,
        )
    ) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with FlightSQLClient(server.uri) as connected:
        yield connected


@pytest.fixture
def denied(client):
    """A statement of this test's own and the id of the rule that denies it."""
    sql = f"SELECT 1 AS marker_{uuid.uuid4().hex}"
    made = client.query(f"SELECT msg FROM deny_queries('sql_hash = ''{sql_hash(sql)}''', 'a test')")
    rule_id = str(made["msg"][0])
    yield sql, rule_id
    client.query(f"SELECT remove_query_denial('{rule_id}')")


def test_a_denied_query_is_refused_until_the_denial_is_lifted(client, denied):
    sql, rule_id = denied

    with pytest.raises(QueryDenied) as refused:
        client.query(sql.replace(" 1 ", " /* one */ 2\n"))
    others = client.query("SELECT 1 AS n")
    hit = f"SELECT last_hit_at FROM list_query_denials() WHERE rule_id = '{rule_id}' AND last_hit_at IS NOT NULL"
    wait_until(lambda: len(client.query(hit)) == 1, "the last hit is written")  # which is done every few seconds
    lifted = client.query(f"SELECT remove_query_denial('{rule_id}') AS result")

    assert rule_id in refused.value.what
    assert "denied" in refused.value.what
    assert refused.value.query_id
    assert len(others) == 1
    assert lifted["result"][0].startswith("SUCCESS")
    assert len(client.query(sql)) == 1


def test_no_way_to_ask_is_left(server, client):
    sql = f"SELECT 1 AS marker_{uuid.uuid4().hex}"
    descriptor = flight.FlightDescriptor.for_command(pack_any(messages.CommandStatementQuery(query=sql)))
    with flight.connect(server.uri) as raw, dbapi.connect(server.uri, autocommit=True) as adbc, adbc.cursor() as cursor:
        ticket = raw.get_flight_info(descriptor).endpoints[0].ticket
        cursor.adbc_prepare(sql)
        made = client.query(f"SELECT msg FROM deny_queries('sql LIKE ''%{sql[-20:]}''', 'a test')")

        for ask in (
            lambda: raw.do_get(ticket).read_all(),
            lambda: raw.get_flight_info(descriptor),
            lambda: raw.get_schema(descriptor),
        ):
            with pytest.raises(pa.ArrowInvalid, match="denied by rule"):
                ask()
        with pytest.raises(dbapi.Error, match="denied by rule"):
            cursor.execute(sql)

        client.query(f"SELECT remove_query_denial('{made['msg'][0]}')")


def test_a_denial_is_in_audit_log_and_measures(client, denied):
    sql, rule_id = denied
    with pytest.raises(QueryDenied):
        client.query(sql)

    def find():
        warned = f"SELECT msg FROM log_entries WHERE level <= 3 AND msg LIKE 'query denied%{rule_id}%'"
        audited = (
            "SELECT msg FROM log_entries WHERE target = 'flightsql_query_audit' "
            f'AND msg LIKE \'%"error_class":"denied"%{sql_hash(sql)}%\''
        )
        measured = "SELECT properties FROM measures WHERE name = 'query_denied'"
        rows = client.query(measured)["properties"]
        return [len(client.query(warned)), len(client.query(audited)), sum(rule_id in one for one in rows)]

    wait_until(lambda: 0 not in find(), "audit, log and measures tell of it")
    assert find() == [1, 1, 1]


def test_a_denial_ends_what_runs_and_an_administrator_ends_it_by_its_id(server, client, capsys):
    marker = uuid.uuid4().hex
    endless = f"SELECT value, '{marker}' AS marker FROM generate_series(1, 500000000000)"
    with FlightSQLClient(server.uri) as other, other.open_query(endless) as reader:
        next(reader)
        (running,) = [one for one in client.running_queries() if one.query_id == reader.query_id]
        made = client.query(f"SELECT msg FROM deny_queries('sql LIKE ''%{marker}%''', 'a test')")
        with pytest.raises(QueryDenied):
            list(reader)
    client.query(f"SELECT remove_query_denial('{made['msg'][0]}')")
    with FlightSQLClient(server.uri) as other, other.open_query(endless) as reader:
        next(reader)
        listed = run(["queries", "--uri", server.uri])
        shown = capsys.readouterr().out
        cancelled = run(["cancel", reader.query_id, "--uri", server.uri])
        with pytest.raises(QueryCancelled):
            list(reader)
    gone = run(["cancel", reader.query_id, "--uri", server.uri])

    assert running.sql == endless
    assert (listed, cancelled, gone) == (0, 0, 1)
    assert reader.query_id in shown
