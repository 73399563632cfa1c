"""Tests of `access.multi`."""

from __future__ import annotations

import hashlib

import pytest

from micromegas_jupyter.access import (
    ApiKeyValidator,
    AuthContext,
    AuthType,
    MultiValidator,
    Rejected,
    TokenValidator,
    Unavailable,
)
from micromegas_jupyter.access.audit import Claimed
from micromegas_jupyter.access.validator import DecidingValidator, Decision, Refused
from micromegas_jupyter.config.access import ApiKeySetting
from micromegas_jupyter.core.protocols import Secret
from tests.fakes.mint import mint
from tests.unit.access.form_cases import unsigned

CONTEXT = AuthContext(subject="alice", issuer="test", auth_type=AuthType.OIDC)
OTHER = AuthContext(subject="bob", issuer="test", auth_type=AuthType.OIDC)


class Scripted:
    """A validator of another make, which answers as told and counts its calls."""

    def __init__(self, answer: AuthContext | Exception) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.closed = 0

    def validate_token(self, token: str) -> AuthContext:
        self.asked.append(token)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def cached_context(self, _token: str) -> AuthContext | None:
        return None if isinstance(self.answer, Exception) else self.answer

    def close(self) -> None:
        self.closed += 1


class Refusing(DecidingValidator):
    """Refuses with a reason and what it read."""

    def __init__(self, decision: Refused) -> None:
        self.decision = decision

    def decide(self, token: str) -> Decision:
        return self.decision

    def cached_context(self, token: str) -> AuthContext | None:
        return None


def reason_of(*validators: TokenValidator) -> str:
    with pytest.raises(Rejected) as caught:
        MultiValidator(validators).validate_token("token")
    return caught.value.reason


def test_the_first_that_accepts_decides_and_the_others_are_not_asked():
    first, second, third = Scripted(Rejected()), Scripted(CONTEXT), Scripted(OTHER)

    assert MultiValidator([first, second, third]).validate_token("token") is CONTEXT
    assert (first.asked, second.asked, third.asked) == (["token"], ["token"], [])


def test_an_acceptance_outweighs_an_earlier_validator_that_is_down():
    assert MultiValidator([Scripted(Unavailable("down")), Scripted(CONTEXT)]).validate_token("t") is CONTEXT


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_validator_that_is_down_outweighs_one_that_refuses(order):
    parts = [Scripted(Unavailable("down")), Scripted(Rejected())]

    with pytest.raises(Unavailable) as caught:
        MultiValidator([parts[index] for index in order]).validate_token("token")

    assert type(caught.value) is Unavailable


def test_when_all_refuse_the_token_is_rejected_for_the_first_reason():
    assert reason_of(Scripted(Rejected(reason="one")), Scripted(Rejected(reason="two"))) == "one"


def test_the_reason_of_a_validator_that_could_read_the_token_comes_first():
    readable = Refused(reason="audience_mismatch", claimed=Claimed(issuer="https://id.example.com"))

    assert reason_of(Refusing(Refused(reason="unknown_api_key")), Refusing(readable)) == "audience_mismatch"
    assert reason_of(Refusing(readable), Refusing(Refused(reason="unknown_api_key"))) == "audience_mismatch"


@pytest.mark.parametrize(
    ("credential", "expected"),
    [
        (unsigned("none"), "signature_missing"),
        (unsigned("none") + "AAAA", "algorithm_not_allowed"),
        (mint().rpartition(".")[0] + ".", "signature_missing"),
        (mint().rpartition(".")[0], "not_three_segments"),
        (mint()[:40], "not_three_segments"),
        ("a.b.c", "not_base64url"),
        ("another key", "unknown_api_key"),
        ("mmk_8c1f0a6de2b94b7f", "unknown_api_key"),
        ("", "unknown_api_key"),
    ],
)
def test_what_is_meant_as_a_token_gets_the_reason_of_a_token(validator, credential, expected):
    keys = ApiKeyValidator([ApiKeySetting(name="report", key=Secret("mmk_0123456789abcdef"))])

    with pytest.raises(Rejected) as caught:
        MultiValidator([keys, validator]).validate_token(credential)

    assert caught.value.reason == expected


def test_where_only_keys_are_known_a_token_is_no_key():
    keys = ApiKeyValidator([ApiKeySetting(name="report", key=Secret("mmk_0123456789abcdef"))])

    assert MultiValidator([keys]).decide(mint()) == Refused(reason="unknown_api_key")


def test_without_validators_nothing_is_accepted():
    assert reason_of() == "no_validator"


@pytest.mark.parametrize("defect", [KeyError("x"), RuntimeError(), MemoryError()])
def test_a_defect_in_a_validator_lets_nobody_in(defect):
    assert reason_of(Scripted(defect)) == "internal_error"


def test_a_cached_context_is_the_first_that_is_known():
    multi = MultiValidator([Scripted(Rejected()), Scripted(CONTEXT), Scripted(OTHER)])

    assert multi.cached_context("token") is CONTEXT
    assert MultiValidator([Scripted(Rejected())]).cached_context("token") is None


def test_closing_closes_all_parts():
    parts = [Scripted(CONTEXT), Scripted(OTHER), Scripted(CONTEXT)]

    MultiValidator(parts[:2], also_close=parts[2:]).close()

    assert [part.closed for part in parts] == [1, 1, 1]


def test_validators_that_know_digests_are_given_the_digest_and_the_others_the_token():
    asked: list[object] = []

    class ByDigest(Scripted):
        def cached_by_digest(self, digest: bytes) -> AuthContext | None:
            asked.append(digest)
            return None

        def cached_context(self, _token: str) -> AuthContext | None:
            raise AssertionError("the digest was there")

    class ByToken(Scripted):
        def cached_context(self, token: str) -> AuthContext | None:
            asked.append(token)
            return CONTEXT

    multi = MultiValidator([ByDigest(CONTEXT), ByToken(CONTEXT)])

    assert multi.cached_context("token") is CONTEXT
    assert asked == [hashlib.sha256(b"token").digest(), "token"]


@pytest.mark.parametrize("token", ["x" * 16385, None, b"key"], ids=["huge", "None", "bytes"])
def test_what_cannot_be_a_credential_is_known_to_nobody(token):
    assert MultiValidator([Scripted(CONTEXT)]).cached_context(token) is None
