"""Tests of `access.oidc_validator`: what comes out of a good token, the caches, and many callers at once."""

from __future__ import annotations

import hashlib
import logging
import threading
from datetime import UTC, datetime

import pytest

from micromegas_jupyter.access import AuthContext, AuthType, OidcValidator, Rejected, TokenValidator
from micromegas_jupyter.access import oidc as module
from micromegas_jupyter.access.oidc import IssuerPolicy
from micromegas_jupyter.config.access import IssuerSetting, OidcServerSettings
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.oidc.jws import ParsedToken, parse_token
from tests.fakes.clock import FakeClock
from tests.fakes.mint import AUDIENCE, ISSUER, NOW_SECONDS, ec_key, mint, rsa_key
from tests.fakes.provider import FakeProvider
from tests.unit.access.conftest import SETTINGS

JWKS_URL = f"{ISSUER}/keys"


def reason_of(validator: OidcValidator, token: str) -> str:
    with pytest.raises(Rejected) as caught:
        validator.validate_token(token)
    return caught.value.reason


def test_a_good_token_gives_its_bearer(validator):
    token = mint(email="alice@example.com", email_verified=True, name="Alice", groups=["ops"], azp="notebook")

    assert validator.validate_token(token) == AuthContext(
        subject="alice",
        issuer=ISSUER,
        auth_type=AuthType.OIDC,
        email="alice@example.com",
        expires_at=datetime(2026, 11, 24, 12, 5, tzinfo=UTC),
        is_admin=False,
        name="Alice",
        email_verified=True,
        may_delegate=False,
        groups=("ops",),
        client_id="notebook",
    )


def test_it_is_a_token_validator(validator):
    assert isinstance(validator, TokenValidator)
    validator.close()


def test_an_administrator_is_named_by_the_list(validator):
    assert validator.validate_token(mint(subject="root")).is_admin is True


def test_nothing_is_fetched_before_the_first_token(validator, provider):
    assert provider.requested == []


def test_keys_are_fetched_once_for_many_tokens(validator, provider):
    for number in range(5):
        validator.validate_token(mint(subject=f"user{number}"))

    assert provider.requested == [f"{ISSUER}/.well-known/openid-configuration", JWKS_URL]


def test_an_unknown_issuer_causes_no_request(validator, provider):
    assert reason_of(validator, mint(issuer="https://evil.example")) == "issuer_unknown"

    assert provider.requested == []


def test_a_token_that_is_wrong_before_its_key_causes_no_request(validator, provider):
    for token in (mint(audience="other"), mint(expires_in=-100), mint(header={"alg": "none"}), "x"):
        with pytest.raises(Rejected):
            validator.validate_token(token)

    assert provider.requested == []


def test_an_issuers_keys_do_not_verify_another_issuers_token(clock):
    class TwoProviders:
        def __init__(self) -> None:
            first, second = FakeProvider(keys=(rsa_key(),)), FakeProvider("https://second.example", keys=(ec_key(),))
            self.by_issuer = {provider.issuer: provider for provider in (first, second)}

        def fetch_json(self, url: str, **_options: object) -> object:
            return next(found for issuer, found in self.by_issuer.items() if url.startswith(issuer)).fetch_json(url)

    settings = OidcServerSettings(
        issuers=(
            IssuerSetting(issuer=ISSUER, audiences=(AUDIENCE,)),
            IssuerSetting(issuer="https://second.example", audiences=("second-lake",)),
        )
    )
    validator = OidcValidator(settings, http=TwoProviders(), clock=clock)  # type: ignore[arg-type]

    second = validator.validate_token(mint(key=ec_key(), issuer="https://second.example", audience="second-lake"))

    assert second.issuer == "https://second.example"
    assert reason_of(validator, mint(issuer="https://second.example", audience="second-lake")) == "unknown_key"
    assert reason_of(validator, mint(key=ec_key(), issuer="https://second.example")) == "audience_mismatch"


def test_a_bare_administrator_with_several_issuers_stops_the_start(clock, provider):
    settings = OidcServerSettings(
        issuers=(
            IssuerSetting(issuer=ISSUER, audiences=(AUDIENCE,)),
            IssuerSetting(issuer="https://second.example", audiences=(AUDIENCE,)),
        )
    )

    with pytest.raises(ConfigurationError, match="'root'") as caught:
        OidcValidator(settings, ["root"], http=provider, clock=clock)

    assert caught.value.key == "MICROMEGAS_ADMINS"


