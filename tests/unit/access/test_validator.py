"""Tests of `access.validator`: one decision is one return or one of two errors, one event and one count."""

from __future__ import annotations

import hashlib
import json
import threading
from concurrent.futures import Future

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
from micromegas_jupyter.access import validator as module
from micromegas_jupyter.access.audit import AUDIT_LOGGER, AccessAudit, AccessMetrics, Claimed
from micromegas_jupyter.access.jwks import KeysPending
from micromegas_jupyter.access.validator import (
    Accepted,
    BaseValidator,
    Decision,
    Refused,
    Undecided,
    decide_safely,
    digest_name,
    token_digest,
    token_name,
)
from micromegas_jupyter.config.access import ApiKeySetting
from micromegas_jupyter.core.system import Secret
from tests.fakes.mint import mint
from tests.fakes.validator import ALICE, FakeValidator
from tests.unit.access.form_cases import unsigned

OTHER = AuthContext(subject="bob", issuer="test", auth_type=AuthType.OIDC)
KEYS = [ApiKeySetting(name="grafana", key=Secret("mmk_8c1f0a6de2b94b7f"))]


class Fixed(BaseValidator):
    """Always decides the same, or fails; takes a quarter of a second."""

    def __init__(self, *decisions: Decision | Exception, clock=None) -> None:
        self.decisions = list(decisions)
        self._clock = clock

    def decide(self, token: str) -> Decision:
        if self._clock is not None:
            self._clock.advance(0.25)
        decision = self.decisions.pop(0) if len(self.decisions) > 1 else self.decisions[0]
        if isinstance(decision, Exception):
            raise decision
        return decision


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


def value(metrics: AccessMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"micromegas_access_{name}", labels)


def reason_of(*validators: TokenValidator, token: str = "token") -> str:
    with pytest.raises(Rejected) as caught:
        MultiValidator(validators).validate_token(token)
    return caught.value.reason


class TestCredential:
    """A credential as text: its digest, and its name in logs."""

    @pytest.mark.parametrize("token", ["", "key", "clé", "\ud800", "a\udfffb"], ids=ascii)
    def test_every_text_has_a_digest(self, token):
        assert token_digest(token) == hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()

    def test_texts_that_differ_in_half_a_character_have_different_digests(self):
        assert len({token_digest(text) for text in ("\ud800", "\udbff", "?", "\ufffd")}) == 4

    @pytest.mark.parametrize("token", ["x" * 16385, None, 5, b"key"], ids=["huge", "None", "5", "bytes"])
    def test_what_is_not_plausible_is_refused_unread_and_known_to_nobody(self, token):
        assert token_name(token) == "implausible"
        assert decide_safely(FakeValidator(), token) == Refused(reason="token_implausible")
        assert MultiValidator([Scripted(ALICE)]).cached_context(token) is None

    def test_a_credential_goes_by_eight_digits_of_its_digest(self):
        assert token_name("key") == digest_name(hashlib.sha256(b"key").digest()) == "2c70e12b"


class TestDecision:
    """From a decision to a return or an error."""

    def test_a_refusal_carries_its_reason_and_nothing_else(self):
        with pytest.raises(Rejected) as caught:
            Fixed(Refused(reason="expired")).validate_token("token")

        assert caught.value.reason == "expired"
        assert str(caught.value) == str(Rejected())

    def test_what_cannot_be_decided_is_unavailable(self):
        with pytest.raises(Unavailable):
            Fixed(Undecided(reason="keys_unavailable")).validate_token("token")

    def test_a_defect_is_a_refusal(self):
        with pytest.raises(Rejected) as caught:
            Fixed(ZeroDivisionError("defect")).validate_token("token")

        assert caught.value.reason == "internal_error"

    @pytest.mark.parametrize(
        ("token", "expected"), [("alice", "accepted"), ("mallory", "refused"), ("outage", "undecided")]
    )
    def test_a_validator_from_elsewhere_is_understood(self, token, expected):
        assert decide_safely(FakeValidator(), token).outcome == expected

    def test_decisions_are_counted_with_their_latency(self, clock):
        metrics = AccessMetrics()
        for decision in (Accepted(context=ALICE), Refused(reason="expired"), Undecided(reason="keys_unavailable")):
            validator = Fixed(decision, clock=clock)
            validator.metrics, validator.stopwatch = metrics, clock
            try:
                validator.validate_token("token")
            except (Rejected, Unavailable):
                continue

        assert value(metrics, "decisions_total", outcome="accepted", reason="") == 1
        assert value(metrics, "decisions_total", outcome="refused", reason="expired") == 1
        assert value(metrics, "decisions_total", outcome="undecided", reason="keys_unavailable") == 1
        assert value(metrics, "decision_seconds_sum") == 0.75

    def test_a_decision_of_validators_inside_validators_is_counted_once(self, validator):
        metrics = AccessMetrics()
        keys = ApiKeyValidator(KEYS)
        inner = MultiValidator([keys, validator])
        outer = MultiValidator([inner])
        for part in (keys, validator, inner, outer):
            part.metrics = metrics

        outer.validate_token(mint())
        with pytest.raises(Rejected):
            outer.validate_token(mint(audience="other"))

        assert value(metrics, "decisions_total", outcome="accepted", reason="") == 1
        assert value(metrics, "decisions_total", outcome="refused", reason="audience_mismatch") == 1
        assert value(metrics, "decision_seconds_count") == 2

    def test_a_flood_at_one_validator_hides_nothing_of_another(self, clock, caplog):
        flooded, calm = Fixed(Refused(reason="expired")), Fixed(Refused(reason="signature_wrong"))
        flooded.audit = AccessAudit(clock=clock, burst_events=1)
        for validator in (flooded, flooded, flooded, calm):
            with pytest.raises(Rejected):
                validator.validate_token("token")

        reasons = [json.loads(record.getMessage())["reason"] for record in caplog.records]
        assert [record.name for record in caplog.records] == [AUDIT_LOGGER.name] * 2
        assert reasons == ["expired", "signature_wrong"]


