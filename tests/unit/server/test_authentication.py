"""Exactly one credential of the right scheme reaches the validator; each refusal leaves one event; limits count."""

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from micromegas_jupyter.access.audit import CallFacts
from micromegas_jupyter.access.oidc import OidcValidator
from micromegas_jupyter.access.rate_limit import CallLimits
from micromegas_jupyter.access.validator import MultiValidator
from micromegas_jupyter.config.access import IssuerSetting, OidcServerSettings, RateLimits
from micromegas_jupyter.core.protocols import AuthContext, AuthType, TokenValidator
from micromegas_jupyter.core.secrets import Secret
from micromegas_jupyter.errors import Rejected, ResourcesExhausted, Unavailable
from micromegas_jupyter.server.authentication import Authenticator, group_headers
from tests.fakes.clock import FakeClock
from tests.fakes.mint import AUDIENCE, ISSUER, mint
from tests.fakes.provider import FakeProvider
from tests.fakes.tracebacks import verbose_traceback
from tests.fakes.validator import ALICE, FakeValidator

OTHER_ISSUER = "https://other.example.com"
CALL = CallFacts(method="/x/DoGet", client_address="192.0.2.7", call_id="q-1")


class SlowValidator(FakeValidator):
    """A validator that answers once it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.started, self.release = threading.Event(), threading.Event()

    def validate_token(self, token: str) -> AuthContext:
        self.started.set()
        self.release.wait(60)
        return super().validate_token(token)


@contextmanager
def open_authenticator(
    validator: TokenValidator | None, *, check_seconds: float = 10.0, limits: CallLimits | None = None
) -> Iterator[Authenticator]:
    authenticator = Authenticator(validator, check_seconds=check_seconds, limits=limits)
    try:
        yield authenticator
    finally:
        authenticator.close()


def access_events(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    return [json.loads(record.getMessage()) for record in caplog.records if record.name.endswith("audit.access")]


def bearer(token: str) -> dict[str, tuple[str, ...]]:
    return {"authorization": (f"Bearer {token}",)}


def basic(text: str) -> dict[str, tuple[str, ...]]:
    return {"authorization": ("Basic " + base64.b64encode(text.encode()).decode(),)}


def authenticate(authenticator: Authenticator, *values: str) -> AuthContext:
    headers = {"authorization": values} if values else {}
    return asyncio.run(authenticator.authenticate(headers, lambda: CALL))


def test_a_bearer_is_validated_and_a_known_one_not_again() -> None:
    validator = FakeValidator()

    with open_authenticator(validator) as authenticator:
        assert authenticate(authenticator, "Bearer alice") == ALICE
        validator.cached["alice"] = ALICE
        assert authenticate(authenticator, "Bearer alice") == ALICE

    assert validator.validated == ["alice"]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ((), "missing"),
        (("Bearer alice", "Bearer alice"), "several"),
        (("alice",), "malformed"),
        (("Bearer",), "malformed"),
        (("Bearer  alice",), "malformed"),
        (("Bearer alice bob",), "malformed"),
        (("Bearer älice",), "malformed"),
        (("Bearer alice, Bearer bob",), "malformed"),
        (("Basic YTphbGljZQ==",), "scheme"),
        (("Negotiate alice",), "scheme"),
    ],
)
def test_other_credentials_never_reach_the_validator(values: tuple[str, ...], reason: str) -> None:
    validator = FakeValidator()

    with open_authenticator(validator) as authenticator, pytest.raises(Rejected) as caught:
        authenticate(authenticator, *values)

    assert caught.value.reason == reason
    assert validator.validated == []


def test_without_a_validator_everyone_is_administrator() -> None:
    with open_authenticator(None) as authenticator:
        caller, token = asyncio.run(authenticator.exchange({}))

        assert authenticate(authenticator) == caller
    assert caller == AuthContext(subject="anonymous", issuer="none", auth_type=AuthType.NONE, is_admin=True)
    assert token == Secret("anonymous")


@pytest.mark.parametrize(
    "headers",
    [
        basic("somebody:alice"),
        {"authorization": ("Basic " + base64.b64encode(b"ab:alice").decode().rstrip("="),)},
        {"authorization": ("bearer alice",)},
    ],
    ids=["basic", "unpadded", "bearer"],
)
def test_a_credential_is_exchanged_for_a_bearer(headers: dict[str, tuple[str, ...]]) -> None:
    with open_authenticator(FakeValidator()) as authenticator:
        assert asyncio.run(authenticator.exchange(headers)) == (ALICE, Secret("alice"))


@pytest.mark.parametrize(
    "headers",
    [
        *map(basic, ["somebody:mallory", "alice", "somebody:", "somebody:a b", "somebody:a\r\nx: y"]),
        {"authorization": ("Basic ***",)},
        {"authorization": ("Negotiate alice",)},
    ],
)
def test_another_credential_is_not_exchanged(headers: dict[str, tuple[str, ...]]) -> None:
    with open_authenticator(FakeValidator()) as authenticator, pytest.raises(Rejected):
        asyncio.run(authenticator.exchange(headers))


@pytest.mark.parametrize("headers", [bearer("unknown-credential"), basic("me:unknown-credential")])
def test_a_credential_that_is_refused_is_in_no_verbose_traceback(headers: dict[str, tuple[str, ...]]) -> None:
    (value,) = headers["authorization"]
    received = group_headers([("authorization", value)])

    with open_authenticator(FakeValidator()) as authenticator:
        shown = verbose_traceback(lambda: asyncio.run(authenticator.exchange(received)))

    assert "unknown-credential" not in shown
    assert value.rpartition(" ")[2] not in shown


def test_too_many_checks_at_once_are_an_outage() -> None:
    validator = SlowValidator()

    async def check(authenticator: Authenticator) -> AuthContext:
        waiting = [asyncio.create_task(authenticator.authenticate(bearer("alice"))) for _ in range(1024)]
        await asyncio.sleep(0)
        try:
            with pytest.raises(Unavailable):
                await authenticator.authenticate(bearer("alice"))
        finally:
            validator.release.set()
        await asyncio.gather(*waiting)
        return await authenticator.authenticate(bearer("alice"))

    with open_authenticator(validator) as authenticator:
        assert asyncio.run(check(authenticator)) == ALICE


class TestKeysThatAreBeingFetched:
    """An issuer whose keys are being fetched holds no thread, and all who wait share one fetch."""

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
        headers = bearer(mint())

        async def call_all(authenticator: Authenticator) -> list[AuthContext]:
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
        validator = MultiValidator(
            [
                OidcValidator(
                    OidcServerSettings(issuers=(IssuerSetting(issuer=issuer, audiences=(AUDIENCE,)),)),
                    http=http,
                    clock=clock,
                )
                for issuer, http in ((ISSUER, provider), (OTHER_ISSUER, FakeProvider(OTHER_ISSUER)))
            ]
        )

        async def call(authenticator: Authenticator) -> str:
            forged = [
                asyncio.create_task(authenticator.authenticate(bearer(mint(subject=f"x{number}"))))
                for number in range(300)
            ]
            await asyncio.to_thread(provider.arrived.wait, 10)
            caller = await authenticator.authenticate(bearer(mint(issuer=OTHER_ISSUER)))
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

    def test_a_known_caller_leaves_no_event_and_needs_no_facts(self, caplog: pytest.LogCaptureFixture) -> None:
        validator = FakeValidator()
        validator.cached["alice"] = ALICE

        def describe() -> CallFacts:
            raise AssertionError

        with open_authenticator(validator) as authenticator:
            asyncio.run(authenticator.authenticate(bearer("alice"), describe))

        assert access_events(caplog) == []

    def test_a_check_that_takes_too_long_leaves_an_event(self, caplog: pytest.LogCaptureFixture) -> None:
        validator = SlowValidator()

        with open_authenticator(validator, check_seconds=0.05) as authenticator:
            with pytest.raises(Unavailable):
                authenticate(authenticator, "Bearer alice")
            validator.release.set()

        assert [event["reason"] for event in access_events(caplog)] == ["check_timed_out"]


class TestLimits:
    """Callers who call too often, or are refused too often, learn when to try again."""

    @staticmethod
    def refusals(clock: FakeClock, burst: int) -> CallLimits:
        return CallLimits(RateLimits(refusals_per_second=1, burst_refusals=burst), clock=clock)

    def test_missing_credentials_are_not_refusals_of_an_address(self, clock: FakeClock) -> None:
        with open_authenticator(FakeValidator(), limits=self.refusals(clock, 1)) as authenticator:
            for _ in range(3):
                with pytest.raises(Rejected):
                    authenticate(authenticator)

            assert authenticate(authenticator, "Bearer alice") == ALICE

    def test_four_undecided_credentials_count_as_one_refused(self, clock: FakeClock) -> None:
        with open_authenticator(FakeValidator(), limits=self.refusals(clock, 2)) as authenticator:
            for _ in range(5):
                with pytest.raises(Unavailable):
                    authenticate(authenticator, "Bearer outage")
            with pytest.raises(ResourcesExhausted):
                authenticate(authenticator, "Bearer outage")
            for _ in range(100):  # whoever tries again every second learns of the outage
                clock.advance(1)
                with pytest.raises(Unavailable):
                    authenticate(authenticator, "Bearer outage")

    def test_of_many_bad_credentials_at_once_no_more_are_looked_at_than_the_burst(self, clock: FakeClock) -> None:
        validator = FakeValidator()

        async def flood(authenticator: Authenticator) -> list[object]:
            calls = [authenticator.authenticate(bearer(f"bad{number}"), lambda: CALL) for number in range(50)]
            return await asyncio.gather(*calls, return_exceptions=True)

        with open_authenticator(validator, limits=self.refusals(clock, 3)) as authenticator:
            answers = asyncio.run(flood(authenticator))

        assert len(validator.validated) == 3
        assert sorted({type(answer).__name__ for answer in answers}) == ["Rejected", "ResourcesExhausted"]
