"""The Hub's token of a person: asked for once, kept in memory, renewed, served on, refused, and hidden."""

from __future__ import annotations

import pickle
import threading
from datetime import timedelta

import pytest

from micromegas_jupyter.auth.hub_place import find_hub
from micromegas_jupyter.auth.hub_refusals import REFUSALS
from micromegas_jupyter.auth.hub_service import HubService
from micromegas_jupyter.auth.hub_token import HubTokenProvider
from micromegas_jupyter.auth.identity import Identity
from micromegas_jupyter.core.http.hub_http import HubHttp
from micromegas_jupyter.errors import (
    LoginRequired,
    ProviderUnavailable,
    TokenStoreError,
)
from micromegas_jupyter.notebook.dependencies import PersonalProvider
from tests.fakes.clock import FakeClock
from tests.fakes.hub_service import HUB_TOKEN, ISSUER, FakeHubService, HubReply
from tests.fakes.tracebacks import verbose_traceback


@pytest.fixture
def hub():
    with FakeHubService() as service:
        yield service


def service_of(hub, **changes):
    return HubService(find_hub({**hub.environ, **changes}), http=HubHttp(timeout_seconds=30))


def provider_of(hub, clock=None, **options):
    return HubTokenProvider(service_of(hub), clock=clock or FakeClock(), **options)


class OwnSignIn:
    """A sign-in that the person made here."""

    def __init__(self, clock):
        self.ended = False
        self._identity = Identity(
            subject="own", name="Own", email=None, issuer=ISSUER, expires_at=clock.now(), renews=True
        )

    def get_token(self):
        if self.ended:
            raise LoginRequired("It has ended.")
        return "own-token"

    def identity(self):
        return self._identity

    def renew(self):
        self.renewed = True

    def renewal_due_at(self):
        return None

    def invalidate(self, token):
        self.invalidated = token


def test_the_service_is_asked_with_the_servers_own_token_and_once(hub):
    provider = provider_of(hub)

    assert provider.get_token() == provider.get_token()
    assert [(call.method, call.path, call.authorization, call.body) for call in hub.calls] == [
        ("POST", "/services/micromegas/token", f"Bearer {HUB_TOKEN}", {})
    ]


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


def test_a_token_that_nobody_can_read_is_the_hubs_users(hub):
    hub.token = lambda: "opaque"
    provider = provider_of(hub)
    provider.get_token()

    assert (provider.identity().subject, provider.identity().name) == ("alice", "alice")


def test_another_token_is_asked_for_in_the_last_quarter_of_its_life(hub):
    hub.lifetime_seconds = 400
    clock = FakeClock()
    provider = provider_of(hub, clock)
    first = provider.get_token()

    clock.advance(299)
    assert provider.get_token() == first
    clock.advance(2)

    assert provider.get_token() != first
    assert len(hub.calls) == 2


def test_a_clock_that_is_set_changes_nothing_about_the_tokens_life(hub):
    hub.lifetime_seconds = 400
    clock = FakeClock()
    provider = provider_of(hub, clock)
    first = provider.get_token()
    due_at = provider.renewal_due_at()

    clock.sleep_through(-86_400)

    assert provider.get_token() == first
    assert provider.renewal_due_at() == due_at - timedelta(days=1)
    assert provider.identity().expires_at == clock.now() + timedelta(seconds=400)
    clock.advance(401)
    assert provider.get_token() != first


def test_a_hundred_threads_cost_one_request(hub):
    provider = provider_of(hub)
    together, tokens = threading.Barrier(100), []

    def ask():
        together.wait(60)
        tokens.append(provider.get_token())

    threads = [threading.Thread(target=ask) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert (len(tokens), len(set(tokens)), len(hub.calls)) == (100, 1, 1)


@pytest.mark.parametrize(("status", "code"), [(503, "hub_unavailable"), (409, "sign_in_again")])
def test_a_token_that_is_still_valid_serves_on_until_its_end(hub, status, code):
    hub.lifetime_seconds = 400
    clock = FakeClock()
    provider = provider_of(hub, clock)
    first = provider.get_token()
    hub.refuse(status, code)

    clock.advance(350)
    assert provider.get_token() == first
    clock.advance(51)

    with pytest.raises(REFUSALS[code].error_class):
        provider.get_token()


def test_a_token_that_the_server_refused_is_asked_for_anew(hub):
    provider = provider_of(hub)
    first = provider.get_token()

    provider.invalidate(first)

    assert provider.get_token() != first


def test_a_person_may_ask_for_another_token(hub):
    provider = provider_of(hub)
    first = provider.get_token()

    provider.renew()

    assert provider.get_token() != first


def test_a_token_of_another_provider_than_the_settings_name_is_not_used(hub):
    hub.issuer = "https://other.example"

    with pytest.raises(LoginRequired, match=r"at other\.example, and the settings name https://id\.example") as caught:
        provider_of(hub, issuer=ISSUER).get_token()

    assert "MICROMEGAS_OIDC_ISSUER" in caught.value.remedy
    assert provider_of(hub, issuer="https://other.example").get_token()


def test_a_sign_in_of_the_persons_own_stands_in_when_the_hub_refuses(hub):
    clock = FakeClock()
    own = OwnSignIn(clock)
    provider = provider_of(hub, clock, stored=lambda: own)
    hub.refuse(409, "no_auth_state")

    assert provider.get_token() == "own-token"
    assert (provider.through, provider.identity().name, provider.renewal_due_at()) == ("", "Own", None)
    provider.renew()
    provider.invalidate("own-token")
    assert (own.renewed, own.invalidated) == (True, "own-token")
    assert len(hub.calls) == 1


def test_when_that_one_has_ended_the_hub_is_asked_again(hub):
    clock = FakeClock()
    own = OwnSignIn(clock)
    provider = provider_of(hub, clock, stored=lambda: own)
    hub.refuse(409, "no_auth_state")
    provider.get_token()
    hub.reply, own.ended = hub.contract, True

    assert provider.get_token() != "own-token"
    assert provider.through == "JupyterHub"


def test_nobody_else_stands_in_while_the_service_does_not_answer(hub):
    clock = FakeClock()
    hub.refuse(503, "hub_unavailable")

    with pytest.raises(ProviderUnavailable):
        provider_of(hub, clock, stored=lambda: OwnSignIn(clock)).get_token()


def test_what_the_hub_said_is_the_news_when_nothing_stands_in(hub):
    def broken():
        raise TokenStoreError("It cannot be read.")

    hub.refuse(409, "sign_in_again")

    with pytest.raises(LoginRequired, match="Your sign-in at JupyterHub has ended"):
        provider_of(hub, stored=broken).get_token()


def test_no_token_is_seen_in_a_text_or_a_traceback(hub):
    provider = provider_of(hub)
    token = provider.get_token()
    hub.reply = lambda call: HubReply(body={**hub.contract(call).body, "expires_in": -1})

    texts = [repr(provider), str(provider), repr(service_of(hub)), repr(provider._newest), repr(provider.__dict__)]
    texts.append(verbose_traceback(provider.renew))
    assert not any(secret in text for secret in (token, token[:40], HUB_TOKEN) for text in texts)
    with pytest.raises(TypeError):
        pickle.dumps(provider)
