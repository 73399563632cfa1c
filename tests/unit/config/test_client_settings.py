"""The client's settings: variables and `config.json` make one object, or an error names what is wrong."""

import json
from dataclasses import replace
from pathlib import PurePath

import pytest

from micromegas_jupyter.config.client import (
    PROTECTED_PARAMETERS,
    AssertionAudience,
    Bearer,
    ClientSettings,
    Flow,
    PrivateKeySetting,
    TokenStorage,
    WorkloadExchange,
    WorkloadPlatform,
    WorkloadSetting,
    apply_preset,
    as_authorize_params,
    as_proxy,
    parse_client_settings,
    parse_result_rows,
    recognize_preset,
)
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.wiring.client_side import load_client_settings
from tests.fakes.tracebacks import verbose_traceback

FLAT = {
    "uri": "grpc+tls://lake.example.com:50051",
    "client_id": "notebooks",
    "issuers": [{"issuer": "https://id.example.com", "audience": "lake"}, {"issuer": "https://second.example"}],
}


def parse(config=None, profile=None, **environ):
    text = None if config is None else json.dumps(config)
    return parse_client_settings(environ, config_text=text, profile=profile)


def refusal(config=None, profile=None, **environ):
    with pytest.raises(ConfigurationError) as caught:
        parse(config, profile, **environ)
    return caught.value


LAKE, PROXY = "https://lake.example.com", "http://alice:sesame@proxy.example:3128"
# The setting of each variable, and what it makes of a text.
VARIABLES = {
    "ANALYTICS_URI": ("uri", "grpc+tls://lake.example.com:50051", str), "OIDC_ISSUER": ("issuer", LAKE, str),
    "OIDC_CLIENT_ID": ("client_id", "notebooks", str), "OIDC_FLOW": ("flow", "device", Flow),
    "TOKEN_STORAGE": ("storage", "keyring", TokenStorage), "CA_BUNDLE": ("ca_bundle", "~/ca.pem", PurePath),
    "CLIENT_CERTIFICATE_FILE": ("client_certificate_file", "~/client.pem", PurePath),
    "CLIENT_KEY_FILE": ("client_key_file", "~/client.key", PurePath), "OIDC_PROXY": ("proxy", PROXY, Secret),
    "OIDC_TIMEOUT_SECONDS": ("provider_timeout_seconds", "20", float), "OIDC_PRESET": ("preset", "generic", str),
    "OIDC_AUDIENCE": ("audience", "lake", str), "OIDC_RESOURCE": ("resource", LAKE, str),
    "OIDC_SCOPE": ("scope", "openid lake.read", str), "OIDC_BEARER": ("bearer", "access_token", Bearer),
    "OIDC_REDIRECT_URI": ("redirect_uri", "http://127.0.0.1:48080/callback", str),
}  # fmt: skip


def test_with_nothing_set_it_is_the_local_server_without_sign_in():
    assert parse() == ClientSettings(uri="grpc://localhost:50051", issuer=None, client_id=None, profile=None)


def test_a_variable_wins_over_the_file_and_an_empty_one_does_not():
    settings = parse(FLAT, MICROMEGAS_OIDC_CLIENT_ID="mine", MICROMEGAS_ANALYTICS_URI="")

    assert (settings.client_id, settings.uri) == ("mine", "grpc+tls://lake.example.com:50051")


def test_every_variable_is_read():
    settings = parse(
        {"issuers": [{"authorize_params": {"prompt": "login", "acr_values": "2"}}]},
        **{f"MICROMEGAS_{name}": text for name, (_, text, _) in VARIABLES.items()},
        MICROMEGAS_OIDC_PRIVATE_KEY_FILE="~/key.pem",
        MICROMEGAS_OIDC_PRIVATE_KEY_ID="2026",
        MICROMEGAS_OIDC_PRIVATE_KEY_AUDIENCE="issuer",
        MICROMEGAS_OIDC_PRIVATE_KEY_ALGORITHM="ES256",
        MICROMEGAS_OIDC_WORKLOAD="kubernetes",
        MICROMEGAS_OIDC_WORKLOAD_EXCHANGE="token-exchange",
        MICROMEGAS_OIDC_WORKLOAD_AUDIENCE=LAKE,
        MICROMEGAS_OIDC_WORKLOAD_TOKEN_FILE="/run/token",
    )

    assert settings == ClientSettings(
        **{field: read(text) for field, text, read in VARIABLES.values()},
        authorize_params=(("acr_values", "2"), ("prompt", "login")),
        private_key=PrivateKeySetting(
            file=PurePath("~/key.pem"), key_id="2026", algorithm="ES256", audience=AssertionAudience.ISSUER
        ),
        workload=WorkloadSetting(
            platform=WorkloadPlatform.KUBERNETES,
            exchange=WorkloadExchange.TOKEN_EXCHANGE,
            audience=LAKE,
            token_file=PurePath("/run/token"),
        ),
    )


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
        "preset": "recognized by the issuer",
        "scope": "preset google",
        "authorize_params": "preset google",
        "secret_is_native": "preset google",
    }


