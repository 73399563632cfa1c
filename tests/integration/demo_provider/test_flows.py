"""The flows of the demo provider over real HTTP: code, refresh, revocation, device, service account."""

import pytest
import requests
from joserfc import jwt
from joserfc.jwk import KeySet

from micromegas_jupyter.demo.provider.scripted_person import sign_in
from tests.fakes.raw_client import claims_of, header_of, query_of

pytestmark = pytest.mark.integration

RESOURCE = "https://lake.example/mcp"


def _fetch(url):
    return requests.get(url, timeout=60, allow_redirects=False)


def _error_of(response):
    return response.status_code, response.json()["error"]


def test_alice_gets_an_id_token_made_for_this_application(provider, client, get_code):
    response = client.exchange(get_code())

    assert response.headers["Cache-Control"] == "no-store"
    token = response.json()
    keys = KeySet.import_key_set(client.get("/keys").json())
    claims = jwt.decode(token["id_token"], keys, algorithms=["RS256"]).claims
    assert token["expires_in"] == 600
    assert claims.pop("at_hash")
    assert claims == {
        "iss": provider.issuer, "sub": "demo-alice", "aud": "micromegas-demo", "nonce": client.nonce,
        "iat": 1795521600, "exp": 1795522200, "auth_time": 1795521600, "amr": ["pwd"],
        "name": "Alice Martin", "given_name": "Alice", "family_name": "Martin", "preferred_username": "alice",
        "groups": ["lake-admins", "analysts"], "email": "alice@example.com", "email_verified": True,
    }  # fmt: skip


@pytest.mark.parametrize("parameter", ["resource", "audience"])
def test_the_lake_may_be_named(client, get_code, parameter):
    token = client.exchange(get_code(**{parameter: "micromegas-demo-lake"})).json()["access_token"]

    assert claims_of(token)["aud"] == "micromegas-demo-lake"


def test_tokens_are_for_the_requested_resource_for_as_long_as_they_are_renewed(client, get_code):
    tokens = client.exchange(get_code(resource=RESOURCE), resource=RESOURCE).json()
    renewed = client.refresh(tokens["refresh_token"], resource=RESOURCE).json()
    other = client.refresh(renewed["refresh_token"], resource="https://other.example/mcp")
    same = client.refresh(renewed["refresh_token"])
    other_code = client.exchange(get_code(resource=RESOURCE), resource="micromegas-demo-lake")

    assert [claims_of(found["access_token"])["aud"] for found in (tokens, renewed, same.json())] == [RESOURCE] * 3
    assert claims_of(tokens["id_token"])["aud"] == client.client_id
    assert [found.json()["error"] for found in (other, other_code)] == ["invalid_target"] * 2


@pytest.mark.parametrize(
    "changes",
    [
        {"audience": "https://lake.example"}, {"resource": "http://lake.example/mcp"}, {"resource": "lake"},
        {"resource": "https://lake.example/mcp#a"}, {"resource": "https://user@lake.example/mcp"}, {"resource": ""},
        {"resource": "https://lake.example/ mcp"},
    ],
)  # fmt: skip
def test_a_resource_is_an_https_url_or_on_this_machine(client, changes):
    answer = query_of(_fetch(client.authorization_url(**changes)).headers["Location"])

    assert answer["error"] == "invalid_target"


NO_PROPER_CHALLENGE = [
    {"code_challenge": None, "code_challenge_method": None}, {"code_challenge": None},
    {"code_challenge_method": None}, {"code_challenge_method": "plain"}, {"code_challenge": "short"},
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        *((changes, "invalid_request") for changes in NO_PROPER_CHALLENGE),
        ({"prompt": "none login"}, "invalid_request"),
        ({"prompt": "shout"}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"prompt": "none"}, "login_required"),
    ],
)
def test_a_request_without_an_s256_challenge_or_that_cannot_be_met_is_refused_before_anybody_signs_in(
    client, changes, error
):
    response = _fetch(client.authorization_url(**changes))

    answer = query_of(response.headers["Location"])
    assert response.status_code == 303
    assert answer == answer | {"error": error, "state": client.state, "iss": client.issuer}


@pytest.mark.parametrize(
    "changes",
    [
        {"redirect_uri": "https://evil.example/callback"}, {"redirect_uri": "http://127.0.0.1:1/other"},
        {"redirect_uri": "http://127.0.0.1:1/callback?next=x"},
        {"redirect_uri": "http://127.0.0.1:1@evil.example/callback"},
        {"redirect_uri": 'http://127.0.0.1/callback"<\r\n'}, {"redirect_uri": None}, {"client_id": "unknown"},
        {"client_id": None}, {"client_id": "micromegas-demo-service", "redirect_uri": "http://127.0.0.1:1/callback"},
        {"response_type": 'co"de\n', "redirect_uri": "https://evil.example/"},
    ],
)  # fmt: skip
def test_an_unknown_client_or_redirect_uri_gets_a_page_and_no_redirect(client, changes):
    response = _fetch(client.authorization_url(**changes))

    assert response.status_code == 400
    assert "Location" not in response.headers
    assert "Signing in cannot start" in response.text
    assert "evil.example" not in response.text


