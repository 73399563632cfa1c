"""The client's settings: variables and `config.json` make one object, or an error names what is wrong."""

from __future__ import annotations

import json
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
    as_authorize_params,
    as_proxy,
    is_profile_name,
    parse_client_settings,
    parse_result_rows,
)
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.wiring import load_client_settings
from tests.fakes.tracebacks import verbose_traceback

FLAT = {
    "uri": "grpc+tls://lake.example.com:50051",
    "client_id": "notebooks",
    "issuers": [{"issuer": "https://id.example.com", "audience": "lake"}, {"issuer": "https://second.example"}],
}


def parse(config: object = None, profile: str | None = None, **environ: str) -> ClientSettings:
    text = None if config is None else json.dumps(config)
    return parse_client_settings(environ, config_text=text, profile=profile)


def refusal(config: object = None, profile: str | None = None, **environ: str) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        parse(config, profile, **environ)
    return caught.value


def test_each_profile_has_its_token_file():
    assert ClientSettings().token_file_name == "tokens.json"
    assert ClientSettings(profile="production").token_file_name == "tokens-production.json"


def test_neither_the_secret_nor_the_proxy_is_shown():
    settings = ClientSettings(client_secret=Secret("hunter2"), proxy=Secret("http://alice:sesame@proxy:3128"))

    assert "hunter2" not in repr(settings)
    assert "proxy:3128" not in repr(settings)


