"""Tests of `access.validator`: one decision is one return or one of two errors; rights by roles; limits on calls."""

import itertools
import json
import threading
from concurrent.futures import Future
from contextlib import nullcontext
from itertools import count
from types import SimpleNamespace
from unittest.mock import Mock, call

import pytest

from micromegas_jupyter.access import ApiKeyValidator, MultiValidator, Rejected, Unavailable
from micromegas_jupyter.access import validator as module
from micromegas_jupyter.access.audit import AccessMetrics, Claimed, TokenBuckets
from micromegas_jupyter.access.jwks import KeysPending
from micromegas_jupyter.access.validator import Accepted, CallLimits, Refused, Roles, Undecided
from micromegas_jupyter.config.access import ApiKeySetting, RateLimits, RoleSetting
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import ResourcesExhausted
from tests.fakes.mint import mint
from tests.fakes.validator import ALICE, BOB, FakeValidator
from tests.unit.access.token_cases import unsigned

KEYS = [ApiKeySetting(name="grafana", key=Secret("mmk_8c1f0a6de2b94b7f"))]


class Fixed(module.BaseValidator):
    """Decides as told, the last decision again and again."""

    def __init__(self, *decisions):
        self._decisions = itertools.chain(decisions, itertools.repeat(decisions[-1]))

    def decide(self, _token):
        return next(self._decisions)


def scripted(answer):
    """Return a validator of another make, which answers so once."""
    return Mock(**{"validate_token.side_effect": [answer]})


def reason_of(*validators, token="token"):
    with pytest.raises(Rejected) as caught:
        MultiValidator(validators).validate_token(token)
    return caught.value.reason


class TestDecision:
    """From a decision to a return or an error."""

    @pytest.mark.parametrize("token", ["x" * 16385, None, 5, b"key"], ids=["huge", "None", "5", "bytes"])
    def test_what_is_not_plausible_is_refused_unread_and_known_to_nobody(self, token):
        assert module.token_name(token) == "implausible"
        assert module.decide_safely(FakeValidator(), token) == Refused(reason="token_implausible")
        assert ApiKeyValidator(KEYS).cached_context(token) is None

    def test_decisions_of_the_outermost_are_counted_once_with_their_latency(self, validator, monkeypatch):
        ticking = SimpleNamespace(monotonic=count(1000, 0.25).__next__)
        monkeypatch.setattr(module, "SYSTEM_CLOCK", ticking)
        metrics = AccessMetrics()
        inner = MultiValidator([ApiKeyValidator(KEYS), validator])
        outer = MultiValidator([inner])
        for part in (validator, inner, outer):
            part.metrics = metrics

        outer.validate_token(mint())
        # A validator that another one asks is not counted.
        assert reason_of(outer, token=mint(audience="other")) == "audience_mismatch"
        with pytest.raises(Rejected):
            outer.validate_token(mint(audience="other"))

        get, name = metrics.registry.get_sample_value, "micromegas_access_decisions_total"
        assert get(name, {"outcome": "accepted", "reason": ""}) == 1
        # Alerts ask for the increase also of reasons that did not occur yet.
        for reason, expected in (("audience_mismatch", 1), ("signature_wrong", 0)):
            assert get(name, {"outcome": "refused", "reason": reason}) == expected
        assert get("micromegas_access_decision_seconds_count") == 2
        assert get("micromegas_access_decision_seconds_sum") == 0.5


class TestPendingKeys:
    """A decision that waits for keys is made again after the fetch."""

    def test_who_does_not_wait_learns_for_what_and_the_last_try_is_undecided(self, caplog):
        fetch = Future()
        validator = Fixed(Undecided(reason="keys_unavailable", pending=fetch))

        with pytest.raises(KeysPending) as caught:
            validator.try_token("token")
        assert (caught.value.fetch, caplog.records) == (fetch, [])
        with pytest.raises(Unavailable):
            validator.try_token("token", is_last=True)
        assert [json.loads(record.getMessage())["outcome"] for record in caplog.records] == ["undecided"]

    def test_a_check_that_waits_is_made_again_after_the_fetch_and_leaves_one_event(self, caplog):
        fetch = Future()
        validator = Fixed(Undecided(reason="keys_unavailable", pending=fetch), Accepted(context=ALICE))
        threading.Timer(0.01, fetch.set_result, [None]).start()

        assert MultiValidator([validator]).validate_token("token") is ALICE
        assert [json.loads(record.getMessage())["outcome"] for record in caplog.records] == ["accepted"]

    def test_nobody_waits_without_an_end(self, monkeypatch):
        monkeypatch.setattr(module, "_KEY_WAIT_SECONDS", 0.01)

        with pytest.raises(Unavailable):
            Fixed(Undecided(reason="keys_unavailable", pending=Future())).validate_token("token")


