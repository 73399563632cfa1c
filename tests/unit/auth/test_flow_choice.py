"""The table of ways to sign in, and what overrides it."""

import pytest

from micromegas_jupyter.auth.flows.environment import Facts
from micromegas_jupyter.auth.flows.select import (
    BASIC_FLOWS,
    FLOW_TABLE,
    RuntimeEnvironment,
    available_flows,
    choose_flow,
    is_worth_another_flow,
    login_remedy,
)
from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.errors import LoginFailed, LoginRequired, ProviderMisbehaved, ProviderUnavailable

ALL = frozenset(Flow)
NOBODY = (RuntimeEnvironment.UNATTENDED, RuntimeEnvironment.NO_TERMINAL)
ATTENDED = [row for row in RuntimeEnvironment if row not in NOBODY]


@pytest.mark.parametrize(
    ("environment", "flows"),
    [
        (RuntimeEnvironment.JUPYTER_WITH_REDIRECT, [Flow.REDIRECT, Flow.DEVICE, Flow.PASTE]),
        (RuntimeEnvironment.HUB_WITH_SERVICE, [Flow.HUB, Flow.REDIRECT, Flow.DEVICE, Flow.PASTE]),
        (RuntimeEnvironment.HUB_TERMINAL, [Flow.HUB, Flow.REDIRECT, Flow.DEVICE, Flow.PASTE]),
        (RuntimeEnvironment.HUB, [Flow.DEVICE, Flow.PASTE]),
        (RuntimeEnvironment.COLAB, [Flow.DEVICE, Flow.PASTE]),
        (RuntimeEnvironment.VSCODE_REMOTE, [Flow.DEVICE, Flow.PASTE]),
        (RuntimeEnvironment.VSCODE, [Flow.BROWSER, Flow.DEVICE, Flow.PASTE]),
        (RuntimeEnvironment.REMOTE_JUPYTER, [Flow.DEVICE, Flow.PASTE]),
        (RuntimeEnvironment.JUPYTER, [Flow.BROWSER, Flow.DEVICE, Flow.PASTE]),
        (RuntimeEnvironment.TERMINAL, [Flow.BROWSER, Flow.DEVICE, Flow.PASTE]),
        (RuntimeEnvironment.TERMINAL_WITHOUT_BROWSER, [Flow.DEVICE, Flow.PASTE]),
        (RuntimeEnvironment.REMOTE_TERMINAL, [Flow.DEVICE, Flow.PASTE]),
    ],
)
def test_the_best_flow_of_the_environment_comes_first(environment, flows):
    choice = choose_flow(environment, can_device=True, available=ALL)

    assert [choice.flow, *choice.fallbacks] == flows
    assert (choice.origin, choice.skipped, choice.remedy) == ("environment", (), "")


@pytest.mark.parametrize("row", FLOW_TABLE, ids=lambda row: row.environment.name)
def test_every_row_says_why(row):
    assert row.reason.endswith(".")


def test_a_flow_that_is_not_offered_is_skipped_and_said_so():
    choice = choose_flow(RuntimeEnvironment.JUPYTER_WITH_REDIRECT, can_device=True, available=BASIC_FLOWS)

    assert choice.flow is Flow.DEVICE
    assert [(found.flow, found.reason) for found in choice.skipped] == [(Flow.REDIRECT, "it is not available here")]


def test_a_device_sign_in_that_the_provider_does_not_have_is_skipped_and_said_so():
    choice = choose_flow(RuntimeEnvironment.REMOTE_TERMINAL, can_device=False)

    assert (choice.flow, choice.fallbacks) == (Flow.PASTE, ())
    assert choice.skipped[0].reason == "the identity provider has no device sign-in"


def test_a_device_sign_in_that_nobody_asked_the_provider_about_stays():
    assert choose_flow(RuntimeEnvironment.REMOTE_TERMINAL, can_device=None).flow is Flow.DEVICE


def test_where_nothing_is_possible_there_is_a_remedy():
    choice = choose_flow(RuntimeEnvironment.HUB, can_device=False, available={Flow.BROWSER, Flow.DEVICE})

    assert choice.flow is None
    assert "micromegas login" in choice.remedy
    assert [found.flow for found in choice.skipped] == [Flow.DEVICE, Flow.PASTE]


@pytest.mark.parametrize("environment", ATTENDED)
@pytest.mark.parametrize("origin", ["argument", "MICROMEGAS_OIDC_FLOW", "config.json: flow", "remembered"])
def test_a_persons_choice_wins_over_the_table(environment, origin):
    choice = choose_flow(environment, wanted=Flow.PASTE, origin=origin)

    assert (choice.flow, choice.origin) == (Flow.PASTE, origin)


def test_what_was_asked_for_just_now_is_exchanged_for_nothing_else():
    assert choose_flow(RuntimeEnvironment.TERMINAL, wanted=Flow.BROWSER, origin="argument").fallbacks == ()


@pytest.mark.parametrize("origin", ["MICROMEGAS_OIDC_FLOW", "remembered"])
def test_a_lasting_choice_that_fails_goes_on_as_the_table_says(origin):
    choice = choose_flow(RuntimeEnvironment.REMOTE_TERMINAL, wanted=Flow.BROWSER, origin=origin)

    assert (choice.flow, choice.fallbacks) == (Flow.BROWSER, (Flow.DEVICE, Flow.PASTE))


