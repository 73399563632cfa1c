"""Programs that sign in by themselves: client credentials, key files, platforms, and tokens that others look after."""

import json
import os
import threading
from dataclasses import replace
from datetime import timedelta
from email.utils import format_datetime
from unittest.mock import ANY, Mock
from urllib.parse import parse_qs, urlsplit

import pytest
from joserfc.jwk import ECKey

from micromegas_jupyter.auth import AuthProvider, OidcClientCredentialsProvider, StaticTokenAuthProvider
from micromegas_jupyter.auth.static import read_api_key_file
from micromegas_jupyter.auth.tokens.source import jwt_service_token
from micromegas_jupyter.auth.workloads import (
    AzureManagedIdentitySource,
    GithubActionsSource,
    GoogleMetadataSource,
    TokenFileSource,
    parse_service_account_key,
)
from micromegas_jupyter.config.client import ClientSettings, WorkloadExchange, WorkloadPlatform, WorkloadSetting
from micromegas_jupyter.core.http import RawAnswer
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import (
    ConfigurationError,
    LoginFailed,
    MicromegasError,
    ProviderMisbehaved,
    ProviderUnavailable,
    Unavailable,
)
from micromegas_jupyter.oidc.private_key import PrivateKey
from micromegas_jupyter.wiring.service_accounts import workload_provider
from tests.fakes.mint import NOW, NOW_SECONDS, mint
from tests.fakes.platform_stand_ins import GoogleTokenEndpoint
from tests.fakes.scripted_provider import DirectCalls, Reply, ScriptedProvider
from tests.fakes.tracebacks import traceback_with_variables


def platform(*answers):
    """Return a platform without sockets that gives its answers in turn."""
    return Mock(get=Mock(side_effect=answers))


def answer(body, *, status=200, headers=None, date=None):
    content = body.encode() if isinstance(body, str) else body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {**(headers or {}), **({} if date is None else {"date": format_datetime(date, usegmt=True)})}
    return RawAnswer(status=status, headers=sent, body=content)


@pytest.fixture
def service_idp(clock):
    return ScriptedProvider(clock=clock, client_id="svc", client_secret="s3same")


@pytest.fixture
def provider(service_idp, clock):
    return OidcClientCredentialsProvider(
        service_idp.issuer, "svc", "s3same", "api", "api/.default", http=DirectCalls(service_idp), clock=clock
    )


VARIABLES = {
    "MICROMEGAS_OIDC_ISSUER": "https://id.example.com",
    "MICROMEGAS_OIDC_CLIENT_ID": "svc",
    "MICROMEGAS_OIDC_CLIENT_SECRET": "s3same",
}


def test_settings_come_from_the_environment():
    environ = {
        **VARIABLES,
        "MICROMEGAS_OIDC_AUDIENCE": "api",
        "MICROMEGAS_OIDC_SCOPE": "api/.default",
        "MICROMEGAS_OIDC_RESOURCE": "https://lake.example.com",
    }

    provider = OidcClientCredentialsProvider.from_env(environ)

    assert (provider.issuer, provider.client_id) == ("https://id.example.com", "svc")
    assert (provider.audience, provider.scope) == ("api", "api/.default")
    assert provider.resource == "https://lake.example.com"


@pytest.mark.parametrize("name", VARIABLES)
@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_variable_is_named(name, value):
    with pytest.raises(ConfigurationError, match=name) as caught:
        OidcClientCredentialsProvider.from_env({**VARIABLES, name: value})

    assert caught.value.key == name


def test_a_service_account_has_exactly_one_of_secret_and_key():
    key = PrivateKey(key=ECKey.generate_key("P-256"), algorithm="ES256", key_id="k1")
    for secret, private_key in (("s3same", key), (None, None)):
        with pytest.raises(ConfigurationError):
            OidcClientCredentialsProvider("https://id.example.com", "svc", secret, private_key=private_key)


