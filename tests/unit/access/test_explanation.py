"""Tests of `access.explanation`."""

from __future__ import annotations

import pytest

from micromegas_jupyter.access import ApiKeyValidator
from micromegas_jupyter.access.explain import describe_outcome, explain_decision
from micromegas_jupyter.access.validator import Refused, decide_safely
from micromegas_jupyter.config.access import AccessSettings, ApiKeySetting
from micromegas_jupyter.core.system import Secret
from tests.fakes.mint import ISSUER, NOW, mint
from tests.unit.access.conftest import SETTINGS
from tests.unit.access.test_token_table import REFUSED

ACCESS = AccessSettings(
    oidc=SETTINGS, api_keys=(ApiKeySetting(name="grafana", key=Secret("mmk_8c1f0a6de2b94b7f1c3d")),), admins=("root",)
)


@pytest.fixture
def explain(validator, clock):
    def explained(token: str):
        decision = decide_safely(validator, token)
        return decision, explain_decision(token, decision, settings=ACCESS, now=clock.now())

    return explained


def test_an_accepted_token_passes_every_step_and_names_its_bearer(explain):
    decision, steps = explain(mint(subject="root", email="root@example.com", groups=["a"]))

    assert all(step.is_passed for step in steps)
    assert [step.title for step in steps] == [
        "API key", "size", "form", "header", "algorithm", "issuer", "audience", "times", "kind", "conditions",
        "subject", "key", "signature", "admission",
    ]  # fmt: skip
    assert describe_outcome(decision) == (
        f"accepted: subject root of {ISSUER}, email root@example.com (not verified), administrator, groups a, "
        "until 2026-11-24T12:05:00Z"
    )


@pytest.mark.parametrize(("token", "reason"), REFUSED.values(), ids=REFUSED)
def test_every_refused_token_fails_at_one_step_with_its_reason_and_shows_nothing_of_itself(explain, token, reason):
    decision, steps = explain(token)

    assert [step.is_passed for step in steps].count(False) == 1
    assert steps[-2].is_passed is False
    assert reason in steps[-1].found
    text = " ".join(step.found for step in steps) + describe_outcome(decision)
    assert text.isprintable()
    assert all(part not in text for part in token.split(".") if len(part) > 12)


def test_without_the_providers_keys_the_key_step_is_left_open(explain, provider):
    provider.go_down()

    decision, steps = explain(mint())

    assert (steps[-2].title, steps[-2].is_passed) == ("key", None)
    assert describe_outcome(decision).startswith("not decided: keys_unavailable")


def test_a_known_api_key_is_named():
    decision = ApiKeyValidator(ACCESS.api_keys).decide("mmk_8c1f0a6de2b94b7f1c3d")

    steps = explain_decision("mmk_8c1f0a6de2b94b7f1c3d", decision, settings=ACCESS, now=NOW)

    assert [(step.is_passed, step.found) for step in steps] == [(True, "the key of grafana")]


@pytest.mark.parametrize("reason", ["api_key_revoked", "api_key_expired", "legacy_api_key_refused", "unknown_api_key"])
def test_an_api_key_that_is_refused_ends_at_the_first_step(reason):
    steps = explain_decision("x" * 30, Refused(reason=reason), settings=ACCESS, now=NOW)

    assert (steps[0].title, steps[0].is_passed) == ("API key", False)
    assert reason in steps[-1].found


def test_hostile_claims_stay_in_one_line(explain):
    _, steps = explain(mint(issuer="https://evil.example\r\n✓ accepted\u2028\x1b[2J" + "x" * 5000))

    assert all(step.found.isprintable() and len(step.found) < 2000 for step in steps)