EVERYTHING = ClientSettings(
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


def test_a_variable_wins_over_the_file_and_an_empty_one_does_not():
    settings = parse(FLAT, MICROMEGAS_OIDC_CLIENT_ID="mine", MICROMEGAS_ANALYTICS_URI="")

    assert (settings.client_id, settings.uri) == ("mine", "grpc+tls://lake.example.com:50051")


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

    assert settings == EVERYTHING


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
        "preset": "recognized by the issuer",
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
    assert refusal(config, profile, **environ).key == key


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
    refused = refusal(config, **environ)

    assert all(place in refused.what for place in places)
    assert "hunter2" not in str(refused)


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
    assert refusal(config, **environ).key == key


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
    assert refusal(config).key == key


@pytest.mark.parametrize("name", ["MICROMEGAS_CLIENT_CERTIFICATE_FILE", "MICROMEGAS_CLIENT_KEY_FILE"])
def test_a_client_certificate_and_its_key_go_together(name):
    assert refusal(**{name: "client.pem"}).key == name


CHOICES = {"default_profile": "work", "profiles": {"work": FLAT, "robot": {"api_key_file": "~/key"}}}


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


def test_what_is_null_counts_as_not_there():
    nothing = {"uri": None, "issuers": [{"issuer": None}], "workload": None, "default_profile": "ignored"}

    assert parse(nothing) == parse({"issuers": None}) == ClientSettings()


@pytest.mark.parametrize(
    ("config", "argument", "environ", "key"),
    [
        ([], None, {}, "config.json"),
        ({"issuers": {}}, None, {}, "config.json: issuers"),
        ({"issuers": []}, None, {}, "issuers"),
        ({"issuers": ["https://id.example.com"]}, None, {}, "config.json: issuers[0]"),
        ({"profiles": []}, None, {}, "config.json: profiles"),
        ({"profiles": None}, None, {}, "config.json: profiles"),
        ({"profiles": {"a": {}}}, None, {}, "default_profile"),
        ({"profiles": {}}, None, {}, "default_profile"),
        ({"profiles": {"a": {}}, "default_profile": 5}, None, {}, "config.json: default_profile"),
        ({"profiles": {"a": {}}, "default_profile": "b"}, None, {}, "profiles"),
        ({"profiles": {"a/b": {}}, "default_profile": "a/b"}, None, {}, "profiles"),
        ({"profiles": {"..": {}}, "default_profile": ".."}, None, {}, "profiles"),
        ({"profiles": {"a": []}, "default_profile": "a"}, None, {}, "config.json: profiles.a"),
        (CHOICES, "other", {}, "profiles"),
        (CHOICES, "../robot", {}, "profile"),
        (CHOICES, "..", {}, "profile"),
        (CHOICES, "x" * 65, {}, "profile"),
        (FLAT, "production", {}, "profiles"),
        (None, "production", {}, "profiles"),
        (None, None, {"MICROMEGAS_PROFILE": "production"}, "profiles"),
        (CHOICES, None, {"MICROMEGAS_PROFILE": "../robot"}, "profile"),
    ],
)
def test_a_profile_that_cannot_be_used_is_refused(config, argument, environ, key):
    assert refusal(config, argument, **environ).key == key


def test_a_profile_that_is_not_there_is_refused_with_those_that_are():
    assert "it has: robot, work." in str(refusal(CHOICES, "other"))
    assert "Add it to config.json, or name no profile." in str(refusal(FLAT, "production"))


def test_a_file_that_is_not_json_is_refused():
    with pytest.raises(ConfigurationError, match=r"config\.json is not valid JSON"):
        parse_client_settings({}, config_text="{")


@pytest.mark.parametrize(
    ("name", "is_one"),
    [("work", True), ("a.b-c_1", True), ("", False), (".", False), ("..", False), ("a b", False), ("x" * 65, False)],
)
def test_a_name_of_a_profile_is_fit_for_a_file_name(name, is_one):
    assert is_profile_name(name) is is_one


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("MICROMEGAS_OIDC_SCOPE", "openid api://lake/Lake.Read", "scope", "openid api://lake/Lake.Read"),
        ("MICROMEGAS_OIDC_RESOURCE", "https://lake.example.com/a?b=c", "resource", "https://lake.example.com/a?b=c"),
        ("MICROMEGAS_OIDC_RESOURCE", "urn:example:lake", "resource", "urn:example:lake"),
        ("MICROMEGAS_OIDC_REDIRECT_URI", "http://[::1]/", "redirect_uri", "http://[::1]/"),
        ("MICROMEGAS_OIDC_FLOW", "auto", "flow", None),
        ("MICROMEGAS_OIDC_FLOW", "browser", "flow", Flow.BROWSER),
        ("MICROMEGAS_OIDC_FLOW", "hub", "flow", Flow.HUB),
        ("MICROMEGAS_TOKEN_STORAGE", "keyring", "storage", TokenStorage.KEYRING),
        ("MICROMEGAS_OIDC_TIMEOUT_SECONDS", "1", "provider_timeout_seconds", 1.0),
        ("MICROMEGAS_OIDC_TIMEOUT_SECONDS", "2.5", "provider_timeout_seconds", 2.5),
    ],
)
def test_what_is_well_formed_is_read(name, text, field, value):
    assert getattr(parse(**{name: text}), field) == value


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("CLIENT_SECRET", ["a\nb"]),
        ("SCOPE", ["openid  email", 'openid "email"', "openid é", "openid\n"]),
        ("RESOURCE", ["lake", "https://lake.example.com/#a", "https://[lake", "https://lake example.com"]),
        (
            "REDIRECT_URI",
            [
                "http://192.168.1.1:48080/callback",
                "https://localhost/callback",
                "http://localhost:0/callback",
                "http://localhost:99999/callback",
                "http://localhost/callback?a=b",
                "http://alice@localhost/callback",
                "urn:ietf:wg:oauth:2.0:oob",
            ],
        ),
        ("BEARER", ["token"]),
        ("FLOW", ["redirect", "AUTO"]),
        ("WORKLOAD", ["mainframe"]),
        ("PRIVATE_KEY_ALGORITHM", ["HS256", "none"]),
        ("TIMEOUT_SECONDS", ["0.5", "61", "nan", "inf", "1e1", "-5", "٣", "."]),
        ("PRESET", ["mine"]),
    ],
)
def test_what_is_malformed_in_a_variable_is_refused_by_its_name(name, texts):
    for text in texts:
        refused = refusal(**{f"MICROMEGAS_OIDC_{name}": text})
        assert refused.key == f"MICROMEGAS_OIDC_{name}"


@pytest.mark.parametrize(
    "member",
    [{"client_secret_file": 5}, {"flow": 1}, {"timeout_seconds": True}, {"token_storage": "memory"}, {"proxy": [1]}],
)
def test_what_is_malformed_in_the_file_is_refused_by_its_member(member):
    assert refusal(member).key == f"config.json: {next(iter(member))}"


@pytest.mark.parametrize("value", [[], {"prompt": 5}, {"": "a"}, {f"p{number}": "a" for number in range(33)}])
def test_parameters_of_the_authorization_request_are_named_texts(value):
    assert refusal({"issuers": [{"authorize_params": value}]}).key.startswith(
        "config.json: issuers[0].authorize_params"
    )


