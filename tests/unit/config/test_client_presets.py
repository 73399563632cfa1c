"""Tests of `settings.client_presets`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePath

import pytest

from micromegas_jupyter.config.client import (
    CLIENT_PRESETS,
    AssertionAudience,
    Bearer,
    ClientSettings,
    PrivateKeySetting,
    apply_preset,
    recognize_preset,
)
from micromegas_jupyter.config.issuers import PRESETS

OKTA = "https://example.okta.com"
TENANT = "https://login.microsoftonline.com/0b1c0000-0000-0000-0000-000000000002/v2.0"
POOL = "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_abc"


def settings_of(issuer: str | None = None, **values: str) -> ClientSettings:
    given = ClientSettings(issuer=issuer, client_id="app", **values)  # type: ignore[arg-type]
    return replace(
        given, origins=tuple((name, "MICROMEGAS_X") for name in ({"issuer": issuer} if issuer else {}) | values)
    )


@pytest.mark.parametrize(
    ("issuer", "name"),
    [
        ("https://accounts.google.com", "google"),
        ("https://accounts.google.com/", "google"),
        (TENANT, "entra"),
        ("https://sts.windows.net/0b1c/", "entra"),
        ("https://login.microsoftonline.us/0b1c/v2.0", "entra"),
        ("https://login.partner.microsoftonline.cn/0b1c/v2.0", "entra"),
        (OKTA, "okta"),
        (f"{OKTA}/oauth2/default", "okta"),
        ("https://example.oktapreview.com/oauth2/default", "okta"),
        ("https://example.eu.auth0.com/", "auth0"),
        ("https://id.example.com/realms/lake", "keycloak"),
        ("https://id.example.com/auth/realms/lake", "keycloak"),
        ("http://localhost:8080/realms/lake", "keycloak"),
        (POOL, "cognito"),
        ("https://ID.EXAMPLE.OKTA.COM", "okta"),
    ],
)
def test_a_provider_is_recognised_by_its_issuer(issuer, name):
    assert recognize_preset(issuer) == name


@pytest.mark.parametrize(
    "issuer",
    [
        "https://id.example.com",
        "https://dex.example.com/dex",
        "https://accounts.google.com.evil.example",
        "https://evil.example/accounts.google.com",
        "http://accounts.google.com",
        "https://okta.com",
        "https://example.okta.com.evil.example/oauth2/default",
        "https://exampleokta.com",
        "https://example.auth0.com:8443/",
        "https://id.example.com/realms/",
        "https://id.example.com/realms/lake/more",
        "https://cognito-idp.eu-central-1.amazonaws.com.evil.example/pool",
        "https://accounts.google.com\n",
        "",
    ],
)
def test_what_only_resembles_a_provider_is_not_recognised(issuer):
    assert recognize_preset(issuer) is None


def test_google_gets_the_parameters_that_give_a_refresh_token_and_no_scope_that_it_does_not_know():
    settings = apply_preset(settings_of("https://accounts.google.com"), named=None)

    assert settings.scope == "openid email profile"
    assert settings.authorize_params == (("access_type", "offline"), ("prompt", "consent"))
    assert settings.secret_is_native
    assert settings.bearer is Bearer.ID_TOKEN


AUTH0 = "https://example.auth0.com/"
KEY = PrivateKeySetting(file=PurePath("key.pem"))


def test_auth0_is_sent_assertions_that_are_made_out_to_the_tenant():
    settings = apply_preset(replace(settings_of(AUTH0), private_key=KEY), named=None)

    assert settings.private_key == replace(KEY, audience=AssertionAudience.ISSUER)
    assert settings.origin_of("private_key.audience") == "preset auth0"
    assert apply_preset(settings_of(AUTH0), named=None).private_key is None


def test_an_audience_of_assertions_that_was_set_stays():
    given = replace(settings_of(AUTH0), private_key=KEY)
    given = replace(given, origins=(*given.origins, ("private_key.audience", "MICROMEGAS_X")))

    assert apply_preset(given, named=None).private_key == KEY


def test_a_preset_never_overrides_what_was_set():
    given = settings_of("https://accounts.google.com", scope="openid", bearer=Bearer.ACCESS_TOKEN)
    given = replace(given, authorize_params=(("prompt", "login"),))

    settings = apply_preset(given, named="google")

    assert (settings.scope, settings.bearer) == ("openid", Bearer.ACCESS_TOKEN)
    assert settings.authorize_params == (("access_type", "offline"), ("prompt", "login"))


def test_a_preset_that_is_named_gives_the_only_issuer_of_its_provider():
    assert apply_preset(settings_of(), named="google").issuer == "https://accounts.google.com"
    assert apply_preset(settings_of(), named="okta").issuer is None


def test_none_leaves_everything_as_it_was_set():
    given = settings_of("https://accounts.google.com")

    assert apply_preset(given, named="none") == given


@pytest.mark.parametrize(
    ("name", "issuer", "values", "bearer"),
    [
        ("google", "https://accounts.google.com", {}, Bearer.ID_TOKEN),
        ("entra", TENANT, {}, Bearer.ID_TOKEN),
        ("entra", TENANT, {"scope": "openid https://graph.microsoft.com/User.Read"}, Bearer.ID_TOKEN),
        ("entra", TENANT, {"scope": "openid offline_access api://lake/Lake.Read"}, Bearer.ACCESS_TOKEN),
        ("entra", TENANT, {"scope": "openid 3c8f/.default"}, Bearer.ACCESS_TOKEN),
        ("okta", OKTA, {}, Bearer.ID_TOKEN),
        ("okta", f"{OKTA}/oauth2/default", {}, Bearer.ACCESS_TOKEN),
        ("auth0", "https://example.auth0.com/", {}, Bearer.ID_TOKEN),
        ("auth0", "https://example.auth0.com/", {"audience": "lake"}, Bearer.ACCESS_TOKEN),
        ("keycloak", "https://id.example.com/realms/lake", {}, Bearer.ACCESS_TOKEN),
        ("cognito", POOL, {}, Bearer.ACCESS_TOKEN),
        ("dex", "https://dex.example.com", {}, Bearer.ID_TOKEN),
        ("generic", "https://id.example.com", {}, Bearer.ID_TOKEN),
    ],
)
def test_a_named_preset_sends_the_access_token_where_the_server_can_read_it(name, issuer, values, bearer):
    assert apply_preset(settings_of(issuer, **values), named=name).bearer is bearer


@pytest.mark.parametrize(
    ("issuer", "values"),
    [
        (TENANT, {"scope": "openid api://lake/Lake.Read"}),
        (f"{OKTA}/oauth2/default", {}),
        ("https://example.auth0.com/", {"audience": "lake"}),
        ("https://id.example.com/realms/lake", {}),
        (POOL, {}),
    ],
)
def test_a_recognised_provider_goes_on_to_get_the_id_token_as_upstream_sends_it(issuer, values):
    settings = apply_preset(settings_of(issuer, **values), named=None)

    assert settings.preset is not None
    assert settings.bearer is Bearer.ID_TOKEN


def test_every_provider_that_a_server_knows_and_people_sign_in_at_has_a_preset():
    assert CLIENT_PRESETS.keys() - {"generic"} == PRESETS.keys() - {"github_actions", "kubernetes"}
