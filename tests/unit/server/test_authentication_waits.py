"""What follows from a check: who waits, what the audit is told, and which limits count."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from micromegas_jupyter.access.audit import CallFacts, current_call
from micromegas_jupyter.access.oidc import OidcValidator
from micromegas_jupyter.access.rate_limit import CallLimits
from micromegas_jupyter.access.validator import MultiValidator
from micromegas_jupyter.config.access import IssuerSetting, OidcServerSettings, RateLimits
from micromegas_jupyter.core.protocols import AuthContext, TokenValidator
from micromegas_jupyter.errors import Rejected, ResourcesExhausted, Unavailable
from micromegas_jupyter.server.authentication import Authenticator
from tests.fakes.clock import FakeClock
from tests.fakes.mint import AUDIENCE, ISSUER, mint
from tests.fakes.provider import FakeProvider
from tests.fakes.validator import ALICE, FakeValidator
from tests.unit.server.authentication_parts import (
    CALL,
    OTHER_ISSUER,
    Deciding,
    access_events,
    authenticate,
    open_authenticator,
)


class TestKeysOnTheWay:
    """An issuer whose keys are being fetched holds no thread, and who waits for it is told once what came of it."""

    @pytest.fixture
    def provider(self) -> Iterator[FakeProvider]:
        provider = FakeProvider()
        provider.gate.clear()
        yield provider
        provider.gate.set()

    @pytest.fixture
    def validator(self, provider: FakeProvider, clock: FakeClock) -> OidcValidator:
        issuers = (IssuerSetting(issuer=ISSUER, audiences=(AUDIENCE,)),)
        return OidcValidator(OidcServerSettings(issuers=issuers), http=provider, clock=clock)

    def test_a_thousand_callers_of_a_server_without_keys_are_accepted_with_one_fetch(
        self, provider: FakeProvider, validator: OidcValidator, caplog: pytest.LogCaptureFixture
    ) -> None:
        token = mint()

        async def call_all(authenticator: Authenticator) -> list[AuthContext]:
            headers = {"authorization": (f"Bearer {token}",)}
            calls = [asyncio.create_task(authenticator.authenticate(headers)) for _ in range(1000)]
            await asyncio.to_thread(provider.arrived.wait, 10)
            provider.gate.set()
            return await asyncio.gather(*calls)

        with open_authenticator(validator, check_seconds=60) as authenticator:
            callers = asyncio.run(call_all(authenticator))

        assert [caller.subject for caller in callers] == ["alice"] * 1000
        assert len(provider.requested) == 2
        assert {event["outcome"] for event in access_events(caplog)} == {"accepted"}

    def test_an_issuer_that_does_not_answer_holds_up_nobody_else(
        self, provider: FakeProvider, clock: FakeClock
    ) -> None:
        other, silent = FakeProvider(OTHER_ISSUER), IssuerSetting(issuer=ISSUER, audiences=(AUDIENCE,))
        answering = IssuerSetting(issuer=OTHER_ISSUER, audiences=(AUDIENCE,))
        validator = MultiValidator(
            [
                OidcValidator(OidcServerSettings(issuers=(setting,)), http=http, clock=clock)
                for setting, http in ((silent, provider), (answering, other))
            ]
        )

        async def call(authenticator: Authenticator) -> str:
            forged = [
                asyncio.create_task(
                    authenticator.authenticate({"authorization": (f"Bearer {mint(subject=f'x{number}')}",)})
                )
                for number in range(300)
            ]
            await asyncio.to_thread(provider.arrived.wait, 10)
            good = mint(issuer=OTHER_ISSUER)
            caller = await authenticator.authenticate({"authorization": (f"Bearer {good}",)})
            for task in forged:
                task.cancel()
            await asyncio.wait(forged)
            return caller.issuer

        with open_authenticator(validator) as authenticator:
            assert asyncio.run(call(authenticator)) == OTHER_ISSUER

    def test_a_fetch_that_fails_leaves_one_event_that_names_the_issuer(
        self, provider: FakeProvider, validator: OidcValidator, caplog: pytest.LogCaptureFixture
    ) -> None:
        provider.go_down()
        provider.gate.set()

        with open_authenticator(validator) as authenticator, pytest.raises(Unavailable):
            authenticate(authenticator, f"Bearer {mint()}")

        (event,) = access_events(caplog)
        assert (event["outcome"], event["reason"], event["issuer"]) == ("undecided", "keys_unavailable", ISSUER)
        assert len(provider.requested) == 1


class TestAudit:
    """Each refusal leaves exactly one event that says which call it was."""

    @pytest.mark.parametrize("validator", [FakeValidator(), Deciding()], ids=["silent", "deciding"])
    @pytest.mark.parametrize(
        ("values", "outcome", "reasons"),
        [
            ((), "refused", {"missing"}),
            (("Bearer alice", "Bearer alice"), "refused", {"several"}),
            (("Bearer",), "refused", {"malformed"}),
            (("Negotiate alice",), "refused", {"scheme"}),
            (("Bearer mallory",), "refused", {"unknown", "expired"}),
            (("Bearer outage",), "undecided", {"unavailable", "keys_unavailable"}),
        ],
    )
    def test_every_refusal_leaves_exactly_one_event_with_the_call(
        self,
        validator: TokenValidator,
        values: tuple[str, ...],
        outcome: str,
        reasons: set[str],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        with open_authenticator(validator) as authenticator, pytest.raises((Rejected, Unavailable)):
            authenticate(authenticator, *values)

        (event,) = access_events(caplog)
        assert event["outcome"] == outcome
        assert event["reason"] in reasons
        assert (event["method"], event["client_ip"], event["query_id"]) == ("/x/DoGet", "192.0.2.7", "q-1")
        assert "credential" in event or values[:1] not in {("Bearer mallory",), ("Bearer outage",)}

    def test_the_validators_thread_knows_the_call_and_the_loop_forgets_it(self) -> None:
        validator = Deciding()

        async def check(authenticator: Authenticator) -> CallFacts:
            await authenticator.authenticate({"authorization": ("Bearer alice",)}, lambda: CALL)
            return current_call()

        with open_authenticator(validator) as authenticator:
            after = asyncio.run(check(authenticator))

        assert (validator.calls, after) == ([CALL], CallFacts())

    def test_a_known_caller_leaves_no_event_and_is_not_asked_for_an_address(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        validator = FakeValidator()
        validator.cached["alice"] = ALICE

        def describe() -> CallFacts:
            raise AssertionError

        with open_authenticator(validator) as authenticator:
            asyncio.run(authenticator.authenticate({"authorization": ("Bearer alice",)}, describe))

        assert access_events(caplog) == []

    def test_a_check_that_takes_too_long_leaves_an_event(self, caplog: pytest.LogCaptureFixture) -> None:
        release = threading.Event()

        class SlowValidator(FakeValidator):
            def validate_token(self, token: str) -> AuthContext:
                release.wait(60)
                return super().validate_token(token)

        with open_authenticator(SlowValidator(), check_seconds=0.05) as authenticator:
            with pytest.raises(Unavailable):
                authenticate(authenticator, "Bearer alice")
            release.set()

        assert [event["reason"] for event in access_events(caplog)] == ["check_timed_out"]


class TestLimits:
    """Who calls too often, and who is refused too often, is told when to come back."""

    def test_an_identity_that_calls_too_often_is_turned_away(
        self, clock: FakeClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        limits = CallLimits(RateLimits(calls_per_second=1, burst_calls=2), clock=clock)

        with open_authenticator(FakeValidator(), limits=limits) as authenticator:
            for _ in range(2):
                authenticate(authenticator, "Bearer alice")
            with pytest.raises(ResourcesExhausted) as caught:
                authenticate(authenticator, "Bearer alice")
            assert authenticate(authenticator, "Bearer bob").subject == "bob"

        assert caught.value.retry_after_seconds == 1
        (event,) = access_events(caplog)
        assert (event["outcome"], event["reason"], event["code"]) == ("limited", "calls_of_identity", "SQL004")
        assert (event["issuer"], event["subject"], event["client_ip"]) == ("https://id.example", "alice", "192.0.2.7")

    def test_calls_with_a_known_credential_count_too(self, clock: FakeClock) -> None:
        limits = CallLimits(RateLimits(calls_per_second=1, burst_calls=1), clock=clock)
        validator = FakeValidator()
        validator.cached["alice"] = ALICE

        with open_authenticator(validator, limits=limits) as authenticator:
            authenticate(authenticator, "Bearer alice")
            with pytest.raises(ResourcesExhausted):
                authenticate(authenticator, "Bearer alice")

    def test_after_too_many_refusals_new_credentials_of_that_address_are_not_looked_at(
        self, clock: FakeClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        limits = CallLimits(RateLimits(refusals_per_second=1, burst_refusals=3), clock=clock)
        validator = FakeValidator()

        with open_authenticator(validator, limits=limits) as authenticator:
            for number in range(3):
                with pytest.raises(Rejected):
                    authenticate(authenticator, f"Bearer bad{number}")
            with pytest.raises(ResourcesExhausted) as caught:
                authenticate(authenticator, "Bearer alice")

        assert caught.value.retry_after_seconds == 1
        assert validator.validated == ["bad0", "bad1", "bad2"]
        assert access_events(caplog)[-1]["reason"] == "refusals_of_address"

    def test_known_credentials_pass_although_their_address_was_refused_too_often(self, clock: FakeClock) -> None:
        limits = CallLimits(RateLimits(refusals_per_second=1, burst_refusals=1), clock=clock)
        validator = FakeValidator()
        validator.cached["alice"] = ALICE

        with open_authenticator(validator, limits=limits) as authenticator:
            with pytest.raises(Rejected):
                authenticate(authenticator, "Bearer bad")

            assert authenticate(authenticator, "Bearer alice") == ALICE

    def test_missing_credentials_are_no_refusals_of_an_address(self, clock: FakeClock) -> None:
        limits = CallLimits(RateLimits(refusals_per_second=1, burst_refusals=1), clock=clock)

        with open_authenticator(FakeValidator(), limits=limits) as authenticator:
            for _ in range(3):
                with pytest.raises(Rejected):
                    authenticate(authenticator)

            assert authenticate(authenticator, "Bearer alice") == ALICE

    def test_four_undecided_credentials_count_as_one_refused(self, clock: FakeClock) -> None:
        limits = CallLimits(RateLimits(refusals_per_second=1, burst_refusals=2), clock=clock)

        with open_authenticator(FakeValidator(), limits=limits) as authenticator:
            for _ in range(5):
                with pytest.raises(Unavailable):
                    authenticate(authenticator, "Bearer outage")
            with pytest.raises(ResourcesExhausted):
                authenticate(authenticator, "Bearer outage")

    def test_whoever_tries_again_every_second_during_an_outage_is_told_of_the_outage(self, clock: FakeClock) -> None:
        limits = CallLimits(RateLimits(refusals_per_second=1, burst_refusals=1), clock=clock)

        with open_authenticator(FakeValidator(), limits=limits) as authenticator:
            for _ in range(100):
                with pytest.raises(Unavailable):
                    authenticate(authenticator, "Bearer outage")
                clock.advance(1)

    def test_a_call_that_is_given_up_while_it_is_checked_counts_as_undecided(self, clock: FakeClock) -> None:
        limits = CallLimits(RateLimits(refusals_per_second=1, burst_refusals=2), clock=clock)
        asked, release = threading.Event(), threading.Event()

        class SlowValidator(FakeValidator):
            def validate_token(self, token: str) -> AuthContext:
                asked.set()
                release.wait(60)
                return super().validate_token(token)

        async def give_up(authenticator: Authenticator) -> None:
            call = asyncio.create_task(authenticator.authenticate({"authorization": ("Bearer alice",)}, lambda: CALL))
            await asyncio.to_thread(asked.wait, 10)
            call.cancel()
            await asyncio.wait([call])

        with open_authenticator(SlowValidator(), limits=limits) as authenticator:
            for _ in range(5):
                asyncio.run(give_up(authenticator))
            release.set()
            with pytest.raises(ResourcesExhausted):
                authenticate(authenticator, "Bearer alice")

    def test_of_many_bad_credentials_at_once_no_more_are_looked_at_than_the_burst(self, clock: FakeClock) -> None:
        limits = CallLimits(RateLimits(refusals_per_second=1, burst_refusals=3), clock=clock)
        validator = FakeValidator()

        async def flood(authenticator: Authenticator) -> list[object]:
            calls = [
                authenticator.authenticate({"authorization": (f"Bearer bad{number}",)}, lambda: CALL)
                for number in range(50)
            ]
            return await asyncio.gather(*calls, return_exceptions=True)

        with open_authenticator(validator, limits=limits) as authenticator:
            answers = asyncio.run(flood(authenticator))

        assert len(validator.validated) == 3
        assert sorted({type(answer).__name__ for answer in answers}) == ["Rejected", "ResourcesExhausted"]

    def test_callers_without_an_address_share_one_bucket(self, clock: FakeClock) -> None:
        limits = CallLimits(RateLimits(refusals_per_second=1, burst_refusals=1), clock=clock)

        with open_authenticator(FakeValidator(), limits=limits) as authenticator:
            with pytest.raises(Rejected):
                asyncio.run(authenticator.authenticate({"authorization": ("Bearer bad",)}))
            with pytest.raises(ResourcesExhausted):
                asyncio.run(authenticator.authenticate({"authorization": ("Bearer alice",)}))

    def test_without_a_validator_nothing_is_counted(self, clock: FakeClock) -> None:
        limits = CallLimits(RateLimits(calls_per_second=1, burst_calls=1), clock=clock)

        with open_authenticator(None, limits=limits) as authenticator:
            for _ in range(3):
                authenticate(authenticator)
