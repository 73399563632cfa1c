"""Starting, stopping and logging of the demo provider."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psutil
import pytest
import requests

from micromegas_jupyter.demo.provider import DemoProvider

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fakes.raw_client import RawClient

pytestmark = pytest.mark.integration


def test_the_metadata_names_the_issuer_and_the_key(client: RawClient, provider: DemoProvider) -> None:
    keys = client.get("/keys").json()["keys"]

    assert client.metadata["issuer"] == provider.issuer
    assert client.metadata["code_challenge_methods_supported"] == ["S256"]
    assert client.metadata["authorization_response_iss_parameter_supported"] is True
    assert [key["alg"] for key in keys] == ["RS256"]
    assert all(key["use"] == "sig" and key["kid"] and "d" not in key for key in keys)


def test_it_listens_on_this_machine_only(provider: DemoProvider) -> None:
    listening = [entry.laddr for entry in psutil.Process().net_connections("tcp") if entry.status == "LISTEN"]

    assert ("127.0.0.1", urlsplit(provider.issuer).port) in listening


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

    # urllib3's lines are those of the browser and of the client.
    records = [record for record in caplog.records if not record.name.startswith("urllib3")]
    logged = "".join(f"{record.getMessage()} {vars(record)}" for record in records)
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
