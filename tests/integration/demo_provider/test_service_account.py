"""Client credentials at the demo provider."""

from __future__ import annotations

import logging

import pytest
import requests

from micromegas_jupyter.core.secrets import Secret
from micromegas_jupyter.demo.provider import DemoProvider
from tests.fakes.raw_client import RawClient, claims_of, header_of

pytestmark = pytest.mark.integration

FIELDS = {"grant_type": "client_credentials"}


def _service(provider: DemoProvider) -> tuple[str, str]:
    return provider.service_client_id, provider.service_secret.reveal()


def test_basic_gives_an_access_token_for_the_lake(client: RawClient, provider: DemoProvider) -> None:
    response = client.post("token_endpoint", FIELDS, basic=_service(provider))

    token = response.json()["access_token"]
    assert set(response.json()) == {"access_token", "token_type", "expires_in"}
    assert header_of(token)["typ"] == "at+jwt"
    assert claims_of(token)["aud"] == "micromegas-demo-lake"
    assert claims_of(token)["sub"] == "micromegas-demo-service"
    assert claims_of(token)["client_id"] == "micromegas-demo-service"
    assert claims_of(token)["exp"] == 1795522200


def test_post_gives_one_as_well(client: RawClient, provider: DemoProvider) -> None:
    name, secret = _service(provider)

    response = client.post("token_endpoint", FIELDS | {"client_id": name, "client_secret": secret})

    assert claims_of(response.json()["access_token"])["sub"] == "micromegas-demo-service"


@pytest.mark.parametrize("parameter", ["resource", "audience"])
def test_an_audience_may_be_named(client: RawClient, provider: DemoProvider, parameter: str) -> None:
    lake = "micromegas-demo-lake"
    known = client.post("token_endpoint", FIELDS | {parameter: lake}, basic=_service(provider))
    unknown = client.post("token_endpoint", FIELDS | {parameter: "somewhere"}, basic=_service(provider))

    assert claims_of(known.json()["access_token"])["aud"] == lake
    assert (unknown.status_code, unknown.json()["error"]) == (400, "invalid_target")


def test_a_wrong_secret_is_refused_both_ways(client: RawClient, provider: DemoProvider) -> None:
    name = provider.service_client_id

    by_basic = client.post("token_endpoint", FIELDS, basic=(name, "wrong"))
    by_post = client.post("token_endpoint", FIELDS | {"client_id": name, "client_secret": "wröng"})

    assert (by_basic.status_code, by_basic.json()["error"]) == (401, "invalid_client")
    assert by_basic.headers["WWW-Authenticate"].startswith("Basic")
    assert (by_post.status_code, by_post.json()["error"]) == (401, "invalid_client")


@pytest.mark.parametrize("is_basic", [True, False])
def test_a_refusal_is_logged_with_the_name_and_the_error_but_no_secret(
    client: RawClient, caplog: pytest.LogCaptureFixture, is_basic: bool
) -> None:
    in_form = {"client_id": "nightly", "client_secret": "sesame"}

    with caplog.at_level(logging.INFO, "micromegas_jupyter.demo.provider"):
        client.post("token_endpoint", FIELDS, basic=("nightly", "sesame")) if is_basic else client.post(
            "token_endpoint", FIELDS | in_form
        )

    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    facts = {name: getattr(record, name) for name in ("endpoint", "client_id", "error")}
    assert record.getMessage() == "request refused"
    assert facts == {"endpoint": "token", "client_id": "nightly", "error": "invalid_client"}
    assert "sesame" not in str([vars(record) for record in caplog.records])


def test_no_secret_or_the_public_client_is_refused(client: RawClient, provider: DemoProvider) -> None:
    without = client.post("token_endpoint", FIELDS | {"client_id": provider.service_client_id})
    public = client.post("token_endpoint", FIELDS | {"client_id": provider.client_id})

    assert without.json()["error"] == "invalid_client"
    assert public.json()["error"] == "unauthorized_client"


@pytest.mark.parametrize("header", ["Basic", "Basic !!!", "Basic /w==", "Basic eA==", "Bearer eA=="])
def test_an_unreadable_authorization_header_is_refused(client: RawClient, header: str) -> None:
    response = requests.post(
        client.metadata["token_endpoint"], data=FIELDS, headers={"Authorization": header}, timeout=10
    )

    assert (response.status_code, response.json()["error"]) == (401, "invalid_client")


def test_a_secret_with_special_characters_works_when_it_is_form_encoded() -> None:
    secret = "a secret: 100% & +ü"
    provider = DemoProvider()
    provider.service_secret = Secret(secret)

    with provider:
        client = RawClient(provider.issuer, provider.client_id)
        response = client.post("token_endpoint", FIELDS, basic=(provider.service_client_id, secret))

    assert response.status_code == 200


def test_each_start_has_a_secret_of_its_own() -> None:
    first, second = DemoProvider().service_secret, DemoProvider().service_secret

    assert first != second
    assert str(first) == "Secret(***)"
