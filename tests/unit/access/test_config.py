"""Tests of `access.config`: the configuration is read, checked and read again, through the validator that it makes."""

import json
import logging
import os
import threading
from contextlib import nullcontext
from datetime import timedelta
from unittest.mock import Mock

import pytest

from micromegas_jupyter.access import AuthType, Rejected, TokenValidator, Unavailable, validator_from_environment
from micromegas_jupyter.access import config as module
from micromegas_jupyter.access.config import ReloadingValidator, check_issuer_files, split_denied
from micromegas_jupyter.config.access import LegacyApiKeys
from micromegas_jupyter.config.issuers import IssuerSetting
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import ConfigurationError, ResourcesExhausted
from tests.fakes.clock import FakeClock
from tests.fakes.mint import ISSUER, ec_key, mint
from tests.fakes.provider import FakeProvider
from tests.fakes.validator import is_accepted
from tests.unit.access.conftest import give_away

READ_AGAIN = "The access configuration was read again and is in force."
KEPT = "A new version of the access configuration cannot be used; the old one stays in force."
IN_PART = "A part of a new version of the access configuration cannot be used; the rest is in force."
TRIED_AGAIN = "A new version of the access configuration could not be looked at; it is tried again."
LASTING = mint(key=ec_key(), exp=4_000_000_000, iat=0)
FIRST, SECOND, THIRD = (f"{name}-plain-text-key" for name in ("alpha", "bravo", "delta"))
# Port 9 on loopback: nothing listens, so the provider is down.
DOWN = json.dumps({"issuers": [{"issuer": "http://127.0.0.1:9", "audience": "lake"}]})


def key_text(*keys, revoked="", **more):
    ended = {"revoked_at": "2026-01-01T00:00:00Z"}
    return json.dumps([{"name": key[:5], "key": key, **more, **(ended if key == revoked else {})} for key in keys])


def put(path, text):
    """Replace the file in one step, as an administrator's tools do."""
    beside = path.with_name("beside")
    beside.write_text(text)
    beside.replace(path)


def change(validator, path, text):
    """Replace the file and have the validator look for changes."""
    put(path, text)
    validator.look_for_changes()


def events(caplog, sentence):
    return [vars(record) for record in caplog.records if record.message == sentence]


class Files:
    """A configuration file, a key file and a file with an issuer's keys."""

    def __init__(self, folder):
        self.folder = folder
        self.config, self.keys, self.jwks = (folder / name for name in ("access.json", "keys.json", "jwks.json"))
        self.jwks.write_text(json.dumps({"keys": [ec_key().jwk()]}))
        self.keys.write_text(key_text(FIRST, SECOND))
        self.config.write_text(self.config_text())

    def config_text(self, **more):
        issuer = {"issuer": ISSUER, "audience": "lake", "jwks_file": str(self.jwks)}
        return json.dumps({"api_key_file": str(self.keys), "oidc": {"issuers": [issuer]}, **more})


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


@pytest.fixture
def clock():
    """A clock by which every file has had its mark for a long time already."""
    return FakeClock(SYSTEM_CLOCK.now() + timedelta(hours=1))


@pytest.fixture
def make(files, clock, caplog):
    """Make a validator that looks for changes only when a test says so."""
    made = []

    def make(environ=None, **options):
        environ = {"MICROMEGAS_ACCESS_CONFIG": str(files.config)} if environ is None else environ
        options = {"clock": clock, "watch_interval_seconds": 3600, **options}
        made.append(ReloadingValidator(environ, **options))
        return made[-1]

    with caplog.at_level(logging.INFO, "micromegas_jupyter.access"):
        yield make
    for validator in made:
        validator.close()


@pytest.fixture
def validator(make):
    return make()


def accepted(validator):
    return [is_accepted(validator, credential) for credential in (FIRST, SECOND, THIRD, LASTING)]


