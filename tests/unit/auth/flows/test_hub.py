"""JupyterHub's sign-in service: where it may be, what its refusals become, its token, and its redirect."""

from dataclasses import FrozenInstanceError
from datetime import timedelta
from unittest.mock import Mock
from urllib.parse import urlsplit

import pytest
import requests

from micromegas_jupyter.auth.flows.base import LoginRequest
from micromegas_jupyter.auth.flows.hub import REFUSALS, HubRedirectFlow, HubService, HubTokenProvider, find_hub
from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.auth.tokens.source import Identity
from micromegas_jupyter.config.client import ClientSettings, Flow
from micromegas_jupyter.core.http import MAX_RESPONSE_BYTES, HubHttp
from micromegas_jupyter.errors import (
    ConfigurationError,
    LoginFailed,
    LoginRequired,
    MicromegasError,
    ProviderMisbehaved,
    ProviderUnavailable,
)
from micromegas_jupyter.notebook.login.connections import PersonalProvider
from micromegas_jupyter.wiring import sign_in as signing_in
from tests.fakes.clock import FakeClock
from tests.fakes.hub_service import ISSUER, FakeHubService, HubReply
from tests.fakes.scripted_provider import ScriptedProvider

API = "http://hub:8081/hub/api"
DEADLINE_SECONDS = 60


@pytest.fixture
def hub():
    with FakeHubService() as service:
        yield service


def service_of(hub):
    return HubService(find_hub(hub.environ), http=HubHttp(timeout_seconds=30))


# Where the service may be


def environ_of(url, *, token="t0ken", api=API):
    return {"KERNEL_MICROMEGAS_HUB": url, "JUPYTERHUB_API_TOKEN": token, "JUPYTERHUB_API_URL": api}


@pytest.mark.parametrize(
    "origin",
    ["https://hub.example.com", "http://127.0.0.1:8000", "http://[::1]:8000", "http://localhost", "http://hub:10101"],
)
def test_the_token_goes_over_tls_or_to_this_machine_or_to_the_hubs_own_host(origin):
    url = f"{origin}/services/micromegas/"
    endpoint = find_hub(environ_of(url))

    assert (endpoint.url, endpoint.token.reveal()) == (url, "t0ken")
    assert "t0ken" not in repr(endpoint)
    with pytest.raises(FrozenInstanceError):
        endpoint.url = "https://evil.example/"


SERVICE = "http://hub/services/micromegas/"
NOT_SENT, UNCLEAR = "is not sent there", None


@pytest.mark.parametrize(
    ("url", "changes", "words"),
    [
        ("http://proxy.example.com/services/micromegas/", {}, NOT_SENT),
        (SERVICE, {"api": ""}, NOT_SENT),
        (SERVICE, {"api": "http://[broken"}, NOT_SENT),
        ("http://hub.example.com/services/micromegas/", {}, NOT_SENT),
        *(("https://hub/", {"token": token}, UNCLEAR) for token in ("two words", "é", "a\nb", "a" * 4097)),
        ("ftp://hub/services/micromegas/", {}, UNCLEAR),
        ("https://hub/services/micromegas", {}, UNCLEAR),
        ("https://user@hub/services/micromegas/", {}, UNCLEAR),
        ("https://hub/services/?a=/", {}, UNCLEAR),
        ("https://hub:99999/services/", {}, UNCLEAR),
        ("https://hub\\evil/services/", {}, UNCLEAR),
        ("https://hub/" + "a" * 2048 + "/", {}, UNCLEAR),
    ],
)
def test_it_goes_nowhere_else_and_to_no_address_that_can_be_read_in_two_ways(url, changes, words):
    environ = environ_of(url, **changes)
    with pytest.raises(ConfigurationError, match=words) as caught:
        find_hub(environ)

    assert environ["JUPYTERHUB_API_TOKEN"] not in str(caught.value)
    if words:
        assert caught.value.key == "KERNEL_MICROMEGAS_HUB"
        assert "administrator" in caught.value.remedy


# What it answers


@pytest.mark.parametrize("code", REFUSALS)
def test_each_refusal_is_an_error_that_says_what_to_do(hub, code):
    expected = REFUSALS[code].error_class
    hub.refuse(503 if expected is ProviderUnavailable else 409, code)

    with pytest.raises(MicromegasError) as caught:
        service_of(hub).token()

    assert type(caught.value) is expected
    assert caught.value.sign_in_service == "JupyterHub"
    assert "its words" not in str(caught.value)


