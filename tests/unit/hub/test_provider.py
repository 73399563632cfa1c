from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from micromegas_jupyter.core.http import HttpAnswer
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.errors import ProviderUnavailable
from micromegas_jupyter.hub.provider import FAILURE_PAUSE_SECONDS, HubProvider
from micromegas_jupyter.hub.refresh import StoredBearer
from micromegas_jupyter.hub.refusals import Refused
from micromegas_jupyter.hub.settings import read_service_settings
from tests.unit.hub.test_settings import ENVIRON

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.fakes.clock import FakeClock

ISSUER = "https://id.example.com"
ASKS_FOR_LAKE = {"MICROMEGAS_HUB_EXCHANGE_AUDIENCE": "lake", "MICROMEGAS_HUB_CLIENT_SECRET": "s3cret"}
REFUSED = HttpAnswer(status=400, body={"error": "invalid_target", "error_description": "no lake"})


class Provider:
    """Implements `ProviderCalls`: answers each exchange with the next answer, which may be an error."""

    def __init__(self, *answers: HttpAnswer | Exception) -> None:
        self.answers = list(answers)
        self.forms: list[dict[str, Any]] = []

    def fetch_json(self, url: str) -> HttpAnswer:
        assert url == f"{ISSUER}/.well-known/openid-configuration"
        document = {
            "issuer": ISSUER,
            "jwks_uri": f"{ISSUER}/keys",
            "authorization_endpoint": f"{ISSUER}/auth",
            "token_endpoint": f"{ISSUER}/token",
            "token_endpoint_auth_methods_supported": ["client_secret_post"],
        }
        return HttpAnswer(status=200, body=document)

    def post_form(self, url: str, fields: Mapping[str, Any], **_more: object) -> HttpAnswer:
        assert url == f"{ISSUER}/token"
        self.forms.append(
            {key: value.reveal() if isinstance(value, Secret) else value for key, value in fields.items()}
        )
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def issued(token: str, **more: object) -> HttpAnswer:
    body = {
        "access_token": token,
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "token_type": "Bearer",
        "expires_in": 600,
    }
    return HttpAnswer(status=200, body={**body, **more})


def exchanges(
    provider: Provider, clock: FakeClock, *owners: str, environ: Mapping[str, str] = ASKS_FOR_LAKE, pause: float = 0
) -> list[StoredBearer]:
    held = StoredBearer(token=Secret("hub-token"), expires_at=clock.now() + timedelta(hours=1))
    hub = HubProvider(read_service_settings({**ENVIRON, **environ}), clock=clock, http=provider)

    async def run() -> list[StoredBearer]:
        found = []
        for owner in owners:
            found.append(await hub.exchange(owner, held))
            clock.advance(pause)
        return found

    try:
        return asyncio.run(run())
    finally:
        hub.close()


def test_without_an_exchange_the_token_is_given_as_it_is(clock: FakeClock) -> None:
    provider = Provider()

    assert [held.token for held in exchanges(provider, clock, "alice", environ={})] == [Secret("hub-token")]
    assert provider.forms == []


def test_a_token_is_exchanged_for_the_servers_audience(clock: FakeClock) -> None:
    provider = Provider(issued("lake-token"))

    (held,) = exchanges(provider, clock, "alice")

    assert (held.token, held.expires_at) == (Secret("lake-token"), clock.now() + timedelta(minutes=10))
    assert provider.forms == [
        {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": "hub-token",
            "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
            "audience": "lake",
            "client_id": "hub",
            "client_secret": "s3cret",
        }
    ]


def test_an_access_token_is_exchanged_as_one(clock: FakeClock) -> None:
    provider = Provider(issued("lake-token"))

    exchanges(provider, clock, "alice", environ={**ASKS_FOR_LAKE, "MICROMEGAS_HUB_BEARER": "access_token"})

    assert provider.forms[0]["subject_token_type"] == "urn:ietf:params:oauth:token-type:access_token"


