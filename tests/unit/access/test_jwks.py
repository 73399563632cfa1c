"""Tests of `access.jwks`: where an issuer's keys come from, how long they are used, and who waits for them."""

import dataclasses
import json
import logging
import os
from contextlib import suppress
from datetime import timedelta
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from micromegas_jupyter.access.audit import AccessMetrics, CallFacts, checking_for
from micromegas_jupyter.access.jwks import (
    KeyCache,
    KeyCaches,
    KeyFetcher,
    KeyPolicy,
    KeysPending,
    RefetchDue,
    find_permission_problem,
)
from micromegas_jupyter.config.issuers import IssuerSetting
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import ConfigurationError, ProviderMisbehaved, ProviderUnavailable, Unavailable
from tests.fakes.clock import FakeClock
from tests.fakes.mint import ISSUER, ec_key, rsa_key
from tests.fakes.provider import FakeProvider
from tests.fakes.waiting import FakeBackground
from tests.unit.access.conftest import give_away

SETTING = IssuerSetting(issuer=ISSUER)
OTHER = IssuerSetting(issuer="https://other.example")
POLICY = KeyPolicy()
DISCOVERY_URL = f"{ISSUER}/.well-known/openid-configuration"
JWKS_URL = f"{ISSUER}/keys"
OTHER_URL = "https://keys.example.net/keys"


@pytest.fixture
def provider():
    return FakeProvider(keys=(rsa_key(),))


@pytest.fixture
def background():
    """What a key source starts in the background runs when a test says so."""
    return FakeBackground()


class WaitingKeys:
    """A key cache whose fetches run on the test's thread: those that are waited for at once, others when it says so."""

    def __init__(self, setting, background, **parts):
        self.cache = KeyCache(setting, start=background.start, **parts)
        self._background = background

    def get(self):
        return self._wait_for(self.cache.get)

    def get_newer(self, seen, signature=b"one"):
        return self._wait_for(lambda: self.cache.get_newer(seen, signature=signature))

    def _wait_for(self, ask):
        for _ in range(3):
            try:
                return ask()
            except KeysPending as pending:
                self._background.run()
                pending.fetch.result(60)
        return ask()


@pytest.fixture
def source(provider, clock, background):
    """That provider's keys."""
    return WaitingKeys(SETTING, background, http=provider, clock=clock, policy=POLICY)


def key_names(source):
    """Return the names of the keys that a source gives now."""
    return [key.key_id for key in source.get().keys]


def fetcher(provider, **setting):
    return KeyFetcher(IssuerSetting(**{"issuer": ISSUER, **setting}), http=provider)


def fetched(keys, *, rediscover=True):
    return [key.key_id for key in keys.fetch(rediscover=rediscover).keys]


def write(path, *keys):
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps({"keys": [key.jwk() for key in keys]}))
    temporary.replace(path)


class TestWhere:
    """Where the keys are, and whose."""

    @pytest.mark.parametrize(
        ("setting", "requested", "names"),
        [
            ({}, [DISCOVERY_URL, JWKS_URL], ["rsa"]),
            ({"discovery_url": OTHER_URL}, [OTHER_URL, JWKS_URL], ["rsa"]),
            ({"jwks_url": OTHER_URL}, [OTHER_URL], ["ec"]),
            ({"issuer": f"{ISSUER}/t1/v2.0", "tenant": "t1", "discovery_url": f"{ISSUER}/common"}, None, ["rsa"]),
        ],
    )
    def test_a_document_below_the_issuer_or_elsewhere_says_it_or_the_setting(self, provider, setting, requested, names):
        provider.elsewhere[OTHER_URL] = {"issuer": ISSUER, "jwks_uri": JWKS_URL, "keys": [ec_key().jwk()]}
        provider.elsewhere[f"{ISSUER}/common"] = {"issuer": ISSUER + "/{tenantid}/v2.0", "jwks_uri": JWKS_URL}

        assert fetched(fetcher(provider, **setting)) == names
        assert requested is None or provider.requested == requested

    def test_a_known_address_is_used_until_it_is_asked_for_again_or_fails(self, provider):
        keys = fetcher(provider)
        for rediscover in (False, False, True, False):
            keys.fetch(rediscover=rediscover)
        provider.jwks = []
        with pytest.raises(ProviderMisbehaved):
            keys.fetch(rediscover=False)
        provider.publish(ec_key())

        assert fetched(keys, rediscover=False) == ["ec"]
        assert provider.requested == [
            *(DISCOVERY_URL, JWKS_URL, JWKS_URL, DISCOVERY_URL, JWKS_URL, JWKS_URL, JWKS_URL),
            *(DISCOVERY_URL, JWKS_URL),
        ]


