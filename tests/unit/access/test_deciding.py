"""Tests of `access.deciding`: one finding is one return or one of two errors, one event and one count."""

from __future__ import annotations

import json
from concurrent.futures import Future

import pytest

from micromegas_jupyter.access import ApiKeyValidator, MultiValidator, Rejected, Unavailable
from micromegas_jupyter.access.audit import AUDIT_LOGGER, AccessAudit
from micromegas_jupyter.access.jwks import KeysOnTheWay
from micromegas_jupyter.access.metrics import AccessMetrics
from micromegas_jupyter.access.validator import Accepted, DecidingValidator, Decision, Refused, Undecided, decide_safely
from micromegas_jupyter.config.access import ApiKeySetting
from micromegas_jupyter.core.protocols import AuthContext, Secret
from tests.fakes.mint import mint
from tests.fakes.validator import ALICE, FakeValidator


class Fixed(DecidingValidator):
    """Always finds the same, or fails; takes a quarter of a second."""

    def __init__(self, finding: Decision | Exception, clock=None) -> None:
        self._finding = finding
        self._clock = clock

    def decide(self, token: str) -> Decision:
        if self._clock is not None:
            self._clock.advance(0.25)
        if isinstance(self._finding, Exception):
            raise self._finding
        return self._finding

    def cached_context(self, token: str) -> AuthContext | None:
        return None


def _value(metrics: AccessMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"micromegas_access_{name}", labels)


def test_a_refusal_carries_its_reason_and_nothing_else():
    with pytest.raises(Rejected) as caught:
        Fixed(Refused(reason="expired")).validate_token("token")

    assert caught.value.reason == "expired"
    assert str(caught.value) == str(Rejected())


def test_what_cannot_be_decided_is_unavailable():
    with pytest.raises(Unavailable):
        Fixed(Undecided(reason="keys_unavailable")).validate_token("token")


def test_what_waits_for_keys_is_no_finding_yet(clock, caplog):
    fetch = Future()
    validator = Fixed(Undecided(reason="keys_unavailable", awaited_fetch=fetch), clock)
    validator.metrics = AccessMetrics()

    with pytest.raises(KeysOnTheWay) as caught:
        validator.validate_token("token")

    assert caught.value.fetch is fetch
    assert not _value(validator.metrics, "decisions_total", outcome="undecided", reason="keys_unavailable")
    assert caplog.records == []


def test_a_defect_is_a_refusal():
    with pytest.raises(Rejected) as caught:
        Fixed(ZeroDivisionError("defect")).validate_token("token")

    assert caught.value.reason == "internal_error"


@pytest.mark.parametrize(
    ("token", "expected"),
    [("alice", "accepted"), ("mallory", "refused"), ("outage", "undecided")],
)
def test_a_validator_from_elsewhere_is_understood(token, expected):
    assert decide_safely(FakeValidator(), token).outcome == expected


def test_findings_are_counted_with_their_latency(clock):
    metrics = AccessMetrics()
    for finding in (Accepted(context=ALICE), Refused(reason="expired"), Undecided(reason="keys_unavailable")):
        validator = Fixed(finding, clock)
        validator.metrics, validator.stopwatch = metrics, clock
        try:
            validator.validate_token("token")
        except (Rejected, Unavailable):
            continue

    assert _value(metrics, "decisions_total", outcome="accepted", reason="") == 1
    assert _value(metrics, "decisions_total", outcome="refused", reason="expired") == 1
    assert _value(metrics, "decisions_total", outcome="undecided", reason="keys_unavailable") == 1
    assert _value(metrics, "decision_seconds_sum") == 0.75


def test_a_finding_of_validators_inside_validators_is_counted_once(validator):
    metrics = AccessMetrics()
    keys = ApiKeyValidator([ApiKeySetting(name="grafana", key=Secret("mmk_8c1f0a6de2b94b7f"))])
    inner = MultiValidator([keys, validator])
    outer = MultiValidator([inner])
    for part in (keys, validator, inner, outer):
        part.metrics = metrics

    outer.validate_token(mint())
    with pytest.raises(Rejected):
        outer.validate_token(mint(audience="other"))

    assert _value(metrics, "decisions_total", outcome="accepted", reason="") == 1
    assert _value(metrics, "decisions_total", outcome="refused", reason="audience_mismatch") == 1
    assert _value(metrics, "decision_seconds_count") == 2


def test_a_validator_without_metrics_counts_nothing():
    assert Fixed(Accepted(context=ALICE)).validate_token("token") == ALICE


def test_a_flood_at_one_validator_hides_nothing_of_another(clock, caplog):
    flooded, calm = Fixed(Refused(reason="expired")), Fixed(Refused(reason="signature_wrong"))
    flooded.audit = AccessAudit(clock=clock, burst_events=1)
    for _ in range(3):
        with pytest.raises(Rejected):
            flooded.validate_token("token")

    with pytest.raises(Rejected):
        calm.validate_token("token")

    reasons = [json.loads(record.getMessage())["reason"] for record in caplog.records]
    assert [record.name for record in caplog.records] == [AUDIT_LOGGER.name] * 2
    assert reasons == ["expired", "signature_wrong"]


def test_a_validator_keeps_its_audit():
    validator = Fixed(Accepted(context=ALICE))

    assert validator.audit is validator.audit
