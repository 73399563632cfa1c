"""The authorization code flow of the demo provider, over real HTTP."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import requests
from joserfc import jwt
from joserfc.jwk import KeySet

from micromegas_jupyter.demo.provider.scripted_person import sign_in
from tests.fakes.raw_client import RawClient, claims_of, query_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from micromegas_jupyter.demo.provider import DemoProvider
    from tests.fakes.clock import FakeClock

    GetCode = Callable[..., str]

pytestmark = pytest.mark.integration


def _fetch(url: str) -> requests.Response:
    return requests.get(url, timeout=60, allow_redirects=False)


def _error_of(response: requests.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]


def test_alice_gets_an_id_token_made_for_this_application(
    provider: DemoProvider, client: RawClient, get_code: GetCode
) -> None:
    response = client.exchange(get_code())

    assert response.headers["Cache-Control"] == "no-store"
    token = response.json()
    keys = KeySet.import_key_set(client.get("/keys").json())
    claims = jwt.decode(token["id_token"], keys, algorithms=["RS256"]).claims
    assert token["expires_in"] == 600
    assert claims["at_hash"]
    del claims["at_hash"]
    assert claims == {
        "iss": provider.issuer,
        "sub": "demo-alice",
        "aud": "micromegas-demo",
        "iat": 1795521600,
        "exp": 1795522200,
        "auth_time": 1795521600,
        "amr": ["pwd"],
        "nonce": client.nonce,
        "name": "Alice Martin",
        "given_name": "Alice",
        "family_name": "Martin",
        "preferred_username": "alice",
        "groups": ["lake-admins", "analysts"],
        "email": "alice@example.com",
        "email_verified": True,
    }


def test_the_access_token_is_a_jwt_for_the_lake(client: RawClient, get_code: GetCode) -> None:
    token = client.exchange(get_code()).json()["access_token"]

    keys = KeySet.import_key_set(client.get("/keys").json())
    decoded = jwt.decode(token, keys, algorithms=["RS256"])
    assert decoded.header["typ"] == "at+jwt"
    assert decoded.claims["aud"] == "micromegas-demo-lake"
    assert decoded.claims["client_id"] == "micromegas-demo"
    assert decoded.claims["sub"] == "demo-alice"


@pytest.mark.parametrize("parameter", ["resource", "audience"])
def test_the_lake_may_be_named_and_nothing_else(client: RawClient, get_code: GetCode, parameter: str) -> None:
    token = client.exchange(get_code(**{parameter: "micromegas-demo-lake"})).json()["access_token"]
    refused = query_of(_fetch(client.authorization_url(**{parameter: "https://unknown.example"})).headers["Location"])

    assert claims_of(token)["aud"] == "micromegas-demo-lake"
    assert refused["error"] == "invalid_target"


@pytest.mark.parametrize("query", ["resource=micromegas-demo-lake&resource=other", "resource=", "resource=LAKE"])
def test_another_resource_besides_or_instead_is_refused(client: RawClient, query: str) -> None:
    answer = query_of(_fetch(f"{client.authorization_url()}&{query}").headers["Location"])

    assert answer["error"] == "invalid_target"


def test_the_token_request_cannot_widen_the_audience(client: RawClient, get_code: GetCode) -> None:
    response = client.exchange(get_code(), resource="other-lake")

    assert _error_of(response) == (400, "invalid_target")


def test_state_and_issuer_come_back_with_the_code(client: RawClient) -> None:
    answer = query_of(sign_in(client.authorization_url(state="a b&c=d/é"), visit_callback=False))

    assert answer["state"] == "a b&c=d/é"
    assert answer["iss"] == client.issuer


def test_a_person_who_denies_is_told_to_the_application(client: RawClient) -> None:
    answer = query_of(sign_in(client.authorization_url(), allow=False, visit_callback=False))

    assert answer["error"] == "access_denied"
    assert answer["state"] == client.state
    assert answer["iss"] == client.issuer
    assert "code" not in answer


@pytest.mark.parametrize(
    "changes",
    [
        {"code_challenge": None, "code_challenge_method": None},
        {"code_challenge": None},
        {"code_challenge_method": None},
        {"code_challenge_method": "plain"},
        {"code_challenge": "short"},
    ],
)
def test_a_request_without_a_proper_s256_challenge_is_refused_before_anybody_signs_in(
    client: RawClient, changes: dict[str, str | None]
) -> None:
    response = _fetch(client.authorization_url(**changes))

    answer = query_of(response.headers["Location"])
    assert answer["error"] == "invalid_request"
    assert answer["state"] == client.state
    assert answer["iss"] == client.issuer


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"prompt": "none login"}, "invalid_request"),
        ({"prompt": "shout"}, "invalid_request"),
        ({"max_age": "-1"}, "invalid_request"),
        ({"request": "e30"}, "request_not_supported"),
        ({"request_uri": "https://id.example/r"}, "request_uri_not_supported"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"prompt": "none"}, "login_required"),
    ],
)
def test_a_request_that_cannot_be_met_is_told_to_the_application(
    client: RawClient, changes: dict[str, str], error: str
) -> None:
    response = _fetch(client.authorization_url(**changes))

    answer = query_of(response.headers["Location"])
    assert response.status_code == 303
    assert answer["error"] == error
    assert answer["iss"] == client.issuer


@pytest.mark.parametrize(
    "changes",
    [
        {"redirect_uri": "https://evil.example/callback"},
        {"redirect_uri": "http://127.0.0.1:1/other"},
        {"redirect_uri": "http://127.0.0.1:1/callback?next=x"},
        {"redirect_uri": "http://127.0.0.1:1@evil.example/callback"},
        {"redirect_uri": 'http://127.0.0.1/callback"<\r\n'},
        {"redirect_uri": None},
        {"client_id": "unknown"},
        {"client_id": None},
        {"client_id": "micromegas-demo-service", "redirect_uri": "http://127.0.0.1:1/callback"},
        {"response_type": 'co"de\n', "redirect_uri": "https://evil.example/"},
    ],
)
def test_an_unknown_client_or_redirect_uri_gets_a_page_and_no_redirect(
    client: RawClient, changes: dict[str, str | None]
) -> None:
    response = _fetch(client.authorization_url(**changes))

    assert response.status_code == 400
    assert "Location" not in response.headers
    assert "Signing in cannot start" in response.text
    assert "evil.example" not in response.text


def test_a_parameter_given_twice_is_refused(client: RawClient) -> None:
    page = _fetch(f"{client.authorization_url()}&client_id=other")
    told = _fetch(f"{client.authorization_url()}&nonce=other")

    assert page.status_code == 400
    assert query_of(told.headers["Location"])["error"] == "invalid_request"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_any_port_of_this_machine_is_a_redirect_uri(client: RawClient, host: str) -> None:
    client.redirect_uri = f"http://{host}:50123/callback"

    answer = sign_in(client.authorization_url(), visit_callback=False)

    assert answer.startswith(f"http://{host}:50123/callback?code=")


def test_a_wrong_verifier_gets_nothing_and_uses_the_code_up(client: RawClient, get_code: GetCode) -> None:
    code = get_code()

    wrong = client.exchange(code, code_verifier="w" * 43)
    right = client.exchange(code)

    assert _error_of(wrong) == (400, "invalid_grant")
    assert _error_of(right) == (400, "invalid_grant")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code_verifier": None}, "invalid_request"),
        ({"redirect_uri": "http://127.0.0.1:40405/callback"}, "invalid_grant"),
        ({"redirect_uri": None}, "invalid_grant"),
        ({"code": None}, "invalid_request"),
        ({"code": "unknown"}, "invalid_grant"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"client_id": "micromegas-demo-service"}, "invalid_client"),
        ({"client_secret": "guess"}, "invalid_client"),
    ],
)
def test_a_token_request_that_does_not_fit_the_code_is_refused(
    client: RawClient, get_code: GetCode, changes: dict[str, str | None], error: str
) -> None:
    response = client.exchange(get_code(), **changes)

    assert response.status_code in {400, 401}
    assert response.json()["error"] == error


def test_a_second_use_of_a_code_ends_the_tokens_of_the_first(client: RawClient, get_code: GetCode) -> None:
    code = get_code()
    token = client.exchange(code).json()

    again = client.exchange(code)
    refreshed = client.refresh(token["refresh_token"])
    userinfo = client.get("/userinfo", Authorization=f"Bearer {token['access_token']}")

    assert _error_of(again) == (400, "invalid_grant")
    assert _error_of(refreshed) == (400, "invalid_grant")
    assert userinfo.status_code == 401


def test_of_many_exchanges_at_once_one_gets_tokens_and_they_end(client: RawClient, get_code: GetCode) -> None:
    code = get_code()
    barrier = threading.Barrier(4)

    def exchange(_: int) -> requests.Response:
        barrier.wait(30)
        return client.exchange(code)

    with ThreadPoolExecutor(4) as pool:
        responses = sorted(pool.map(exchange, range(4)), key=lambda response: response.status_code)

    assert [response.status_code for response in responses] == [200, 400, 400, 400]
    assert _error_of(client.refresh(responses[0].json()["refresh_token"])) == (400, "invalid_grant")


def test_another_application_does_not_get_the_code_and_does_not_use_it_up(
    client: RawClient, get_code: GetCode, provider: DemoProvider
) -> None:
    code = get_code()
    service = {"client_id": provider.service_client_id, "client_secret": provider.service_secret.reveal()}

    refused = client.exchange(code, **service)

    assert _error_of(refused) == (400, "unauthorized_client")
    assert client.exchange(code).status_code == 200


def test_a_code_that_was_used_is_noticed_for_ten_minutes(
    client: RawClient, get_code: GetCode, clock: FakeClock
) -> None:
    code = get_code()
    token = client.exchange(code).json()
    clock.advance(599)

    client.exchange(code)

    assert _error_of(client.refresh(token["refresh_token"])) == (400, "invalid_grant")


def test_a_code_is_good_for_sixty_seconds(client: RawClient, get_code: GetCode, clock: FakeClock) -> None:
    in_time, late = get_code(), get_code()

    clock.advance(59)
    first = client.exchange(in_time)
    clock.advance(1)
    second = client.exchange(late)

    assert first.status_code == 200
    assert _error_of(second) == (400, "invalid_grant")


def test_parameters_in_the_url_of_the_token_endpoint_are_refused(client: RawClient, get_code: GetCode) -> None:
    client.metadata["token_endpoint"] += "?client_id=micromegas-demo"

    response = client.exchange(get_code())

    assert _error_of(response) == (400, "invalid_request")


def test_a_token_parameter_given_twice_is_refused(client: RawClient, get_code: GetCode) -> None:
    body = f"grant_type=authorization_code&client_id={client.client_id}&code={get_code()}&code=x"

    response = requests.post(
        client.metadata["token_endpoint"],
        data=body,
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        timeout=60,
    )

    assert _error_of(response) == (400, "invalid_request")


def test_userinfo_knows_the_person_until_the_token_ends(client: RawClient, get_code: GetCode, clock: FakeClock) -> None:
    token = client.exchange(get_code(scope="openid email")).json()["access_token"]

    during = client.get("/userinfo", Authorization=f"Bearer {token}")
    clock.advance(601)
    after = client.get("/userinfo", Authorization=f"Bearer {token}")

    assert during.json() == {"sub": "demo-alice", "email": "alice@example.com", "email_verified": True}
    assert after.status_code == 401
    assert after.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'


def test_only_the_scopes_that_were_asked_for_are_granted(client: RawClient, get_code: GetCode) -> None:
    token = client.exchange(get_code(scope="openid unknown")).json()

    assert token["scope"] == "openid"
    assert "refresh_token" not in token
    assert "email" not in claims_of(token["id_token"])
