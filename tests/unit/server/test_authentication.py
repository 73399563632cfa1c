"""Exactly one credential of the right scheme reaches the validator; anything else is refused before it."""

import asyncio
import base64
import threading

import pytest

from micromegas_jupyter.core.protocols import AuthContext, AuthType, Secret
from micromegas_jupyter.errors import ProviderUnavailable, Rejected, Unavailable
from micromegas_jupyter.server.authentication import Authenticator, parse_authorization
from micromegas_jupyter.server.headers import group_headers
from tests.fakes.tracebacks import verbose_traceback
from tests.fakes.validator import ALICE, FakeValidator
from tests.unit.server.authentication_parts import (
    open_authenticator,
)


def basic_headers(text: str) -> dict[str, tuple[str, ...]]:
    return {"authorization": ("Basic " + base64.b64encode(text.encode()).decode(),)}


def test_a_bearer_is_validated() -> None:
    with open_authenticator(FakeValidator()) as authenticator:
        caller = asyncio.run(authenticator.authenticate({"authorization": ("Bearer alice",)}))

    assert caller == ALICE


def test_a_cached_bearer_is_not_validated_again() -> None:
    validator = FakeValidator()
    validator.cached["alice"] = ALICE

    with open_authenticator(validator) as authenticator:
        caller = asyncio.run(authenticator.authenticate({"authorization": ("Bearer alice",)}))

    assert caller == ALICE
    assert validator.validated == []


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
        asyncio.run(authenticator.authenticate({"authorization": values} if values else {}))

    assert caught.value.reason == reason
    assert validator.validated == []


def test_refusal_and_outage_stay_apart() -> None:
    with open_authenticator(FakeValidator()) as authenticator:
        with pytest.raises(Rejected):
            asyncio.run(authenticator.authenticate({"authorization": ("Bearer mallory",)}))
        with pytest.raises(ProviderUnavailable):
            asyncio.run(authenticator.authenticate({"authorization": ("Bearer outage",)}))


def test_a_check_that_takes_too_long_is_an_outage() -> None:
    release = threading.Event()

    class SlowValidator(FakeValidator):
        def validate_token(self, token: str) -> AuthContext:
            release.wait(60)
            return super().validate_token(token)

    async def check(authenticator: Authenticator) -> None:
        try:
            await authenticator.authenticate({"authorization": ("Bearer alice",)})
        finally:
            release.set()

    with open_authenticator(SlowValidator(), check_seconds=0.05) as authenticator, pytest.raises(Unavailable):
        asyncio.run(check(authenticator))


def test_without_a_validator_everyone_is_administrator() -> None:
    with open_authenticator(None) as authenticator:
        caller = asyncio.run(authenticator.authenticate({}))

    assert caller == AuthContext(subject="anonymous", issuer="none", auth_type=AuthType.NONE, is_admin=True)


def test_a_basic_password_is_exchanged_for_a_bearer() -> None:
    with open_authenticator(FakeValidator()) as authenticator:
        caller, token = asyncio.run(authenticator.exchange(basic_headers("somebody:alice")))

    assert (caller, token) == (ALICE, Secret("alice"))


def test_unpadded_basic_is_read() -> None:
    headers = {"authorization": ("Basic " + base64.b64encode(b"ab:alice").decode().rstrip("="),)}

    with open_authenticator(FakeValidator()) as authenticator:
        _caller, token = asyncio.run(authenticator.exchange(headers))

    assert token == Secret("alice")


def test_a_bearer_is_exchanged_for_itself() -> None:
    with open_authenticator(FakeValidator()) as authenticator:
        _caller, token = asyncio.run(authenticator.exchange({"authorization": ("bearer alice",)}))

    assert token == Secret("alice")


@pytest.mark.parametrize("text", ["somebody:mallory", "alice", "somebody:", "somebody:a b", "somebody:a\r\nx: y"])
def test_another_basic_credential_is_refused(text: str) -> None:
    with open_authenticator(FakeValidator()) as authenticator, pytest.raises(Rejected):
        asyncio.run(authenticator.exchange(basic_headers(text)))


def test_basic_that_is_not_base64_is_refused() -> None:
    with open_authenticator(FakeValidator()) as authenticator, pytest.raises(Rejected):
        asyncio.run(authenticator.exchange({"authorization": ("Basic ***",)}))


def test_another_scheme_cannot_be_exchanged() -> None:
    with open_authenticator(FakeValidator()) as authenticator, pytest.raises(Rejected):
        asyncio.run(authenticator.exchange({"authorization": ("Negotiate alice",)}))


def test_without_a_validator_the_exchange_asks_for_nothing() -> None:
    with open_authenticator(None) as authenticator:
        caller, token = asyncio.run(authenticator.exchange({}))

    assert (caller.subject, token) == ("anonymous", Secret("anonymous"))


def test_too_many_checks_at_once_are_an_outage() -> None:
    release = threading.Event()

    class SlowValidator(FakeValidator):
        def validate_token(self, token: str) -> AuthContext:
            release.wait(60)
            return super().validate_token(token)

    async def check(authenticator: Authenticator) -> AuthContext:
        headers = {"authorization": ("Bearer alice",)}
        waiting = [asyncio.create_task(authenticator.authenticate(headers)) for _ in range(1024)]
        await asyncio.sleep(0)
        try:
            with pytest.raises(Unavailable):
                await authenticator.authenticate(headers)
        finally:
            release.set()
        await asyncio.gather(*waiting)
        return await authenticator.authenticate(headers)

    with open_authenticator(SlowValidator()) as authenticator:
        assert asyncio.run(check(authenticator)) == ALICE


def test_a_credential_does_not_show_its_text() -> None:
    credential = parse_authorization({"authorization": ("Bearer secret-token",)})

    assert "secret-token" not in repr(credential)


@pytest.mark.parametrize(
    "value", ["Bearer unknown-credential", *basic_headers("me:unknown-credential")["authorization"]]
)
def test_a_credential_that_is_refused_is_in_no_verbose_traceback(value: str) -> None:
    headers = group_headers([("authorization", value)])

    with open_authenticator(FakeValidator()) as authenticator:
        shown = verbose_traceback(lambda: asyncio.run(authenticator.exchange(headers)))

    assert "unknown-credential" not in shown
    assert value.rpartition(" ")[2] not in shown
