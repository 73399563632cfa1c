"""Configurations of a Hub, and what `configure` makes of them."""

from __future__ import annotations

from typing import Any

import pytest
from traitlets.config import Config

from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.hub import configure

ISSUER = "https://id.example.com"
SECRET = "the secret of the application"


def hub_config(**sections: dict[str, Any]) -> Config:
    config = Config()
    config.JupyterHub.authenticator_class = "generic-oauth"
    config.GenericOAuthenticator.client_id = "hub"
    config.GenericOAuthenticator.client_secret = SECRET
    for name, values in sections.items():
        config[name].update(values)
    return config


def configured(config: Config, **arguments: Any) -> dict[str, Any]:
    configure(config, issuer=ISSUER, **arguments)
    found: dict[str, Any] = next(entry for entry in config.JupyterHub.services if entry["name"] == "micromegas")
    return found


def refusal(config: Config, **arguments: Any) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        configure(config, issuer=arguments.pop("issuer", ISSUER), **arguments)
    return caught.value