@pytest.mark.parametrize(
    ("reply", "expected", "words"),
    [
        (HubReply(status=404, body="<p>none</p>"), LoginRequired, "add the service `micromegas`"),
        (HubReply(status=400, body={"error": "invalid_sign_in"}), ProviderMisbehaved, "incompatible versions"),
        (HubReply(status=400, body={"error": "<script>"}), LoginRequired, r"status 400"),
        (HubReply(status=503, body="<p>down</p>"), ProviderUnavailable, r"status 503"),
        (HubReply(status=302, body="", location="https://evil.example/"), ProviderMisbehaved, "redirect"),
        (HubReply(status=204), ProviderMisbehaved, "unusable response"),
        (HubReply(body="<p>hello</p>"), ProviderMisbehaved, "unusable response"),
        (HubReply(body={"pad": " " * MAX_RESPONSE_BYTES}), ProviderMisbehaved, "sent more than"),
    ],
)
def test_an_answer_that_is_none_of_the_contract_is_told_apart(hub, reply, expected, words):
    hub.reply = lambda _call: reply

    with pytest.raises(expected, match=words) as caught:
        service_of(hub).token()

    assert caught.value.sign_in_service == "JupyterHub"
    assert len(hub.calls) == 1


@pytest.mark.parametrize(
    "change",
    [
        *({"access_token": token} for token in ("", "two words", "né", "x" * 65_537)),
        *({"expires_in": seconds} for seconds in (-1, "60", 7 * 24 * 3600 + 1)),
        {"issuer": ""},
        {"user": 7},
    ],
    ids=str,
)
def test_a_token_answer_with_a_malformed_member_is_refused(hub, change):
    hub.reply = lambda call: HubReply(body={**hub.contract(call).body, **change})

    with pytest.raises(ProviderMisbehaved, match="unusable response"):
        service_of(hub).token()


def test_a_token_may_last_a_week(hub):
    hub.lifetime_seconds = 7 * 24 * 3600

    assert provider_of(hub).get_token()


@pytest.mark.parametrize("name", ["n/4", "n?4", "né", ""])
def test_a_sign_in_whose_name_would_change_an_address_is_refused(hub, name):
    hub.reply = lambda _call: HubReply(status=201, body={"name": name, "start_url": hub.start_url, "expires_in": 600})

    with pytest.raises(ProviderMisbehaved, match="unusable response"):
        service_of(hub).begin("https://id.example.com/authorize")


# The token


def provider_of(hub, clock=None, **options):
    return HubTokenProvider(service_of(hub), clock=clock or FakeClock(), **options)


def own_sign_in():
    """Return a sign-in that the person made here."""
    return Mock(get_token=Mock(return_value="own-token"), renewal_due_at=Mock(return_value=None))


def test_who_is_signed_in_is_known_from_the_token(hub):
    clock = FakeClock()
    provider = provider_of(hub, clock)

    with pytest.raises(LoginRequired, match="JupyterHub"):
        provider.identity()
    provider.get_token()

    assert isinstance(provider, PersonalProvider)
    assert provider.through == "JupyterHub"
    assert provider.identity() == Identity(
        subject="alice-sub",
        name="Alice Martin",
        email="alice@example.com",
        issuer=ISSUER,
        expires_at=clock.now() + timedelta(hours=1),
        renews=True,
        groups=("analysts",),
    )


def test_a_token_that_has_just_ended_is_the_providers_absence_and_nobody_else_stands_in(hub):
    hub.lifetime_seconds = 0

    with pytest.raises(ProviderUnavailable, match="cannot reach the identity provider"):
        provider_of(hub, stored=own_sign_in).get_token()


def test_a_token_of_another_provider_than_the_settings_name_is_not_used(hub):
    hub.issuer = "https://other.example"

    with pytest.raises(
        LoginRequired, match=r"with other\.example, but the settings specify https://id\.example"
    ) as caught:
        provider_of(hub, issuer=ISSUER).get_token()

    assert "MICROMEGAS_OIDC_ISSUER" in caught.value.remedy
    assert provider_of(hub, issuer="https://other.example").get_token()


