"""Tokens: refreshed by the Hub's hook, and exchanged by the service."""

import asyncio
import json
from datetime import timedelta
from itertools import zip_longest

import pytest

from micromegas_jupyter.config.client import Bearer
from micromegas_jupyter.core.http import HttpAnswer
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import ProviderUnavailable
from micromegas_jupyter.hub.callers import Refused
from micromegas_jupyter.hub.settings import read_service_settings
from micromegas_jupyter.hub.tokens import (
    EXCHANGE_PAUSE_SECONDS,
    REFUSED_KEY,
    STALE_KEY,
    AuthStateRefresher,
    HubProvider,
    StoredBearer,
)
from tests.fakes.clock import FakeClock
from tests.fakes.mint import AUDIENCE, NOW, mint
from tests.unit.hub.test_service import ENVIRON

MARGIN = 60.0
ISSUER = "https://id.example.com"
ASKS_FOR_LAKE = {"MICROMEGAS_HUB_EXCHANGE_AUDIENCE": "lake", "MICROMEGAS_HUB_CLIENT_SECRET": "s3cret"}
REFUSED = HttpAnswer(status=400, body={"error": "invalid_target", "error_description": "no lake"})


class ProviderSaid(Exception):
    """An answer that is no success."""

    def __init__(self, code, body):
        super().__init__("no")
        self.code = code
        self.response = type("Response", (), {"body": body})


class Authenticator:
    """As much of OAuthenticator as the hook uses; answers each renewal with the next answer, which may be an error."""

    manage_groups = False
    user_auth_state_key = "oauth_user"

    def __init__(self, *answers):
        self.answers = list(answers)
        self.sent = []

    def build_refresh_token_request_params(self, refresh_token):
        return {"refresh_token": refresh_token}

    async def get_token_info(self, _handler, fields):
        self.sent.append(fields["refresh_token"])
        await asyncio.sleep(0)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def token_to_user(self, token_info):
        return {"groups": token_info["groups"]}

    async def get_user_groups(self, state):
        return set(state["oauth_user"]["groups"])


class User:
    """As much of the Hub's user as the hook uses."""

    name = "alice"

    def __init__(self, state):
        self.state = state

    async def get_auth_state(self):
        await asyncio.sleep(0)
        return self.state

    async def save_auth_state(self, state):
        await asyncio.sleep(0)
        self.state = state


def kept(expires_in, **members):
    state = {
        "id_token": mint(expires_in=expires_in, iat=int(NOW.timestamp()) - 600),
        "access_token": "old access",
        "refresh_token": "old refresh",
        "scope": ["openid"],
        "token_response": {"id_token": "…"},
    }
    return {**state, **members}


def renewed(**members):
    answer = {"id_token": mint(expires_in=900), "access_token": "new access", "refresh_token": "new refresh"}
    return {**answer, **members}


def refresh(authenticator, user, *, times=1):
    hook = AuthStateRefresher(Bearer.ID_TOKEN, margin_seconds=MARGIN, clock=FakeClock(NOW))

    async def run():
        return list(await asyncio.gather(*(hook(authenticator, user, user.state) for _each in range(times))))

    return asyncio.run(run())


def refusing(error, *, status=400):
    return ProviderSaid(status, json.dumps({"error": error}).encode())


def test_a_token_below_the_margin_is_renewed_and_all_new_tokens_are_kept():
    user, answer = User(kept(MARGIN - 1)), renewed(scope="openid lake")

    assert refresh(Authenticator(answer), user) == [True]
    assert user.state == {
        "id_token": answer["id_token"],
        "access_token": "new access",
        "refresh_token": "new refresh",
        "scope": ["openid", "lake"],
        "token_response": answer,
        STALE_KEY: False,
    }


def test_many_who_ask_at_once_use_the_refresh_token_once():
    authenticator = Authenticator(renewed())

    assert refresh(authenticator, User(kept(1)), times=50) == [True] * 50
    assert authenticator.sent == ["old refresh"]