def test_one_exchange_serves_a_person_until_it_ends_and_nobody_else(clock: FakeClock) -> None:
    provider = Provider(issued("for alice"), issued("for bob"))

    found = exchanges(provider, clock, "alice", "alice", "bob", "alice", "bob")

    assert [held.token.reveal() for held in found] == ["for alice", "for alice", "for bob", "for alice", "for bob"]


def test_a_name_at_the_hub_that_has_become_another_persons_gets_no_token_of_the_first(clock: FakeClock) -> None:
    provider = Provider(issued("for the first"), issued("for the second"))
    hub = HubProvider(read_service_settings({**ENVIRON, **ASKS_FOR_LAKE}), clock=clock, http=provider)
    ends_at = clock.now() + timedelta(hours=1)

    async def run() -> list[str]:
        return [
            (
                await hub.exchange("alice", StoredBearer(token=Secret("t"), expires_at=ends_at, subject=subject))
            ).token.reveal()
            for subject in ("1", "2", "2")
        ]

    found = asyncio.run(run())
    hub.close()

    assert found == ["for the first", "for the second", "for the second"]


def test_a_token_that_is_about_to_end_is_exchanged_anew(clock: FakeClock) -> None:
    provider = Provider(issued("first"), issued("second"))

    found = exchanges(provider, clock, "alice", "alice", "alice", pause=300)

    assert [held.token.reveal() for held in found] == ["first", "first", "second"]


def test_a_token_that_has_not_ended_serves_on_while_the_provider_is_away(clock: FakeClock) -> None:
    provider = Provider(issued("first"), ProviderUnavailable("no answer"), issued("second"))

    found = exchanges(provider, clock, "alice", "alice", "alice", "alice", pause=290)

    assert [held.token.reveal() for held in found] == ["first", "first", "first", "second"]


@pytest.mark.parametrize("answer", [REFUSED, ProviderUnavailable("no answer")], ids=["refused", "no answer"])
def test_an_exchange_that_failed_is_not_tried_again_for_that_person_at_once(
    clock: FakeClock, answer: HttpAnswer | Exception
) -> None:
    provider = Provider(answer, issued("for bob"), issued("for alice"))
    held = StoredBearer(token=Secret("hub-token"), expires_at=clock.now() + timedelta(hours=1))
    hub = HubProvider(read_service_settings({**ENVIRON, **ASKS_FOR_LAKE}), clock=clock, http=provider)

    async def given(owner: str) -> str:
        try:
            return (await hub.exchange(owner, held)).token.reveal()
        except Refused as refused:
            return refused.error

    async def run() -> list[str]:
        found = [await given(owner) for owner in ("alice", "alice", "bob")]
        clock.advance(FAILURE_PAUSE_SECONDS)
        return [*found, await given("alice")]

    found = asyncio.run(run())
    hub.close()

    assert found[0] == found[1] != "for alice"
    assert found[2:] == ["for bob", "for alice"]


def test_a_provider_that_repeats_the_token_has_it_told_to_nobody(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    echo = HttpAnswer(status=400, body={"error": "invalid_target", "error_description": "not for hub-token, s3cret"})

    with pytest.raises(Refused) as caught:
        exchanges(Provider(echo), clock, "alice")

    for text in (str(caught.value), caplog.text):
        assert "invalid_target" in text
        assert not any(secret in text for secret in ("hub-token", "s3cret"))


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
def test_no_exchange_is_no_token_and_the_reason_is_told(
    clock: FakeClock, answer: HttpAnswer | Exception, error: str
) -> None:
    with pytest.raises(Refused) as caught:
        exchanges(Provider(answer), clock, "alice")

    assert caught.value.error == error
    assert "hub-token" not in str(caught.value)


def test_the_authorization_endpoint_comes_from_the_providers_own_document(clock: FakeClock) -> None:
    hub = HubProvider(read_service_settings(ENVIRON), clock=clock, http=Provider())

    assert asyncio.run(hub.authorization_endpoint()) == f"{ISSUER}/auth"
    hub.close()