class TestPendingKeys:
    """A decision that waits for keys is made again after the fetch."""

    @pytest.fixture
    def fetch(self) -> Future:
        return Future()

    def test_who_does_not_wait_learns_for_what_and_nothing_is_counted(self, fetch, caplog):
        validator = Fixed(Undecided(reason="keys_unavailable", pending=fetch))
        validator.metrics = AccessMetrics()

        with pytest.raises(KeysPending) as caught:
            validator.try_token("token")

        assert caught.value.fetch is fetch
        assert not value(validator.metrics, "decisions_total", outcome="undecided", reason="keys_unavailable")
        assert caplog.records == []

    def test_the_last_try_is_undecided_and_counted(self, fetch, caplog):
        validator = Fixed(Undecided(reason="keys_unavailable", pending=fetch))

        with pytest.raises(Unavailable):
            validator.try_token("token", is_last=True)

        assert [json.loads(record.getMessage())["outcome"] for record in caplog.records] == ["undecided"]

    def test_a_check_that_waits_is_made_again_after_the_fetch_and_leaves_one_event(self, fetch, caplog):
        validator = Fixed(Undecided(reason="keys_unavailable", pending=fetch), Accepted(context=ALICE))
        threading.Timer(0.01, fetch.set_result, [None]).start()

        assert MultiValidator([validator]).validate_token("token") is ALICE
        assert [json.loads(record.getMessage())["outcome"] for record in caplog.records] == ["accepted"]

    def test_nobody_waits_without_an_end(self, fetch, monkeypatch):
        monkeypatch.setattr(module, "_KEY_WAIT_SECONDS", 0.01)

        with pytest.raises(Unavailable):
            Fixed(Undecided(reason="keys_unavailable", pending=fetch)).validate_token("token")


class TestMulti:
    """The first validator that accepts decides."""

    def test_the_first_that_accepts_decides_and_the_others_are_not_asked(self):
        first, second, third = Scripted(Rejected()), Scripted(ALICE), Scripted(OTHER)

        assert MultiValidator([first, second, third]).validate_token("token") is ALICE
        assert (first.asked, second.asked, third.asked) == (["token"], ["token"], [])

    def test_an_acceptance_outweighs_an_earlier_validator_that_is_down(self):
        assert MultiValidator([Scripted(Unavailable("down")), Scripted(ALICE)]).validate_token("t") is ALICE

    @pytest.mark.parametrize("order", [(0, 1), (1, 0)])
    def test_a_validator_that_is_down_outweighs_one_that_refuses(self, order):
        parts = [Scripted(Unavailable("down")), Scripted(Rejected())]

        with pytest.raises(Unavailable) as caught:
            MultiValidator([parts[index] for index in order]).validate_token("token")

        assert type(caught.value) is Unavailable

    def test_when_all_refuse_the_first_reason_counts_or_that_of_one_that_could_read_the_token(self):
        readable = Refused(reason="audience_mismatch", claimed=Claimed(issuer="https://id.example.com"))
        unreadable = Refused(reason="unknown_api_key")

        assert reason_of(Scripted(Rejected(reason="one")), Scripted(Rejected(reason="two"))) == "one"
        assert reason_of(Fixed(unreadable), Fixed(readable)) == "audience_mismatch"
        assert reason_of(Fixed(readable), Fixed(unreadable)) == "audience_mismatch"
        assert reason_of() == "no_validator"

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
            ("mmk_8c1f0a6de2b94b70", "unknown_api_key"),
            ("", "unknown_api_key"),
        ],
    )
    def test_what_is_meant_as_a_token_gets_the_reason_of_a_token(self, validator, credential, expected):
        assert reason_of(ApiKeyValidator(KEYS), validator, token=credential) == expected

    def test_where_only_keys_are_known_a_token_is_not_a_key(self):
        assert MultiValidator([ApiKeyValidator(KEYS)]).decide(mint()) == Refused(reason="unknown_api_key")

    @pytest.mark.parametrize("defect", [KeyError("x"), RuntimeError(), MemoryError()])
    def test_a_defect_in_a_validator_lets_nobody_in(self, defect):
        assert reason_of(Scripted(defect)) == "internal_error"

    def test_a_cached_context_is_the_first_that_is_known_by_digest_or_token(self):
        multi = MultiValidator([ApiKeyValidator(KEYS), Scripted(Rejected()), Scripted(ALICE), Scripted(OTHER)])

        assert multi.cached_context("token") is ALICE
        assert multi.cached_context("mmk_8c1f0a6de2b94b7f").subject == "grafana"
        assert MultiValidator([multi]).cached_context("token") is ALICE
        assert MultiValidator([Scripted(Rejected())]).cached_context("token") is None

    def test_closing_closes_all_parts(self):
        parts = [Scripted(ALICE), Scripted(OTHER), Scripted(ALICE)]

        MultiValidator(parts).close()

        assert [part.closed for part in parts] == [1, 1, 1]