def test_a_wrong_verifier_gets_nothing_and_uses_the_code_up(client, get_code):
    code = get_code()

    for changes in ({"code_verifier": "w" * 43}, {}):
        assert _error_of(client.exchange(code, **changes)) == (400, "invalid_grant")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code_verifier": None}, "invalid_request"),
        ({"redirect_uri": "http://127.0.0.1:40405/callback"}, "invalid_grant"),
        ({"redirect_uri": None}, "invalid_grant"), ({"code": None}, "invalid_request"),
        ({"code": "unknown"}, "invalid_grant"), ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"client_id": "micromegas-demo-service"}, "invalid_client"), ({"client_secret": "guess"}, "invalid_client"),
    ],
)  # fmt: skip
def test_a_token_request_that_does_not_fit_the_code_is_refused(client, get_code, changes, error):
    response = client.exchange(get_code(), **changes)

    assert _error_of(response)[1] == error


def test_a_second_use_of_a_code_ends_the_tokens_of_the_first(client, get_code):
    code = get_code()
    token = client.exchange(code).json()

    assert _error_of(client.exchange(code)) == (400, "invalid_grant")
    assert _error_of(client.refresh(token["refresh_token"])) == (400, "invalid_grant")


def test_a_code_is_good_for_sixty_seconds(client, get_code, clock):
    in_time, late = get_code(), get_code()

    clock.advance(59)
    first = client.exchange(in_time)
    clock.advance(1)
    second = client.exchange(late)

    assert first.status_code == 200
    assert _error_of(second) == (400, "invalid_grant")


def test_only_the_scopes_that_were_asked_for_are_granted(client, get_code):
    token = client.exchange(get_code(scope="openid unknown")).json()

    assert token["scope"] == "openid"
    assert "refresh_token" not in token
    assert "email" not in claims_of(token["id_token"])


@pytest.fixture
def token(client, get_code):
    return client.exchange(get_code()).json()


def test_using_a_refresh_token_twice_ends_its_whole_family(client, token):
    newest = client.refresh(token["refresh_token"]).json()["refresh_token"]

    for spent in (token["refresh_token"], newest):
        assert _error_of(client.refresh(spent)) == (400, "invalid_grant")


def test_a_revoked_refresh_token_ends_its_family_and_an_access_token_is_not_revocable(client, token):
    def revoke(text):
        return client.post("revocation_endpoint", {"client_id": client.client_id, "token": text})

    assert _error_of(revoke(token["access_token"])) == (400, "unsupported_token_type")
    assert (revoke("unknown").status_code, revoke(token["refresh_token"]).status_code) == (200, 200)
    assert _error_of(client.refresh(token["refresh_token"])) == (400, "invalid_grant")


@pytest.fixture
def device(client):
    fields = {"client_id": client.client_id, "scope": "openid email offline_access"}
    return client.post("device_authorization_endpoint", fields).json()


def _error(client, device):
    return _error_of(client.ask_for_device(device["device_code"]))[1]


def test_a_person_signs_the_device_in(client, device):
    before = _error(client, device)
    sign_in(device["verification_uri_complete"], person="bob")
    response = client.ask_for_device(device["device_code"])

    assert before == "authorization_pending"
    assert claims_of(response.json()["id_token"])["email"] == "bob@example.com"
    assert response.json()["refresh_token"]


@pytest.mark.parametrize(
    ("pauses", "answers"),
    [
        # After the second question, one second early, the interval is 10 s; after the third it is 15 s.
        ((5, 1, 5, 15), ("pending", "slow_down", "slow_down", "pending")),
        ((599, 1), ("pending", "expired_token")),
    ],
)
def test_a_device_that_asks_too_often_has_to_slow_down_for_good_and_waits_for_ten_minutes(
    client, device, clock, pauses, answers
):
    told = [_error(client, device)] if len(pauses) > 2 else []
    for seconds in pauses:
        clock.advance(seconds)
        told.append(_error(client, device))

    assert [answer.removeprefix("authorization_") for answer in told][-len(pauses) :] == list(answers)


FIELDS = {"grant_type": "client_credentials"}


def test_basic_gives_an_access_token_for_the_lake(client, provider):
    service = (provider.service_client_id, provider.service_secret.reveal())
    response = client.post("token_endpoint", FIELDS, basic=service)

    token, service = response.json()["access_token"], "micromegas-demo-service"
    claims = claims_of(token)
    assert set(response.json()) == {"access_token", "token_type", "expires_in"}
    assert (header_of(token)["typ"], claims["aud"], claims["exp"]) == ("at+jwt", "micromegas-demo-lake", 1795522200)
    assert (claims["sub"], claims["client_id"]) == (service, service)


@pytest.mark.parametrize("header", ["Basic", "Basic !!!", "Basic /w==", "Basic eA==", "Bearer eA=="])
def test_a_wrong_secret_and_an_unreadable_header_are_refused(client, provider, header):
    name = provider.service_client_id

    by_basic = client.post("token_endpoint", FIELDS, basic=(name, "wrong"))
    by_post = client.post("token_endpoint", FIELDS | {"client_id": name, "client_secret": "wröng"})
    unread = requests.post(
        client.metadata["token_endpoint"], data=FIELDS, headers={"Authorization": header}, timeout=60
    )

    assert _error_of(by_basic) == _error_of(by_post) == _error_of(unread) == (401, "invalid_client")
    assert by_basic.headers["WWW-Authenticate"].startswith("Basic")
