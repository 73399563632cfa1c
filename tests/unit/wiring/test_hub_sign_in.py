"""Which settings let JupyterHub sign a person in, what wins over it, and how a sign-in goes on without it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter import wiring
from micromegas_jupyter.auth import OidcAuthProvider, OidcClientCredentialsProvider
from micromegas_jupyter.auth.flows.hub import HubTokenProvider
from micromegas_jupyter.auth.flows.select import Facts
from micromegas_jupyter.config.client import ClientSettings, Flow
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import ConfigurationError, LoginRequired, UsageError
from micromegas_jupyter.wiring.sign_in import begin_login, choose_flow, login, require_flow
from tests.fakes.hub_service import FakeHubService, HubReply
from tests.fakes.scripted_browser import ScriptedBrowser

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KERNEL = Facts(has_kernel=True, allows_input=True)
UNATTENDED = Facts(has_kernel=True, allows_input=False)


@pytest.fixture
def hub(idp) -> Iterator[FakeHubService]:
    with FakeHubService() as service:
        service.issuer = idp.issuer
        yield service


@pytest.fixture
def environ(environ, hub) -> dict[str, str]:
    return {**environ, **hub.environ}


def provider_of(environ, **changes) -> object:
    settings = replace(wiring.load_client_settings(environ=environ), **changes)
    return wiring.stored_provider(settings, environ)


def test_the_hub_signs_in_without_a_click(environ, hub):
    provider = provider_of(environ)

    assert isinstance(provider, HubTokenProvider)
    assert hub.calls == []
    assert provider.get_token()
    assert provider.identity().email == "alice@example.com"


def test_a_server_alone_is_enough(environ, hub):
    for name in ("MICROMEGAS_OIDC_ISSUER", "MICROMEGAS_OIDC_CLIENT_ID"):
        del environ[name]
    environ["MICROMEGAS_ANALYTICS_URI"] = "grpc+tls://lake.example.com:50051"

    assert isinstance(provider_of(environ), HubTokenProvider)


def test_without_a_word_about_server_or_provider_no_token_goes_anywhere(environ, hub):
    for name in ("MICROMEGAS_OIDC_ISSUER", "MICROMEGAS_OIDC_CLIENT_ID"):
        del environ[name]

    assert provider_of(environ) is None
    # A client refuses to send a token over plain text to another machine.
    with pytest.raises(UsageError, match="could read the token"):
        wiring.connect("grpc://lake.example.com:50051", environ=environ)


@pytest.mark.parametrize("missing", ["KERNEL_MICROMEGAS_HUB", "JUPYTERHUB_API_TOKEN"])
def test_without_the_service_or_this_servers_token_nothing_changes(environ, missing):
    del environ[missing]

    with pytest.raises(LoginRequired, match="You are not signed in"):
        provider_of(environ)


@pytest.mark.parametrize("asked_for", [True, False])
def test_a_service_account_wins(environ, asked_for):
    provider = provider_of(environ, client_secret=Secret("s"), as_service_account=asked_for)

    assert isinstance(provider, OidcClientCredentialsProvider)


@pytest.mark.parametrize("how", ["variable", "profile", "remembered"])
def test_another_way_that_a_person_chose_wins(environ, tmp_path, how):
    if how == "variable":
        environ["MICROMEGAS_OIDC_FLOW"] = "device"
    elif how == "profile":
        write_config(tmp_path, {"flow": "device"})
    else:
        wiring.remember_flow(wiring.load_client_settings(environ=environ), Flow.DEVICE, environ)

    with pytest.raises(LoginRequired, match="You are not signed in"):
        provider_of(environ)


def test_outside_a_hub_it_cannot_be_chosen(environ):
    with pytest.raises(ConfigurationError, match="No JupyterHub") as caught:
        begin_login(ClientSettings(), environ={}, flow=Flow.HUB)

    assert caught.value.key == "KERNEL_MICROMEGAS_HUB"


@pytest.mark.parametrize("facts", [KERNEL, UNATTENDED, Facts(has_terminal=True), Facts()], ids=str)
def test_everywhere_below_the_hub_it_comes_first(environ, facts):
    settings = wiring.load_client_settings(environ=environ)

    choice = choose_flow(settings, facts=facts, environ=environ)

    assert require_flow(settings, choice) is Flow.HUB
    assert choice.origin == "environment"


def test_where_only_the_hub_knows_a_provider_there_is_no_going_on_elsewhere(environ):
    choice = choose_flow(ClientSettings(), facts=KERNEL, environ=environ)

    assert (choice.flow, set(choice.fallbacks) & {Flow.DEVICE, Flow.PASTE}) == (Flow.HUB, set())
    assert require_flow(ClientSettings(), choice) is Flow.HUB


def test_the_hubs_redirect_needs_no_provider_in_the_settings(environ):
    choice = choose_flow(ClientSettings(), facts=KERNEL, wanted=Flow.REDIRECT, environ=environ)

    assert require_flow(ClientSettings(), choice) is Flow.REDIRECT


def test_a_sign_in_through_the_hub_has_ended_when_it_begins(environ, hub):
    pending = wiring.begin_login(wiring.load_client_settings(environ=environ), flow=Flow.HUB, environ=environ)
    told = []
    pending.on_done(told.append)

    assert (pending.flow, pending.done, told) == (Flow.HUB, True, [pending])
    assert pending.result().get_token()
    assert len(hub.calls) == 1


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (HubReply(status=404, body="<p>none</p>"), "JupyterHub has no sign-in service"),
        (HubReply(status=409, body={"error": "no_auth_state"}), "JupyterHub has not stored a sign-in of yours"),
        (HubReply(status=503, body="<p>down</p>"), "answered with status 503"),
        (HubReply(body="<p>what?</p>"), "cannot be used"),
    ],
)
def test_when_the_hub_does_not_help_the_next_way_is_announced(environ, hub, reply, words):
    hub.reply = lambda _call: reply
    heard: list[str] = []

    provider = login(
        wiring.load_client_settings(environ=environ),
        flow=Flow.HUB,
        fallbacks=(Flow.BROWSER,),
        browser=ScriptedBrowser(),
        announce=heard.append,
        environ=environ,
    )

    assert isinstance(provider, OidcAuthProvider)
    assert words in heard[0]
    assert heard[0].endswith("Continuing with your browser.")


def test_signing_out_leaves_the_hub_alone(environ, hub):
    settings = wiring.load_client_settings(environ=environ)

    report = wiring.logout(settings, environ=environ)

    assert not report.was_signed_in
    assert wiring.uses_hub(settings, environ)
    assert hub.calls == []


def write_config(tmp_path: Path, content: object) -> None:
    (tmp_path / "config").mkdir(mode=0o700, exist_ok=True)
    (tmp_path / "config" / "config.json").write_text(json.dumps(content))