def test_a_variable_that_is_easily_taken_for_the_setting_is_refused_with_what_to_set():
    error = refusal(MICROMEGAS_OIDC_ISSUERS="https://id.example.com")

    assert error.key == "MICROMEGAS_OIDC_ISSUERS"
    assert "Set MICROMEGAS_OIDC_ISSUER " in error.remedy


SECRET = "MICROMEGAS_OIDC_CLIENT_SECRET"


CHOICES = {"default_profile": "work", "profiles": {"work": FLAT, "robot": {"api_key_file": "~/key"}}}


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"uri": 5}, "config.json: uri"), ({"uri": "a\nb"}, "config.json: uri"),
        ({"client_id": ""}, "config.json: client_id"), ({"client_secret_file": 5}, "config.json: client_secret_file"),
        ({"issuers": [{"issuer": "http://id.example.com"}]}, "config.json: issuers[0].issuer"),
        ({**FLAT, "api_key_file": "key"}, "api_key_file"), ({"private_key_id": "1"}, "config.json: private_key_id"),
        ({"workload": {"audience": "lake"}}, "config.json: workload.audience"),
        ({"workload": "google"}, "config.json: workload"),
        ({"workload": {"platform": "google", "colour": 1}}, "config.json: workload"),
        ({"workload": {"platform": "mainframe"}}, "config.json: workload.platform"),
        ({"flow": "redirect"}, "config.json: flow"), ({"flow": 1}, "config.json: flow"),
        ({"timeout_seconds": True}, "config.json: timeout_seconds"), ({"proxy": [1]}, "config.json: proxy"),
        ({"token_storage": "memory"}, "config.json: token_storage"),
        ({"issuers": [{"preset": "mine"}]}, "config.json: issuers[0].preset"),
        ({"issuers": [{"authorize_params": {"state": "1"}}]}, "config.json: issuers[0].authorize_params.state"),
        *(({"issuers": [{"authorize_params": value}]}, "config.json: issuers[0].authorize_params") for value in (
            [], {"": "a"}, {f"p{number}": "a" for number in range(33)})),
        ([], "config.json"), ({"issuers": {}}, "config.json: issuers"), ({"issuers": []}, "issuers"),
        ({"issuers": ["https://id.example.com"]}, "config.json: issuers[0]"),
        ({"profiles": []}, "config.json: profiles"), ({"profiles": None}, "config.json: profiles"),
        ({"profiles": {"a": {}}}, "default_profile"),
        ({"profiles": {"a": {}}, "default_profile": 5}, "config.json: default_profile"),
        ({"profiles": {"a": {}}, "default_profile": "b"}, "profiles"),
        ({"profiles": {"a/b": {}}, "default_profile": "a/b"}, "profiles"),
        ({"profiles": {"..": {}}, "default_profile": ".."}, "profiles"),
        ({"profiles": {"a": []}, "default_profile": "a"}, "config.json: profiles.a"),
    ],
)  # fmt: skip
def test_what_is_malformed_in_the_file_is_refused_by_its_member(config, key):
    assert refusal(config).key == key


@pytest.mark.parametrize(
    ("config", "profile", "key"),
    [(CHOICES, "other", "profiles"), (FLAT, "production", "profiles"), (None, "production", "profiles"),
     *((CHOICES, name, "profile") for name in ("../robot", "..", "x" * 65))],
)  # fmt: skip
def test_a_profile_that_cannot_be_used_is_refused(config, profile, key):
    assert refusal(config, profile).key == refusal(config, MICROMEGAS_PROFILE=profile).key == key


