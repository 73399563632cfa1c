"""Choosing how a person signs in, by what is set, remembered and possible."""

import json

import pytest

from micromegas_jupyter import wiring
from micromegas_jupyter.auth.flows.select import Facts
from micromegas_jupyter.config.client import ClientSettings, Flow
from micromegas_jupyter.errors import ConfigurationError, LoginRequired, ProviderUnavailable, UsageError
from micromegas_jupyter.wiring.sign_in import choose_flow, require_flow

TERMINAL = Facts(has_terminal=True, has_browser=True)
NO_SCREEN = Facts(has_terminal=True)
NOWHERE = ClientSettings(issuer="http://127.0.0.1:1", client_id="notebook")


def test_the_provider_is_asked_for_its_device_sign_in_where_that_comes_first(settings, environ, idp):
    idp.metadata_changes["device_authorization_endpoint"] = None

    choice = choose_flow(settings, facts=NO_SCREEN, environ=environ)

    assert choice.flow is Flow.PASTE
    assert [found.flow for found in choice.skipped] == [Flow.DEVICE]


def test_a_provider_that_does_not_answer_is_no_reason_for_another_flow(environ):
    with pytest.raises(ProviderUnavailable):
        choose_flow(NOWHERE, facts=NO_SCREEN, environ=environ)


@pytest.mark.parametrize(
    ("argument", "variable", "remembered", "expected"),
    [
        (Flow.PASTE, "device", Flow.BROWSER, (Flow.PASTE, "argument")),
        (None, "device", Flow.PASTE, (Flow.DEVICE, "MICROMEGAS_OIDC_FLOW")),
        (None, "", Flow.PASTE, (Flow.PASTE, "remembered")),
        (None, "", None, (Flow.BROWSER, "environment")),
        (None, "auto", Flow.PASTE, (Flow.BROWSER, "environment")),
    ],
)
def test_an_argument_wins_over_a_variable_and_that_over_an_earlier_choice(
    environ, argument, variable, remembered, expected
):
    environ["MICROMEGAS_OIDC_FLOW"] = variable
    settings = wiring.load_client_settings(environ=environ)
    wiring.remember_flow(settings, remembered, environ)

    choice = choose_flow(settings, facts=TERMINAL, wanted=argument, environ=environ)

    assert (choice.flow, choice.origin) == expected


@pytest.mark.parametrize("variable", ["paste", ""])
def test_an_argument_that_says_automatic_wins_over_all_other_choices(environ, variable):
    environ["MICROMEGAS_OIDC_FLOW"] = variable
    settings = wiring.load_client_settings(environ=environ)
    wiring.remember_flow(settings, Flow.PASTE, environ)

    assert choose_flow(settings, facts=TERMINAL, is_automatic=True, environ=environ).flow is Flow.BROWSER


def test_a_variable_wins_over_the_profile(environ, tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.json").write_text(json.dumps({"flow": "paste"}))

    by_profile = choose_flow(wiring.load_client_settings(environ=environ), facts=TERMINAL, environ=environ)
    environ["MICROMEGAS_OIDC_FLOW"] = "browser"
    by_variable = choose_flow(wiring.load_client_settings(environ=environ), facts=TERMINAL, environ=environ)

    assert (by_profile.flow, by_profile.origin) == (Flow.PASTE, "config.json: flow")
    assert (by_variable.flow, by_variable.origin) == (Flow.BROWSER, "MICROMEGAS_OIDC_FLOW")


def test_without_a_person_there_is_no_flow_and_no_request(settings, environ, idp):
    choice = choose_flow(settings, facts=Facts(), environ=environ)

    with pytest.raises(LoginRequired, match=r"nobody is here.*MICROMEGAS_OIDC_CLIENT_SECRET.*micromegas login"):
        require_flow(settings, choice)
    assert idp.requests == []


def test_an_argument_that_is_not_possible_is_a_usage_error(settings, environ, idp):
    idp.metadata_changes["device_authorization_endpoint"] = None

    choice = choose_flow(settings, facts=TERMINAL, wanted=Flow.DEVICE, environ=environ)

    with pytest.raises(UsageError, match="no device sign-in"):
        require_flow(settings, choice)


def test_a_setting_that_is_not_possible_is_named(environ, idp):
    idp.metadata_changes["device_authorization_endpoint"] = None
    environ["MICROMEGAS_OIDC_FLOW"] = "device"
    settings = wiring.load_client_settings(environ=environ)

    with pytest.raises(ConfigurationError) as caught:
        require_flow(settings, choose_flow(settings, facts=TERMINAL, environ=environ))

    assert caught.value.key == "MICROMEGAS_OIDC_FLOW"


def test_without_a_provider_there_is_nothing_to_choose(environ):
    choice = choose_flow(ClientSettings(), facts=NO_SCREEN, environ=environ)

    with pytest.raises(ConfigurationError, match="No identity provider"):
        require_flow(ClientSettings(), choice)
