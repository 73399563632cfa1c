"""Tests of `settings.client_config`: a secret goes to its own provider and to no other."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.config.client_config import parse_client_settings
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.errors import ConfigurationError

if TYPE_CHECKING:
    from micromegas_jupyter.config.client import ClientSettings

GOOD = "https://good.example.com"
OTHER = "https://other.example.com"


def _file(**members: object) -> str:
    return json.dumps({"client_id": "app", "issuers": [{"issuer": GOOD}], **members})


def _proofs(settings: ClientSettings) -> list[object]:
    return [
        settings.client_secret,
        settings.client_secret_file,
        settings.private_key,
        settings.service_account_file,
        settings.workload,
    ]


PROOFS = [
    {"client_secret_file": "secret.txt"},
    {"private_key_file": "key.pem"},
    {"service_account_file": "account.json"},
    {"workload": {"platform": "github-actions", "audience": "api://AzureADTokenExchange"}},
]


@pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: next(iter(proof)))
def test_a_proof_of_the_file_does_not_go_to_the_provider_of_a_variable(proof):
    with pytest.raises(ConfigurationError, match="belongs to the provider of") as caught:
        parse_client_settings({"MICROMEGAS_OIDC_ISSUER": OTHER}, config_text=_file(**proof))

    assert caught.value.key == "MICROMEGAS_OIDC_ISSUER"
    assert next(iter(proof)) in str(caught.value)


@pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: next(iter(proof)))
def test_a_provider_that_an_option_names_gets_no_proof_of_the_configured_one(proof):
    settings = parse_client_settings({}, config_text=_file(**proof), options={"MICROMEGAS_OIDC_ISSUER": OTHER})

    assert settings.issuer == OTHER
    assert _proofs(settings) == [None] * 5
    assert not [name for name, _ in settings.origins if name.startswith(("client_secret", "private", "work", "serv"))]


def test_an_option_does_not_take_the_secret_of_a_variable_along():
    environ = {
        "MICROMEGAS_OIDC_ISSUER": GOOD,
        "MICROMEGAS_OIDC_CLIENT_ID": "app",
        "MICROMEGAS_OIDC_CLIENT_SECRET": "sesame",
    }

    issuer = parse_client_settings(environ, options={"MICROMEGAS_OIDC_ISSUER": OTHER})
    client = parse_client_settings(environ, options={"MICROMEGAS_OIDC_CLIENT_ID": "another"})

    assert (issuer.client_secret, client.client_secret) == (None, None)


@pytest.mark.parametrize(
    "options",
    [
        {"MICROMEGAS_OIDC_ISSUER": GOOD},
        {"MICROMEGAS_OIDC_ISSUER": GOOD, "MICROMEGAS_OIDC_CLIENT_ID": "app"},
        {"MICROMEGAS_OIDC_SCOPE": "openid"},
        {"MICROMEGAS_ANALYTICS_URI": "grpc://localhost:1"},
    ],
)
def test_an_option_that_names_the_same_application_leaves_its_secret(options):
    environ = {"MICROMEGAS_OIDC_CLIENT_SECRET": "sesame"}

    assert parse_client_settings(environ, config_text=_file(), options=options).client_secret == Secret("sesame")


def test_a_provider_that_options_name_wins_over_the_profiles_api_key():
    text = json.dumps({"uri": "grpc://localhost:1", "api_key_file": "key"})
    options = {"MICROMEGAS_OIDC_ISSUER": GOOD, "MICROMEGAS_OIDC_CLIENT_ID": "app"}

    settings = parse_client_settings({}, config_text=text, options=options)

    assert (settings.uri, settings.issuer, settings.api_key_file) == ("grpc://localhost:1", GOOD, None)
    with pytest.raises(ConfigurationError, match="Keep one of the two"):
        parse_client_settings(options, config_text=text)


def test_a_secret_for_a_provider_that_only_an_option_names_is_used():
    environ = {"MICROMEGAS_OIDC_CLIENT_SECRET": "sesame"}
    options = {"MICROMEGAS_OIDC_ISSUER": GOOD, "MICROMEGAS_OIDC_CLIENT_ID": "app"}

    assert parse_client_settings(environ, options=options).client_secret == Secret("sesame")


def test_variables_that_belong_together_win_over_the_file():
    environ = {
        "MICROMEGAS_OIDC_ISSUER": OTHER,
        "MICROMEGAS_OIDC_CLIENT_ID": "robot",
        "MICROMEGAS_OIDC_CLIENT_SECRET": "sesame",
    }

    settings = parse_client_settings(environ, config_text=_file())

    assert (settings.issuer, settings.client_secret) == (OTHER, Secret("sesame"))