@pytest.mark.parametrize(
    ("config", "environ", "places"),
    [
        ({"client_secret_file": "s"}, {SECRET: "hunter2"}, (SECRET, "client_secret_file")),
        ({"private_key_file": "k", "client_secret_file": "s"}, {}, ("client_secret_file", "private_key_file")),
        ({"service_account_file": "g", "workload": {"platform": "google"}}, {},
         ("service_account_file", "workload.platform")),
        ({"api_key_file": "a"}, {SECRET: "hunter2"}, ("api_key_file", SECRET)),
        ({"api_key_file": "a"}, {"MICROMEGAS_OIDC_WORKLOAD": "google"}, ("api_key_file", "MICROMEGAS_OIDC_WORKLOAD")),
        ({**FLAT, "api_key_file": "a"}, {}, ("api_key_file", "issuers[0].issuer")),
        ({"api_key_file": "a", "client_id": "app", "issuers": [{"preset": "google"}]}, {},
         ("api_key_file", "preset google")),
        ({"workload": {"platform": "google", "exchange": "client-assertion"}}, {SECRET: "hunter2"},
         ("workload.exchange", SECRET)),
        ({"workload": {"platform": "google", "token_file": "t"}}, {}, ("workload.token_file", "workload.platform")),
        ({"workload": {"platform": "kubernetes", "client_id": "c"}}, {"MICROMEGAS_OIDC_WORKLOAD": "github-actions"},
         ("workload.client_id", "MICROMEGAS_OIDC_WORKLOAD")),
    ],
)  # fmt: skip
def test_settings_that_contradict_each_other_are_refused_by_both_names(config, environ, places):
    refused = refusal(config, **environ)

    assert all(place in refused.what for place in places)
    assert "hunter2" not in str(refused)


@pytest.mark.parametrize(
    ("argument", "variable", "name", "origin"),
    [
        (None, "", "work", "config.json: default_profile"),
        (None, "robot", "robot", "MICROMEGAS_PROFILE"),
        ("work", "robot", "work", "the profile argument"),
        ("", "robot", "robot", "MICROMEGAS_PROFILE"),
    ],
)
def test_the_argument_wins_over_the_variable_and_that_over_the_default_profile(argument, variable, name, origin):
    settings = parse(CHOICES, argument, MICROMEGAS_PROFILE=variable)

    assert (settings.profile, settings.origin_of("profile")) == (name, origin)


def test_variables_that_name_server_and_provider_need_no_profile():
    profiles = {"profiles": {"work": FLAT, "robot": {"api_key_file": "~/key"}}}
    complete = {
        "MICROMEGAS_ANALYTICS_URI": "grpc://127.0.0.1:5",
        "MICROMEGAS_OIDC_ISSUER": LAKE,
        "MICROMEGAS_OIDC_CLIENT_ID": "demo",
    }

    assert parse(profiles, **complete) == parse(**complete)
    assert parse(profiles, MICROMEGAS_PROFILE="work", **complete).audience == "lake"
    for missing in complete:
        assert refusal(profiles, **{**complete, missing: ""}).key == "default_profile"


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        *((f"CLIENT_{half}_FILE", ["client.pem"]) for half in ("CERTIFICATE", "KEY")),  # one without the other
        ("OIDC_CLIENT_SECRET", ["a\nb"]), ("OIDC_ISSUER", ["id.example.com"]), ("OIDC_CLIENT_ID", ["a\tb"]),
        ("OIDC_SCOPE", ["openid  email", 'openid "email"', "openid é", "openid\n"]), ("OIDC_BEARER", ["token"]),
        ("OIDC_RESOURCE", ["lake", "https://lake.example.com/#a", "https://[lake", "https://lake example.com"]),
        ("OIDC_REDIRECT_URI", [
            "http://192.168.1.1:48080/callback", "https://localhost/callback", "http://localhost:0/callback",
            "http://localhost:99999/callback", "http://localhost/callback?a=b", "http://alice@localhost/callback",
            "urn:ietf:wg:oauth:2.0:oob"]),
        ("OIDC_FLOW", ["redirect", "AUTO"]), ("OIDC_WORKLOAD", ["mainframe"]), ("OIDC_WORKLOAD_EXCHANGE", ["none"]),
        ("OIDC_PRIVATE_KEY_ALGORITHM", ["HS256", "none"]), ("OIDC_PRESET", ["mine"]),
        ("OIDC_TIMEOUT_SECONDS", ["0.5", "61", "nan", "inf", "1e1", "-5", "٣", "."]),
    ],
)  # fmt: skip
def test_what_is_malformed_in_a_variable_is_refused_by_its_name(name, texts):
    for text in texts:
        assert refusal(**{f"MICROMEGAS_{name}": text}).key == f"MICROMEGAS_{name}"


@pytest.mark.parametrize("name", [*sorted(PROTECTED_PARAMETERS), "scope", "audience", "resource"])
def test_a_parameter_that_the_sign_in_makes_itself_cannot_be_set(name):
    with pytest.raises(ConfigurationError, check=lambda error: error.key == f"KEY.{name}"):
        as_authorize_params({name: "a"}, "KEY")


