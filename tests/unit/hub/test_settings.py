from __future__ import annotations

import pytest

from micromegas_jupyter.config.client import Bearer
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.hub.settings import ExchangeSettings, read_service_settings

ENVIRON = {
    "JUPYTERHUB_API_URL": "http://127.0.0.1:8081/hub/api",
    "JUPYTERHUB_API_TOKEN": "token-of-the-service",
    "JUPYTERHUB_SERVICE_PREFIX": "/services/micromegas/",
    "JUPYTERHUB_SERVICE_URL": "http://127.0.0.1:8190",
    "MICROMEGAS_HUB_ISSUER": "https://id.example.com",
    "MICROMEGAS_HUB_CLIENT_ID": "hub",
}


def test_the_environment_becomes_settings() -> None:
    settings = read_service_settings(ENVIRON)

    assert (settings.host, settings.port, settings.prefix) == ("127.0.0.1", 8190, "/services/micromegas/")
    assert (settings.issuer, settings.client_id, settings.bearer) == ("https://id.example.com", "hub", Bearer.ID_TOKEN)
    assert settings.api_token == Secret("token-of-the-service")
    assert (settings.client_secret, settings.exchange, settings.redirect_client_id) == (None, None, None)
    assert "token-of-the-service" not in repr(settings)


def test_a_service_elsewhere_listens_at_all_addresses() -> None:
    settings = read_service_settings({**ENVIRON, "JUPYTERHUB_SERVICE_URL": "http://hub:8190"})

    assert (settings.host, settings.port) == ("0.0.0.0", 8190)


@pytest.mark.parametrize(
    ("environ", "redirect_uri"),
    [
        ({}, None),
        (
            {"MICROMEGAS_HUB_PUBLIC_URL": "https://hub.example.com/"},
            "https://hub.example.com/services/micromegas/callback",
        ),
        (
            {"JUPYTERHUB_PUBLIC_URL": "https://micromegas.hub.example.com/services/micromegas/"},
            "https://micromegas.hub.example.com/services/micromegas/callback",
        ),
        (
            {"MICROMEGAS_HUB_PUBLIC_URL": "https://a.example.com/", "JUPYTERHUB_PUBLIC_URL": "https://b.example.com/"},
            "https://a.example.com/services/micromegas/callback",
        ),
        ({"JUPYTERHUB_PUBLIC_URL": "no address"}, None),
    ],
)
def test_the_redirect_address_is_at_the_host_that_browsers_know(
    environ: dict[str, str], redirect_uri: str | None
) -> None:
    assert read_service_settings({**ENVIRON, **environ}).redirect_uri == redirect_uri


def test_an_exchange_is_what_any_of_its_variables_asks_for() -> None:
    settings = read_service_settings(
        {**ENVIRON, "MICROMEGAS_HUB_EXCHANGE_AUDIENCE": "lake", "MICROMEGAS_HUB_CLIENT_SECRET": "s3cret"}
    )

    assert settings.exchange == ExchangeSettings(audience="lake")
    assert settings.client_secret == Secret("s3cret")


@pytest.mark.parametrize("key", ENVIRON)
def test_what_is_missing_is_named(key: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_service_settings({name: value for name, value in ENVIRON.items() if name != key})

    assert caught.value.key == key
    assert "jupyterhub_config.py" in caught.value.remedy


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MICROMEGAS_HUB_ISSUER", "http://id.example.com"),
        ("MICROMEGAS_HUB_BEARER", "refresh_token"),
        ("JUPYTERHUB_SERVICE_URL", "https://127.0.0.1:8190"),
        ("JUPYTERHUB_SERVICE_URL", "http://127.0.0.1"),
        ("JUPYTERHUB_SERVICE_URL", "http://127.0.0.1:no"),
    ],
)
def test_what_cannot_be_read_is_named(key: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_service_settings({**ENVIRON, key: value})

    assert caught.value.key == key