class TestTokenCache:
    """What is remembered, and for how long."""

    def test_an_accepted_token_is_known_without_io(self, validator, provider):
        token = mint()
        assert validator.cached_context(token) is None
        context = validator.validate_token(token)
        provider.go_down()

        assert validator.cached_context(token) is context
        assert validator.validate_token(token) is context

    def test_a_token_is_known_by_its_digest_alone(self, validator):
        token = mint()
        context = validator.validate_token(token)

        assert validator.cached_by_digest(hashlib.sha256(token.encode()).digest()) is context
        assert validator.cached_by_digest(bytes(32)) is None

    def test_a_token_is_forgotten_when_it_ends(self, validator, clock):
        token = mint(expires_in=100)
        validator.validate_token(token)

        clock.advance(99)
        assert validator.cached_context(token) is not None
        clock.advance(1)
        assert validator.cached_context(token) is None

    def test_a_token_is_forgotten_after_five_minutes(self, validator, clock):
        token = mint(expires_in=3000)
        validator.validate_token(token)

        clock.advance(299)
        assert validator.cached_context(token) is not None
        clock.advance(1)
        assert validator.cached_context(token) is None

    def test_a_token_in_its_leeway_is_accepted_and_never_remembered(self, validator):
        token = mint(expires_in=-30)

        assert validator.validate_token(token).subject == "alice"
        assert validator.cached_context(token) is None

    def test_a_remembered_token_ends_with_its_leeway(self, validator, clock):
        token = mint(expires_in=100)
        validator.validate_token(token)

        clock.advance(161)

        assert reason_of(validator, token) == "expired"

    def test_the_cache_holds_only_as_many_tokens_as_set(self, provider, clock):
        settings = OidcServerSettings(
            issuers=(IssuerSetting(issuer=ISSUER, audiences=(AUDIENCE,)),), token_cache_size=2
        )
        validator = OidcValidator(settings, http=provider, clock=clock)
        tokens = [mint(subject=f"user{number}") for number in range(3)]

        for token in tokens:
            validator.validate_token(token)

        assert [validator.cached_context(token) is not None for token in tokens] == [False, True, True]

    def test_a_token_that_differs_in_one_letter_is_not_known(self, validator):
        token = mint()
        validator.validate_token(token)

        assert validator.cached_context(token[:-1] + ("A" if token[-1] != "A" else "B")) is None

    def test_a_refused_token_is_never_a_cached_context(self, validator):
        token = mint(audience="other")
        reason_of(validator, token)

        assert validator.cached_context(token) is None

    @pytest.mark.parametrize("token", ["", "x" * 20000, "\ud800", 5, None], ids=["empty", "huge", "half", "5", "None"])
    def test_no_text_makes_the_cache_raise(self, validator, token):
        assert validator.cached_context(token) is None

    def test_a_refusal_is_remembered_for_ten_seconds(self, validator, clock, monkeypatch):
        token = mint(audience="other")
        assert reason_of(validator, token) == "audience_mismatch"
        monkeypatch.setattr(module, "parse_token", lambda _token: pytest.fail("the refusal was not remembered"))

        clock.advance(9)
        assert reason_of(validator, token) == "audience_mismatch"

    def test_a_refusal_is_looked_at_again_after_ten_seconds(self, validator, clock, monkeypatch):
        token = mint(audience="other")
        reason_of(validator, token)
        looked_at: list[str] = []

        def look_at(text: str) -> ParsedToken:
            looked_at.append(text)
            return parse_token(text)

        monkeypatch.setattr(module, "parse_token", look_at)

        clock.advance(10)
        reason_of(validator, token)

        assert looked_at == [token]

    def test_a_token_that_becomes_valid_is_accepted_at_once(self, validator, clock):
        token = mint(nbf=NOW_SECONDS + 61)
        assert reason_of(validator, token) == "not_yet_valid"

        clock.advance(1)

        assert validator.validate_token(token).subject == "alice"


def test_a_defect_in_the_rules_is_a_refusal_and_leaves_an_event_without_the_token(validator, monkeypatch, caplog):
    def broken(*_arguments: object, **_options: object) -> None:
        raise ZeroDivisionError("defect")

    monkeypatch.setattr(IssuerPolicy, "check_unverified", broken)
    token = mint()

    with caplog.at_level(logging.INFO, "micromegas_jupyter.access"):
        assert reason_of(validator, token) == "internal_error"

    failed = next(record for record in caplog.records if record.levelno == logging.ERROR)
    assert (failed.getMessage(), vars(failed)["kind"]) == ("A validator failed.", "ZeroDivisionError")
    assert not any(token in str(vars(record)) for record in caplog.records)


def test_sixty_four_callers_share_one_fetch(clock, provider):
    validator = OidcValidator(SETTINGS, http=provider, clock=clock)
    provider.gate.clear()
    start = threading.Barrier(65)
    subjects: list[str] = []

    def call(number: int) -> None:
        token = mint(subject=f"user{number}")
        start.wait(60)
        subjects.append(validator.validate_token(token).subject)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    start.wait(60)
    assert provider.arrived.wait(30)
    provider.gate.set()
    for thread in threads:
        thread.join(60)

    assert sorted(subjects) == sorted(f"user{number}" for number in range(64))
    assert len(provider.requested) == 2


def test_sixty_four_callers_with_an_unknown_key_share_one_fetch(validator, provider):
    validator.validate_token(mint())
    provider.publish(ec_key("new"))
    start = threading.Barrier(64)
    subjects: list[str] = []

    def call(number: int) -> None:
        token = mint(key=ec_key("new"), subject=f"user{number}")
        start.wait(60)
        subjects.append(validator.validate_token(token).subject)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert len(subjects) == 64
    assert len(provider.requested) == 3


def test_a_cached_token_is_answered_while_a_fetch_is_under_way(provider):
    clock = FakeClock()
    validator = OidcValidator(SETTINGS, http=provider, clock=clock)
    known = mint()
    validator.validate_token(known)
    provider.arrived.clear()
    provider.gate.clear()
    waiting = threading.Thread(target=lambda: reason_of(validator, mint(header={"kid": "unknown"})))
    waiting.start()
    assert provider.arrived.wait(30)

    context = validator.validate_token(known)
    provider.gate.set()
    waiting.join(60)

    assert context.subject == "alice"
