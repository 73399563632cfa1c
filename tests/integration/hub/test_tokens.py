"""Each person's server gets that person's own bearer token from the service, and nothing else."""

import http.client
from contextlib import closing
from urllib.parse import urlsplit

import pytest
import requests

from micromegas_jupyter.hub.callers import BURST_UNKNOWN
from tests.fakes.raw_client import claims_of
from tests.integration.hub.running import until

# The first test starts the Hub.
pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

MEMBERS = {"access_token", "token_type", "expires_at", "expires_in", "issuer", "user"}


def post_token(hub, token):
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return requests.post(f"{hub.service_url}token", json={}, headers=headers, timeout=60)


@pytest.mark.parametrize("login", ["alice", "bob"])
def test_each_server_gets_its_own_persons_id_token_and_its_end(signed_in, login):
    answer = post_token(signed_in, signed_in.server_token(login))

    given = answer.json()
    claims = claims_of(given["access_token"])
    assert (answer.status_code, set(given)) == (200, MEMBERS)
    assert (claims["sub"], claims["aud"]) == (login, signed_in.provider.hub_client_id)
    assert (given["token_type"], given["issuer"]) == ("Bearer", signed_in.provider.issuer)
    assert given["user"] == signed_in.people[login].name
    assert given["expires_at"] == claims["exp"]
    assert given["expires_in"] > 0


def test_a_server_is_told_where_the_service_is(signed_in):
    environ = signed_in.server_process("alice").environ()

    assert environ["KERNEL_MICROMEGAS_HUB"] == signed_in.service_url


@pytest.mark.parametrize("token", [None, "no token of this Hub"])
def test_who_has_no_token_of_the_hub_gets_nothing(signed_in, token):
    answer = post_token(signed_in, token)

    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_token")


def test_a_flood_through_the_proxy_is_turned_away_by_its_real_address_and_kernels_go_on(signed_in):
    token = signed_in.server_token("alice")
    assert post_token(signed_in, token).status_code == 200
    place = urlsplit(signed_in.service_url)
    # An address of loopback that no other test calls from.
    flood = http.client.HTTPConnection(place.netloc, timeout=60, source_address=("127.0.0.2", 0))

    def call(number):
        headers = {"Authorization": f"Bearer {number}", "X-Forwarded-For": f"192.0.2.{number}"}
        flood.request("POST", f"{place.path}token", body="{}", headers=headers)
        answer = flood.getresponse()
        answer.read()
        return answer.status

    with closing(flood):
        until(lambda: [call(number) for number in range(BURST_UNKNOWN)][-1] == 429, "calls that are turned away")

    assert post_token(signed_in, token).status_code == 200
    assert '"calls_turned_away","client_ip":"127.0.0.2"' in signed_in.log
