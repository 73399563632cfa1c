"""A sign-in through the Hub's one redirect: what the Hub is told, what is taken from it, and how it ends otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from micromegas_jupyter import wiring
from micromegas_jupyter.auth.flows.hub import HubRedirectFlow
from micromegas_jupyter.config.client import ClientSettings, Flow
from micromegas_jupyter.errors import LoginFailed, LoginRefused, LoginRequired, MicromegasError, ProviderMisbehaved
from tests.fakes.hub_service import FakeHubService, HubCall, HubReply
from tests.fakes.scripted_provider import ScriptedProvider

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from micromegas_jupyter.auth import PendingLogin

DEADLINE_SECONDS = 60


@pytest.fixture
def idp() -> Iterator[ScriptedProvider]:
    with ScriptedProvider() as running:
        yield running


@pytest.fixture
def hub(idp: ScriptedProvider) -> Iterator[FakeHubService]:
    with FakeHubService() as service:
        service.issuer, service.client_id = idp.issuer, idp.client_id
        yield service


@pytest.fixture
def settings(idp: ScriptedProvider) -> ClientSettings:
    return ClientSettings(issuer=idp.issuer, client_id=idp.client_id)


@pytest.fixture
def environ(hub: FakeHubService, tmp_path: Path) -> dict[str, str]:
    return {**hub.environ, "MICROMEGAS_CONFIG_DIR": str(tmp_path / "config")}


def begin(settings: ClientSettings, environ: dict[str, str]) -> PendingLogin:
    pending = wiring.begin_login(settings, flow=Flow.REDIRECT, environ=environ)
    assert isinstance(pending._running, HubRedirectFlow)
    return pending


def query_of_browser(hub: FakeHubService) -> str:
    """Go to the provider as the Hub sends the browser there, and return what it comes back with."""
    answer = requests.get(hub.authorization_urls[-1], allow_redirects=False, timeout=DEADLINE_SECONDS)
    assert answer.headers["Location"].startswith(hub.redirect_uri)
    return urlsplit(answer.headers["Location"]).query


def test_the_hub_hands_over_what_the_browser_came_back_with(
    hub: FakeHubService, settings: ClientSettings, environ: dict[str, str]
) -> None:
    pending = begin(settings, environ)

    hub.answer_to_redirect = query_of_browser(hub)
    provider = pending.result(DEADLINE_SECONDS)

    assert pending.start_url == hub.start_url
    assert provider.identity().email == "alice@example.com"
    assert wiring.stored_provider(settings, {"MICROMEGAS_CONFIG_DIR": environ["MICROMEGAS_CONFIG_DIR"]}) is not None


def test_the_hub_learns_neither_verifier_nor_token(
    hub: FakeHubService, settings: ClientSettings, environ: dict[str, str]
) -> None:
    pending = begin(settings, environ)
    asked = parse_qs(urlsplit(hub.authorization_urls[0]).query)

    assert asked["redirect_uri"] == [hub.redirect_uri]
    assert asked["code_challenge_method"] == ["S256"]
    assert len(asked["state"][0]) >= 43
    assert asked["state"][0] not in (pending.start_url or "")
    assert {call.path.rpartition("/")[2] for call in hub.calls} <= {"redirect", "sign-ins", "answer"}
    pending.cancel()


def test_where_only_the_hub_knows_a_provider_the_sign_in_is_kept_in_memory(
    hub: FakeHubService, environ: dict[str, str], tmp_path: Path
) -> None:
    pending = begin(ClientSettings(), environ)
    hub.answer_to_redirect = query_of_browser(hub)

    assert pending.result(DEADLINE_SECONDS).identity().email == "alice@example.com"
    assert not (tmp_path / "config").exists()


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"issuer": "https://other.example"}, LoginFailed, r"at other\.example, and the settings name"),
        ({"client_id": "another"}, LoginFailed, "for the application another"),
        ({"redirect_uri": "https://evil.example/elsewhere"}, ProviderMisbehaved, "cannot be used"),
        ({"start_url": "javascript:alert(1)"}, ProviderMisbehaved, "cannot be used"),
        ({"start_url": "/services/micromegas/start/n4me"}, ProviderMisbehaved, "cannot be used"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_before_a_browser_goes_anywhere(  # noqa: PLR0917 - fixtures and one case
    hub: FakeHubService,
    settings: ClientSettings,
    environ: dict[str, str],
    change: dict[str, str],
    kind: type[MicromegasError],
    words: str,
) -> None:
    for name, value in change.items():
        setattr(hub, name, value)

    with pytest.raises(kind, match=words) as caught:
        begin(settings, environ)

    assert caught.value.giver == "JupyterHub"


def test_a_hub_that_has_no_redirect_says_so(
    hub: FakeHubService, settings: ClientSettings, environ: dict[str, str]
) -> None:
    hub.reply = lambda _call: HubReply(status=404, body="<p>none</p>")

    with pytest.raises(LoginRequired, match="no sign-in service") as caught:
        begin(settings, environ)

    assert caught.value.giver == "JupyterHub"


def test_an_answer_of_another_sign_in_is_refused(
    hub: FakeHubService, settings: ClientSettings, environ: dict[str, str]
) -> None:
    pending = begin(settings, environ)
    hub.answer_to_redirect = "code=stolen&state=another"

    with pytest.raises(ProviderMisbehaved, match="do not fit"):
        pending.result(DEADLINE_SECONDS)


def test_a_person_who_says_no_ends_it(hub: FakeHubService, settings: ClientSettings, environ: dict[str, str]) -> None:
    pending = begin(settings, environ)
    state = parse_qs(urlsplit(hub.authorization_urls[0]).query)["state"][0]
    hub.answer_to_redirect = f"error=access_denied&state={state}&iss={settings.issuer}"

    with pytest.raises(LoginRefused, match="access_denied"):
        pending.result(DEADLINE_SECONDS)


def test_a_service_that_is_restarted_meanwhile_is_asked_again(
    hub: FakeHubService, settings: ClientSettings, environ: dict[str, str]
) -> None:
    replies = [HubReply(status=503, body="<p>down</p>"), HubReply(status=204)]

    def reply(call: HubCall) -> HubReply:
        return replies.pop(0) if call.path.endswith("/answer") and replies else hub.contract(call)

    hub.reply = reply
    pending = begin(settings, environ)
    hub.answer_to_redirect = query_of_browser(hub)

    assert pending.result(DEADLINE_SECONDS).get_token()
    assert replies == []


def test_a_sign_in_that_the_service_has_forgotten_ends(
    hub: FakeHubService, settings: ClientSettings, environ: dict[str, str]
) -> None:
    pending = begin(settings, environ)
    hub.reply = lambda _call: HubReply(status=404, body={"error": "unknown_sign_in", "message": "", "remedy": ""})

    with pytest.raises(LoginFailed, match="does not know this sign-in any more"):
        pending.result(DEADLINE_SECONDS)


def test_cancelling_ends_the_wait_at_once(
    hub: FakeHubService, settings: ClientSettings, environ: dict[str, str]
) -> None:
    pending = begin(settings, environ)
    assert hub.asked_for_answer.wait(DEADLINE_SECONDS)

    pending.cancel()

    with pytest.raises(LoginFailed, match="cancelled"):
        pending.result(DEADLINE_SECONDS)
    assert pending.wait_closed(DEADLINE_SECONDS)
