"""Tests of `settings.client_config`: what is read, and where each setting came from."""

from __future__ import annotations

import dataclasses
from pathlib import PurePath
from typing import Any

from micromegas_jupyter.config.client import (
    AssertionAudience,
    Bearer,
    ClientSettings,
    Flow,
    PrivateKeySetting,
    TokenStorage,
    WorkloadExchange,
    WorkloadPlatform,
    WorkloadSetting,
)
from micromegas_jupyter.core.protocols import Secret
from tests.unit.config.client_config_texts import FLAT, parse

PROFILES = {"default_profile": "production", "profiles": {"production": FLAT, "robot": {"api_key_file": "~/key"}}}

# Every member, with two that contradict each other left to the variables.
EVERYTHING: dict[str, Any] = {
    "uri": "grpc+tls://lake.example.com:50051",
    "client_id": "notebooks",
    "private_key_file": "~/key.pem",
    "private_key_id": "2026",
    "private_key_algorithm": "ES256",
    "private_key_audience": "issuer",
    "workload": {
        "platform": "kubernetes",
        "exchange": "token-exchange",
        "audience": "https://id.example.com",
        "token_file": "/run/token",
    },
    "flow": "device",
    "token_storage": "keyring",
    "ca_bundle": "~/ca.pem",
    "client_certificate_file": "~/client.pem",
    "client_key_file": "~/client.key",
    "proxy": "http://alice:sesame@proxy.example:3128",
    "timeout_seconds": 20,
    "issuers": [
        {
            "issuer": "https://id.example.com",
            "preset": "generic",
            "audience": "lake",
            "resource": "https://lake.example.com",
            "scope": "openid lake.read",
            "bearer": "access_token",
            "redirect_uri": "http://127.0.0.1:48080/callback",
            "authorize_params": {"prompt": "login", "acr_values": "2"},
        }
    ],
}
EVERYTHING_READ = ClientSettings(
    uri="grpc+tls://lake.example.com:50051",
    issuer="https://id.example.com",
    client_id="notebooks",
    private_key=PrivateKeySetting(
        file=PurePath("~/key.pem"), key_id="2026", algorithm="ES256", audience=AssertionAudience.ISSUER
    ),
    workload=WorkloadSetting(
        platform=WorkloadPlatform.KUBERNETES,
        exchange=WorkloadExchange.TOKEN_EXCHANGE,
        audience="https://id.example.com",
        token_file=PurePath("/run/token"),
    ),
    flow=Flow.DEVICE,
    storage=TokenStorage.KEYRING,
    ca_bundle=PurePath("~/ca.pem"),
    client_certificate_file=PurePath("~/client.pem"),
    client_key_file=PurePath("~/client.key"),
    proxy=Secret("http://alice:sesame@proxy.example:3128"),
    provider_timeout_seconds=20.0,
    preset="generic",
    audience="lake",
    resource="https://lake.example.com",
    scope="openid lake.read",
    bearer=Bearer.ACCESS_TOKEN,
    redirect_uri="http://127.0.0.1:48080/callback",
    authorize_params=(("acr_values", "2"), ("prompt", "login")),
)


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


def test_every_member_of_the_file_is_read():
    assert parse(EVERYTHING) == EVERYTHING_READ


def test_the_same_members_are_read_in_a_profile():
    settings = parse({"profiles": {"work": EVERYTHING}}, "work")

    assert dataclasses.replace(settings, profile=None) == EVERYTHING_READ