@pytest.mark.parametrize("origin", ["argument", "MICROMEGAS_OIDC_FLOW"])
def test_a_choice_that_is_not_possible_says_who_made_it(origin):
    choice = choose_flow(RuntimeEnvironment.TERMINAL, wanted=Flow.DEVICE, origin=origin, can_device=False)

    assert (choice.flow, choice.origin) == (None, origin)
    assert f"device was chosen by {origin}, but the identity provider has no device sign-in" in choice.reason
    assert choice.remedy


def test_an_earlier_choice_that_is_not_possible_any_more_is_left():
    choice = choose_flow(RuntimeEnvironment.TERMINAL, wanted=Flow.DEVICE, origin="remembered", can_device=False)

    assert (choice.flow, choice.origin, choice.fallbacks) == (Flow.BROWSER, "environment", (Flow.PASTE,))
    assert [found.flow for found in choice.skipped] == [Flow.DEVICE]


@pytest.mark.parametrize("environment", NOBODY)
@pytest.mark.parametrize("origin", ["MICROMEGAS_OIDC_FLOW", "config.json: flow", "remembered"])
def test_where_nobody_is_no_lasting_choice_makes_anything_wait(environment, origin):
    choice = choose_flow(environment, wanted=Flow.BROWSER, origin=origin, can_device=True)

    assert choice.flow is None
    for way in ("CLIENT_SECRET", "PRIVATE_KEY_FILE", "WORKLOAD"):
        assert f"MICROMEGAS_OIDC_{way}" in choice.remedy
    assert "docs/service-accounts.md" in choice.remedy
    assert "`micromegas login`" in choice.remedy


@pytest.mark.parametrize("environment", NOBODY)
@pytest.mark.parametrize("wanted", [None, Flow.HUB])
def test_where_nobody_is_a_hub_signs_in_all_the_same(environment, wanted):
    choice = choose_flow(environment, wanted=wanted, available=ALL)

    assert (choice.flow, choice.fallbacks) == (Flow.HUB, ())


def test_a_hub_without_the_service_says_what_its_administrator_can_add():
    choice = choose_flow(RuntimeEnvironment.HUB, can_device=True)

    assert (choice.flow, choice.skipped) == (Flow.DEVICE, ())
    assert "administrator can add" in choice.reason
    assert "docs/jupyterhub.md" in choice.reason


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (LoginFailed("A port is taken."), True),
        (ProviderMisbehaved("It has no such endpoint."), True),
        (LoginRequired("Nobody is signed in."), False),
        (ProviderUnavailable("It does not answer."), False),
    ],
)
def test_another_way_is_tried_where_that_may_help(error, expected):
    assert is_worth_another_flow(error) is expected


def test_whatever_a_hub_says_another_way_may_help():
    error = ProviderUnavailable("It does not answer.")
    error.giver = "JupyterHub"

    assert is_worth_another_flow(error)


def test_an_application_that_the_provider_does_not_know_gets_nowhere_in_any_way():
    error = LoginFailed("No.")
    error.provider_code = "invalid_client"

    assert not is_worth_another_flow(error)


def test_a_flow_that_an_argument_names_is_used_without_a_terminal():
    assert choose_flow(RuntimeEnvironment.NO_TERMINAL, wanted=Flow.DEVICE, origin="argument").flow is Flow.DEVICE


def test_a_notebook_that_runs_by_itself_never_waits_for_a_person():
    assert choose_flow(RuntimeEnvironment.UNATTENDED, wanted=Flow.DEVICE, origin="argument", available=ALL).flow is None


@pytest.mark.parametrize(
    ("environment", "profile", "expected"),
    [
        (RuntimeEnvironment.TERMINAL, None, "Run `micromegas login`, or set MICROMEGAS_OIDC_CLIENT_SECRET"),
        (RuntimeEnvironment.HUB_TERMINAL, None, "Run `micromegas login`, or set MICROMEGAS_OIDC_CLIENT_SECRET"),
        (RuntimeEnvironment.REMOTE_TERMINAL, "work", "Run `micromegas login --profile work`, or"),
        (RuntimeEnvironment.JUPYTER, "work", "Run %micromegas_login --profile work, or"),
        (RuntimeEnvironment.NO_TERMINAL, "work", "run `micromegas login --profile work` on this machine beforehand"),
    ],
)
def test_the_remedy_names_the_command_of_the_place(environment, profile, expected):
    assert expected in login_remedy(environment, profile=profile)


@pytest.mark.parametrize(
    ("environ", "has_kernel", "is_offered"),
    [
        ({"KERNEL_MICROMEGAS_REDIRECT": "/"}, True, True),
        ({"KERNEL_MICROMEGAS_REDIRECT": ""}, True, False),
        ({}, True, False),
        # A terminal of the lab inherits the variable.
        ({"KERNEL_MICROMEGAS_REDIRECT": "/"}, False, False),
    ],
)
def test_a_redirect_is_offered_to_kernels_whose_server_said_so(
    environ: dict[str, str], has_kernel: bool, is_offered: bool
) -> None:
    offered = available_flows(environ, Facts(has_kernel=has_kernel))

    assert (Flow.REDIRECT in offered) is is_offered
    assert offered >= BASIC_FLOWS


@pytest.mark.parametrize("has_kernel", [True, False])
def test_the_hub_is_offered_where_it_has_the_service_and_this_server_its_token(has_kernel: bool) -> None:
    environ = {"KERNEL_MICROMEGAS_HUB": "http://127.0.0.1/", "JUPYTERHUB_API_TOKEN": "t"}

    assert Flow.HUB in available_flows(environ, Facts(has_kernel=has_kernel))
    assert Flow.HUB not in available_flows({**environ, "JUPYTERHUB_API_TOKEN": ""}, Facts(has_kernel=has_kernel))
