"""Service accounts: client credentials, Google's key files, and the cache of a program's token."""

from __future__ import annotations

import threading
from datetime import timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING

import pytest
from joserfc.jwk import ECKey

from micromegas_jupyter.auth import OidcClientCredentialsProvider
from micromegas_jupyter.auth.tokens.service import (
    ServiceToken,
    ServiceTokenProvider,
    checked_token,
    clock_offset,
    jwt_service_token,
    opaque_service_token,
)
from micromegas_jupyter.auth.workloads.google_service_account import (
    parse_service_account_key,
)
from micromegas_jupyter.core.protocols import AuthProvider
from micromegas_jupyter.core.secrets import Secret
from micromegas_jupyter.errors import (
    ConfigurationError,
    LoginFailed,
    ProviderMisbehaved,
)
from micromegas_jupyter.oidc.private_key import PrivateKey
from tests.fakes.mint import NOW, mint
from tests.fakes.platform_stand_ins import GoogleTokenEndpoint
from tests.fakes.scripted_provider import DirectCalls, Reply, ScriptedProvider

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.clock import FakeClock


@pytest.fixture
def service_idp(clock: FakeClock) -> ScriptedProvider:
    return ScriptedProvider(clock=clock, client_id="svc", client_secret="s3same")


@pytest.fixture
def provider(service_idp: ScriptedProvider, clock: FakeClock) -> OidcClientCredentialsProvider:
    return OidcClientCredentialsProvider(
        service_idp.issuer, "svc", "s3same", "api", "api/.default", http=DirectCalls(service_idp), clock=clock
    )


def test_a_token_is_asked_for_with_audience_and_scope_and_kept_until_it_ends_soon(provider, service_idp, clock):
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


VARIABLES = {
    "MICROMEGAS_OIDC_ISSUER": "https://id.example.com",
    "MICROMEGAS_OIDC_CLIENT_ID": "svc",
    "MICROMEGAS_OIDC_CLIENT_SECRET": "s3same",
}


def test_settings_come_from_the_environment():
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


@pytest.mark.parametrize("name", VARIABLES)
@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_variable_is_named(name, value):
    environ = {key: text for key, text in {**VARIABLES, name: value}.items() if text is not None}

    with pytest.raises(ConfigurationError, match=name) as caught:
        OidcClientCredentialsProvider.from_env(environ)

    assert caught.value.key == name
    assert isinstance(caught.value, ValueError)


@pytest.fixture
def key() -> PrivateKey:
    return PrivateKey(key=ECKey.generate_key("P-256"), algorithm="ES256", key_id="k1")


@pytest.mark.parametrize("has_both", [True, False])
def test_a_service_account_has_exactly_one_of_secret_and_key(has_both, key):
    with pytest.raises(ConfigurationError):
        OidcClientCredentialsProvider(
            "https://id.example.com",
            "svc",
            "s3same" if has_both else None,
            private_key=key if has_both else None,
        )


@pytest.mark.parametrize("offset", [timedelta(hours=5), timedelta(hours=-5)])
def test_a_token_is_kept_for_its_life_whatever_the_provider_s_clock_says(offset, provider, service_idp, clock):
    body: dict[str, object] = {"access_token": "first", "token_type": "bearer", "expires_in": 3600}
    date = format_datetime(clock.now() + offset, usegmt=True)
    service_idp.reply_once("/token", Reply(body=body, headers={"Date": date}))

    first = provider.get_token()

    assert provider.renewal_due_at() == clock.now() + timedelta(seconds=3300)
    clock.advance(3299)
    assert provider.get_token() == first
    clock.advance(1)
    assert provider.get_token() != first


class Fetches:
    """Gives a new token each time, or the failure that is set."""

    def __init__(self, clock: FakeClock, lifetime_seconds: float | None = 3600) -> None:
        self.clock = clock
        self.lifetime_seconds = lifetime_seconds
        self.failure: Exception | None = None
        self.everyone_calls: threading.Barrier | None = None
        self.count = 0

    def __call__(self) -> ServiceToken:
        self.count += 1
        if self.everyone_calls is not None:
            self.everyone_calls.wait(60)
        if self.failure is not None:
            raise self.failure
        now = self.clock.now()
        ends = None if self.lifetime_seconds is None else now + timedelta(seconds=self.lifetime_seconds)
        return ServiceToken(text=Secret(f"token-{self.count}"), obtained_at=now, expires_at=ends)


@pytest.fixture
def fetches(clock: FakeClock) -> Fetches:
    return Fetches(clock)


@pytest.fixture
def kept(fetches: Fetches, clock: FakeClock) -> ServiceTokenProvider:
    provider = ServiceTokenProvider(clock)
    provider._fetch = fetches  # type: ignore[method-assign]
    return provider