@pytest.mark.parametrize(
    ("brought", "is_stale"),
    [({}, True), ({"id_token": kept(1)["id_token"]}, True), ({"id_token": mint(expires_in=1)}, False)],
)
def test_a_renewal_without_a_new_or_longer_token_is_not_tried_at_each_call(brought, is_stale, caplog):
    user = User(kept(1))
    authenticator = Authenticator({"access_token": "new access", **brought})

    assert refresh(authenticator, user, times=20) == [True] * 20
    assert authenticator.sent == ["old refresh"]
    assert user.state[STALE_KEY] is is_stale
    said = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert said == (["The sign-in of alice was refreshed without a new id_token."] if is_stale else [])


def test_a_refusal_ends_the_sign_in_and_the_refresh_token_is_not_sent_again():
    user, authenticator = User(kept(1)), Authenticator(refusing("invalid_grant"))

    assert refresh(authenticator, user) == [False]
    assert refresh(authenticator, user) == [False]
    assert authenticator.sent == ["old refresh"]
    assert (user.state["refresh_token"], user.state[REFUSED_KEY]) == (None, True)


@pytest.mark.parametrize(
    "error",
    [
        refusing("temporarily_unavailable"),
        refusing("invalid_client", status=401),
        refusing("server_error", status=503),
        ProviderSaid(502, b"<html>"),
        ProviderSaid(400, b"<html>"),
        ProviderSaid(599, b""),
        TimeoutError(),
        OSError("no route"),
    ],
    ids=["passing", "client", "server", "gateway", "no JSON", "no answer", "time", "network"],
)
def test_what_is_no_refusal_costs_nobody_the_sign_in(error):
    user, authenticator = User(kept(1)), Authenticator(error)

    assert refresh(authenticator, user, times=20) == [True] * 20
    assert authenticator.sent == ["old refresh"]  # once: nobody waits for one try after the other
    assert user.state["refresh_token"] == "old refresh"


@pytest.mark.parametrize(
    "claims",
    [{"subject": "mallory"}, {"issuer": "https://evil.example"}, {"audience": "other"}, {"audience": ["lake"]}],
)
def test_a_token_for_somebody_or_something_else_ends_the_sign_in(claims):
    audience = ["hub", "lake"] if claims == {"audience": ["lake"]} else AUDIENCE
    user = User(kept(1, id_token=mint(expires_in=1, iat=int(NOW.timestamp()) - 600, audience=audience)))

    assert refresh(Authenticator(renewed(id_token=mint(**claims))), user) == [False]
    assert "new access" not in user.state.values()


@pytest.mark.parametrize("state", [None, {}, kept(1, refresh_token=None), kept(1, id_token="opaque")])
def test_what_cannot_be_renewed_is_left_to_oauthenticator_now_and_then(state):
    assert refresh(Authenticator(), User(state), times=3) == [None, True, True]


def test_a_provider_that_gives_no_refresh_token_is_named_in_the_log_once(caplog):
    refresh(Authenticator(), User(kept(900, refresh_token=None)), times=3)

    (warning,) = caplog.messages
    assert "didn't give the Hub a refresh token for alice" in warning


def test_groups_follow_the_provider_where_the_hub_manages_them():
    authenticator, user = Authenticator(renewed(groups=["b", "a"])), User(kept(1))
    authenticator.manage_groups = True

    assert refresh(authenticator, user) == [{"name": "alice", "admin": None, "groups": ["a", "b"]}]
    assert (user.state["refresh_token"], user.state["oauth_user"]) == ("new refresh", {"groups": ["b", "a"]})