class TestPrivateAddresses:
    """A provider of the internet must not lead into the server's own network."""

    def test_a_public_provider_may_not_name_a_private_address(self, provider):
        provider.private_urls = {OTHER_URL}
        provider.discovery = {"issuer": ISSUER, "jwks_uri": OTHER_URL}

        with pytest.raises(ProviderUnavailable, match="private"):
            fetcher(provider).fetch(rediscover=True)
        assert [request.refuses_private for request in provider.requests] == [False, True]

    @pytest.mark.parametrize("member", ["discovery_url", "jwks_url"])
    def test_an_address_that_the_administrator_names_may_be_private(self, provider, member):
        provider.elsewhere[OTHER_URL] = {"issuer": ISSUER, "jwks_uri": JWKS_URL, "keys": [ec_key().jwk()]}
        provider.private_urls = {OTHER_URL, JWKS_URL}

        assert fetched(fetcher(provider, **{member: OTHER_URL}))
        assert provider.requests[0].refuses_private is False


class TestBearerToken:
    """A token from a file authorizes the fetches of one issuer."""

    @pytest.fixture
    def file(self, tmp_path):
        path = tmp_path / "token"
        path.write_text("  sesame\n")
        return path

    def test_it_is_read_for_each_fetch_and_goes_with_it(self, provider, file):
        keys = fetcher(provider, bearer_token_file=str(file))
        keys.fetch(rediscover=True)
        file.write_text("renewed")
        keys.fetch(rediscover=False)

        assert [sent(request) for request in provider.requests] == ["Bearer sesame"] * 2 + ["Bearer renewed"]

    @pytest.mark.parametrize(("setting", "second"), [({}, None), ({"ca_file": "ca.pem"}, "Bearer sesame")])
    def test_another_host_gets_it_only_with_own_certificates(self, provider, file, setting, second):
        provider.discovery = {"issuer": ISSUER, "jwks_uri": OTHER_URL}
        provider.elsewhere[OTHER_URL] = provider.jwks
        fetcher(provider, bearer_token_file=str(file), **setting).fetch(rediscover=True)

        assert [sent(request) for request in provider.requests] == ["Bearer sesame", second]

    @pytest.mark.parametrize("origin", ["http://127.0.0.1", "https://login.example"])
    def test_the_usual_port_is_the_same_host(self, provider, file, origin):
        port = 80 if origin.startswith("http:") else 443
        provider.issuer = origin
        provider.discovery = {"issuer": origin, "jwks_uri": f"{origin}:{port}/keys"}
        provider.elsewhere[f"{origin}:{port}/keys"] = provider.jwks
        fetcher(provider, issuer=origin, bearer_token_file=str(file)).fetch(rediscover=True)

        assert [sent(request) for request in provider.requests] == ["Bearer sesame"] * 2

    @pytest.mark.parametrize("text", ["", " \n", "two words", "two\nlines", "naïve", "x" * (16 * 1024 + 1)])
    def test_what_is_not_a_token_is_not_sent(self, provider, file, text):
        file.write_text(text)

        with pytest.raises(Unavailable):
            fetcher(provider, bearer_token_file=str(file)).fetch(rediscover=True)
        assert provider.requested == []


def sent(request):
    header = request.headers.get("Authorization")
    return None if header is None else header.reveal()