@pytest.mark.parametrize("name", [*sorted(PROTECTED_PARAMETERS), "scope", "audience", "resource"])
def test_a_parameter_that_the_sign_in_makes_itself_cannot_be_set(name):
    with pytest.raises(ConfigurationError) as caught:
        as_authorize_params({name: "a"}, "KEY")

    assert caught.value.key == f"KEY.{name}"


@pytest.mark.parametrize(
    "address",
    [
        "proxy.example:3128",
        "socks5h://alice:sesame@proxy.example:1080",
        "ftp://alice:sesame@proxy.example",
        "http://",
        "http://alice:sesame@",
        "http://alice:sesame@proxy.example:port",
        "http://alice:sesame@proxy.example:0",
        "http://alice:sesame@proxy.example:99999",
        "http://alice:sesame@proxy.example/path",
        "http://alice:sesame@proxy.example?query",
        "http://alice:sesame@proxy.example#fragment",
        "http://alice:sesame@[proxy",
        "http://alice:sesame@proxy example",
        "http://alice:sesame@pröxy.example",
        'http://alice:sesame@"proxy"',
        "http://alice:sesame@proxy,example",
    ],
)
def test_a_bad_address_of_a_proxy_is_refused_without_showing_it(address):
    with pytest.raises(ConfigurationError) as caught:
        as_proxy(address, "KEY")

    assert caught.value.key == "KEY"
    assert "sesame" not in str(caught.value)
    assert "alice" not in str(caught.value)


GOOD = "https://good.example.com"
OTHER = "https://other.example.com"


def _file(**members: object) -> str:
    return json.dumps({"client_id": "app", "issuers": [{"issuer": GOOD}], **members})


def _credentials(settings: ClientSettings) -> list[object]:
    return [
        settings.client_secret,
        settings.client_secret_file,
        settings.private_key,
        settings.service_account_file,
        settings.workload,
    ]


CREDENTIALS = [
    {"client_secret_file": "secret.txt"},
    {"private_key_file": "key.pem"},
    {"service_account_file": "account.json"},
    {"workload": {"platform": "github-actions", "audience": "api://AzureADTokenExchange"}},
]


@pytest.mark.parametrize("credential", CREDENTIALS, ids=lambda credential: next(iter(credential)))
def test_a_credential_of_the_file_does_not_go_to_the_provider_of_a_variable(credential):
    with pytest.raises(ConfigurationError, match="belongs to the provider of") as caught:
        parse_client_settings({"MICROMEGAS_OIDC_ISSUER": OTHER}, config_text=_file(**credential))

    assert caught.value.key == "MICROMEGAS_OIDC_ISSUER"
    assert next(iter(credential)) in str(caught.value)


@pytest.mark.parametrize("credential", CREDENTIALS, ids=lambda credential: next(iter(credential)))
def test_a_provider_that_an_option_names_gets_no_credential_of_the_configured_one(credential):
    settings = parse_client_settings({}, config_text=_file(**credential), options={"MICROMEGAS_OIDC_ISSUER": OTHER})

    assert settings.issuer == OTHER
    assert _credentials(settings) == [None] * 5
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
def test_neither_the_setting_nor_the_others_are_shown(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MICROMEGAS_OIDC_CLIENT_SECRET", HIDDEN)
    monkeypatch.setenv(name, value)

    shown = verbose_traceback(load_client_settings)

    assert name in shown
    assert HIDDEN not in shown


@pytest.mark.parametrize(
    ("environ", "rows"),
    [
        ({}, 1_000),
        ({"MICROMEGAS_RESULT_ROWS": ""}, 1_000),
        ({"MICROMEGAS_RESULT_ROWS": "0"}, 0),
        ({"MICROMEGAS_RESULT_ROWS": "10000"}, 10_000),
    ],
)
def test_the_number_of_rows_is_the_variable_s_or_a_thousand(environ: dict[str, str], rows: int) -> None:
    assert parse_result_rows(environ) == rows


@pytest.mark.parametrize("text", ["-1", "10001", "many", "1e3", "1_000", " 5", "٣", "9" * 5_000])
def test_what_is_no_such_number_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(ConfigurationError, match="MICROMEGAS_RESULT_ROWS is not a number from 0 to 10,000"):
        parse_result_rows({"MICROMEGAS_RESULT_ROWS": text})
