"""A person signs in, against a provider on loopback: which flow is chosen, and what is shown, kept and tried next."""

import json
import socket
from dataclasses import replace
from unittest.mock import Mock

import pytest
import requests

from micromegas_jupyter.auth import OidcAuthProvider, OidcClientCredentialsProvider
from micromegas_jupyter.auth.flows.base import RuntimeInfo
from micromegas_jupyter.auth.flows.hub import HubTokenProvider
from micromegas_jupyter.config.client import ClientSettings, Flow, TokenStorage
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import (
    ConfigurationError,
    LoginFailed,
    LoginRefused,
    LoginRequired,
    ProviderUnavailable,
    TokenStoreError,
    UsageError,
)
from micromegas_jupyter.wiring import client_side
from micromegas_jupyter.wiring.sign_in import choose_flow, login, require_flow
from tests.fakes.hub_service import FakeHubService, HubReply
from tests.fakes.scripted_browser import ScriptedBrowser
from tests.fakes.scripted_provider import Reply

TERMINAL = RuntimeInfo(has_terminal=True, has_browser=True)
NO_SCREEN = RuntimeInfo(has_terminal=True)
KERNEL = RuntimeInfo(has_kernel=True, allows_input=True)
NOWHERE = ClientSettings(issuer="http://127.0.0.1:1", client_id="notebook")


def test_the_provider_is_asked_for_its_device_sign_in_where_that_comes_first(settings, environ, idp):
    idp.metadata_changes["device_authorization_endpoint"] = None

    choice = choose_flow(settings, facts=NO_SCREEN, environ=environ)

    assert choice.flow is Flow.PASTE
    assert [found.flow for found in choice.skipped] == [Flow.DEVICE]
    with pytest.raises(ProviderUnavailable):
        choose_flow(NOWHERE, facts=NO_SCREEN, environ=environ)


@pytest.mark.parametrize(
    ("options", "variable", "profile", "remembered", "expected"),
    [
        ({"wanted": Flow.PASTE}, "device", "", Flow.BROWSER, (Flow.PASTE, "argument")),
        ({"is_automatic": True}, "device", "", Flow.PASTE, (Flow.BROWSER, "environment")),
        ({}, "device", "paste", Flow.PASTE, (Flow.DEVICE, "MICROMEGAS_OIDC_FLOW")),
        ({}, "", "paste", Flow.BROWSER, (Flow.PASTE, "config.json: flow")),
        ({}, "", "", Flow.PASTE, (Flow.PASTE, "remembered")),
        ({}, "", "", None, (Flow.BROWSER, "environment")),
        ({}, "auto", "", Flow.PASTE, (Flow.BROWSER, "environment")),
    ],
)
def test_argument_variable_profile_and_an_earlier_choice_win_in_this_order(  # noqa: PLR0917 - one case
    environ, tmp_path, options, variable, profile, remembered, expected
):
    environ["MICROMEGAS_OIDC_FLOW"] = variable
    (tmp_path / "config").mkdir(mode=0o700)
    (tmp_path / "config" / "config.json").write_text(json.dumps({"flow": profile} if profile else {}))
    settings = client_side.load_client_settings(environ=environ)
    client_side.remember_flow(settings, remembered, environ)

    choice = choose_flow(settings, facts=TERMINAL, environ=environ, **options)

    assert (choice.flow, choice.origin) == expected


def test_without_a_person_there_is_no_flow_and_no_request(settings, environ, idp):
    choice = choose_flow(settings, facts=RuntimeInfo(), environ=environ)

    with pytest.raises(LoginRequired, match="micromegas login"):
        require_flow(settings, choice)
    assert idp.requests == []


def test_a_flow_that_is_not_possible_is_told_by_whoever_named_it(settings, environ, idp):
    idp.metadata_changes["device_authorization_endpoint"] = None
    environ["MICROMEGAS_OIDC_FLOW"] = "device"
    by_variable = client_side.load_client_settings(environ=environ)

    with pytest.raises(UsageError, match="does not support device sign-in"):
        require_flow(settings, choose_flow(settings, facts=TERMINAL, wanted=Flow.DEVICE, environ=environ))
    with pytest.raises(ConfigurationError) as caught:
        require_flow(by_variable, choose_flow(by_variable, facts=TERMINAL, environ=environ))
    assert caught.value.key == "MICROMEGAS_OIDC_FLOW"


# Signing in


def browse(pending):
    """Follow the provider's page to the address that a person would copy."""
    return requests.get(pending.start_url, allow_redirects=False, timeout=30).headers["Location"]


class Person:
    """Reads what is shown, and pastes what a script says."""

    def __init__(self, *answers):
        self.heard = []
        self.shown = []
        self._answers = list(answers)

    def ask(self, question):
        answer = self._answers.pop(0)
        return answer(self.shown[-1]) if callable(answer) else answer

    def login(self, settings, **options):
        return login(settings, announce=self.heard.append, show=self.shown.append, prompt=self.ask, **options)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(status=401, body={"error": "invalid_client"}), LoginFailed),
        (Reply(status=503, body={}), ProviderUnavailable),
    ],
)
def test_an_application_that_is_not_known_and_a_provider_that_is_down_get_no_fallback(
    reply, expected, settings, environ, idp
):
    person = Person()
    idp.reply_once("/device_authorization", reply)

    with pytest.raises(expected):
        person.login(settings, flow=Flow.DEVICE, fallbacks=[Flow.PASTE], environ=environ)

    assert person.heard == []