@pytest.mark.parametrize(
    "address",
    [
        "proxy.example:3128", "socks5h://alice:sesame@proxy.example:1080", "ftp://alice:sesame@proxy.example",
        "http://", "http://alice:sesame@", "http://alice:sesame@proxy.example:port",
        "http://alice:sesame@proxy.example:0", "http://alice:sesame@proxy.example:99999",
        "http://alice:sesame@proxy.example/path", "http://alice:sesame@proxy.example?query",
        "http://alice:sesame@proxy.example#fragment", "http://alice:sesame@[proxy",
        "http://alice:sesame@proxy example", "http://alice:sesame@pröxy.example", 'http://alice:sesame@"proxy"',
        "http://alice:sesame@proxy,example",
    ],
)  # fmt: skip
def test_a_bad_address_of_a_proxy_is_refused_without_showing_it(address):
    with pytest.raises(ConfigurationError) as caught:
        as_proxy(address, "KEY")

    assert caught.value.key == "KEY"
    assert "sesame" not in str(caught.value)
    assert "alice" not in str(caught.value)


GOOD = "https://good.example.com"
OTHER = "https://other.example.com"


def _file(**members):
    return json.dumps({"client_id": "app", "issuers": [{"issuer": GOOD}], **members})


CREDENTIALS = [
    {"client_secret_file": "secret.txt"},
    {"private_key_file": "key.pem"},
    {"service_account_file": "account.json"},
    {"workload": {"platform": "github-actions", "audience": "api://AzureADTokenExchange"}},
]


@pytest.mark.parametrize("credential", CREDENTIALS, ids=lambda credential: next(iter(credential)))
def test_a_credential_of_the_file_does_not_go_to_another_provider(credential):
    with pytest.raises(ConfigurationError, match=next(iter(credential))) as caught:
        parse_client_settings({"MICROMEGAS_OIDC_ISSUER": OTHER}, config_text=_file(**credential))
    settings = parse_client_settings({}, config_text=_file(**credential), options={"MICROMEGAS_OIDC_ISSUER": OTHER})

    assert caught.value.key == "MICROMEGAS_OIDC_ISSUER"
    assert settings.issuer == OTHER
    assert (settings.client_secret, settings.client_secret_file, settings.private_key) == (None, None, None)
    assert (settings.service_account_file, settings.workload) == (None, None)


@pytest.mark.parametrize("option", ["MICROMEGAS_OIDC_ISSUER", "MICROMEGAS_OIDC_CLIENT_ID"])
def test_an_option_does_not_take_the_secret_of_a_variable_along(option):
    environ = {"MICROMEGAS_OIDC_ISSUER": GOOD, "MICROMEGAS_OIDC_CLIENT_ID": "app", SECRET: "sesame"}

    assert parse_client_settings(environ, options={option: OTHER}).client_secret is None


def test_a_provider_that_options_name_wins_over_the_profiles_api_key():
    options = {"MICROMEGAS_OIDC_ISSUER": GOOD, "MICROMEGAS_OIDC_CLIENT_ID": "app"}

    settings = parse_client_settings({}, config_text=json.dumps({"api_key_file": "key"}), options=options)

    assert (settings.issuer, settings.api_key_file) == (GOOD, None)


HIDDEN = "hidden-text-0123456789"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MICROMEGAS_OIDC_CLIENT_SECRET", f"{HIDDEN}\n"),
        ("MICROMEGAS_OIDC_PROXY", f"ftp://me:{HIDDEN}@proxy.example"),
        ("MICROMEGAS_OIDC_PROXY", f"http://me:{HIDDEN}@proxy.example\n"),
        ("MICROMEGAS_OIDC_ISSUER", "http://id.example"),
    ],
)
def test_neither_the_setting_nor_the_others_are_shown(name, value, monkeypatch):
    monkeypatch.setenv("MICROMEGAS_OIDC_CLIENT_SECRET", HIDDEN)
    monkeypatch.setenv(name, value)

    shown = verbose_traceback(load_client_settings)

    assert name in shown
    assert HIDDEN not in shown


@pytest.mark.parametrize("text", ["-1", "10000001", "many", "1e3", "1_000", " 5", "٣", "9" * 5_000])
def test_the_number_of_rows_is_0_to_10_million(text):
    assert [parse_result_rows({"MICROMEGAS_RESULT_ROWS": text}) for text in ("", "0", "10000000")] == [
        1_000_000,
        0,
        10_000_000,
    ]
    with pytest.raises(ConfigurationError, match="MICROMEGAS_RESULT_ROWS is not a number from 0 to 10,000,000"):
        parse_result_rows({"MICROMEGAS_RESULT_ROWS": text})