class TestStart:
    """At the start everything must be right, or the server does not start."""

    def test_keys_and_tokens_are_accepted_side_by_side(self, validator):
        assert isinstance(validator, TokenValidator)
        assert validator.validate_token(FIRST).auth_type is AuthType.API_KEY
        assert validator.validate_token(LASTING).auth_type is AuthType.OIDC

    def test_a_provider_that_is_down_stops_neither_the_start_nor_the_keys(self):
        validator = validator_from_environment(
            {"MICROMEGAS_OIDC_CONFIG": DOWN, "MICROMEGAS_API_KEYS": key_text(FIRST), "MICROMEGAS_ADMINS": '["root"]'}
        )

        assert validator.validate_token(FIRST).subject == "alpha"
        with pytest.raises(Unavailable):
            validator.validate_token(mint(issuer="http://127.0.0.1:9", exp=4_000_000_000, iat=0))
        with pytest.raises(Rejected):
            validator.validate_token(mint())
        validator.close()

    @pytest.mark.parametrize("environ", [{}, {"MICROMEGAS_API_KEYS": ""}, {"MICROMEGAS_API_KEYS": "[]"}])
    def test_when_nothing_is_configured_the_error_says_what_to_set(self, make, environ):
        with pytest.raises(ConfigurationError, match="no user could sign in"):
            make(environ)

    def test_who_is_denied_is_refused_and_nobody_else(self, make, files):
        files.config.write_text(files.config_text(denied=["api_key|alpha", f"{ISSUER}|alice"]))

        assert accepted(make()) == [False, True, False, False]

    def test_the_caller_says_what_becomes_of_keys_in_plain_text_now_and_later(self, make, files):
        environ = {"MICROMEGAS_API_KEY_FILE": str(files.keys), "MICROMEGAS_LEGACY_API_KEYS": "refuse"}
        refusing, accepting = make(environ), make(environ, legacy_api_keys=LegacyApiKeys.ON)
        environ.clear()
        put(files.keys, key_text(THIRD))
        for validator in (refusing, accepting):
            validator.reload()

        assert not is_accepted(refusing, THIRD)
        assert accepting.validate_token(THIRD).notice is None
        assert accepting.settings.legacy_api_keys is LegacyApiKeys.ON


def test_a_denied_entry_belongs_to_the_longest_issuer_that_fits_and_may_hold_bars():
    issuers = [IssuerSetting(issuer=name) for name in ("https://a.example", "https://a.example|b")]
    entries = ("https://a.example|auth0|1", "https://a.example|b|2", "api_key|x|y", "https://other.example|z")

    pairs = {("https://a.example", "auth0|1"), ("https://a.example|b", "2"), ("api_key", "x|y")}
    assert split_denied(entries, issuers=issuers) == pairs


@pytest.mark.parametrize("setting", ["MICROMEGAS_API_KEY_FILE", "MICROMEGAS_ACCESS_CONFIG"])
@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("missing", "exist"), ("pipe", "regular"), ("bytes", "UTF-8"), (".", "regular"), ("open", "every user"),
        ("large", "too large"),
    ],
)  # fmt: skip
def test_an_unusable_file_is_refused_by_its_setting(make, tmp_path, monkeypatch, setting, name, problem):  # noqa: PLR0917
    monkeypatch.setattr(module, "MAX_KEY_FILE_BYTES", 10)
    monkeypatch.setattr(module, "MAX_CONFIG_FILE_BYTES", 10)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "bytes").write_bytes(b"\xff")
    (tmp_path / "large").write_text(" " * 11)
    (tmp_path / "open").write_text("[]")
    (tmp_path / "open").chmod(0o646)

    with pytest.raises(ConfigurationError, match=problem) as caught:
        make({setting: str(tmp_path / name)})

    assert caught.value.key == setting
    assert str(tmp_path) not in str(caught.value)


def test_the_configuration_file_has_4_mebibytes_at_most(make, files):
    text = files.config_text()
    files.config.write_text(text.ljust(4 * 1024 * 1024))
    assert is_accepted(make(), FIRST)
    files.config.write_text(text.ljust(4 * 1024 * 1024 + 1))

    with pytest.raises(ConfigurationError, match="too large"):
        make()


def test_the_text_of_no_file_is_shown_among_the_variables_of_a_validator(validator):
    shown = repr(vars(validator))

    assert str(validator.settings.api_keys[0].name) in shown
    assert FIRST not in shown


def test_issuers_that_do_not_answer_are_reported_in_time_and_others_are_not_called_after_that(make, monkeypatch):
    monkeypatch.setattr(module, "_MAX_FETCHES", 1)
    monkeypatch.setattr(module, "_FETCH_DEADLINE_SECONDS", 0.05)
    issuers = [{"issuer": f"https://{name}.example", "audience": "lake"} for name in "ab"]
    validator = make({"MICROMEGAS_OIDC_CONFIG": json.dumps({"issuers": issuers})})
    provider = FakeProvider("https://a.example")
    provider.elsewhere["https://b.example/.well-known/openid-configuration"] = {}
    provider.gate.clear()
    monkeypatch.setattr(validator, "_http", Mock(wraps=validator._http, fetch_json=provider.fetch_json))
    threads = set(threading.enumerate())

    problems = validator.issuer_problems()
    provider.gate.set()
    for thread in set(threading.enumerate()) - threads:
        thread.join(60)

    assert problems == [f"https://{name}.example did not answer within 0 s." for name in "ab"]
    assert not any("b.example" in url for url in provider.requested)