class TestMulti:
    """The first validator that accepts decides."""

    def test_the_first_that_accepts_decides_and_the_others_are_not_asked(self):
        parts = [scripted(answer) for answer in (Rejected(), ALICE, BOB)]

        assert MultiValidator(parts).validate_token("token") is ALICE
        assert [part.mock_calls for part in parts] == [[call.validate_token("token")]] * 2 + [[]]

    @pytest.mark.parametrize("order", [1, -1])
    def test_a_validator_that_is_down_outweighs_one_that_refuses(self, order):
        parts = [scripted(Unavailable("down")), scripted(Rejected())]

        with pytest.raises(Unavailable):
            MultiValidator(parts[::order]).validate_token("token")

    def test_the_reason_is_that_of_whoever_could_read_the_credential(self):
        readable = Fixed(Refused(reason="audience_mismatch", claimed=Claimed(issuer="x")))
        unreadable = Fixed(Refused(reason="not_three_segments"))

        assert reason_of(unreadable, readable) == reason_of(readable, unreadable) == "audience_mismatch"
        assert reason_of() == "no_validator"

    @pytest.mark.parametrize(
        ("credential", "expected"),
        [
            (unsigned("none"), "signature_missing"), (unsigned("none") + "AAAA", "algorithm_not_allowed"),
            (mint().rpartition(".")[0], "not_three_segments"), (mint()[:40], "not_three_segments"),
            ("a.b.c", "not_base64url"), ("another key", "unknown_api_key"),
            ("mmk_8c1f0a6de2b94b70", "unknown_api_key"), ("", "unknown_api_key"),
        ],
    )  # fmt: skip
    def test_what_is_meant_as_a_token_gets_the_reason_of_a_token(self, validator, credential, expected):
        assert reason_of(ApiKeyValidator(KEYS), validator, token=credential) == expected

    @pytest.mark.parametrize("defect", [KeyError("x"), RuntimeError(), MemoryError()])
    def test_a_defect_in_a_validator_lets_nobody_in(self, defect):
        assert reason_of(scripted(defect)) == "internal_error"

    def test_a_cached_context_is_the_first_that_is_known_by_digest(self, validator):
        multi = MultiValidator([MultiValidator([ApiKeyValidator(KEYS)]), scripted(ALICE), validator])
        token = mint()

        assert multi.cached_context(token) is None
        assert multi.cached_context("mmk_8c1f0a6de2b94b7f").subject == "grafana"
        assert multi.validate_token(mint(subject="x")) is ALICE


EU, US = "region = 'eu'", "region = 'us'"
ROLES = {
    "logs": RoleSetting(tables={"log_entries": None}),
    "eu_logs": RoleSetting(tables={"log_entries": EU}),
    "us_logs": RoleSetting(tables={"log_entries": US}),
    "all_eu": RoleSetting(tables={"*": EU}),
    "all": RoleSetting(tables={"*": None}),
    "all_but_own_logs": RoleSetting(tables={"*": None, "log_entries": "owner = 'me'"}),
    "nothing": RoleSetting(),
}


class TestRoles:
    """A row is visible when any of the caller's roles shows it."""

    @pytest.mark.parametrize(
        ("names", "filters"),
        [
            ((), {}), *(((name,), {}) for name in ("nothing", "unknown", "LOGS", "")),
            (("logs",), {"log_entries": ()}), (("eu_logs", "us_logs"), {"log_entries": (EU, US)}),
            (("eu_logs", "logs"), {"log_entries": ()}), (("logs", "eu_logs"), {"log_entries": ()}),
            (("eu_logs", "all_eu"), {"*": (EU,), "log_entries": (EU,)}),
            (("us_logs", "all_eu"), {"*": (EU,), "log_entries": (US, EU)}),
            (("us_logs", "all"), {"*": (), "log_entries": ()}),
            (("all_but_own_logs",), {"*": (), "log_entries": ("owner = 'me'",)}),
            (("all_but_own_logs", "us_logs"), {"*": (), "log_entries": ("owner = 'me'", US)}),
        ],
    )  # fmt: skip
    def test_what_roles_show(self, names, filters):
        roles, access = Roles(ROLES).grant(names)

        assert roles == tuple(name for name in names if name in ROLES)
        assert access is not None
        assert dict(access.filters) == filters
        assert access.may_read("measures") is ("*" in filters)

    def test_who_reads_everything_and_who_nothing(self):
        assert Roles().grant(["logs"]) == ((), None)
        assert Roles(ROLES).grant(["eu_logs"], is_admin=True) == (("eu_logs",), None)
        assert not Roles({}).grant(["logs"])[1].may_read("log_entries")

    @pytest.mark.parametrize(
        ("names", "expected"),
        [((), None), (("few",), 10), (("few", "many"), 90), (("few", "any"), None), (("few", "writer"), 10)],
    )
    def test_the_highest_limit_of_roles_with_tables_holds(self, names, expected):
        roles = {
            "few": RoleSetting(tables={"t": None}, max_scan_bytes=10),
            "many": RoleSetting(tables={"t": None}, max_scan_bytes=90),
            "any": RoleSetting(tables={"u": None}),
            "writer": RoleSetting(ingest=frozenset({"t"})),
        }

        assert Roles(roles).scan_limit(names) == expected

    def test_default_roles_are_everybodys_and_each_counts_once_in_order_if_it_is_configured(self):
        roles = Roles(ROLES, ["logs", "gone"])

        assert roles.grant(["all", "unknown", "logs", "all", "nothing"])[0] == ("all", "logs", "nothing")
        assert roles.grant([])[1] == Roles(ROLES).grant(["logs"])[1]