@pytest.mark.parametrize(("lifetime_seconds", "due_seconds"), [(60, 45), (None, 225), (10 * 86400, 86100)])
def test_short_unknown_and_endless_lives_are_due_as_they_are_kept(kept, fetches, clock, lifetime_seconds, due_seconds):
    fetches.lifetime_seconds = lifetime_seconds

    kept.get_token()

    assert kept.renewal_due_at() == clock.now() + timedelta(seconds=due_seconds)


def test_a_late_refusal_of_an_older_token_leaves_the_newer_one(kept, fetches):
    first = kept.get_token()
    kept.invalidate(first)
    second = kept.get_token()

    kept.invalidate(first)

    assert kept.get_token() == second
    assert fetches.count == 2


def test_a_server_that_refuses_everything_costs_a_token_each_ten_seconds_at_most(kept, fetches, clock):
    for _ in range(20):
        kept.invalidate(kept.get_token())
        clock.advance(0.1)
    within_two_seconds = fetches.count
    clock.advance(10)
    kept.invalidate(kept.get_token())

    assert within_two_seconds == 2
    assert kept.get_token() == "token-3"


def test_a_token_that_ends_before_it_comes_is_a_matter_of_clocks(kept, fetches):
    fetches.lifetime_seconds = -1

    with pytest.raises(LoginFailed) as caught:
        kept.get_token()

    assert "clock" in caught.value.remedy


def test_threads_that_need_a_token_at_once_fetch_one(kept, fetches):
    fetches.everyone_calls = threading.Barrier(16)
    found: list[str] = []

    def call_while_another_fetches() -> None:
        barrier = fetches.everyone_calls
        assert barrier is not None
        barrier.wait(30)
        found.append(kept.get_token())

    first = threading.Thread(target=lambda: found.append(kept.get_token()))
    others = [threading.Thread(target=call_while_another_fetches) for _ in range(15)]
    for thread in (first, *others):
        thread.start()
    for thread in (first, *others):
        thread.join(60)

    assert found == ["token-1"] * 16
    assert fetches.count == 1


@pytest.mark.parametrize("audience", ["lakeside", "", ["other"], None, 7, {"lake": 1}])
def test_a_jwt_for_another_audience_is_refused(audience):
    with pytest.raises(ProviderMisbehaved, match="Somebody gave a token for a different audience"):
        jwt_service_token(Secret(mint(audience=audience)), audience="lake", now=NOW, source="Somebody")


@pytest.mark.parametrize("token", ["opaque", "a.b.c", mint(without=["exp"]), mint(exp="soon")])
def test_a_token_that_is_no_jwt_or_never_ends_is_refused_without_showing_it(token):
    with pytest.raises(ProviderMisbehaved) as caught:
        jwt_service_token(Secret(token), audience=None, now=NOW, source="Somebody")

    assert token not in str(caught.value)


def test_the_life_of_an_opaque_token_is_what_its_giver_says():
    ends = NOW + timedelta(seconds=60)

    assert opaque_service_token(Secret(mint(expires_in=900)), now=NOW, expires_at=ends).expires_at == ends


@pytest.mark.parametrize("value", [None, "", 7, "a b", "a\nb", "tökén", "x" * 70_000, ["a"]])
def test_a_value_that_is_no_token_is_refused(value):
    with pytest.raises(ProviderMisbehaved, match="Somebody gave no usable token"):
        checked_token(value, source="Somebody")


@pytest.mark.parametrize(("seconds", "expected"), [(1, 0), (-2, 0), (3, 3), (-600, -600), (90_000, 0)])
def test_a_difference_of_clocks_counts_within_reason(seconds, expected):
    assert clock_offset(NOW + timedelta(seconds=seconds), NOW) == timedelta(seconds=expected)


@pytest.fixture
def google() -> Iterator[GoogleTokenEndpoint]:
    with GoogleTokenEndpoint() as endpoint:
        yield endpoint


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"type": "authorized_user"}, "is not a service account's key"),
        ({"client_email": None}, "has no client_email"),
        ({"private_key_id": ""}, "has no private_key_id"),
        ({"token_uri": None}, "has no token_uri"),
        ({"private_key": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"}, "damaged key"),
        ({"token_uri": "http://oauth2.example.com/token"}, "http"),
        ({"token_uri": "https://user@oauth2.example.com/token"}, "user"),
    ],
)
def test_a_file_that_is_no_usable_key_is_refused_by_the_name_of_its_setting(google, changes, expected):
    with pytest.raises(ConfigurationError, match=expected) as caught:
        parse_service_account_key(Secret(google.key_file(**changes)), source_name="service_account_file")

    assert caught.value.key == "service_account_file"
    assert "BEGIN" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"type": "service_account", "type": "service_account"}'])
def test_text_that_is_no_object_is_refused(text):
    with pytest.raises(ConfigurationError, match="is not a JSON object"):
        parse_service_account_key(Secret(text), source_name="service_account_file")