def test_a_tilde_is_the_home_folder_and_links_are_followed(make, files, monkeypatch):
    monkeypatch.setenv("HOME", str(files.folder))
    files.folder.joinpath("link").symlink_to(files.keys)

    validator = make({"MICROMEGAS_API_KEY_FILE": "~/link"})
    put(files.keys, key_text(THIRD))
    validator.look_for_changes()

    assert accepted(validator)[:3] == [False, False, True]


@pytest.mark.parametrize(
    ("mode", "keys", "sentences"),
    [
        (0o600, key_text(FIRST), []),
        (0o640, key_text(FIRST), []),
        (0o644, key_text(FIRST), ["API keys in plain text are in a file that every user of this machine can read."]),
        (0o644, json.dumps([{"name": "x", "sha256": "ab" * 32}]), []),
        (0o660, key_text(FIRST), ["A file of the access configuration can be changed by its group."]),
    ],
)
def test_a_file_that_is_too_open_leaves_a_warning(make, files, caplog, mode, keys, sentences):  # noqa: PLR0917
    files.config.write_text(json.dumps({"api_keys": json.loads(keys)}))
    files.config.chmod(mode)

    make()

    assert caplog.messages == sentences


def issuer_of(path, member):
    return [IssuerSetting(issuer=ISSUER, path="FILE.issuers[0]", **{member: str(path)})]


class TestIssuerFiles:
    """The files that an issuer's setting names."""

    @pytest.mark.parametrize("member", ["jwks_file", "ca_file", "bearer_token_file"])
    def test_a_missing_file_or_an_open_one_is_refused_and_a_token_may_come_later(self, files, tmp_path, member):
        check_issuer_files(issuer_of(files.jwks, member))
        is_token = member == "bearer_token_file"
        with nullcontext() if is_token else pytest.raises(ConfigurationError, match=rf"issuers\[0\]\.{member}"):
            check_issuer_files(issuer_of(tmp_path / "missing", member))
        files.jwks.chmod(0o666)
        with pytest.raises(ConfigurationError, match="every user") as caught:
            check_issuer_files(issuer_of(files.jwks, member))

        assert caught.value.key == f"FILE.issuers[0].{member}"
        assert str(tmp_path) not in str(caught.value)

    def test_a_file_of_another_user_is_refused_unless_it_holds_a_token(self, files, monkeypatch):
        give_away(files.jwks, monkeypatch)

        check_issuer_files(issuer_of(files.jwks, "bearer_token_file"))
        with pytest.raises(ConfigurationError, match="another user"):
            check_issuer_files(issuer_of(files.jwks, "jwks_file"))

    @pytest.mark.parametrize(
        ("content", "problem"),
        [(b"[", "JSON"), (b"\xff", "UTF-8"), (b"[]", "key set"), (b"x" * 1_000_001, "too large")],
    )
    def test_a_key_file_without_keys_is_refused(self, files, content, problem):
        files.jwks.write_bytes(content)

        with pytest.raises(ConfigurationError, match=problem) as caught:
            check_issuer_files(issuer_of(files.jwks, "jwks_file"))
        assert caught.value.key == "FILE.issuers[0].jwks_file"


class TestReload:
    """A reload that somebody asks for."""

    def test_a_version_that_cannot_be_used_raises_is_logged_and_keeps_the_old_one(self, validator, files, caplog):
        before = validator.settings
        put(files.keys, "[")

        with pytest.raises(ConfigurationError):
            validator.reload()

        assert accepted(validator) == [True, True, False, True]
        assert validator.settings == before
        assert [event["setting"] for event in events(caplog, KEPT)] == ["MICROMEGAS_ACCESS_CONFIG.api_key_file"]

    @pytest.mark.parametrize("text", [None, "{"])
    def test_decisions_are_forgotten_also_when_nothing_has_changed_or_can_be_used(self, validator, files, text):
        validator.validate_token(LASTING)
        assert validator.cached_context(LASTING) is not None
        put(files.config, text or files.config_text())
        with pytest.raises(ConfigurationError) if text else nullcontext():
            validator.reload()

        assert validator.cached_context(LASTING) is None