@pytest.mark.parametrize("offset", [timedelta(0), timedelta(hours=5), timedelta(hours=-5)])
def test_a_token_is_kept_for_its_life_whatever_the_provider_s_clock_says(offset, provider, service_idp, clock):
    date = format_datetime(clock.now() + offset, usegmt=True)
    service_idp.reply_once("/token", replace(living(3600), headers={"Date": date}))

    first = provider.get_token()

    assert provider.renewal_due_at() == clock.now() + timedelta(seconds=3300)
    clock.advance(3299)
    assert provider.get_token() == first
    clock.advance(1)
    assert provider.get_token() != first
    asked = {"grant_type": "client_credentials", "scope": "api/.default", "audience": "api"}
    assert service_idp.seen("/token")[0].form == asked
    assert isinstance(provider, AuthProvider)


def living(seconds):
    life = {} if seconds is None else {"expires_in": seconds}
    return Reply(body={"access_token": "first", "token_type": "bearer", **life})


@pytest.mark.parametrize(("lifetime_seconds", "due_seconds"), [(60, 45), (None, 225), (10 * 86400, 86100)])
def test_short_unknown_and_endless_lives_are_due_as_they_are_kept(
    provider, service_idp, clock, lifetime_seconds, due_seconds
):
    service_idp.reply_once("/token", living(lifetime_seconds))

    provider.get_token()

    assert provider.renewal_due_at() == clock.now() + timedelta(seconds=due_seconds)


def test_a_token_that_ends_before_it_comes_is_a_matter_of_clocks(provider, service_idp):
    service_idp.reply_once("/token", living(0))

    with pytest.raises(LoginFailed) as caught:
        provider.get_token()

    assert "clock" in caught.value.remedy


def test_a_server_that_refuses_everything_costs_a_token_each_ten_seconds_at_most(provider, service_idp, clock):
    for _ in range(20):
        provider.invalidate(provider.get_token())
        clock.advance(0.1)
    within_two_seconds = len(service_idp.seen("/token"))
    clock.advance(10)
    provider.invalidate(provider.get_token())
    provider.get_token()

    assert (within_two_seconds, len(service_idp.seen("/token"))) == (2, 3)


def test_threads_that_need_a_token_at_once_fetch_one(provider, service_idp):
    handle, began, go_on = service_idp.handle, threading.Event(), threading.Event()
    service_idp.handle = lambda seen: (began.set(), go_on.wait(30), handle(seen))[2]
    found = []
    threads = [threading.Thread(target=lambda: found.append(provider.get_token())) for _ in range(16)]
    threads[0].start()
    assert began.wait(30)
    for thread in threads[1:]:
        thread.start()
    go_on.set()
    for thread in threads:
        thread.join(60)

    assert len(found) == 16
    assert len(set(found)) == len(service_idp.seen("/token")) == 1


@pytest.mark.parametrize("audience", ["lakeside", "", ["other"], None, 7, {"lake": 1}])
def test_a_jwt_for_another_audience_is_refused(audience):
    with pytest.raises(ProviderMisbehaved, match="Somebody returned a token for a different audience"):
        jwt_service_token(Secret(mint(audience=audience)), audience="lake", now=NOW, source="Somebody")


@pytest.mark.parametrize("value", [None, "", 7, "a b", "a\nb", "tökén", "x" * 70_000, ["a"]])
def test_an_answer_without_a_usable_token_is_refused(value, clock):
    source = AzureManagedIdentitySource(
        {}, resource="api://lake", client_id=None, http=platform(answer({"access_token": value})), clock=clock
    )

    with pytest.raises(ProviderMisbehaved, match="return a usable token"):
        source.fetch()


