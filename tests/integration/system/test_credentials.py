"""What reaches the whole server without a good credential: a plain sentence, the right status, and no query run."""

import json
import logging

import pytest
from pyarrow import flight
from pyarrow.lib import ArrowInvalid

from micromegas_jupyter.config.server import ServerSettings
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.flightsql.commands import statement_ticket
from micromegas_jupyter.wiring.server import ServerStack
from tests.fakes.mint import ec_key, mint
from tests.fakes.scripted_provider import ScriptedProvider

pytestmark = pytest.mark.integration

AUDIENCE = "lake"
LEAK = ("Traceback", 'File "', ".py", "/tmp", "/usr", "site-packages")


@pytest.fixture(scope="module")
def provider():
    with ScriptedProvider() as running:
        yield running


@pytest.fixture(scope="module")
def server(provider, tmp_path_factory):
    config = {"issuers": [{"issuer": provider.issuer, "audience": AUDIENCE}]}
    options = ServerSettings(no_http=True, lake=tmp_path_factory.mktemp("lake"), port=0, no_telemetry=True)
    with ServerStack(options, environ={"MICROMEGAS_OIDC_CONFIG": json.dumps(config)}) as running:
        yield running


def _token(issuer, *, age_seconds=0, **changes):
    now = int(SYSTEM_CLOCK.now().timestamp()) - age_seconds
    arguments = {"audience": AUDIENCE, "key": ec_key(), "iat": now, "exp": now + 300, **changes}
    return mint(**{"issuer": issuer, **arguments})


def _query(uri, token, sql="SELECT 1 AS one"):
    headers = [] if token is None else [(b"authorization", f"Bearer {token}".encode())]
    with flight.connect(uri) as client:
        ticket = flight.Ticket(statement_ticket(sql))
        return client.do_get(ticket, flight.FlightCallOptions(headers=headers, timeout=60)).read_all()


TOKENS = {
    "none": lambda _issuer: None,
    "garbage": lambda _issuer: "not-a-token",
    "expired": lambda issuer: _token(issuer, age_seconds=172_800),
    "another audience": lambda issuer: _token(issuer, audience="other-app"),
    "another issuer": lambda _issuer: _token("https://other.example"),
    "alg none": lambda issuer: f"eyJhbGciOiJub25lIn0.{_token(issuer).split('.')[1]}.",
    "another key": lambda issuer: _token(issuer, key=ec_key("another")),
    "cut signature": lambda issuer: _token(issuer)[:-4],
}


@pytest.mark.parametrize("change", TOKENS)
def test_a_bad_token_is_refused_without_running_the_query(provider, server, change, caplog):
    caplog.set_level(logging.INFO, logger="micromegas_jupyter.audit")

    with pytest.raises(flight.FlightUnauthenticatedError) as caught:
        _query(server.uri, TOKENS[change](provider.issuer))

    assert _leaks(caught.value) == []
    # The demo's own program asks for other things meanwhile.
    lines = [record.getMessage() for record in caplog.records]
    assert not [line for line in lines if '"status"' in line and "SELECT 1 AS one" in line]


def _leaks(error):
    message = str(error).split("gRPC client debug context", maxsplit=1)[0]
    return [sign for sign in LEAK if sign in message]


def test_a_provider_that_is_down_at_first_use_is_unavailable_not_a_refusal(tmp_path):
    config = {"issuers": [{"issuer": "http://127.0.0.1:1", "audience": AUDIENCE}]}
    options = ServerSettings(no_http=True, lake=tmp_path / "lake", port=0, no_telemetry=True)
    token = _token("http://127.0.0.1:1")

    with (
        ServerStack(options, environ={"MICROMEGAS_OIDC_CONFIG": json.dumps(config)}) as running,
        pytest.raises(flight.FlightUnavailableError) as caught,
    ):
        _query(running.uri, token)

    assert "Your sign-in isn't the cause" in str(caught.value)


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO log_entries SELECT * FROM log_entries",
        "COPY (SELECT 1) TO '/tmp/copied.csv'",
        "SET datafusion.execution.batch_size = 1",
        "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '/etc'",
        "SELECT 1; SELECT 2",
        "SELECT " + "(" * 200 + "1" + ")" * 200,
        "SELECT '" + "x" * 140_000 + "'",
        "SELECT * FROM '/etc/passwd'",
        "SELECT 1/0",
    ],
    ids=lambda sql: sql[:40],
)
def test_sql_that_writes_or_is_wrong_or_too_large_is_an_invalid_argument(provider, server, sql):
    with pytest.raises(ArrowInvalid) as caught:
        _query(server.uri, _token(provider.issuer), sql)

    assert _leaks(caught.value) == []
