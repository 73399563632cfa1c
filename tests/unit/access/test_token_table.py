"""Each way in which a token can be wrong, with the one class and the one reason that it gets."""

import dataclasses
import gc
import hashlib
import logging
from collections.abc import Collection
from itertools import cycle, product

import pytest

from micromegas_jupyter.access import (
    ApiKeyValidator,
    AuthContext,
    AuthType,
    MultiValidator,
    OidcValidator,
    Rejected,
    Unavailable,
)
from micromegas_jupyter.access.explain import describe_outcome, explain_decision
from micromegas_jupyter.access.validator import Accepted, Refused, decide_safely
from micromegas_jupyter.config.access import AccessSettings, ApiKeySetting
from micromegas_jupyter.config.issuers import OidcServerSettings
from micromegas_jupyter.core.protocols import WriteAccess
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import ProviderMisbehaved, ProviderUnavailable
from micromegas_jupyter.oidc.authorization import build_metadata_url
from tests.fakes.mint import ISSUER, NOW, ec_key, forge, mint, rsa_key
from tests.fakes.provider import FakeProvider
from tests.unit.access import issuer_cases
from tests.unit.access.conftest import SETTINGS, reason_of
from tests.unit.access.provider_tokens import HOSTED, OWN, sign
from tests.unit.access.token_cases import ACCEPTED, WRONG_CLAIMS, WRONG_FORM, WRONG_KEY

API_KEY = "mmk_8c1f0a6de2b94b7f1c3d"
ROOT = "root@example.com"
KEYS = [ApiKeySetting(name="grafana", key=Secret(API_KEY))]
REFUSED = {**WRONG_FORM, **WRONG_CLAIMS, **WRONG_KEY}
ACCEPTED_BY_SETTING = {**issuer_cases.ACCEPTED_KINDS, **issuer_cases.ACCEPTED}
REFUSED_BY_SETTING = {**issuer_cases.REFUSED_KINDS, **issuer_cases.REFUSED}


@pytest.mark.parametrize("token", ACCEPTED.values(), ids=ACCEPTED)
def test_a_token_within_the_rules_is_accepted(validator, token):
    assert validator.validate_token(token).issuer == ISSUER