def test_without_a_usable_keyring_no_flow_is_tried(settings, environ, idp):
    settings = replace(settings, storage=TokenStorage.KEYRING)
    environ |= {"PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}

    with pytest.raises(TokenStoreError, match="keyring"):
        Person().login(settings, flow=Flow.BROWSER, fallbacks=[Flow.PASTE], environ=environ)

    assert idp.requests == []


def test_an_address_that_does_not_fit_is_asked_for_again_a_few_times(settings, environ):
    person = Person("http://127.0.0.1/nothing", browse)
    person.login(settings, flow=Flow.PASTE, environ=environ)

    assert len(person.heard) == 1
    with pytest.raises(LoginFailed, match="None of the pasted URLs"):
        Person("one", "two", "three", "four", "five").login(settings, flow=Flow.PASTE, environ=environ)


def test_a_refusal_that_is_pasted_is_told(settings, environ, idp):
    idp.callback_changes |= {"code": None, "error": "access_denied"}

    with pytest.raises(LoginRefused):
        Person(browse).login(settings, flow=Flow.PASTE, environ=environ)


def test_an_interrupt_ends_the_sign_in_and_stops_listening(settings, environ):
    person, browser = Person(), Mock(open=Mock(side_effect=KeyboardInterrupt))

    with pytest.raises(KeyboardInterrupt):
        person.login(settings, browser=browser, environ=environ)

    (pending,) = person.shown
    port = int(pending.start_url.split(":")[2].split("/")[0])
    assert pending.done
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


# JupyterHub


@pytest.fixture
def hub(idp):
    with FakeHubService() as service:
        service.issuer = idp.issuer
        yield service


@pytest.fixture
def below_hub(environ, hub):
    return {**environ, **hub.environ}


def stored(environ, **changes):
    settings = replace(client_side.load_client_settings(environ=environ), **changes)
    return client_side.stored_provider(settings, environ)


def test_the_hub_signs_in_without_a_click_and_signing_out_leaves_it_alone(below_hub, hub):
    provider = stored(below_hub)
    report = client_side.logout(client_side.load_client_settings(environ=below_hub), environ=below_hub)

    assert isinstance(provider, HubTokenProvider)
    assert (hub.calls, report.was_signed_in) == ([], False)
    assert provider.get_token()
    assert provider.identity().email == "alice@example.com"


def test_a_server_alone_is_enough_but_without_a_word_about_it_no_token_goes_anywhere(below_hub):
    del below_hub["MICROMEGAS_OIDC_ISSUER"], below_hub["MICROMEGAS_OIDC_CLIENT_ID"]
    named = {**below_hub, "MICROMEGAS_ANALYTICS_URI": "grpc+tls://lake.example.com:50051"}

    assert isinstance(stored(named), HubTokenProvider)
    assert stored(below_hub) is None
    # A client refuses to send a token over plain text to another machine.
    with pytest.raises(UsageError, match="could read the token"):
        client_side.connect("grpc://lake.example.com:50051", environ=below_hub)


@pytest.mark.parametrize("missing", ["KERNEL_MICROMEGAS_HUB", "JUPYTERHUB_API_TOKEN"])
def test_without_the_service_or_this_servers_token_nothing_changes(below_hub, missing):
    del below_hub[missing]

    with pytest.raises(LoginRequired, match="You are not signed in"):
        stored(below_hub)


@pytest.mark.parametrize("asked_for", [True, False])
def test_a_service_account_wins_over_the_hub(below_hub, asked_for):
    provider = stored(below_hub, client_secret=Secret("s"), as_service_account=asked_for)

    assert isinstance(provider, OidcClientCredentialsProvider)


@pytest.mark.parametrize("how", ["variable", "remembered"])
def test_another_way_that_a_person_chose_wins_over_the_hub(below_hub, how):
    if how == "variable":
        below_hub["MICROMEGAS_OIDC_FLOW"] = "device"
    else:
        client_side.remember_flow(client_side.load_client_settings(environ=below_hub), Flow.DEVICE, below_hub)

    with pytest.raises(LoginRequired, match="You are not signed in"):
        stored(below_hub)


@pytest.mark.parametrize("facts", [KERNEL, RuntimeInfo(has_terminal=True), RuntimeInfo()], ids=str)
def test_everywhere_below_the_hub_it_comes_first_also_where_only_it_knows_a_provider(below_hub, facts):
    settings = client_side.load_client_settings(environ=below_hub)
    choice = choose_flow(settings, facts=facts, environ=below_hub)
    without_provider = choose_flow(ClientSettings(), facts=facts, environ=below_hub)

    assert require_flow(settings, choice) is Flow.HUB
    assert require_flow(ClientSettings(), without_provider) is Flow.HUB
    assert set(without_provider.fallbacks) <= {Flow.REDIRECT}


@pytest.mark.parametrize(
    "reply",
    [
        HubReply(status=404, body="<p>none</p>"),
        HubReply(status=409, body={"error": "no_auth_state"}),
        HubReply(status=503, body="<p>down</p>"),
    ],
)
def test_when_the_hub_does_not_help_the_next_way_is_announced(below_hub, hub, reply):
    hub.reply = lambda _call: reply
    person = Person()
    settings = client_side.load_client_settings(environ=below_hub)

    provider = person.login(
        settings, flow=Flow.HUB, fallbacks=(Flow.BROWSER,), browser=ScriptedBrowser(), environ=below_hub
    )

    assert isinstance(provider, OidcAuthProvider)
    assert person.heard[0].endswith("Continuing with your browser.")
