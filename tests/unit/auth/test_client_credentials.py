from __future__ import annotations

import pickle
import threading
from datetime import timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING

import pytest
from joserfc.jwk import ECKey

from micromegas_jupyter.auth import AuthProvider, OidcClientCredentialsProvider
from micromegas_jupyter.auth.tokens.background import BackgroundRenewal
from micromegas_jupyter.core.secrets import Secret
from micromegas_jupyter.errors import ConfigurationError, LoginFailed, ProviderMisbehaved, ProviderUnavailable
from micromegas_jupyter.oidc.jws import parse_token
from micromegas_jupyter.oidc.private_key import PrivateKey
from tests.fakes.scripted_provider import DirectCalls, Reply, ScriptedProvider

if TYPE_CHECKING:
    from tests.fakes.clock import FakeClock


@pytest.fixture
def service_idp(clock: FakeClock) -> ScriptedProvider:
    return ScriptedProvider(clock=clock, client_id="svc", client_secret="s3same")


@pytest.fixture
def provider(service_idp: ScriptedProvider, clock: FakeClock) -> OidcClientCredentialsProvider:
    return OidcClientCredentialsProvider(
        service_idp.issuer, "svc", "s3same", "api", "api/.default", http=DirectCalls(service_idp), clock=clock
    )


def test_a_token_is_asked_for_with_audience_and_scope_and_kept_until_it_ends_soon(
    provider: OidcClientCredentialsProvider, service_idp: ScriptedProvider, clock: FakeClock
) -> None:
    first = provider.get_token()
    clock.advance(3299)
    still = provider.get_token()
    clock.advance(1)
    second = provider.get_token()

    assert first == still != second
    assert service_idp.seen("/token")[0].form == {
        "grant_type": "client_credentials",
        "scope": "api/.default",
        "audience": "api",
    }
    assert isinstance(provider, AuthProvider)


def test_short_lived_tokens_are_kept_for_three_quarters_of_their_life(
    provider: OidcClientCredentialsProvider, service_idp: ScriptedProvider, clock: FakeClock
) -> None:
    service_idp.lifetime_seconds = 60
    first = provider.get_token()
    clock.advance(44)

    assert provider.get_token() == first
    clock.advance(1)
    assert provider.get_token() != first


def test_threads_that_need_a_token_at_once_fetch_one(
    provider: OidcClientCredentialsProvider, service_idp: ScriptedProvider
) -> None:
    barrier = threading.Barrier(20)
    found: list[str] = []

    def call() -> None:
        barrier.wait(30)
        found.append(provider.get_token())

    threads = [threading.Thread(target=call) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert len(found) == 20
    assert len(set(found)) == 1
    assert len(service_idp.seen("/token")) == 1


def test_a_token_that_is_still_valid_serves_while_the_provider_is_down(
    provider: OidcClientCredentialsProvider, service_idp: ScriptedProvider, clock: FakeClock
) -> None:
    first = provider.get_token()
    service_idp.is_down = True
    clock.advance(3400)

    assert provider.get_token() == first
    clock.advance(200)
    with pytest.raises(ProviderUnavailable):
        provider.get_token()
    service_idp.is_down = False
    assert provider.get_token() != first


def test_a_token_that_is_still_valid_serves_while_the_provider_refuses_the_application(
    provider: OidcClientCredentialsProvider, service_idp: ScriptedProvider, clock: FakeClock
) -> None:
    first = provider.get_token()
    service_idp.reply_once("/token", Reply(status=401, body={"error": "invalid_client"}))
    clock.advance(3400)

    assert provider.get_token() == first


def test_a_wrong_secret_is_a_failed_login_that_shows_no_secret(service_idp: ScriptedProvider, clock: FakeClock) -> None:
    provider = OidcClientCredentialsProvider(
        service_idp.issuer, "svc", "wr0ng", http=DirectCalls(service_idp), clock=clock
    )

    with pytest.raises(LoginFailed) as caught:
        provider.get_token()

    assert type(caught.value) is LoginFailed
    assert "wr0ng" not in str(caught.value)


def test_an_answer_that_breaks_the_protocol_is_refused(
    provider: OidcClientCredentialsProvider, service_idp: ScriptedProvider
) -> None:
    service_idp.reply_once("/token", Reply(body={"access_token": "a", "token_type": "DPoP"}))

    with pytest.raises(ProviderMisbehaved):
        provider.get_token()


def test_a_token_of_unknown_life_is_kept_for_minutes_only(
    provider: OidcClientCredentialsProvider, service_idp: ScriptedProvider, clock: FakeClock
) -> None:
    service_idp.reply_once("/token", Reply(body={"access_token": "a", "token_type": "bearer"}))

    assert provider.get_token() == "a"
    clock.advance(224)
    assert provider.get_token() == "a"
    clock.advance(1)
    assert provider.get_token() != "a"


VARIABLES = {
    "MICROMEGAS_OIDC_ISSUER": "https://id.example.com",
    "MICROMEGAS_OIDC_CLIENT_ID": "svc",
    "MICROMEGAS_OIDC_CLIENT_SECRET": "s3same",
}


def test_settings_come_from_the_environment() -> None:
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


def test_settings_come_from_the_process_environment_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)

    assert OidcClientCredentialsProvider.from_env().audience is None


