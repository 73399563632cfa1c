"""How long a revoked caller keeps access: the times that the administrator guide promises, held by a clock."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Self

import pytest

from micromegas_jupyter.access import OidcValidator, Rejected
from micromegas_jupyter.access.config import ReloadingValidator
from micromegas_jupyter.config.issuers import IssuerSetting, OidcServerSettings
from tests.fakes.mint import AUDIENCE, ISSUER, ec_key, mint, rsa_key
from tests.fakes.validator import is_accepted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fakes.clock import FakeClock
    from tests.fakes.mint import SigningKey
    from tests.fakes.provider import FakeProvider


REFRESH_SECONDS = 3600
STALE_SECONDS = 24 * 3600
CACHE_SECONDS = 300
COOL_DOWN_SECONDS = 30
LEEWAY_SECONDS = 60
LONG_SECONDS = 7 * 24 * 3600
API_KEY = "mmk_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"


def validator_of(
    provider: FakeProvider,
    clock: FakeClock,
    *,
    leeway_seconds: int = LEEWAY_SECONDS,
    cache_seconds: int = CACHE_SECONDS,
) -> OidcValidator:
    settings = OidcServerSettings(
        issuers=(IssuerSetting(issuer=ISSUER, audiences=(AUDIENCE,), leeway_seconds=leeway_seconds),),
        token_cache_ttl_seconds=cache_seconds,
    )
    return OidcValidator(settings, http=provider, clock=clock)


def seconds_of_access(validator: OidcValidator, token: str, clock: FakeClock, *, at_most: int) -> int:
    """Call once a second until the token is refused, and return after how many seconds that was."""
    for second in range(at_most + 1):
        if not is_accepted(validator, token):
            return second
        clock.advance(1)
    raise AssertionError(f"the token was still accepted after {at_most} seconds")


def reason_of(validator: ReloadingValidator, credential: str) -> str:
    with pytest.raises(Rejected) as caught:
        validator.validate_token(credential)
    return caught.value.reason


class Server:
    """A validator of one issuer, whose keys are in a file, and of one API key; the files can be written again."""

    def __init__(self, folder: Path, clock: FakeClock) -> None:
        self._config, self._keys, self._jwks = folder / "access.json", folder / "keys.json", folder / "jwks.json"
        self.publish(rsa_key())
        self.write_keys()
        self.configure()
        # The watch would look on a thread of its own; the tests say when.
        self.validator = ReloadingValidator(
            {"MICROMEGAS_ACCESS_CONFIG": str(self._config)}, clock=clock, watch_interval_seconds=3600
        )

    def configure(self, **members: object) -> None:
        issuer = {"issuer": ISSUER, "audience": AUDIENCE, "jwks_file": str(self._jwks)}
        self._config.write_text(
            json.dumps({"oidc": {"issuers": [issuer]}, "api_key_file": str(self._keys), **members}), encoding="utf-8"
        )

    def write_keys(self, **members: object) -> None:
        entry = {"name": "nightly", "sha256": hashlib.sha256(API_KEY.encode()).hexdigest(), **members}
        self._keys.write_text(json.dumps([entry]), encoding="utf-8")

    def publish(self, *keys: SigningKey) -> None:
        self._jwks.write_text(json.dumps({"keys": [key.jwk() for key in keys]}), encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.validator.close()


class TestAnAccountThatWasClosedAtTheProvider:
    """The provider gives no further token; the one that is out there counts until it ends."""

    @pytest.mark.parametrize("leeway_seconds", [60, 10])
    def test_keeps_access_until_the_token_ends_and_the_leeway_with_it(self, provider, clock, leeway_seconds):
        validator = validator_of(provider, clock, leeway_seconds=leeway_seconds)

        seconds = seconds_of_access(validator, mint(expires_in=300), clock, at_most=1000)

        assert seconds == 300 + leeway_seconds


class TestASigningKeyThatWasWithdrawn:
    """The provider no longer publishes the key; the server learns it at the next refresh."""

    def test_is_out_after_one_refresh_interval_and_the_life_of_a_remembered_token(self, provider, clock):
        validator = validator_of(provider, clock)
        validator.validate_token(mint(expires_in=LONG_SECONDS))
        provider.publish(ec_key())
        clock.advance(REFRESH_SECONDS - 1)
        token = mint(expires_in=LONG_SECONDS, subject="bob")

        was_accepted = is_accepted(validator, token)
        clock.advance(CACHE_SECONDS + 1)

        assert was_accepted is True
        assert is_accepted(validator, token) is False

    def test_is_out_two_cool_downs_after_an_outage_at_the_latest(self, provider, clock):
        validator = validator_of(provider, clock, cache_seconds=1)
        validator.validate_token(mint(expires_in=LONG_SECONDS))
        provider.publish(ec_key())
        provider.go_down()
        clock.advance(REFRESH_SECONDS)
        token = mint(expires_in=LONG_SECONDS)

        was_accepted = is_accepted(validator, token)
        provider.come_back()
        clock.advance(2 * COOL_DOWN_SECONDS)

        assert was_accepted is True
        assert is_accepted(validator, token) is False

    def test_is_out_after_the_stale_limit_when_the_provider_went_down_before(self, provider, clock):
        validator = validator_of(provider, clock)
        validator.validate_token(mint(expires_in=LONG_SECONDS))
        provider.publish(ec_key())
        provider.go_down()
        clock.advance(STALE_SECONDS - 1)
        token = mint(expires_in=LONG_SECONDS, subject="bob")

        was_accepted = is_accepted(validator, token)
        clock.advance(CACHE_SECONDS + 1)
        provider.come_back()

        assert was_accepted is True
        assert is_accepted(validator, token) is False


class TestAChangeOfTheConfigurationFile:
    """It takes effect when the server looks next, once a second, or when it is told to; nothing is remembered then."""

    @pytest.fixture
    def server(self, tmp_path: Path, clock: FakeClock) -> Iterator[Server]:
        """A validator that was started with one issuer and one API key."""
        with Server(tmp_path, clock) as running:
            yield running

    def test_refuses_who_was_denied_although_the_token_was_remembered(self, server):
        token = mint(subject="mallory")
        server.validator.validate_token(token)
        assert server.validator.cached_context(token) is not None

        server.configure(denied=[f"{ISSUER}|mallory"])
        server.validator.look_for_changes()

        assert server.validator.cached_context(token) is None
        assert reason_of(server.validator, token) == "denied"
        assert is_accepted(server.validator, mint(subject="alice"))


def test_an_api_key_ends_with_the_second_that_its_entry_names(tmp_path, clock):
    with Server(tmp_path, clock) as server:
        server.write_keys(expires_at="2026-11-24T12:10:00Z")
        server.validator.reload()
        clock.advance(599)

        was_accepted = is_accepted(server.validator, API_KEY)
        clock.advance(1)

        assert was_accepted is True
        assert reason_of(server.validator, API_KEY) == "api_key_expired"
