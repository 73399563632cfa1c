"""The calls to the Hub's service: what each refusal becomes, and what is no answer of the contract."""

from __future__ import annotations

import threading

import pytest

from micromegas_jupyter.auth.flows.hub import REFUSALS, HubService, find_hub
from micromegas_jupyter.core.http import MAX_HUB_BYTES, HubHttp
from micromegas_jupyter.errors import LoginRequired, MicromegasError, ProviderMisbehaved, ProviderUnavailable
from tests.fakes.hub_service import FakeHubService, HubReply


@pytest.fixture
def hub():
    with FakeHubService() as service:
        yield service


def service_of(hub):
    return HubService(find_hub(hub.environ), http=HubHttp(timeout_seconds=30))


STATUSES = {
    "invalid_token": 401,
    "not_a_user": 403,
    "not_their_server": 403,
    "dangerous_role": 403,
    "no_auth_state": 409,
    "sign_in_again": 409,
    "not_renewed": 409,
    "exchange_refused": 409,
    "no_redirect": 409,
    "slow_down": 429,
    "hub_unavailable": 503,
    "provider_unavailable": 503,
}


@pytest.mark.parametrize("code", REFUSALS)
def test_each_refusal_is_an_error_that_says_what_to_do(hub, code):
    hub.refuse(STATUSES[code], code)

    with pytest.raises(MicromegasError) as caught:
        service_of(hub).token()

    assert type(caught.value) is (ProviderUnavailable if STATUSES[code] in {429, 503} else LoginRequired)
    assert caught.value.giver == "JupyterHub"
    assert "its words" not in str(caught.value)
    assert caught.value.what.endswith(".")
    assert caught.value.remedy.endswith(".")


@pytest.mark.parametrize(
    ("code", "named"),
    [("dangerous_role", "scope admin:auth_state"), ("no_auth_state", "OAuthenticator with enable_auth_state")],
)
def test_what_the_administrator_has_to_add_is_named(hub, code, named):
    hub.refuse(STATUSES[code], code)

    with pytest.raises(LoginRequired, match="administrator") as caught:
        service_of(hub).token()

    assert named in caught.value.remedy
    assert "%micromegas_login" in caught.value.remedy


@pytest.mark.parametrize(
    ("reply", "expected", "words"),
    [
        (HubReply(status=404, body="<p>none</p>"), LoginRequired, "add the service `micromegas`"),
        (HubReply(status=404, body={"error": "invalid_request"}), ProviderMisbehaved, "incompatible versions"),
        (HubReply(status=400, body={"error": "invalid_sign_in"}), ProviderMisbehaved, "incompatible versions"),
        (HubReply(status=500, body={"error": "internal_error"}), ProviderUnavailable, r"status 500"),
        (HubReply(status=403, body="<p>no</p>"), LoginRequired, r"status 403"),
        (HubReply(status=400, body={"error": "<script>"}), LoginRequired, r"status 400"),
        (HubReply(status=503, body="<p>down</p>"), ProviderUnavailable, r"status 503"),
        (HubReply(status=502, body="{}"), ProviderUnavailable, r"status 502"),
        (HubReply(status=302, body="", location="https://evil.example/"), ProviderMisbehaved, "redirect"),
        (HubReply(status=204), ProviderMisbehaved, "cannot be used"),
        (HubReply(body="<p>hello</p>"), ProviderMisbehaved, "cannot be used"),
        (HubReply(body=["token"]), ProviderMisbehaved, "cannot be used"),
        (HubReply(body={"pad": " " * MAX_HUB_BYTES}), ProviderMisbehaved, "sent more than"),
    ],
)
def test_an_answer_that_is_none_of_the_contract_is_told_apart(hub, reply, expected, words):
    hub.reply = lambda _call: reply

    with pytest.raises(expected, match=words) as caught:
        service_of(hub).token()

    assert caught.value.giver == "JupyterHub"
    assert len(hub.calls) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"access_token": ""},
        {"access_token": None},
        {"access_token": "two words"},
        {"access_token": "né"},
        {"access_token": "x" * 65_537},
        {"expires_in": -1},
        {"expires_in": "60"},
        {"expires_in": True},
        {"expires_in": 1e9},
        {"expires_in": 10**9},
        {"issuer": ""},
        {"issuer": "a\nb"},
        {"user": 7},
    ],
    ids=str,
)
def test_a_token_answer_with_a_malformed_member_is_refused(hub, change):
    hub.reply = lambda call: HubReply(body={**hub.contract(call).body, **change})

    with pytest.raises(ProviderMisbehaved, match="cannot be used"):
        service_of(hub).token()


def test_a_service_that_is_not_there_is_unavailable(hub):
    gone = service_of(hub)
    hub.__exit__()

    with pytest.raises(ProviderUnavailable, match="could not be reached: the connection was refused") as caught:
        gone.token()

    assert "administrator" in caught.value.remedy


def test_a_service_that_hangs_costs_the_deadline_and_no_more(hub):
    over = threading.Event()
    hub.before_answer = lambda: over.wait(60)
    service = HubService(find_hub(hub.environ), http=HubHttp(timeout_seconds=0.3))

    with pytest.raises(ProviderUnavailable, match=r"within 0\.3 seconds"):
        service.token()
    over.set()


def test_a_token_that_has_just_ended_is_the_providers_absence(hub):
    hub.lifetime_seconds = 0

    with pytest.raises(ProviderUnavailable, match="cannot reach the identity provider"):
        service_of(hub).token()