@pytest.mark.parametrize("name", VARIABLES)
@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_variable_is_named(name: str, value: str | None) -> None:
    environ = {key: text for key, text in {**VARIABLES, name: value}.items() if text is not None}

    with pytest.raises(ConfigurationError, match=name) as caught:
        OidcClientCredentialsProvider.from_env(environ)

    assert caught.value.key == name
    assert isinstance(caught.value, ValueError)


def test_the_secret_is_neither_shown_nor_pickled() -> None:
    provider = OidcClientCredentialsProvider("https://id.example.com", "svc", Secret("s3same"))

    assert "s3same" not in repr(provider)
    with pytest.raises(TypeError):
        pickle.dumps(provider)


def test_an_empty_secret_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        OidcClientCredentialsProvider("https://id.example.com", "svc", "")


@pytest.fixture
def key() -> PrivateKey:
    return PrivateKey(key=ECKey.generate_key("P-256"), algorithm="ES256", key_id="k1")


def test_a_service_account_signs_in_with_a_private_key(
    key: PrivateKey, service_idp: ScriptedProvider, clock: FakeClock
) -> None:
    service_idp.reply_once("/token", Reply(body={"access_token": "a", "token_type": "bearer", "expires_in": 60}))
    provider = OidcClientCredentialsProvider(
        service_idp.issuer, "svc", private_key=key, http=DirectCalls(service_idp), clock=clock
    )

    token = provider.get_token()

    assert token == "a"
    assert parse_token(service_idp.seen("/token")[0].form["client_assertion"]).claims["sub"] == "svc"


@pytest.mark.parametrize("has_both", [True, False])
def test_a_service_account_has_exactly_one_of_secret_and_key(has_both: bool, key: PrivateKey) -> None:
    with pytest.raises(ConfigurationError):
        OidcClientCredentialsProvider(
            "https://id.example.com",
            "svc",
            "s3same" if has_both else None,
            private_key=key if has_both else None,
        )


def test_the_resource_is_asked_for(service_idp: ScriptedProvider, clock: FakeClock) -> None:
    provider = OidcClientCredentialsProvider(
        service_idp.issuer,
        "svc",
        "s3same",
        resource="https://lake.example.com",
        http=DirectCalls(service_idp),
        clock=clock,
    )

    provider.get_token()

    assert service_idp.seen("/token")[0].form["resource"] == "https://lake.example.com"


def test_a_token_that_a_server_refused_is_not_given_again(
    provider: OidcClientCredentialsProvider, service_idp: ScriptedProvider
) -> None:
    first = provider.get_token()

    provider.invalidate(first)

    assert provider.get_token() != first
    assert len(service_idp.seen("/token")) == 2


@pytest.mark.parametrize("token", ["", "another", "t\u00f6ken"])
def test_another_token_that_was_refused_costs_nothing(
    token: str, provider: OidcClientCredentialsProvider, service_idp: ScriptedProvider
) -> None:
    first = provider.get_token()

    provider.invalidate(token)

    assert provider.get_token() == first
    assert len(service_idp.seen("/token")) == 1


def test_nothing_is_refused_before_there_is_a_token(provider: OidcClientCredentialsProvider) -> None:
    provider.invalidate("any")

    assert provider.get_token().startswith("service-")


@pytest.mark.parametrize("offset", [timedelta(hours=5), timedelta(hours=-5)])
def test_a_token_is_kept_for_its_life_whatever_the_provider_s_clock_says(
    offset: timedelta, provider: OidcClientCredentialsProvider, service_idp: ScriptedProvider, clock: FakeClock
) -> None:
    body: dict[str, object] = {"access_token": "first", "token_type": "bearer", "expires_in": 3600}
    date = format_datetime(clock.now() + offset, usegmt=True)
    service_idp.reply_once("/token", Reply(body=body, headers={"Date": date}))

    first = provider.get_token()

    assert provider.renewal_due_at() == clock.now() + timedelta(seconds=3300)
    clock.advance(3299)
    assert provider.get_token() == first
    clock.advance(1)
    assert provider.get_token() != first


def test_background_renewal_can_keep_a_service_account_s_token_fresh(
    provider: OidcClientCredentialsProvider, service_idp: ScriptedProvider, clock: FakeClock
) -> None:
    first = provider.get_token()
    clock.advance(3300)
    renewed = threading.Event()

    def wait(_seconds: float) -> bool:
        renewed.set()
        return True

    with BackgroundRenewal(provider, clock=clock, wait=wait):
        assert renewed.wait(30)

    assert provider.get_token() != first
    assert len(service_idp.seen("/token")) == 2