class TestLookingForChanges:
    """What a look for changed files finds."""

    @pytest.mark.parametrize("in_place", [False, True], ids=["renamed", "in place"])
    def test_a_changed_file_takes_effect_and_decisions_are_forgotten(self, validator, files, in_place):
        assert accepted(validator) == [True, True, False, True]
        put(files.config, files.config_text(denied=[f"{ISSUER}|alice"]))
        files.keys.write_text(key_text(THIRD)) if in_place else put(files.keys, key_text(THIRD))

        validator.look_for_changes()

        assert validator.cached_context(LASTING) is None
        assert accepted(validator) == [False, False, True, False]

    @pytest.mark.parametrize("name", ["keys", "config"])
    def test_a_missing_file_keeps_the_old_version_and_is_logged_once(self, validator, files, clock, caplog, name):
        path = getattr(files, name)
        text = path.read_text()
        path.unlink()
        for _ in range(3):
            validator.look_for_changes()
            clock.advance(5)
        during = accepted(validator)
        path.write_text(text)

        validator.look_for_changes()

        assert during == accepted(validator) == [True, True, False, True]
        assert len(events(caplog, KEPT)) == 1
        assert [event["levelno"] for event in events(caplog, READ_AGAIN)] == [logging.INFO]

    def test_new_keys_are_used_without_checking_the_configuration_in_force_again(self, validator, files, monkeypatch):
        monkeypatch.setattr(validator, "_check", lambda _settings: 1 / 0)
        files.jwks.unlink()
        change(validator, files.keys, key_text(THIRD))

        assert is_accepted(validator, THIRD)

    def test_a_configuration_file_may_name_another_key_file(self, validator, files, caplog):
        other = files.folder / "other.json"
        other.write_text(key_text(THIRD))
        change(validator, files.config, files.config_text(api_key_file=str(other)))
        assert accepted(validator) == [False, False, True, True]
        files.keys.unlink()  # it is no longer named
        validator.look_for_changes()
        assert len(events(caplog, READ_AGAIN)) == 1

        change(validator, other, key_text(FIRST))

        assert accepted(validator) == [True, False, False, True]

    def test_an_issuer_can_be_taken_away_and_its_keys_are_not_reported_any_more(self, validator, files):
        def age():
            name = "micromegas_access_key_set_age_seconds"
            return validator.metrics.registry.get_sample_value(name, {"issuer": ISSUER})

        validator.validate_token(LASTING)
        before = age()
        change(validator, files.config, json.dumps({"api_key_file": str(files.keys)}))

        assert accepted(validator) == [True, True, False, False]
        assert (before, age()) == (0, None)


class TestInPart:
    """The configuration file and the key file each keep their last good version."""

    def test_a_key_file_is_used_while_the_configuration_file_is_malformed(self, validator, files, caplog):
        put(files.config, "{")
        change(validator, files.keys, key_text(FIRST, SECOND, THIRD, revoked=FIRST))

        assert accepted(validator) == [False, True, True, True]
        (event,) = events(caplog, IN_PART)
        assert (event["configuration_file"], event["key_file"]) == ("last good version", "newest version")
        assert (event["setting"], event["api_keys"]) == ("MICROMEGAS_ACCESS_CONFIG", 2)
        assert "restart" in str(event["remedy"])

    def test_a_configuration_file_is_used_while_the_key_file_is_malformed(self, validator, files, caplog):
        put(files.config, files.config_text(denied=["api_key|alpha"]))
        change(validator, files.keys, "[")

        assert accepted(validator) == [False, True, False, True]
        (event,) = events(caplog, IN_PART)
        assert (event["configuration_file"], event["key_file"]) == ("newest version", "last good version")

    def test_keys_of_another_file_are_not_taken_for_those_of_this_one(self, validator, files):
        missing = str(files.folder / "missing")
        change(validator, files.config, files.config_text(api_key_file=missing, denied=["api_key|alpha"]))

        assert accepted(validator) == [True, True, False, True]
        assert [key.name for key in validator.settings.api_keys] == ["alpha", "bravo"]

    @pytest.mark.parametrize("error", [ConfigurationError("No such column.", key="roles"), RuntimeError("secret")])
    def test_a_revocation_counts_although_no_new_configuration_can_be_used(self, make, files, error):
        check = Mock()
        validator = make(check=check)
        check.side_effect = error
        put(files.config, files.config_text(rate_limits={}))
        change(validator, files.keys, key_text(FIRST, SECOND, revoked=FIRST))

        assert accepted(validator) == [False, True, False, True]


