"""Whether the settings name a provider."""

import pytest

from micromegas_jupyter.config.client import ClientSettings
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.wiring.environment import provider_of, sign_in_configured


def test_both_names_make_a_provider():
    settings = ClientSettings(issuer="https://id.example", client_id="app")

    assert sign_in_configured(settings)
    assert provider_of(settings) == ("https://id.example", "app")


def test_neither_name_means_no_sign_in():
    assert not sign_in_configured(ClientSettings())


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


def test_where_there_is_no_provider_to_name_it_is_said():
    with pytest.raises(ConfigurationError, match="No identity provider"):
        provider_of(ClientSettings())