def test_keys_in_a_file_of_another_user_are_not_used_and_a_token_is(provider, tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("sesame")
    give_away(path, monkeypatch)

    with pytest.raises(ProviderUnavailable, match="another user"):
        fetcher(provider, jwks_file=str(path)).fetch(rediscover=True)
    fetcher(provider, bearer_token_file=str(path)).fetch(rediscover=True)
    assert sent(provider.requests[0]) == "Bearer sesame"


@pytest.mark.parametrize(
    ("owner", "any_owner", "problem"),
    [
        (0, False, None),
        (1000, False, None),
        (1, False, "belongs to another user"),
        (1001, True, None),
    ],
)
def test_files_of_root_and_of_this_account_are_trusted(monkeypatch, owner, any_owner, problem):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    status = SimpleNamespace(st_mode=0o600, st_uid=owner)

    assert find_permission_problem(status, any_owner=any_owner) == problem


class TestFetching:
    """Keys are fetched when they are needed, and no more often than that."""

    def test_keys_are_fetched_anew_after_the_interval_from_where_the_provider_says_then(self, source, provider, clock):
        source.get()
        provider.publish(ec_key())
        clock.advance(3600)

        assert key_names(source) == ["ec"]
        assert provider.requested[2:] == [DISCOVERY_URL, JWKS_URL]

    def test_a_newer_set_is_fetched_once_from_the_known_address(self, source, provider):
        first = source.get()
        provider.publish(ec_key())

        newer = source.get_newer(first)

        assert [key.key_id for key in newer.keys] == ["ec"]
        assert source.get_newer(first) is newer
        assert provider.requested[2:] == [JWKS_URL]

    @pytest.mark.parametrize("cool_down", [30, 60])
    def test_within_the_cool_down_no_newer_set_is_asked_for(self, provider, clock, background, cool_down):
        policy = KeyPolicy(cool_down_seconds=cool_down)
        source = WaitingKeys(SETTING, background, http=provider, clock=clock, policy=policy)
        second = source.get_newer(source.get())
        clock.advance(cool_down - 1)

        assert source.get_newer(second) is second
        with pytest.raises(RefetchDue):
            source.get_newer(second, b"another")
        clock.advance(1)
        assert source.get_newer(second) is not second
        assert len(provider.requested) == 4

    def test_a_network_without_the_right_keys_leaves_most_fetches_to_others(self, provider, clock, background):
        source = WaitingKeys(SETTING, background, http=provider, clock=clock, policy=POLICY)
        caused = []
        source.get()
        for second in range(0, 900, 30):
            before = len(provider.requested)
            for number in range(100):
                with checking_for(CallFacts(client_address=f"2001:db8::{number:x}")), suppress(RefetchDue):
                    source.get_newer(source.get(), b"%d %d" % (second, number))
            caused += [second] * (len(provider.requested) - before)
            clock.advance(30)
        provider.publish(rsa_key("new"))
        with checking_for(CallFacts(client_address="192.0.2.1")):
            newer = source.get_newer(source.get(), b"valid")

        assert caused == [0, 30, 60, 120, 240, 360, 480, 600, 720, 840]
        assert [key.key_id for key in newer.keys] == ["new"]

    def test_a_provider_that_never_answered_is_asked_less_and_less_often(self, source, provider, clock):
        provider.go_down()
        asked_at = []
        for second in range(120):
            before = len(provider.requested)
            with pytest.raises(Unavailable) as caught:
                source.get()
            asked_at += [second] * (len(provider.requested) - before)
            clock.advance(1)

        assert asked_at == [0, 1, 3, 8, 18, 48, 78, 108]
        assert "https://id.example.com" in str(caught.value)

    @pytest.mark.parametrize("failure", [KeyboardInterrupt(), KeyError("x")])
    def test_an_interrupted_fetch_does_not_block_later_ones(self, source, provider, clock, failure):
        provider.failure = failure
        with pytest.raises(Unavailable):
            source.get()
        provider.come_back()
        clock.advance(1)

        assert key_names(source) == ["rsa"]

    def test_without_a_thread_the_fetch_has_failed(self, provider, clock):
        start = Mock(side_effect=RuntimeError("can't start new thread"))
        cache = KeyCache(SETTING, http=provider, clock=clock, policy=POLICY, start=start)
        assert pending(cache).result(0) is None

        with pytest.raises(Unavailable):
            cache.get()

    def test_after_four_fifths_of_the_interval_one_fetch_brings_the_next(self, source, provider, background, clock):
        first = source.get()
        provider.publish(ec_key())
        clock.advance(2879)
        assert source.get() is first
        assert (background.waiting, len(provider.requested)) == ([], 2)
        clock.advance(1)
        assert [source.get() for _ in range(3)] == [first] * 3
        assert (len(background.waiting), len(provider.requested)) == (1, 2)

        background.run()

        assert key_names(source) == ["ec"]
        assert provider.requested[2:] == [DISCOVERY_URL, JWKS_URL]


def pending(cache):
    with pytest.raises(KeysPending) as caught:
        cache.get()
    return caught.value.fetch


class TestOutage:
    """The last good keys are used while the provider does not answer, which is asked once in a cool-down."""

    def test_the_first_caller_after_the_interval_waits_and_the_others_do_not(self, source, provider, background, clock):
        first = source.get()
        provider.go_down()
        clock.advance(3600)
        assert [source.get() for _ in range(10)] == [first] * 10
        assert (len(provider.requested), background.waiting) == (3, [])
        clock.advance(30)

        assert [source.get() for _ in range(2)] == [first] * 2
        with pytest.raises(Unavailable):
            source.cache.get_newer(first, signature=b"one")
        assert (len(provider.requested), len(background.waiting)) == (3, 1)

    def test_an_hour_of_outage_under_a_flood_costs_one_fetch_in_a_cool_down(self, source, provider, background, clock):
        first = source.get()
        clock.advance(3000)
        provider.go_down()
        asked_at = []
        for second in range(3600):
            asked = len(provider.requested)
            assert source.get() is first
            background.run()
            with pytest.raises(Unavailable):
                source.get_newer(first)
            asked_at += [second] * (len(provider.requested) - asked)
            clock.advance(1)

        assert asked_at == list(range(0, 3600, 30))

    def test_somebody_waits_when_the_last_failure_is_long_ago(self, source, provider, clock):
        source.get()
        provider.go_down()
        clock.advance(3600)
        source.get()
        provider.come_back()
        provider.publish(ec_key())
        clock.advance(60)

        assert key_names(source) == ["ec"]

    def test_keys_are_used_up_to_the_limit_and_not_beyond(self, provider, clock, background):
        policy = KeyPolicy(refresh_interval_seconds=100, stale_limit_seconds=500)
        source = WaitingKeys(SETTING, background, http=provider, clock=clock, policy=policy)
        first = source.get()
        provider.go_down()
        clock.advance(499)

        assert source.get() is first
        clock.advance(1)
        with pytest.raises(Unavailable):
            source.get()

    def test_a_provider_whose_last_keys_are_too_old_is_asked_as_often_as_one_that_never_answered(
        self, source, provider, clock
    ):
        first = source.get()
        provider.go_down()
        clock.advance(POLICY.stale_limit_seconds)
        with pytest.raises(Unavailable):
            source.get()
        provider.come_back()
        clock.advance(1)

        assert source.get() is not first


class TestKeyFile:
    """Keys from a file are read again within a second after a change."""

    @pytest.fixture
    def file(self, tmp_path):
        path = tmp_path / "keys.json"
        write(path, rsa_key())
        return path

    @pytest.fixture
    def clock(self):
        """A clock by which every file has had its mark for a long time already."""
        return FakeClock(SYSTEM_CLOCK.now() + timedelta(hours=1))

    @pytest.fixture
    def source(self, file, provider, clock, background):
        setting = IssuerSetting(issuer=ISSUER, jwks_file=str(file))
        return WaitingKeys(setting, background, http=provider, clock=clock, policy=POLICY)

    def test_a_changed_file_is_read_within_a_second_and_nothing_is_fetched(self, source, file, clock, provider):
        source.get()
        write(file, ec_key())

        assert key_names(source) == ["rsa"]
        clock.advance(1)
        assert key_names(source) == ["ec"]
        assert provider.requested == []

    def test_an_unchanged_file_is_not_read_again_before_the_interval_ends(self, source, clock, background):
        first = source.get()
        clock.advance(2879)

        assert source.get() is first
        clock.advance(721)
        assert source.get() is not first
        assert background.waiting == []

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"keys": []}', '{"keys": 1, "keys": 2}', "\xff", "x" * 1_000_001])
    def test_a_malformed_file_keeps_the_last_good_keys(self, source, file, clock, text):
        first = source.get()
        file.write_text(text, encoding="latin-1")
        clock.advance(1)

        assert source.get() is first
        write(file, ec_key())
        clock.advance(1)
        assert key_names(source) == ["ec"]

    def test_a_file_that_is_missing_at_the_start_is_read_when_it_comes(self, source, file, clock, caplog):
        file.unlink()
        for _ in range(8):
            with pytest.raises(Unavailable):
                source.get()
            clock.advance(1)
        write(file, ec_key())
        clock.advance(1)

        assert key_names(source) == ["ec"]
        assert str(file) not in str([vars(record) for record in caplog.records])