class Provider:
    """Implements `ProviderCalls`: answers each exchange with the next answer, which may be an error."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.forms = []
        self.told = []

    def fetch_json(self, url):
        assert url == f"{ISSUER}/.well-known/openid-configuration"
        document = {
            "issuer": ISSUER,
            "jwks_uri": f"{ISSUER}/keys",
            "authorization_endpoint": f"{ISSUER}/auth",
            "token_endpoint": f"{ISSUER}/token",
            "token_endpoint_auth_methods_supported": ["client_secret_post"],
        }
        return HttpAnswer(status=200, body=document)

    def post_form(self, url, fields, **_more):
        assert url == f"{ISSUER}/token"
        self.forms.append(
            {key: value.reveal() if isinstance(value, Secret) else value for key, value in fields.items()}
        )
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def issued(token, **more):
    body = {
        "access_token": token,
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "token_type": "Bearer",
        "expires_in": 600,
    }
    return HttpAnswer(status=200, body={**body, **more})


def exchanges(provider, clock, *owners, pause=0, subjects=()):
    """Exchange one owner's token after the other; a refusal's code stands in for a token."""
    hub = HubProvider(read_service_settings({**ENVIRON, **ASKS_FOR_LAKE}), clock=clock, http=provider)
    ends_at = clock.now() + timedelta(hours=1)

    async def run():
        found = []
        for owner, subject in zip_longest(owners, subjects):
            held = StoredBearer(token=Secret("hub-token"), expires_at=ends_at, subject=subject)
            try:
                found.append(await hub.exchange(owner, held))
            except Refused as refused:
                provider.told.append(str(refused))
                found.append(refused.error)
            clock.advance(pause)
        return found

    try:
        return asyncio.run(run())
    finally:
        hub.close()


def texts(found):
    return [held if isinstance(held, str) else held.token.reveal() for held in found]


def test_one_exchange_serves_a_person_until_it_ends_and_nobody_else(clock):
    provider = Provider(issued("for alice"), issued("for bob"))

    found = exchanges(provider, clock, "alice", "alice", "bob", "alice", "bob")

    assert texts(found) == ["for alice", "for alice", "for bob", "for alice", "for bob"]


def test_a_name_at_the_hub_that_has_become_another_persons_gets_no_token_of_the_first(clock):
    provider = Provider(issued("for the first"), issued("for the second"))

    found = exchanges(provider, clock, "alice", "alice", "alice", subjects=("1", "2", "2"))

    assert texts(found) == ["for the first", "for the second", "for the second"]


def test_a_token_that_has_not_ended_serves_on_while_the_provider_is_away(clock):
    provider = Provider(issued("first"), ProviderUnavailable("no answer"), issued("second"))

    found = exchanges(provider, clock, "alice", "alice", "alice", "alice", pause=290)

    assert texts(found) == ["first", "first", "first", "second"]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (REFUSED, "exchange_refused"),
        (HttpAnswer(status=400, body={"error": "temporarily_unavailable"}), "provider_unavailable"),
        (ProviderUnavailable("no answer"), "provider_unavailable"),
        (issued("x", issued_token_type="urn:ietf:params:oauth:token-type:saml2"), "exchange_refused"),
    ],
    ids=["refused", "passing", "no answer", "another kind"],
)
def test_an_exchange_that_failed_is_told_and_not_tried_again_for_that_person_at_once(clock, answer, error):
    provider = Provider(answer, issued("for bob"), issued("for alice"))

    found = exchanges(provider, clock, "alice", "alice", "bob", "alice", pause=EXCHANGE_PAUSE_SECONDS / 2)

    assert texts(found) == [error, error, "for bob", "for alice"]


def test_a_provider_that_repeats_the_token_has_it_told_to_nobody(clock, caplog):
    echo = HttpAnswer(status=400, body={"error": "invalid_target", "error_description": "not for hub-token, s3cret"})

    provider = Provider(echo)

    assert exchanges(provider, clock, "alice") == ["exchange_refused"]
    for text in (*provider.told, caplog.text):
        assert "invalid_target" in text
        assert not any(secret in text for secret in ("hub-token", "s3cret"))