def test_a_sign_in_of_the_persons_own_stands_in_when_the_hub_refuses_until_it_ends(hub):
    own = own_sign_in()
    provider = provider_of(hub, stored=lambda: own)
    hub.refuse(409, "no_auth_state")

    assert provider.get_token() == "own-token"
    assert (provider.through, provider.renewal_due_at()) == ("", None)
    assert len(hub.calls) == 1
    hub.reply, own.get_token.side_effect = hub.contract, LoginRequired("It has ended.")
    assert provider.get_token() != "own-token"
    assert provider.through == "JupyterHub"


def test_a_sign_in_of_the_users_own_replaces_a_token_that_a_server_rejected_if_the_hub_has_no_other(hub):
    provider = provider_of(hub, stored=own_sign_in)
    rejected = provider.get_token()
    hub.refuse(409, "sign_in_again")

    provider.invalidate(rejected)

    assert provider.get_token() == "own-token"


def test_a_renewal_calls_the_hub_each_time_and_reports_why_it_fails(hub):
    provider = provider_of(hub)
    provider.invalidate(provider.get_token())
    provider.get_token()
    provider.renew()
    hub.refuse(409, "sign_in_again")

    with pytest.raises(LoginRequired):
        provider.renew()

    assert len(hub.calls) == 4


# The redirect


@pytest.fixture
def redirecting(hub):
    with ScriptedProvider() as idp:
        hub.issuer, hub.client_id = idp.issuer, idp.client_id
        yield hub


@pytest.fixture
def environ(redirecting, tmp_path):
    return {**redirecting.environ, "MICROMEGAS_CONFIG_DIR": str(tmp_path / "config")}


def begin(settings, environ):
    pending = signing_in.begin_login(settings, flow=Flow.REDIRECT, environ=environ)
    assert isinstance(pending._running, HubRedirectFlow)
    return pending


def query_of_browser(redirecting):
    """Go to the provider as the Hub sends the browser there, and return what it comes back with."""
    answer = requests.get(redirecting.authorization_urls[-1], allow_redirects=False, timeout=DEADLINE_SECONDS)
    assert answer.headers["Location"].startswith(redirecting.redirect_uri)
    return urlsplit(answer.headers["Location"]).query


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("issuer", "https://other.example", LoginFailed),
        ("client_id", "another", LoginFailed),
        ("redirect_uri", "https://evil.example/elsewhere", ProviderMisbehaved),
        ("start_url", "javascript:alert(1)", ProviderMisbehaved),
        ("start_url", "/services/micromegas/start/n4me", ProviderMisbehaved),
    ],
)
def test_what_does_not_fit_is_refused_before_a_browser_goes_anywhere(redirecting, environ, name, value, kind):
    settings = ClientSettings(issuer=redirecting.issuer, client_id=redirecting.client_id)
    setattr(redirecting, name, value)

    with pytest.raises(kind) as caught:
        begin(settings, environ)

    assert caught.value.sign_in_service == "JupyterHub"


def test_a_sign_in_outlasts_a_restart_and_is_in_memory_where_only_the_hub_knows_a_provider(
    redirecting, environ, tmp_path
):
    replies = [HubReply(status=503, body="<p>down</p>"), HubReply(status=204)]

    def reply(call):
        return replies.pop(0) if call.path.endswith("/answer") and replies else redirecting.contract(call)

    redirecting.reply = reply
    pending = begin(ClientSettings(), environ)
    redirecting.answer_to_redirect = query_of_browser(redirecting)

    assert pending.result(DEADLINE_SECONDS).identity().email == "alice@example.com"
    assert replies == []
    assert not (tmp_path / "config").exists()


def test_a_sign_in_that_was_stopped_calls_the_hub_no_more(hub, idp, calls, clock):
    hub.issuer, hub.client_id = idp.issuer, idp.client_id
    connection = ProviderConnection(idp.issuer, idp.client_id, None, http=calls, clock=clock)
    flow = HubRedirectFlow(LoginRequest(connection=connection), service_of(hub))
    hub.refuse(404, "unknown_sign_in")
    call_count = len(hub.calls)

    flow.stop()

    assert flow.tokens() is None
    assert len(hub.calls) == call_count


def test_a_sign_in_that_the_service_has_forgotten_ends(redirecting, environ):
    pending = begin(ClientSettings(), environ)
    body = {"error": "unknown_sign_in", "message": "", "remedy": ""}
    redirecting.reply = lambda _call: HubReply(status=404, body=body)

    with pytest.raises(LoginFailed, match="This sign-in no longer exists on JupyterHub"):
        pending.result(DEADLINE_SECONDS)