def told(caplog):
    return [(record.levelname, record.getMessage()) for record in caplog.records]


class TestEvents:
    """What happens to an issuer's keys is in the log, once."""

    @pytest.fixture(autouse=True)
    def _all_levels(self, caplog):
        caplog.set_level(logging.INFO, "micromegas_jupyter.access")

    @pytest.mark.parametrize("defect", [None, KeyError("/etc/secret")])
    def test_a_failure_leaves_an_event_and_of_a_defect_only_its_kind(self, source, provider, caplog, defect):
        provider.go_down()
        provider.failure = defect or provider.failure
        with pytest.raises(Unavailable):
            source.get()

        facts = vars(caplog.records[0])
        detail = "The identity provider id.example.com does not answer."
        assert told(caplog) == [("WARNING", "An issuer's keys could not be fetched.")]
        assert (facts["reason"], facts["detail"]) == (("KeyError", None) if defect else ("AVAIL002", detail))

    def test_going_stale_and_coming_back_leave_one_event_each(self, source, provider, background, clock, caplog):
        source.get()
        provider.go_down()
        clock.advance(3600)
        for _ in range(100):
            source.get()
            background.run()
            clock.advance(30)
        provider.come_back()
        source.get()
        background.run()
        source.get()

        assert [event for event in told(caplog) if "could not be fetched" not in event[1]] == [
            ("INFO", "An issuer's keys changed."),
            ("WARNING", "An issuer doesn't respond; its last keys are used beyond their refresh interval."),
            ("INFO", "An issuer responds again; its keys are fresh."),
        ]
        ages = [vars(record)["age_seconds"] for record in caplog.records if hasattr(record, "age_seconds")]
        assert ages == [3600, 6600]