@pytest.fixture
def google():
    with GoogleTokenEndpoint() as endpoint:
        yield endpoint


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"type": "authorized_user"}, "is not a service account key"),
        ({"client_email": None}, "does not contain client_email"),
        ({"private_key_id": ""}, "does not contain private_key_id"),
        ({"token_uri": None}, "does not contain token_uri"),
        ({"private_key": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"}, "key that is corrupted"),
        ({"token_uri": "http://oauth2.example.com/token"}, "http"),
        ({"token_uri": "https://user@oauth2.example.com/token"}, "user"),
        (None, "is not a JSON object"),
    ],
)
def test_a_file_that_is_no_usable_key_is_refused_by_the_name_of_its_setting(google, changes, expected):
    text = '{"type": "service_account", "type": "service_account"}' if changes is None else google.key_file(**changes)
    with pytest.raises(ConfigurationError, match=expected) as caught:
        parse_service_account_key(Secret(text), source_name="service_account_file")

    assert caught.value.key == "service_account_file"
    assert "PRIVATE KEY" not in traceback_with_variables(caught.value)


GITHUB = {
    "ACTIONS_ID_TOKEN_REQUEST_URL": "https://run.actions.example.com/42/idtoken?api-version=2.0",
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "s3same",
}
APP = {"IDENTITY_ENDPOINT": "http://127.0.0.1:41056/MSI/token/", "IDENTITY_HEADER": "s3same"}
FLAVOR = {"metadata-flavor": "Google"}


@pytest.mark.parametrize("variable", list(GITHUB))
def test_a_job_without_the_permission_is_told_which_one(clock, variable):
    with pytest.raises(ConfigurationError) as caught:
        GithubActionsSource({**GITHUB, variable: ""}, audience="lake", http=platform(), clock=clock)

    assert caught.value.key == variable
    assert "id-token: write" in caught.value.remedy


@pytest.mark.parametrize(
    ("source", "body", "headers"),
    [
        *((GithubActionsSource, body, {}) for body in ({}, b"\xff", {"value": 7}, {"value": mint(audience="x")})),
        *((GoogleMetadataSource, body, FLAVOR) for body in (b"\xff\xfe", mint(audience="other"))),
        *((GoogleMetadataSource, mint(audience="lake"), headers) for headers in ({}, {"metadata-flavor": "google"})),
    ],
    ids=[
        "nothing",
        "bytes",
        "number",
        "other GitHub audience",
        "more bytes",
        "other audience",
        "no flavor",
        "other flavor",
    ],
)
def test_an_answer_without_a_jwt_for_the_audience_or_googles_header_is_refused(source, body, headers, clock):
    asked = source(GITHUB, audience="lake", http=platform(answer(body, headers=headers)), clock=clock)

    with pytest.raises(ProviderMisbehaved):
        asked.fetch()


def token_file(path, clock):
    return TokenFileSource(path, audience=None, setting="workload.token_file", name="kubernetes", clock=clock)


@pytest.mark.parametrize(
    "content",
    [b"", b"opaque", b"\xff\xfe", mint(without=["exp"]).encode(), mint(expires_in=-1).encode()],
    ids=["nothing", "opaque", "bytes", "no end", "expired"],
)
def test_a_file_without_a_jwt_that_is_valid_is_a_failed_login(tmp_path, clock, content):
    (tmp_path / "token").write_bytes(content)

    with pytest.raises(LoginFailed, match=r"workload\.token_file"):
        token_file(tmp_path / "token", clock).fetch()


def test_what_is_not_a_small_file_is_refused_by_the_name_of_its_setting(tmp_path, clock):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "huge").write_bytes(b"x" * 70_000)

    for path in (tmp_path / "missing", tmp_path / "pipe", tmp_path, tmp_path / "huge"):
        with pytest.raises(ConfigurationError) as caught:
            token_file(path, clock).fetch()
        assert caught.value.key == "workload.token_file"
        assert str(tmp_path) not in str(caught.value)