def test_a_look_reads_nothing_when_nothing_has_changed_and_waits_for_no_reload(validator, caplog):
    validator.look_for_changes()
    with validator._lock:
        looking = threading.Thread(target=validator.look_for_changes)
        looking.start()
        looking.join(60)
        assert not looking.is_alive()

    assert events(caplog, READ_AGAIN) == []


def test_a_defect_of_each_look_is_logged_once_until_a_look_goes_well(validator, caplog, monkeypatch):
    rounds = [ValueError, ValueError, None, ValueError, KeyError]
    stops = iter([False] * len(rounds) + [True])
    with monkeypatch.context() as patch:  # undone before the validator is closed
        patch.setattr(validator, "look_for_changes", Mock(side_effect=rounds))
        patch.setattr(validator, "_stopping", Mock(wait=lambda _seconds: next(stops)))

        validator._run_watch(1)

    logged = events(caplog, "Looking for changes failed.")
    assert [event["kind"] for event in logged] == ["ValueError", "ValueError", "KeyError"]


@pytest.mark.parametrize("error", [Unavailable("busy"), ResourcesExhausted("full"), RuntimeError("secret")])
def test_what_fails_for_a_passing_reason_is_tried_again_after_five_seconds_and_logged_once(
    make, files, clock, caplog, error
):
    check = Mock()
    validator = make(check=check)
    check.side_effect = error
    put(files.config, files.config_text(api_key_file=str(files.folder / "other.json")))
    (files.folder / "other.json").write_text(key_text(THIRD))
    for _ in range(3):
        clock.advance(5)
        validator.look_for_changes()
    with pytest.raises(Unavailable if isinstance(error, RuntimeError) else type(error)) as caught:
        validator.reload()
    during = accepted(validator)
    check.side_effect = None
    validator.look_for_changes()
    too_early = accepted(validator)
    clock.advance(5)

    validator.look_for_changes()

    assert during == too_early == [True, True, False, True]
    assert accepted(validator) == [False, False, True, True]
    assert [event["kind"] for event in events(caplog, TRIED_AGAIN)] == [type(error).__name__] * 2
    assert len(events(caplog, READ_AGAIN)) == 1
    assert "secret" not in str([caught.value, *(vars(record) for record in caplog.records)])


class TestReports:
    """What is counted and logged of the version in force."""

    def test_reloads_are_counted_by_outcome_with_the_time_of_the_last(self, make, files, clock, monkeypatch):
        def reports(validator):
            get = validator.metrics.registry.get_sample_value
            found = [
                get("micromegas_access_reloads_total", {"outcome": name}) for name in ("in_force", "refused", "failed")
            ]
            return [*found, get("micromegas_access_configuration_in_force_timestamp_seconds")]

        validator = make()
        start = clock.now().timestamp()
        before = reports(validator)
        clock.advance(10)
        change(validator, files.keys, key_text(THIRD))
        clock.advance(10)
        put(files.keys, "[")
        for _ in range(2):
            validator.look_for_changes()
        monkeypatch.setattr(validator, "_check", lambda _settings: 1 / 0)
        put(files.config, files.config_text(admins=[]))
        change(validator, files.keys, key_text(THIRD))

        assert (before, reports(validator)) == ([0, 0, 0, start], [1, 1, 1, start + 10])

    def test_the_event_counts_what_is_in_force_and_warns_when_roles_are_gone(self, validator, files, caplog):
        put(files.keys, key_text(FIRST, SECOND, revoked=FIRST))
        roles, denied = {"a": {"tables": {}}}, ["api_key|bravo", "api_key|gone"]
        for members in ({"roles": roles, "admins": [f"{ISSUER}|x"], "denied": denied}, {}):
            change(validator, files.config, files.config_text(**members))

        names = ("levelno", "issuers", "api_keys", "denied", "roles", "admins", "admin_groups")
        assert [[event[name] for name in names] for event in events(caplog, READ_AGAIN)] == [
            [logging.INFO, 1, 1, 2, 1, 1, 0],
            [logging.WARNING, 1, 1, 0, 0, 0, 0],
        ]
        unknown = events(caplog, "An entry of denied doesn't match any API key.")
        assert [event["subject"] for event in unknown] == ["gone"]
