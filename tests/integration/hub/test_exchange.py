"""A service that exchanges tokens: kernels get tokens for a server that takes no others, or are told why not."""

import pytest
import requests

from micromegas_jupyter.access import Rejected
from micromegas_jupyter.auth import StaticTokenAuthProvider
from micromegas_jupyter.client.flight_client import FlightSQLClient
from tests.fakes.raw_client import claims_of
from tests.integration.hub.conftest import running_server
from tests.integration.hub.test_tokens import post_token

# The first test of the folder starts the Hub.
pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

FETCHES = 5


@pytest.fixture(scope="module")
def lake_uri(signed_in, tmp_path_factory):
    """A Flight SQL server that accepts tokens for its own audience only."""
    provider = signed_in.provider
    with running_server(tmp_path_factory.mktemp("lake"), provider.issuer, audience=[provider.resource]) as server:
        yield server.uri


def exchanged(hub, login):
    headers = {"Authorization": f"Bearer {hub.server_token(login)}"}
    return requests.post(f"{hub.exchanging_url}token", json={}, headers=headers, timeout=60)


def asked_with_exchange(hub, login, uri):
    """Ask the server in a new kernel of the person, and return the cell and what it answered."""
    with hub.kernel(login) as kernel:
        kernel.run(f"%env KERNEL_MICROMEGAS_HUB={hub.exchanging_url}")
        kernel.run(f"%env MICROMEGAS_ANALYTICS_URI={uri}")
        kernel.run("%load_ext micromegas_jupyter")
        cell = kernel.run("%%sql rows <<\nSELECT current_user AS who")
        return cell, kernel.run("print(rows['who'][0], end='')").printed


def test_a_kernels_query_runs_at_a_server_that_takes_exchanged_tokens_only(signed_in, lake_uri):
    plain = post_token(signed_in, signed_in.server_token("alice")).json()["access_token"]
    with (
        FlightSQLClient(lake_uri, auth_provider=StaticTokenAuthProvider(plain)) as client,
        pytest.raises(Rejected),
    ):
        client.query_arrow("SELECT 1")

    cell, who = asked_with_exchange(signed_in, "alice", lake_uri)

    assert (cell.reply["status"], who) == ("ok", "alice"), cell


def test_the_exchanged_token_is_the_persons_for_the_servers_audience_and_one_exchange_serves_many_calls(
    signed_in,
):
    provider = signed_in.provider
    before = provider.counts()["exchanges"]

    given = [exchanged(signed_in, "alice").json() for _each in range(FETCHES)]

    claims = [claims_of(answer["access_token"]) for answer in given]
    assert {(each["sub"], each["aud"], each["client_id"]) for each in claims} == {
        ("alice", provider.resource, provider.hub_client_id)
    }
    assert [answer["expires_at"] for answer in given] == [each["exp"] for each in claims]
    assert provider.counts()["exchanges"] - before <= len({answer["expires_at"] for answer in given})


def test_a_refused_exchange_is_told_in_the_cell_and_why_in_the_hubs_log(signed_in, lake_uri):
    cell, _nothing = asked_with_exchange(signed_in, "bob", lake_uri)

    said = "".join(cell.reply["traceback"])
    assert cell.reply["ename"] == "LoginRequired"
    assert "does not let JupyterHub exchange your token for one that the server accepts" in said
    assert "Ask the Hub's administrator to enable token exchange for the Hub's application" in said
    assert exchanged(signed_in, "bob").json()["error"] == "exchange_refused"
    name = signed_in.people["bob"].name
    assert (
        f"The token of {name} could not be exchanged: The identity provider didn't return a token (invalid_target"
        in (signed_in.log)
    )
