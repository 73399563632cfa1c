"""Tests of `settings.client_config`: what is refused, and by which name."""

from __future__ import annotations

import pytest

from micromegas_jupyter.errors import ConfigurationError
from tests.unit.config.client_config_texts import FLAT, parse

SECRET = "MICROMEGAS_OIDC_CLIENT_SECRET"


@pytest.mark.parametrize(
    ("config", "profile", "environ", "key"),
    [
        ({"uri": 5}, None, {}, "config.json: uri"),
        ({"uri": "a\nb"}, None, {}, "config.json: uri"),
        ({"client_id": ""}, None, {}, "config.json: client_id"),
        ({"issuers": [{"issuer": "http://id.example.com"}]}, None, {}, "config.json: issuers[0].issuer"),
        (None, None, {"MICROMEGAS_OIDC_ISSUER": "id.example.com"}, "MICROMEGAS_OIDC_ISSUER"),
        (None, None, {"MICROMEGAS_OIDC_CLIENT_ID": "a\tb"}, "MICROMEGAS_OIDC_CLIENT_ID"),
        ({**FLAT, "api_key_file": "key"}, None, {}, "api_key_file"),
    ],
)
def test_what_is_malformed_is_refused_by_its_name(config, profile, environ, key):
    with pytest.raises(ConfigurationError) as caught:
        parse(config, profile, **environ)

    assert caught.value.key == key


@pytest.mark.parametrize(
    ("config", "environ", "places"),
    [
        ({"client_secret_file": "s"}, {SECRET: "hunter2"}, (SECRET, "config.json: client_secret_file")),
        ({"private_key_file": "k"}, {SECRET: "hunter2"}, (SECRET, "config.json: private_key_file")),
        (
            {"private_key_file": "k", "client_secret_file": "s"},
            {},
            ("config.json: client_secret_file", "config.json: private_key_file"),
        ),
        (
            {"service_account_file": "g", "workload": {"platform": "google"}},
            {},
            ("config.json: service_account_file", "config.json: workload.platform"),
        ),
        ({"api_key_file": "a"}, {SECRET: "hunter2"}, ("config.json: api_key_file", SECRET)),
        (
            {"api_key_file": "a", "client_secret_file": "s"},
            {},
            ("config.json: api_key_file", "config.json: client_secret_file"),
        ),
        (
            {"api_key_file": "a", "private_key_file": "k"},
            {},
            ("config.json: api_key_file", "config.json: private_key_file"),
        ),
        (
            {"api_key_file": "a", "service_account_file": "g"},
            {},
            ("config.json: api_key_file", "config.json: service_account_file"),
        ),
        (
            {"api_key_file": "a"},
            {"MICROMEGAS_OIDC_WORKLOAD": "google"},
            ("config.json: api_key_file", "MICROMEGAS_OIDC_WORKLOAD"),
        ),
        ({**FLAT, "api_key_file": "a"}, {}, ("config.json: api_key_file", "config.json: issuers[0].issuer")),
        (
            {"api_key_file": "a", "client_id": "app", "issuers": [{"preset": "google"}]},
            {},
            ("config.json: api_key_file", "preset google"),
        ),
        (
            {"workload": {"platform": "google", "exchange": "client-assertion"}},
            {SECRET: "hunter2"},
            ("config.json: workload.exchange", SECRET),
        ),
        (
            {"workload": {"platform": "google", "token_file": "t"}},
            {},
            ("config.json: workload.token_file", "config.json: workload.platform"),
        ),
        (
            {"workload": {"platform": "kubernetes", "client_id": "c"}},
            {"MICROMEGAS_OIDC_WORKLOAD": "github-actions"},
            ("config.json: workload.client_id", "MICROMEGAS_OIDC_WORKLOAD"),
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused_by_both_names(config, environ, places):
    with pytest.raises(ConfigurationError) as caught:
        parse(config, **environ)

    assert all(place in caught.value.what for place in places)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "environ", "key"),
    [
        ({"private_key_id": "1"}, {}, "config.json: private_key_id"),
        ({}, {"MICROMEGAS_OIDC_PRIVATE_KEY_ALGORITHM": "ES256"}, "MICROMEGAS_OIDC_PRIVATE_KEY_ALGORITHM"),
        ({"workload": {"audience": "lake"}}, {}, "config.json: workload.audience"),
        ({}, {"MICROMEGAS_OIDC_WORKLOAD_EXCHANGE": "none"}, "MICROMEGAS_OIDC_WORKLOAD_EXCHANGE"),
    ],
)
def test_more_about_something_that_is_not_set_is_refused(config, environ, key):
    with pytest.raises(ConfigurationError) as caught:
        parse(config, **environ)

    assert caught.value.key == key


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"workload": "google"}, "config.json: workload"),
        ({"workload": {"platform": "google", "colour": 1}}, "config.json: workload"),
        ({"workload": {"platform": "mainframe"}}, "config.json: workload.platform"),
        ({"flow": "redirect"}, "config.json: flow"),
        ({"issuers": [{"preset": "mine"}]}, "config.json: issuers[0].preset"),
        ({"issuers": [{"authorize_params": {"state": "1"}}]}, "config.json: issuers[0].authorize_params.state"),
    ],
)
def test_what_is_not_known_is_refused_by_its_place(config, key):
    with pytest.raises(ConfigurationError) as caught:
        parse(config)

    assert caught.value.key == key


@pytest.mark.parametrize("name", ["MICROMEGAS_CLIENT_CERTIFICATE_FILE", "MICROMEGAS_CLIENT_KEY_FILE"])
def test_a_client_certificate_and_its_key_go_together(name):
    with pytest.raises(ConfigurationError) as caught:
        parse(**{name: "client.pem"})

    assert caught.value.key == name
