"""Which provider the settings give."""

from pathlib import PurePath

import pytest

from micromegas_jupyter.assembly.client_side import begin_login, sign_in_configured, stored_provider
from micromegas_jupyter.auth import OidcClientCredentialsProvider, StaticTokenAuthProvider
from micromegas_jupyter.contracts import Secret
from micromegas_jupyter.errors import ConfigurationError, LoginRequired
from micromegas_jupyter.settings import ClientSettings, parse_client_settings

CONFIGURED = ClientSettings(issuer="https://id.example", client_id="app")


def test_no_provider_means_no_sign_in():
    assert stored_provider(ClientSettings()) is None


def test_a_configured_provider_and_nobody_signed_in_asks_for_a_sign_in():
    with pytest.raises(LoginRequired, match=r"id\.example"):
        stored_provider(CONFIGURED)


def test_a_client_secret_makes_a_service_account():
    settings = ClientSettings(issuer="https://id.example", client_id="app", client_secret=Secret("s"))

    assert isinstance(stored_provider(settings), OidcClientCredentialsProvider)


def test_an_api_key_file_is_used(tmp_path):
    (tmp_path / "key").write_text("the-key\n")

    provider = stored_provider(ClientSettings(api_key_file=PurePath(tmp_path / "key")))

    assert isinstance(provider, StaticTokenAuthProvider)
    assert provider.get_token() == "the-key"


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        (ClientSettings(issuer="https://id.example"), "MICROMEGAS_OIDC_CLIENT_ID"),
        (ClientSettings(client_id="app"), "MICROMEGAS_OIDC_ISSUER"),
    ],
)
def test_half_a_configuration_is_refused_by_name(settings, missing):
    with pytest.raises(ConfigurationError) as caught:
        sign_in_configured(settings)

    assert caught.value.key == missing


def test_a_login_without_a_provider_is_refused():
    with pytest.raises(ConfigurationError, match="No identity provider"):
        begin_login(ClientSettings())


@pytest.mark.parametrize(
    ("environ", "scope"), [({}, None), ({"MICROMEGAS_OIDC_SCOPE": "api://lake/.default"}, "api://lake/.default")]
)
def test_a_service_account_asks_for_the_scope_of_its_settings_only(environ, scope, monkeypatch):
    made = {}
    monkeypatch.setattr(
        "micromegas_jupyter.assembly.client_side.OidcClientCredentialsProvider",
        lambda *_names, **options: made.update(options),
    )
    variables = {
        "MICROMEGAS_OIDC_ISSUER": "https://id.example",
        "MICROMEGAS_OIDC_CLIENT_ID": "app",
        "MICROMEGAS_OIDC_CLIENT_SECRET": "s",
        **environ,
    }

    stored_provider(parse_client_settings(variables))

    assert made["scope"] == scope
