"""Tests of `settings.client`."""

from __future__ import annotations

import json
from pathlib import PurePath

import pytest

from micromegas_jupyter.contracts import Secret
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.settings import ClientSettings, parse_client_settings

FLAT = {
    "uri": "grpc+tls://lake.example.com:50051",
    "client_id": "notebooks",
    "issuers": [{"issuer": "https://id.example.com", "audience": "lake"}, {"issuer": "https://second.example"}],
}
PROFILES = {"default_profile": "production", "profiles": {"production": FLAT, "robot": {"api_key_file": "~/key"}}}


def parse(config: object = None, profile: str | None = None, **environ: str) -> ClientSettings:
    text = None if config is None else json.dumps(config)
    return parse_client_settings(environ, config_text=text, profile=profile)


def test_with_nothing_set_it_is_the_local_server_without_sign_in():
    assert parse() == ClientSettings(uri="grpc://localhost:50051", issuer=None, client_id=None, profile=None)


def test_the_environment_alone_is_enough():
    settings = parse(
        MICROMEGAS_ANALYTICS_URI="grpc+tls://lake.example.com:50051",
        MICROMEGAS_OIDC_ISSUER="https://id.example.com",
        MICROMEGAS_OIDC_CLIENT_ID="notebooks",
        MICROMEGAS_OIDC_CLIENT_SECRET="hunter2",
        MICROMEGAS_OIDC_AUDIENCE="lake",
        MICROMEGAS_OIDC_SCOPE="openid",
    )

    assert settings == ClientSettings(
        uri="grpc+tls://lake.example.com:50051",
        issuer="https://id.example.com",
        client_id="notebooks",
        client_secret=Secret("hunter2"),
        audience="lake",
        scope="openid",
    )
    assert "hunter2" not in repr(settings)


def test_the_flat_file_alone_is_enough_and_its_first_issuer_counts():
    assert parse(FLAT) == ClientSettings(
        uri="grpc+tls://lake.example.com:50051",
        issuer="https://id.example.com",
        client_id="notebooks",
        audience="lake",
        scope="openid email profile offline_access",
        profile=None,
    )


def test_a_variable_wins_over_the_file_and_an_empty_one_does_not():
    settings = parse(FLAT, MICROMEGAS_OIDC_CLIENT_ID="mine", MICROMEGAS_ANALYTICS_URI="")

    assert (settings.client_id, settings.uri) == ("mine", "grpc+tls://lake.example.com:50051")


def test_the_default_profile_is_used():
    settings = parse(PROFILES)

    assert (settings.profile, settings.client_id) == ("production", "notebooks")


def test_the_variable_chooses_a_profile_and_the_argument_wins_over_it():
    assert parse(PROFILES, MICROMEGAS_PROFILE="robot").api_key_file == PurePath("~/key")
    assert parse(PROFILES, profile="production", MICROMEGAS_PROFILE="robot").client_id == "notebooks"


def test_each_profile_has_its_token_file():
    assert parse(FLAT).token_file_name == "tokens.json"
    assert parse(PROFILES).token_file_name == "tokens-production.json"


def test_a_default_profile_beside_a_flat_file_is_ignored():
    assert parse({**FLAT, "default_profile": "x"}).profile is None


@pytest.mark.parametrize(
    ("config", "profile", "environ", "key"),
    [
        ([], None, {}, "config.json"),
        ({"uri": 5}, None, {}, "config.json: uri"),
        ({"uri": "a\nb"}, None, {}, "config.json: uri"),
        ({"client_id": ""}, None, {}, "config.json: client_id"),
        ({"issuers": {}}, None, {}, "config.json: issuers"),
        ({"issuers": []}, None, {}, "issuers"),
        ({"issuers": ["https://id.example.com"]}, None, {}, "config.json: issuers[0]"),
        ({"issuers": [{"issuer": "http://id.example.com"}]}, None, {}, "config.json: issuers[0].issuer"),
        ({"profiles": []}, None, {}, "config.json: profiles"),
        ({"profiles": {"a": {}}}, None, {}, "default_profile"),
        ({"profiles": {}}, None, {}, "default_profile"),
        ({"profiles": {"a": {}}, "default_profile": 5}, None, {}, "config.json: default_profile"),
        ({"profiles": {"a": {}}, "default_profile": "b"}, None, {}, "profiles"),
        ({"profiles": {"a/b": {}}, "default_profile": "a/b"}, None, {}, "profiles"),
        ({"profiles": {"a": []}, "default_profile": "a"}, None, {}, "config.json: profiles.a"),
        (PROFILES, "other", {}, "profiles"),
        (PROFILES, "../robot", {}, "profile"),
        (PROFILES, "..", {}, "profile"),
        (PROFILES, "x" * 65, {}, "profile"),
        (FLAT, "production", {}, "profiles"),
        (None, "production", {}, "profiles"),
        (None, None, {"MICROMEGAS_PROFILE": "production"}, "profiles"),
        (None, None, {"MICROMEGAS_OIDC_ISSUER": "id.example.com"}, "MICROMEGAS_OIDC_ISSUER"),
        (None, None, {"MICROMEGAS_OIDC_CLIENT_ID": "a\tb"}, "MICROMEGAS_OIDC_CLIENT_ID"),
        ({**FLAT, "api_key_file": "key"}, None, {}, "api_key_file"),
    ],
)
def test_what_is_malformed_is_refused_by_its_name(config, profile, environ, key):
    with pytest.raises(ConfigurationError) as caught:
        parse(config, profile, **environ)

    assert caught.value.key == key


def test_a_file_that_is_not_json_is_refused():
    with pytest.raises(ConfigurationError, match=r"config\.json is not valid JSON"):
        parse_client_settings({}, config_text="{")


def test_the_error_lists_the_profiles_that_can_be_chosen():
    with pytest.raises(ConfigurationError, match=r"it has: production, robot\."):
        parse(PROFILES, "other")