class TestAzure:
    def source(self, http, clock, environ=None, **options):
        options = {"client_id": None, **options}
        return AzureManagedIdentitySource(environ or {}, resource="api://lake", http=http, clock=clock, **options)

    def test_an_app_is_asked_with_its_own_header_and_its_times_are_azures(self, clock):
        body = {"access_token": "issued", "expires_on": str(NOW_SECONDS + 3600)}
        http = platform(answer(body, date=NOW + timedelta(minutes=10)))

        fetched = self.source(http, clock, APP, client_id="two").fetch()

        assert fetched.expires_at == NOW + timedelta(minutes=50)
        url = "http://127.0.0.1:41056/MSI/token/?api-version=2019-08-01&resource=api%3A%2F%2Flake&client_id=two"
        http.get.assert_called_once_with(url, headers={"X-IDENTITY-HEADER": Secret("s3same")}, platform=ANY)

    def test_without_an_endpoint_the_secret_of_an_app_is_sent_nowhere(self, clock):
        http = platform(answer({"access_token": "issued", "expires_in": 60}))

        self.source(http, clock, {"IDENTITY_HEADER": "s3same"}).fetch()

        assert http.get.call_args.kwargs["headers"] == {"Metadata": "true"}

    @pytest.mark.parametrize("odd", ["soon", "06/20/2019 02:57:58 +00:00", True, -1, 1.5, "1" * 30, None])
    def test_an_unreadable_life_leaves_it_to_the_token(self, clock, odd):
        body = {"access_token": mint(expires_in=900), "expires_in": odd, "expires_on": odd}

        assert self.source(platform(answer(body)), clock).fetch().expires_at == NOW + timedelta(seconds=900)

    @pytest.mark.parametrize(
        ("environ", "status", "expected"), [({}, 404, ProviderUnavailable), ({}, 410, ProviderUnavailable),
                                            (APP, 404, LoginFailed), ({}, 400, LoginFailed)]
    )  # fmt: skip
    def test_a_metadata_service_that_is_being_updated_is_told_from_a_refusal(self, clock, environ, status, expected):
        with pytest.raises(expected, match=str(status)):
            self.source(platform(answer("", status=status)), clock, environ).fetch()

    @pytest.mark.parametrize(
        "endpoint",
        [
            "https://evil.example.com/msi/token",
            "https://localhost.example.com/msi/token",
            "https://[2603:1030::1]/msi/token",
            "https://[::ffff:20.1.2.3]/msi/token",
            "https://[::1/msi/token",
        ],
    )
    def test_the_secret_of_an_app_goes_to_no_address_outside_its_network(self, clock, endpoint):
        http = platform()

        with pytest.raises(ConfigurationError) as caught:
            self.source(http, clock, {**APP, "IDENTITY_ENDPOINT": endpoint}).fetch()

        assert caught.value.key == "IDENTITY_ENDPOINT"
        assert "s3same" not in str(caught.value)
        http.get.assert_not_called()

    def test_the_secret_of_an_app_is_never_shown_when_azure_repeats_it(self, clock):
        body = {"error": "no853b9a84-5bfa", "error_description": "no853b9a84-5bfa"}

        with pytest.raises(LoginFailed) as caught:
            self.source(platform(answer(body, status=400)), clock, {**APP, "IDENTITY_HEADER": "853b9a84-5bfa"}).fetch()

        assert "853b9a84" not in str(caught.value)


NONE, EXCHANGE, ASSERTION = WorkloadExchange.NONE, WorkloadExchange.TOKEN_EXCHANGE, WorkloadExchange.CLIENT_ASSERTION
ISSUER = "https://id.example.com"