def test_every_variable_is_read():
    settings = parse(
        {"issuers": [{"authorize_params": {"prompt": "login", "acr_values": "2"}}]},
        MICROMEGAS_ANALYTICS_URI="grpc+tls://lake.example.com:50051",
        MICROMEGAS_OIDC_ISSUER="https://id.example.com",
        MICROMEGAS_OIDC_CLIENT_ID="notebooks",
        MICROMEGAS_OIDC_PRIVATE_KEY_FILE="~/key.pem",
        MICROMEGAS_OIDC_PRIVATE_KEY_ID="2026",
        MICROMEGAS_OIDC_PRIVATE_KEY_AUDIENCE="issuer",
        MICROMEGAS_OIDC_PRIVATE_KEY_ALGORITHM="ES256",
        MICROMEGAS_OIDC_WORKLOAD="kubernetes",
        MICROMEGAS_OIDC_WORKLOAD_EXCHANGE="token-exchange",
        MICROMEGAS_OIDC_WORKLOAD_AUDIENCE="https://id.example.com",
        MICROMEGAS_OIDC_WORKLOAD_TOKEN_FILE="/run/token",
        MICROMEGAS_OIDC_FLOW="device",
        MICROMEGAS_TOKEN_STORAGE="keyring",
        MICROMEGAS_CA_BUNDLE="~/ca.pem",
        MICROMEGAS_CLIENT_CERTIFICATE_FILE="~/client.pem",
        MICROMEGAS_CLIENT_KEY_FILE="~/client.key",
        MICROMEGAS_OIDC_PROXY="http://alice:sesame@proxy.example:3128",
        MICROMEGAS_OIDC_TIMEOUT_SECONDS="20",
        MICROMEGAS_OIDC_PRESET="generic",
        MICROMEGAS_OIDC_AUDIENCE="lake",
        MICROMEGAS_OIDC_RESOURCE="https://lake.example.com",
        MICROMEGAS_OIDC_SCOPE="openid lake.read",
        MICROMEGAS_OIDC_BEARER="access_token",
        MICROMEGAS_OIDC_REDIRECT_URI="http://127.0.0.1:48080/callback",
    )

    assert settings == EVERYTHING_READ


def test_files_can_be_named_in_place_of_the_secret_or_a_person():
    assert parse({"client_secret_file": "~/secret"}).client_secret_file == PurePath("~/secret")
    assert parse(MICROMEGAS_OIDC_CLIENT_SECRET_FILE="/s").client_secret_file == PurePath("/s")
    assert parse({"service_account_file": "~/g.json"}).service_account_file == PurePath("~/g.json")
    assert parse(MICROMEGAS_OIDC_SERVICE_ACCOUNT_FILE="/g").service_account_file == PurePath("/g")


def test_one_of_several_identities_at_azure_can_be_named():
    settings = parse({"workload": {"platform": "azure", "client_id": "1b"}}, MICROMEGAS_OIDC_WORKLOAD_CLIENT_ID="2c")

    assert settings.workload is not None
    assert settings.workload.managed_identity_client_id == "2c"


def test_a_member_that_nobody_knows_is_left_to_upstream():
    settings = parse({**FLAT, "colour": 5, "issuers": [{"issuer": "https://id.example.com", "colour": 5}]})

    assert settings.issuer == "https://id.example.com"


def test_a_secret_in_the_file_is_not_read():
    assert parse({**FLAT, "client_secret": "hunter2"}).client_secret is None


def test_auto_in_a_variable_wins_over_the_flow_of_the_file():
    settings = parse({**FLAT, "flow": "paste"}, MICROMEGAS_OIDC_FLOW="auto")

    assert settings.flow is None
    assert settings.origin_of("flow") == "MICROMEGAS_OIDC_FLOW"


def test_each_setting_says_where_it_came_from():
    settings = parse(
        {"default_profile": "work", "profiles": {"work": FLAT}},
        MICROMEGAS_OIDC_ISSUER="https://accounts.google.com",
        MICROMEGAS_OIDC_FLOW="paste",
    )

    assert dict(settings.origins) == {
        "profile": "config.json: default_profile",
        "uri": "config.json: profiles.work.uri",
        "client_id": "config.json: profiles.work.client_id",
        "audience": "config.json: profiles.work.issuers[0].audience",
        "issuer": "MICROMEGAS_OIDC_ISSUER",
        "flow": "MICROMEGAS_OIDC_FLOW",
        "preset": "recognised by the issuer",
        "scope": "preset google",
        "authorize_params": "preset google",
        "secret_is_native": "preset google",
    }


def test_the_parts_of_a_key_and_a_workload_say_where_they_came_from():
    settings = parse({"workload": {"platform": "google"}, "private_key_file": "k"}, MICROMEGAS_OIDC_PRIVATE_KEY_ID="1")

    assert dict(settings.origins) == {
        "workload": "config.json: workload.platform",
        "private_key": "config.json: private_key_file",
        "private_key.key_id": "MICROMEGAS_OIDC_PRIVATE_KEY_ID",
    }


def test_with_nothing_set_nothing_has_an_origin():
    assert parse().origins == ()


def test_a_preset_fills_in_what_was_not_set_and_none_turns_it_off():
    google = {"issuers": [{"issuer": "https://accounts.google.com"}]}

    assert parse(google).scope == "openid email profile"
    assert parse(google, MICROMEGAS_OIDC_SCOPE="openid").scope == "openid"
    assert parse(google, MICROMEGAS_OIDC_PRESET="none").scope == "openid email profile offline_access"