@pytest.mark.parametrize(("token", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_token_outside_the_rules_is_rejected_for_its_reason_and_not_shown(validator, clock, token, reason):
    decision = decide_safely(validator, token)
    steps = explain_decision(token, decision, settings=AccessSettings(oidc=SETTINGS), now=clock.now())

    assert decision.reason == reason
    assert [step.is_passed for step in steps].count(False) == 1
    assert steps[-2].is_passed is False
    assert reason in steps[-1].found
    text = " ".join(step.found for step in steps) + describe_outcome(decision)
    assert text.isprintable()
    assert all(part not in text for part in token.split(".") if len(part) > 12)


@pytest.mark.parametrize(
    ("changes", "setting", "found"),
    [
        (
            {},
            {"subjects": ("alice",), "leeway_seconds": 5},
            {
                "audience": "aud lake, accepted: lake, second",
                "times": "exp 2026-11-24T12:05:00Z (in 300 s), iat 2026-11-24T12:00:00Z (in 0 s);"
                " here it is 2026-11-24T12:00:00Z, leeway 5 s",
                "key": f"kid rsa, keys of {ISSUER}",
                "admission": "subjects are listed, 1 denied",
            },
        ),
        (
            {"exp": True, "nbf": 10**12, "iat": NOW.timestamp() - 1},
            {"issuer": "https://other.example"},
            {
                "algorithm": "RS256, accepted: asymmetric ones only",
                "issuer": f"iss {ISSUER}, configured: https://other.example",
                "audience": "aud lake, accepted: tokens without an audience only",
                "times": "exp True, nbf 1000000000000, iat 2026-11-24T11:59:59Z (1 s ago);"
                " here it is 2026-11-24T12:00:00Z, leeway 0 s",
                "key": "kid rsa, keys of no issuer",
                "admission": "every subject, 1 denied",
            },
        ),
        (
            {"without": ("exp", "iat"), "scope": "a"},
            {},
            {
                "times": "no times; here it is 2026-11-24T12:00:00Z, leeway 60 s",
                "kind": "accepted: either; marks in the token: scope",
            },
        ),
    ],
)
def test_each_step_shows_what_a_token_states_and_what_is_accepted(changes, setting, found):
    issuer = dataclasses.replace(SETTINGS.issuers[0], **setting)
    settings = AccessSettings(oidc=OidcServerSettings(issuers=(issuer,)), denied=("api_key|x",))
    accepted = Accepted(context=AuthContext(subject="alice", auth_type=AuthType.OIDC, issuer=ISSUER))

    steps = explain_decision(mint(**changes), accepted, settings=settings, now=NOW)

    assert [step.is_passed for step in steps] == [True] * len(steps)
    shown = {step.title: step.found for step in steps}
    assert {title: shown[title] for title in found} == found


def test_a_step_that_could_not_be_decided_is_neither_passed_nor_failed(validator, provider):
    provider.go_down()
    token = mint()
    steps = explain_decision(token, decide_safely(validator, token), settings=AccessSettings(oidc=SETTINGS), now=NOW)

    assert [step.is_passed for step in steps] == [*[True] * (len(steps) - 2), None, None]
    assert steps[-2].title == "key"


@pytest.mark.parametrize(
    ("decision", "is_passed", "found"),
    [
        (ApiKeyValidator(KEYS).decide(API_KEY), True, "the key of grafana"),
        (ApiKeyValidator(KEYS, denied={"grafana"}).decide(API_KEY), False, "the key of grafana"),
        (Refused(reason="api_key_revoked"), False, "the key"),
        (Refused(reason="legacy_api_key_refused"), False, "the key"),
        (Refused(reason="unknown_api_key"), False, "not known here"),
    ],
)
def test_an_api_key_is_explained_by_the_first_step(decision, is_passed, found):
    steps = explain_decision(API_KEY, decision, settings=AccessSettings(oidc=SETTINGS), now=NOW)

    assert (steps[0].title, steps[0].is_passed, steps[0].found) == ("API key", is_passed, found)
    assert is_passed or decision.reason in steps[-1].found


def test_the_outcome_names_the_tables_to_write_to():
    access = WriteAccess(ingest=frozenset({"orders"}), creates=frozenset({"log_*"}), owns=frozenset({"team_*"}))
    context = AuthContext(subject="alice", auth_type=AuthType.OIDC, issuer=ISSUER, write_access=access)

    outcome = describe_outcome(Accepted(context=context))

    assert "sends rows to log_*, orders, owns team_*" in outcome


@pytest.mark.parametrize(("setting", "token"), ACCEPTED_BY_SETTING.values(), ids=ACCEPTED_BY_SETTING)
def test_a_token_within_its_issuers_rules_is_accepted_under_the_configured_name(setting, token, provider, clock):
    validator = OidcValidator(OidcServerSettings(issuers=(setting,)), http=provider, clock=clock)

    assert validator.validate_token(token).issuer == ISSUER


@pytest.mark.parametrize(("setting", "token", "reason"), REFUSED_BY_SETTING.values(), ids=REFUSED_BY_SETTING)
def test_a_token_outside_its_issuers_rules_is_rejected_for_its_reason(setting, token, reason, provider, clock):
    validator = OidcValidator(OidcServerSettings(issuers=(setting,)), http=provider, clock=clock)

    assert reason_of(validator, token) == reason


def test_a_refusal_has_its_reason_and_never_asks_an_address_that_the_token_names(validator, provider):
    has_fetched = False
    for token, reason in REFUSED.values():
        if reason == "unknown_key" and has_fetched:
            assert _outcome(validator, token) == "Unavailable"  # keys may have changed since the last fetch
        else:
            assert reason_of(validator, token) == reason
        has_fetched = has_fetched or reason == "unknown_key"

    assert set(provider.requested) == {f"{ISSUER}/.well-known/openid-configuration", f"{ISSUER}/keys"}
    assert len(provider.requested) == 3


REAL_TOKENS = {**HOSTED, **OWN}
NEAR_MISSES = {
    f"{name}: {difference}": (real, changes, reason)
    for name, real in REAL_TOKENS.items()
    for difference, (changes, reason) in real.near_misses.items()
}


def validator_of(real, clock, *admins):
    issuer = real.setting.issuer
    provider = FakeProvider(issuer)
    # Issuers may end in a slash; the document's address then has one less.
    provider.elsewhere[build_metadata_url(issuer)] = provider.discovery
    return OidcValidator(OidcServerSettings(issuers=(real.setting,)), admins, http=provider, clock=clock)


@pytest.mark.parametrize("real", REAL_TOKENS.values(), ids=REAL_TOKENS)
def test_a_real_token_is_accepted_and_says_who_the_caller_is(real, clock):
    context = validator_of(real, clock).validate_token(sign(real, {}))

    assert context.issuer == real.setting.issuer
    assert {name: getattr(context, name) for name in real.expected} == real.expected
    assert context.is_admin is False


@pytest.mark.parametrize(("real", "changes", "reason"), NEAR_MISSES.values(), ids=NEAR_MISSES)
def test_what_is_almost_the_real_token_is_refused_for_its_reason(real, changes, reason, clock):
    assert reason_of(validator_of(real, clock), sign(real, changes)) == reason


@pytest.mark.parametrize("real", REAL_TOKENS.values(), ids=REAL_TOKENS)
def test_an_address_makes_an_administrator_only_when_the_provider_verified_it(real, clock):
    context = validator_of(real, clock, "alice@example.com").validate_token(sign(real, {}))

    assert context.is_admin is real.expected.get("email_verified", False)


# What a provider's attributes become.
FAULTS = {
    "does not answer": {"failure": ProviderUnavailable("No answer.")},
    "answers with something else": {"failure": ProviderMisbehaved("HTML.")},
    "a defect on the way": {"failure": ValueError("defect")},
    "no memory": {"failure": MemoryError()},
    "an operating system error": {"failure": OSError(24, "too many open files")},
    **{f"status {status}": {"status": status} for status in (500, 404, 302, 429)},
    "a discovery document of another issuer": {"discovery": {"issuer": "https://evil.example", "jwks_uri": ISSUER}},
    "a discovery document without keys": {"discovery": {"issuer": ISSUER}},
    "a discovery document that is a list": {"discovery": []},
    "keys over plain http": {"discovery": {"issuer": ISSUER, "jwks_uri": "http://id.example.com/keys"}},
    "keys at a file": {"discovery": {"issuer": ISSUER, "jwks_uri": "file:///etc/passwd"}},
    "no list of keys": {"jwks": {"keys": "none"}},
    "an empty list of keys": {"jwks": {"keys": []}},
    "a key document that is null": {"jwks": None},
}
# What the credential itself shows, whatever its issuer's state.
BAD = {**WRONG_FORM, **WRONG_CLAIMS}
# What only the issuer's keys can tell.
UNDECIDABLE_WITHOUT_KEYS = {
    "good": mint(),
    "good, ES256": mint(key=ec_key()),
    "with a damaged signature": forge(lambda head, body, mark: (head, body, mark[:-8] + "AAAAAAAA")),
    "with changed claims": forge(lambda head, _body, mark: (head, mint(subject="root").split(".")[1], mark)),
    "of an unknown key": mint(key=rsa_key("new")),
    "without a key id": mint(header={"kid": None}),
}


@pytest.fixture
def chain(provider, clock):
    return MultiValidator([ApiKeyValidator(KEYS), OidcValidator(SETTINGS, http=provider, clock=clock)])


def _outcome(validator, token):
    try:
        validator.validate_token(token)
    except (Rejected, Unavailable) as error:
        return type(error).__name__
    return "accepted"


@pytest.mark.parametrize(("fault", "token"), [*zip(cycle(FAULTS), BAD, strict=False)])  # each of both at least once
def test_a_bad_credential_is_rejected_whatever_is_broken(fault, token, chain, provider):
    vars(provider).update(FAULTS[fault])

    assert _outcome(chain, BAD[token][0]) == "Rejected"


@pytest.mark.parametrize(("fault", "token"), [*product(FAULTS, UNDECIDABLE_WITHOUT_KEYS)])
def test_without_keys_nothing_is_said_about_a_signature(fault, token, chain, provider):
    vars(provider).update(FAULTS[fault])

    assert _outcome(chain, UNDECIDABLE_WITHOUT_KEYS[token]) == "Unavailable"


# The address of the keys is known by then, so the discovery document does not count any more.
KEY_FAULTS = [fault for fault in FAULTS if "discovery" not in fault and not fault.startswith("keys ")]
KNOWN_KEYS_OUTCOMES = {
    "good": "accepted", "good, ES256": "accepted", "with a damaged signature": "Rejected",
    "with changed claims": "Rejected", "of an unknown key": "Unavailable",
}  # fmt: skip


@pytest.mark.parametrize(("fault", "token"), [*product(KEY_FAULTS, KNOWN_KEYS_OUTCOMES)])
def test_a_fault_after_the_keys_were_fetched_hurts_only_unknown_keys(fault, token, chain, provider, clock):
    chain.validate_token(mint(jti="first"))
    vars(provider).update(FAULTS[fault])
    clock.advance(120)

    assert _outcome(chain, UNDECIDABLE_WITHOUT_KEYS[token]) == KNOWN_KEYS_OUTCOMES[token]


@pytest.mark.parametrize("fault", FAULTS)
def test_once_the_fault_is_over_a_good_token_is_accepted(fault, chain, provider, clock):
    healthy = dict(vars(provider))
    vars(provider).update(FAULTS[fault])
    assert _outcome(chain, mint()) == "Unavailable"

    vars(provider).update({name: healthy[name] for name in FAULTS[fault]})
    clock.advance(120)

    assert _outcome(chain, mint()) == "accepted"


@pytest.mark.parametrize(
    "claims",
    [
        *({name: ROOT} for name in ("preferred_username", "upn", "unique_name", "name", "email")),
        *({"email": ROOT, "email_verified": odd} for odd in ("true", 1, False)),
        {"verified_primary_email": [ROOT]},
    ],
    ids=str,
)
def test_s2_a_claim_that_nobody_verified_makes_no_administrator(claims, provider, clock):
    validator = OidcValidator(SETTINGS, [ROOT], http=provider, clock=clock)

    assert not validator.validate_token(mint(**claims)).is_admin


def test_s9_no_token_is_kept_as_text(validator):
    token = mint()
    validator.validate_token(token)

    kept = _everything_below(validator)

    assert hashlib.sha256(token.encode()).digest() in kept
    assert token not in kept
    assert token.rpartition(".")[2] not in kept


def test_s10_an_api_key_is_kept_as_its_digest_only(caplog):
    caplog.set_level(logging.DEBUG)
    validator = ApiKeyValidator(KEYS)
    validator.validate_token(API_KEY)

    kept = _everything_below(validator)

    assert API_KEY not in kept
    assert hashlib.sha256(API_KEY.encode()).digest() in kept
    assert API_KEY not in caplog.text


def _everything_below(root):
    """Return every text and every run of bytes that can be reached from an object of the package."""
    found, seen, waiting = set(), set(), [root]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str | bytes):
            found.add(item)
        elif id(item) not in seen and not isinstance(item, type):
            seen.add(id(item))
            if isinstance(item, Collection) or type(item).__module__.startswith("micromegas_jupyter"):
                waiting += gc.get_referents(item)
    return found