class TestBuckets:
    """Token buckets in bounded memory."""

    def test_a_full_bucket_gives_its_burst_and_tokens_come_back_at_the_rate(self, clock):
        buckets = TokenBuckets(per_second=2.0, burst=3, max_tracked=5, clock=clock)
        assert [buckets.take("a") for _ in range(100)] == [0, 0, 0] + [0.5] * 97  # asking makes it no emptier

        clock.advance(1)
        assert [buckets.take("a") for _ in range(3)] == [0, 0, 0.5]
        clock.advance(3600)
        assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
        assert buckets.take("b") == 0

    def test_a_released_token_never_makes_more_than_a_full_bucket(self, clock):
        buckets = TokenBuckets(per_second=2.0, burst=2, max_tracked=5, clock=clock)
        for _ in range(2):
            buckets.take("a")
        for _ in range(5):
            buckets.release("a")

        assert [buckets.take("a") for _ in range(3)] == [0, 0, 0.5]

    def test_memory_is_bounded_and_the_least_recently_used_is_forgotten(self, clock):
        buckets = TokenBuckets(per_second=2.0, burst=1, max_tracked=5, clock=clock)
        for key in "abcdeaf":
            buckets.take(key)

        assert [buckets.take(key) > 0 for key in "afb"] == [True, True, False]


LIMITS = RateLimits(calls_per_second=3, burst_calls=1, refusals_per_second=1, burst_refusals=2, max_tracked=5)
CALLER = ("https://id.example", "alice")


class TestCallLimits:
    """The limits of one server."""

    def test_an_identity_that_calls_too_often_is_counted_and_learns_when_to_come_back(self, clock):
        metrics = AccessMetrics()
        limits = CallLimits(LIMITS, clock=clock, metrics=metrics)
        limits.count_call(*CALLER)

        with pytest.raises(ResourcesExhausted) as caught:
            limits.count_call(*CALLER)

        assert caught.value.retry_after_seconds == 0.334  # rounded up to milliseconds
        assert metrics.registry.get_sample_value("micromegas_access_rate_limited_total", {"by": "identity"}) == 1
        limits.count_call("https://other.example", "alice")

    def test_accepted_credentials_do_not_count_and_of_undecided_ones_a_quarter(self, clock):
        limits = CallLimits(LIMITS, clock=clock)
        for _ in range(100):
            limits.count_refusal("192.0.2.2")
            limits.forgive_refusal("192.0.2.2")
        for _ in range(5):
            limits.count_refusal("192.0.2.1")
            limits.forgive_refusal("192.0.2.1", is_accepted=False)

        with pytest.raises(ResourcesExhausted):
            limits.count_refusal("192.0.2.1")
        clock.advance(0.25)
        limits.count_refusal("192.0.2.1")

    @pytest.mark.parametrize(
        ("first", "second", "is_shared"),
        [
            ("2001:db8::1", "2001:0db8:0:0:8000::", True), ("2001:db8::1", "2001:db8:0:1::1", False),
            ("::ffff:192.0.2.1", "192.0.2.1", True), ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
            ("unknown", "unknown", True), ("not:an:address", "not:an:address", True),
        ],
    )  # fmt: skip
    def test_who_can_be_the_same_host_shares_a_bucket(self, clock, first, second, is_shared):
        limits = CallLimits(LIMITS, clock=clock)
        for _ in range(2):
            limits.count_refusal(first)

        with pytest.raises(ResourcesExhausted) if is_shared else nullcontext():
            limits.count_refusal(second)

    def test_changed_limits_count_from_the_next_call_and_equal_ones_forget_nothing(self, clock):
        limits = [RateLimits(calls_per_second=1.0, burst_calls=1)]
        calls = CallLimits(lambda: limits[-1], clock=clock)
        calls.count_call(*CALLER)

        limits.append(RateLimits(calls_per_second=1.0, burst_calls=1))
        with pytest.raises(ResourcesExhausted):
            calls.count_call(*CALLER)
        limits.append(RateLimits(calls_per_second=1.0, burst_calls=2))

        calls.count_call(*CALLER)
