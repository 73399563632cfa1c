"""Starting, stopping and logging of the demo provider."""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING

import pytest
import requests

from micromegas_jupyter.demo.provider import DemoProvider
from micromegas_jupyter.demo.provider.scripted_person import sign_in
from micromegas_jupyter.errors import ConfigurationError
from tests.fakes.raw_client import RawClient, header_of, query_of

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.integration


def test_the_metadata_names_the_issuer_and_both_keys(client: RawClient, provider: DemoProvider) -> None:
    keys = client.get("/jwks").json()["keys"]

    assert client.metadata["issuer"] == provider.issuer
    assert client.metadata["code_challenge_methods_supported"] == ["S256"]
    assert client.metadata["authorization_response_iss_parameter_supported"] is True
    assert [key["alg"] for key in keys] == ["RS256", "ES256"]
    assert all(key["use"] == "sig" and key["kid"] and "d" not in key for key in keys)


def test_tokens_may_be_signed_with_the_elliptic_curve_key() -> None:
    with DemoProvider(algorithm="ES256") as provider:
        client = RawClient(provider.issuer, provider.client_id)
        answer = query_of(sign_in(client.authorization_url(), visit_callback=False))
        token = client.exchange(answer["code"]).json()

    assert header_of(token["id_token"])["alg"] == "ES256"
    assert client.metadata["id_token_signing_alg_values_supported"] == ["ES256"]


def test_it_listens_on_this_machine_only() -> None:
    with pytest.raises(ConfigurationError, match="or localhost only"):
        DemoProvider(host="0.0.0.0")


def test_a_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        provider = DemoProvider(port=taken.getsockname()[1])

        with pytest.raises(ConfigurationError, match="cannot be used"):
            provider.start()

    provider.stop()


def test_a_stopped_provider_answers_nobody() -> None:
    provider = DemoProvider()
    provider.start()
    provider.stop()
    provider.stop()

    with pytest.raises(requests.ConnectionError):
        requests.get(provider.issuer, timeout=30)


def test_nothing_secret_is_logged_at_any_level(
    caplog: pytest.LogCaptureFixture, client: RawClient, provider: DemoProvider, get_code: Callable[..., str]
) -> None:
    caplog.set_level(logging.DEBUG)

    code = get_code()
    token = client.exchange(code).json()
    renewed = client.refresh(token["refresh_token"]).json()
    service = (provider.service_client_id, provider.service_secret.reveal())
    client.post("token_endpoint", {"grant_type": "client_credentials"}, basic=service)
    device = client.post("device_authorization_endpoint", {"client_id": client.client_id, "scope": "openid"}).json()
    client.ask_for_device(device["device_code"])

    logged = caplog.text + "".join(str(vars(record)) for record in caplog.records)
    secrets = {
        code,
        client.verifier,
        client.state,
        provider.service_secret.reveal(),
        device["device_code"],
        *(text[name] for text in (token, renewed) for name in ("access_token", "id_token", "refresh_token")),
    }
    assert "request answered" in logged
    assert [secret for secret in secrets if secret in logged] == []


def test_the_environment_is_left_alone(provider: DemoProvider) -> None:
    import os

    assert provider.issuer
    assert "AUTHLIB_INSECURE_TRANSPORT" not in os.environ