class TestCaches:
    """The same setting and policy give the same keys, over reloads."""

    @pytest.fixture
    def metrics(self):
        return AccessMetrics()

    @pytest.fixture
    def caches(self, provider, clock, metrics):
        return KeyCaches(http=provider, clock=clock, metrics=metrics)

    @pytest.mark.parametrize("member", ["issuer", "tenant", "jwks_url", "jwks_file", "bearer_token_file"])
    def test_only_what_concerns_the_keys_gives_another_cache(self, caches, member):
        same = dataclasses.replace(SETTING, audiences=("other",), leeway_seconds=0, aliases=("alias",))
        changed = dataclasses.replace(SETTING, **{member: "https://other.example"})
        kept = caches.cache_of(SETTING, POLICY)

        assert caches.cache_of(same, KeyPolicy()) is kept
        assert caches.cache_of(changed, POLICY) is not kept
        assert caches.cache_of(SETTING, KeyPolicy(cool_down_seconds=10)) is not kept

    def test_a_reload_forgets_what_is_not_there_any_more_and_reports_no_age_of_it(self, caches, metrics):
        kept, gone = caches.cache_of(SETTING, POLICY), caches.cache_of(OTHER, POLICY)
        pending(kept).result(60)

        caches.retain([SETTING], POLICY)

        get = metrics.registry.get_sample_value
        ages = [get("micromegas_access_key_set_age_seconds", {"issuer": name}) for name in (ISSUER, OTHER.issuer)]
        assert ages == [0, None]
        assert get("micromegas_access_key_fetches_total", {"issuer": ISSUER, "outcome": "succeeded"}) == 1
        assert caches.cache_of(SETTING, POLICY) is kept
        assert caches.cache_of(OTHER, POLICY) is not gone

    def test_certificates_that_do_not_exist_are_a_configuration_error(self, caches, tmp_path):
        with pytest.raises(ConfigurationError):
            caches.cache_of(dataclasses.replace(SETTING, ca_file=f"{tmp_path}/missing.pem"), POLICY)