class TestSettings:
    """What a platform is asked for, by the settings."""

    def build(self, script, workload, **settings):
        setting = WorkloadSetting(**{"platform": WorkloadPlatform.GOOGLE, **workload})
        settings = ClientSettings(**{"issuer": ISSUER, "client_id": "svc", **settings})
        return workload_provider(settings, setting, GITHUB, http=script)

    def audience(self, workload, **settings):
        script = platform(Unavailable("down"))
        with pytest.raises(MicromegasError):
            self.build(script, workload, **settings).get_token()
        return parse_qs(urlsplit(script.get.call_args.args[0]).query)["audience"][0]

    @pytest.mark.parametrize(
        ("platform", "exchange", "settings", "expected"),
        [
            (WorkloadPlatform.GITHUB_ACTIONS, NONE, {}, "svc"),
            (WorkloadPlatform.GOOGLE, NONE, {"audience": "lake"}, "lake"),
            (WorkloadPlatform.GOOGLE, EXCHANGE, {"audience": "lake"}, ISSUER),
            (WorkloadPlatform.GITHUB_ACTIONS, ASSERTION, {"audience": "lake"}, ISSUER),
            (WorkloadPlatform.GOOGLE, ASSERTION, {"preset": "entra"}, "api://AzureADTokenExchange"),
        ],
    )
    def test_the_platforms_token_is_for_whoever_reads_it(self, platform, exchange, settings, expected):
        workload = {"platform": platform, "exchange": exchange}

        assert self.audience(workload, **settings) == expected
        assert self.audience({**workload, "audience": "chosen"}, **settings) == "chosen"

    @pytest.mark.parametrize(
        ("workload", "settings", "missing"),
        [
            ({}, {"issuer": None, "client_id": None}, "MICROMEGAS_OIDC_WORKLOAD_AUDIENCE"),
            ({"exchange": EXCHANGE, "audience": "x"}, {"issuer": None}, "MICROMEGAS_OIDC_ISSUER"),
            ({"exchange": ASSERTION, "audience": "x"}, {"client_id": None}, "MICROMEGAS_OIDC_CLIENT_ID"),
            ({"platform": WorkloadPlatform.KUBERNETES}, {}, "MICROMEGAS_OIDC_WORKLOAD_TOKEN_FILE"),
        ],
    )
    def test_a_missing_setting_is_named(self, workload, settings, missing):
        with pytest.raises(ConfigurationError) as caught:
            self.build(platform(), workload, **settings)

        assert caught.value.key == missing


@pytest.mark.parametrize("token", ["", "  ", "two words", "new\nline", "é", "\x00"])
def test_anything_but_one_word_of_ascii_is_refused_without_being_shown(token):
    with pytest.raises(ConfigurationError) as caught:
        StaticTokenAuthProvider(token)

    assert str(caught.value).startswith("The token isn't a single word")


@pytest.fixture
def key_file(tmp_path):
    path = tmp_path / "key"
    path.write_text("sesame\n")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(("mode", "is_readable"), [(0o600, False), (0o400, False), (0o644, True), (0o604, True)])
def test_a_token_comes_from_a_file(key_file, mode, is_readable, caplog):
    key_file.chmod(mode)

    provider = StaticTokenAuthProvider.from_file(key_file)

    assert read_api_key_file(key_file).is_readable_by_others is is_readable
    assert provider.get_token() == "sesame"
    assert isinstance(provider, AuthProvider)
    assert ["chmod 600" in record.getMessage() for record in caplog.records] == [True] * is_readable
    assert "sesame" not in caplog.text


def test_a_file_that_others_can_change_is_refused(key_file):
    link = key_file.with_name("link")
    link.symlink_to(key_file)
    assert StaticTokenAuthProvider.from_file(link).get_token() == "sesame"
    key_file.chmod(0o666)

    for path in (key_file, link):
        with pytest.raises(ConfigurationError, match="can be changed by any user"):
            StaticTokenAuthProvider.from_file(path)


def test_a_file_that_is_missing_a_folder_huge_or_binary_is_refused(tmp_path):
    (tmp_path / "huge").write_bytes(b"a" * 300_000)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")

    for name in ("missing", ".", "huge", "binary"):
        with pytest.raises(ConfigurationError):
            StaticTokenAuthProvider.from_file(tmp_path / name)