# Presets

OKTA = "https://example.okta.com"
TENANT = "https://login.microsoftonline.com/0b1c0000-0000-0000-0000-000000000002/v2.0"
POOL = "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_abc"


def settings_of(issuer=None, **values):
    given = ClientSettings(issuer=issuer, client_id="app", **values)
    return replace(
        given, origins=tuple((name, "MICROMEGAS_X") for name in ({"issuer": issuer} if issuer else {}) | values)
    )


@pytest.mark.parametrize(
    ("issuer", "name"),
    [
        ("https://accounts.google.com", "google"), ("https://accounts.google.com/", "google"), (TENANT, "entra"),
        ("https://sts.windows.net/0b1c/", "entra"), ("https://login.microsoftonline.us/0b1c/v2.0", "entra"),
        ("https://login.partner.microsoftonline.cn/0b1c/v2.0", "entra"), (OKTA, "okta"),
        (f"{OKTA}/oauth2/default", "okta"), ("https://example.oktapreview.com/oauth2/default", "okta"),
        ("https://example.eu.auth0.com/", "auth0"), ("https://id.example.com/realms/lake", "keycloak"),
        ("https://id.example.com/auth/realms/lake", "keycloak"), ("http://localhost:8080/realms/lake", "keycloak"),
        (POOL, "cognito"), ("https://ID.EXAMPLE.OKTA.COM", "okta"),
        # What only resembles a provider.
        *((issuer, None) for issuer in (
            "https://id.example.com", "https://dex.example.com/dex", "https://accounts.google.com.evil.example",
            "https://evil.example/accounts.google.com", "http://accounts.google.com", "https://okta.com",
            "https://example.okta.com.evil.example/oauth2/default", "https://exampleokta.com",
            "https://example.auth0.com:8443/", "https://id.example.com/realms/",
            "https://id.example.com/realms/lake/more", "https://cognito-idp.eu-central-1.amazonaws.com.evil.example/pool",
            "https://accounts.google.com\n", "")),
    ],
)  # fmt: skip
def test_a_provider_is_recognised_by_its_issuer(issuer, name):
    assert recognize_preset(issuer) == name


def test_a_preset_never_overrides_what_was_set():
    given = settings_of("https://accounts.google.com", scope="openid", bearer=Bearer.ACCESS_TOKEN)
    given = replace(given, authorize_params=(("prompt", "login"),))

    settings = apply_preset(given, named="google")

    assert (settings.scope, settings.bearer) == ("openid", Bearer.ACCESS_TOKEN)
    assert settings.authorize_params == (("access_type", "offline"), ("prompt", "login"))


@pytest.mark.parametrize(
    ("name", "issuer", "values", "bearer"),
    [
        ("google", "https://accounts.google.com", {}, Bearer.ID_TOKEN), ("entra", TENANT, {}, Bearer.ID_TOKEN),
        ("entra", TENANT, {"scope": "openid https://graph.microsoft.com/User.Read"}, Bearer.ID_TOKEN),
        ("entra", TENANT, {"scope": "openid offline_access api://lake/Lake.Read"}, Bearer.ACCESS_TOKEN),
        ("entra", TENANT, {"scope": "openid 3c8f/.default"}, Bearer.ACCESS_TOKEN),
        ("okta", OKTA, {}, Bearer.ID_TOKEN), ("okta", f"{OKTA}/oauth2/default", {}, Bearer.ACCESS_TOKEN),
        ("auth0", "https://example.auth0.com/", {}, Bearer.ID_TOKEN),
        ("auth0", "https://example.auth0.com/", {"audience": "lake"}, Bearer.ACCESS_TOKEN),
        ("keycloak", "https://id.example.com/realms/lake", {}, Bearer.ACCESS_TOKEN),
        ("cognito", POOL, {}, Bearer.ACCESS_TOKEN), ("dex", "https://dex.example.com", {}, Bearer.ID_TOKEN),
        ("generic", "https://id.example.com", {}, Bearer.ID_TOKEN),
    ],
)  # fmt: skip
def test_a_named_preset_sends_the_access_token_where_the_server_can_read_it(name, issuer, values, bearer):
    assert apply_preset(settings_of(issuer, **values), named=name).bearer is bearer


@pytest.mark.parametrize("issuer", [f"{OKTA}/oauth2/default", "https://id.example.com/realms/lake", POOL])
def test_a_recognised_provider_goes_on_to_get_the_id_token_as_upstream_sends_it(issuer):
    settings = apply_preset(settings_of(issuer), named=None)

    assert (settings.preset is None, settings.bearer) == (False, Bearer.ID_TOKEN)
