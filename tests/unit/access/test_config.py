"""Tests of `access.config`: the configuration is read, checked and read again, through the validator that it makes."""

from __future__ import annotations

import json
import logging
import os
import threading
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.access import AuthType, Rejected, TokenValidator, Unavailable, validator_from_environment
from micromegas_jupyter.access import config as module
from micromegas_jupyter.access.config import ReloadingValidator, check_issuer_files, split_denied
from micromegas_jupyter.config.access import LegacyApiKeys
from micromegas_jupyter.config.issuers import IssuerSetting
from micromegas_jupyter.core.protocols import TableAccess
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import ConfigurationError, ResourcesExhausted
from tests.fakes.clock import FakeClock
from tests.fakes.mint import ISSUER, ec_key, mint
from tests.fakes.validator import is_accepted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from micromegas_jupyter.config.access import AccessSettings

    Make = Callable[..., ReloadingValidator]

READ_AGAIN = "The access configuration was read again and is in force."
KEPT = "A new version of the access configuration cannot be used; the old one stays in force."
IN_PART = "A part of a new version of the access configuration cannot be used; the rest is in force."
TRIED_AGAIN = "A new version of the access configuration could not be looked at; it is tried again."
LASTING = mint(key=ec_key(), exp=4_000_000_000, iat=0)
FIRST, SECOND, THIRD = (f"{name}-plain-text-key" for name in ("alpha", "bravo", "delta"))
# Port 9 on loopback: nothing listens, so the provider is down.
DOWN = json.dumps({"issuers": [{"issuer": "http://127.0.0.1:9", "audience": "lake"}]})


def key_text(*keys: str, revoked: str = "", **more: object) -> str:
    ended = {"revoked_at": "2026-01-01T00:00:00Z"}
    return json.dumps([{"name": key[:5], "key": key, **more, **(ended if key == revoked else {})} for key in keys])


def put(path: Path, text: str) -> None:
    """Replace the file in one step, as an administrator's tools do."""
    beside = path.with_name("beside")
    beside.write_text(text)
    beside.replace(path)


def events(caplog: pytest.LogCaptureFixture, sentence: str) -> list[dict[str, object]]:
    return [vars(record) for record in caplog.records if record.message == sentence]


class Files:
    """A configuration file, a key file and a file with an issuer's keys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config, self.keys, self.jwks = (folder / name for name in ("access.json", "keys.json", "jwks.json"))
        self.jwks.write_text(json.dumps({"keys": [ec_key().jwk()]}))
        self.keys.write_text(key_text(FIRST, SECOND))
        self.config.write_text(self.config_text())

    def config_text(self, **more: object) -> str:
        issuer = {"issuer": ISSUER, "audience": "lake", "jwks_file": str(self.jwks)}
        return json.dumps({"api_key_file": str(self.keys), "oidc": {"issuers": [issuer]}, **more})


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
def clock() -> FakeClock:
    """A clock by which every file has had its mark for a long time already."""
    return FakeClock(SYSTEM_CLOCK.now() + timedelta(hours=1))


@pytest.fixture
def make(files: Files, clock: FakeClock, caplog: pytest.LogCaptureFixture) -> Iterator[Make]:
    """Make a validator that looks for changes only when a test says so."""
    made: list[ReloadingValidator] = []

    def make(environ: dict[str, str] | None = None, **options: object) -> ReloadingValidator:
        environ = {"MICROMEGAS_ACCESS_CONFIG": str(files.config)} if environ is None else environ
        options = {"clock": clock, "watch_interval_seconds": 3600, **options}
        made.append(ReloadingValidator(environ, **options))  # type: ignore[arg-type]
        return made[-1]

    with caplog.at_level(logging.INFO, "micromegas_jupyter.access"):
        yield make
    for validator in made:
        validator.close()


@pytest.fixture
def validator(make: Make) -> ReloadingValidator:
    return make()


def accepted(validator: ReloadingValidator) -> list[bool]:
    return [is_accepted(validator, credential) for credential in (FIRST, SECOND, THIRD, LASTING)]


class TestStart:
    """At the start everything must be right, or the server does not start."""

    def test_keys_and_tokens_are_accepted_side_by_side(self, validator):
        assert isinstance(validator, TokenValidator)
        assert validator.validate_token(FIRST).auth_type is AuthType.API_KEY
        assert validator.validate_token(LASTING).auth_type is AuthType.OIDC

    def test_a_provider_that_is_down_stops_neither_the_start_nor_the_keys(self):
        validator = validator_from_environment(
            {
                "MICROMEGAS_OIDC_CONFIG": DOWN,
                "MICROMEGAS_API_KEYS": key_text(FIRST),
                "MICROMEGAS_ADMINS": '["root"]',
            }
        )

        assert validator.validate_token(FIRST).subject == "alpha"
        with pytest.raises(Unavailable):
            validator.validate_token(mint(issuer="http://127.0.0.1:9", exp=4_000_000_000, iat=0))
        with pytest.raises(Rejected):
            validator.validate_token(mint())
        validator.close()

    @pytest.mark.parametrize("environ", [{}, {"MICROMEGAS_API_KEYS": ""}, {"MICROMEGAS_API_KEYS": "[]"}])
    def test_when_nothing_is_configured_the_error_says_what_to_set(self, make, environ):
        with pytest.raises(ConfigurationError) as caught:
            make(environ)

        for word in ("MICROMEGAS_OIDC_CONFIG", "MICROMEGAS_API_KEYS", "--disable-auth"):
            assert word in caught.value.remedy

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("MICROMEGAS_API_KEYS", "{"),
            ("MICROMEGAS_OIDC_CONFIG", "{}"),
            ("MICROMEGAS_ADMINS", '"root"'),
            ("MICROMEGAS_ADMINS", '["https://other.example|root"]'),
        ],
    )
    def test_a_malformed_variable_stops_it_and_is_named(self, make, name, text):
        with pytest.raises(ConfigurationError) as caught:
            make({"MICROMEGAS_API_KEYS": key_text(FIRST), "MICROMEGAS_OIDC_CONFIG": DOWN, name: text})

        assert name in caught.value.key

    def test_a_wrong_administrator_is_refused_by_the_place_where_it_is_written(self, make, files):
        files.config.write_text(files.config_text(admins=["https://other.example|x"]))

        with pytest.raises(ConfigurationError) as caught:
            make()
        assert caught.value.key == "MICROMEGAS_ACCESS_CONFIG.admins"

    def test_a_start_that_fails_leaves_no_thread_and_without_files_there_is_none(self, make, files):
        before = watching_threads()
        files.keys.write_text(key_text(FIRST, FIRST))

        with pytest.raises(ConfigurationError):
            make()
        make({"MICROMEGAS_API_KEYS": key_text(FIRST)})

        assert watching_threads() <= before

    def test_an_empty_key_file_is_fine_beside_something_else(self, make, files):
        files.keys.write_text("[]")

        assert accepted(make()) == [False, False, False, True]

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


def watching_threads() -> set[threading.Thread]:
    """Return the threads that watch for changes; another test's validator may have one."""
    return {thread for thread in threading.enumerate() if thread.name == "micromegas-access"}


class TestSettingsAreUsed:
    """What the configuration says of callers holds for keys and tokens."""

    def test_roles_and_administrators(self, make, files):
        roles = {"all": {"tables": ["logs"]}}
        files.config.write_text(files.config_text(roles=roles, default_roles=["all"], admins=["root"]))
        validator = make()

        for credential in (FIRST, LASTING):
            assert validator.validate_token(credential).table_access == TableAccess(filters={"logs": ()})
        assert validator.validate_token(mint(key=ec_key(), exp=4_000_000_000, iat=0, sub="root")).is_admin

    @pytest.mark.parametrize(
        ("entry", "expected"),
        [("api_key|alpha", [False, True, False, True]), (f"{ISSUER}|alice", [True, True, False, False])],
    )
    def test_who_is_denied_is_refused_and_nobody_else(self, make, files, entry, expected):
        files.config.write_text(files.config_text(denied=[entry]))

        assert accepted(make()) == expected

    def test_a_denied_entry_belongs_to_the_longest_issuer_that_fits_and_may_hold_bars(self):
        issuers = [IssuerSetting(issuer=name) for name in ("https://a.example", "https://a.example|b")]
        entries = ("https://a.example|auth0|1", "https://a.example|b|2", "api_key|x|y", "https://other.example|z")

        assert split_denied(entries, issuers=issuers) == {
            ("https://a.example", "auth0|1"),
            ("https://a.example|b", "2"),
            ("api_key", "x|y"),
        }


def by_key_file(path: Path) -> dict[str, str]:
    return {"MICROMEGAS_API_KEY_FILE": str(path)}


def by_config(path: Path) -> dict[str, str]:
    return {"MICROMEGAS_ACCESS_CONFIG": str(path)}


@pytest.mark.parametrize("named_by", [by_key_file, by_config])
class TestUnusableFiles:
    """A file that cannot be read in full, or that somebody else may have written, stops the start."""

    @pytest.mark.parametrize("name", ["missing", "pipe", "bytes", "."])
    def test_what_cannot_be_read_is_refused_by_the_setting_and_not_by_its_path(self, make, tmp_path, named_by, name):
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "bytes").write_bytes(b"\xff")
        environ = named_by(tmp_path / name)

        with pytest.raises(ConfigurationError) as caught:
            make(environ)

        assert caught.value.key == next(iter(environ))
        assert str(tmp_path) not in str(caught.value)

    def test_a_file_that_everybody_may_change_is_refused(self, make, tmp_path, named_by):
        (tmp_path / "file").write_text("[]")
        (tmp_path / "file").chmod(0o646)

        with pytest.raises(ConfigurationError, match="every user"):
            make(named_by(tmp_path / "file"))

    def test_a_file_of_another_user_is_refused(self, make, tmp_path, named_by, monkeypatch):
        path = tmp_path / "file"
        path.write_text("[]")
        if os.geteuid() == 0:
            os.chown(path, 12345, -1)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)

        with pytest.raises(ConfigurationError, match="another user"):
            make(named_by(path))

    def test_a_file_beyond_the_limit_is_refused(self, make, tmp_path, named_by, monkeypatch):
        (tmp_path / "file").write_text("{}" + " " * 10)
        for limit in ("MAX_KEY_FILE_BYTES", "MAX_CONFIG_FILE_BYTES"):
            monkeypatch.setattr(module, limit, 10)

        with pytest.raises(ConfigurationError, match="too large"):
            make(named_by(tmp_path / "file"))


def test_a_missing_file_that_the_configuration_file_names_is_refused(make, files):
    files.keys.unlink()

    with pytest.raises(ConfigurationError) as caught:
        make()
    assert caught.value.key == "MICROMEGAS_ACCESS_CONFIG.api_key_file"


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
def test_a_file_that_is_more_open_than_it_should_be_leaves_a_warning(  # noqa: PLR0917
    make, files, caplog, mode, keys, sentences
):
    files.keys.write_text(keys)
    files.config.write_text(json.dumps({"api_keys": json.loads(keys)}))
    for path, named_by in ((files.keys, by_key_file), (files.config, by_config)):
        path.chmod(mode)
        caplog.clear()

        make(named_by(path))

        assert caplog.messages == sentences
        assert path.stat().st_mode & 0o777 == mode


def issuer_of(path: Path | str, member: str) -> list[IssuerSetting]:
    return [IssuerSetting(issuer=ISSUER, path="FILE.issuers[0]", **{member: str(path)})]  # type: ignore[arg-type]


class TestIssuerFiles:
    """The files that an issuer's setting names."""

    @pytest.mark.parametrize("member", ["jwks_file", "ca_file", "bearer_token_file"])
    def test_a_missing_file_is_refused_and_a_token_may_come_later(self, files, tmp_path, member):
        check_issuer_files(issuer_of(files.jwks, member))
        if member == "bearer_token_file":
            check_issuer_files(issuer_of(tmp_path / "missing", member))
            return

        with pytest.raises(ConfigurationError) as caught:
            check_issuer_files(issuer_of(tmp_path / "missing", member))

        assert caught.value.key == f"FILE.issuers[0].{member}"
        assert str(tmp_path) not in str(caught.value)

    @pytest.mark.parametrize(
        ("content", "problem"),
        [(b"[", "JSON"), (b"\xff", "JSON"), (b"[]", "key set"), (b"x" * 1_000_001, "too large")],
    )
    def test_a_key_file_without_keys_is_refused(self, files, content, problem):
        files.jwks.write_bytes(content)

        with pytest.raises(ConfigurationError, match=problem) as caught:
            check_issuer_files(issuer_of(files.jwks, "jwks_file"))
        assert caught.value.key == "FILE.issuers[0].jwks_file"

    @pytest.mark.parametrize("member", ["jwks_file", "ca_file", "bearer_token_file"])
    def test_a_file_that_everybody_may_change_is_refused(self, files, member):
        files.jwks.chmod(0o666)

        with pytest.raises(ConfigurationError, match="every user"):
            check_issuer_files(issuer_of(files.jwks, member))

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file away")
    @pytest.mark.parametrize("member", ["jwks_file", "ca_file"])
    def test_a_file_of_another_user_is_refused_unless_it_holds_a_token(self, files, member):
        os.chown(files.jwks, 12345, -1)

        check_issuer_files(issuer_of(files.jwks, "bearer_token_file"))
        with pytest.raises(ConfigurationError, match="another user"):
            check_issuer_files(issuer_of(files.jwks, member))

    def test_a_file_that_its_group_may_change_leaves_a_warning(self, make, files, caplog):
        files.jwks.chmod(0o660)

        make()

        assert [vars(record)["setting"] for record in caplog.records if "its group" in record.message] == [
            "MICROMEGAS_ACCESS_CONFIG.oidc.issuers[0].jwks_file"
        ]


class TestReload:
    """A reload that somebody asks for."""

    def test_it_puts_the_new_version_in_force(self, validator, files, caplog):
        put(files.keys, key_text(THIRD))

        validator.reload()

        assert accepted(validator) == [False, False, True, True]
        assert [(event["issuers"], event["api_keys"]) for event in events(caplog, READ_AGAIN)] == [(1, 1)]

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
        for forget in (validator.reload, validator.clear_caches):
            validator.validate_token(LASTING)
            assert validator.cached_context(LASTING) is not None
            forget()
            assert validator.cached_context(LASTING) is None
        if text is not None:
            validator.validate_token(LASTING)
            put(files.config, text)
            with pytest.raises(ConfigurationError):
                validator.reload()
            assert validator.cached_context(LASTING) is None

    def test_counters_go_on(self, validator):
        before = validator.metrics
        validator.validate_token(FIRST)

        validator.reload()
        validator.validate_token(FIRST)

        assert validator.metrics is before
        name = "micromegas_access_decisions_total"
        assert before.registry.get_sample_value(name, {"outcome": "accepted", "reason": ""}) == 2

    def test_the_issuers_keys_are_kept(self, validator, files):
        validator.validate_token(LASTING)
        files.jwks.unlink()

        with pytest.raises(ConfigurationError):
            validator.reload()
        assert is_accepted(validator, LASTING)

    def test_a_check_under_way_ends_on_the_validator_that_it_began_on(self, validator, files, monkeypatch):
        old = validator._current
        begun, go_on, found = threading.Event(), threading.Event(), []
        decide = old.decide

        def slow_decide(token: str) -> object:
            begun.set()
            assert go_on.wait(30)
            return decide(token)

        monkeypatch.setattr(old, "decide", slow_decide)
        caller = threading.Thread(target=lambda: found.append(validator.validate_token(FIRST)))
        caller.start()
        assert begun.wait(30)
        put(files.keys, key_text(THIRD))

        validator.reload()
        go_on.set()
        caller.join(60)

        assert [context.subject for context in found] == ["alpha"]
        assert not is_accepted(validator, FIRST)


class TestLookingForChanges:
    """What a look for changed files finds."""

    @pytest.mark.parametrize("in_place", [False, True], ids=["renamed", "in place"])
    def test_a_changed_file_takes_effect(self, validator, files, in_place):
        files.keys.write_text(key_text(THIRD)) if in_place else put(files.keys, key_text(THIRD))

        validator.look_for_changes()

        assert accepted(validator) == [False, False, True, True]

    @pytest.mark.parametrize("is_touched", [False, True])
    def test_an_unchanged_file_changes_nothing(self, validator, files, caplog, is_touched):
        before = validator._current
        if is_touched:
            put(files.keys, files.keys.read_text())

        validator.look_for_changes()

        assert validator._current is before
        assert caplog.records == []

    @pytest.mark.parametrize("name", ["keys", "config"])
    def test_a_missing_file_keeps_the_old_version_and_is_logged_once_until_it_is_back(
        self, validator, files, clock, caplog, name
    ):
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
        assert len(events(caplog, KEPT)) == len(events(caplog, READ_AGAIN)) == 1

    def test_each_malformed_version_is_logged_again_and_shows_no_key(self, make, files, caplog):
        validator = make(by_key_file(files.keys))
        for text in (key_text(THIRD, THIRD), json.dumps([{THIRD: "x"}]), f'[{{"name": "x", "key": {THIRD}}}]', "[]"):
            put(files.keys, text)
            for _ in range(2):
                validator.look_for_changes()

        kept = events(caplog, KEPT)
        assert is_accepted(validator, FIRST)
        assert [event["levelno"] for event in kept] == [logging.ERROR] * 4
        assert "nobody could sign in" in str(kept[3]["problem"])
        shown = str([vars(record) for record in caplog.records if record.name.endswith("access")])
        assert THIRD not in shown
        assert str(files.folder) not in shown

    def test_a_change_that_leaves_no_mark_is_seen_while_the_mark_is_young(self, make, files, monkeypatch):
        validator = make(clock=SYSTEM_CLOCK)
        mark = module.mark_behind_links(files.config)
        monkeypatch.setattr(module, "mark_behind_links", lambda _path: mark)
        validator.reload()
        files.keys.write_text(key_text(THIRD))

        validator.look_for_changes()

        assert is_accepted(validator, THIRD)

    def test_an_old_mark_is_relied_on_and_the_file_is_not_read(self, validator, files, monkeypatch, caplog):
        marks = {path: file.mark for path, file in validator._files.items()}
        monkeypatch.setattr(module, "mark_behind_links", marks.get)
        files.keys.write_text("[")

        validator.look_for_changes()

        assert caplog.records == []

    def test_a_configuration_file_may_name_another_key_file(self, validator, files, caplog):
        other = files.folder / "other.json"
        other.write_text(key_text(THIRD))
        put(files.config, files.config_text(api_key_file=str(other)))
        validator.look_for_changes()
        assert accepted(validator) == [False, False, True, True]
        files.keys.unlink()  # it is no longer named
        validator.look_for_changes()
        assert len(events(caplog, READ_AGAIN)) == 1

        put(other, key_text(FIRST))
        validator.look_for_changes()

        assert accepted(validator) == [True, False, False, True]

    def test_an_issuer_can_be_taken_away_and_its_keys_are_not_reported_any_more(self, validator, files):
        def age() -> float | None:
            name = "micromegas_access_key_set_age_seconds"
            return validator.metrics.registry.get_sample_value(name, {"issuer": ISSUER})

        validator.validate_token(LASTING)
        before = age()
        put(files.config, json.dumps({"api_key_file": str(files.keys)}))

        validator.look_for_changes()

        assert accepted(validator) == [True, True, False, False]
        assert (before, age()) == (0, None)

    def test_the_thread_looks_by_itself_survives_a_defect_and_ends_with_the_validator(
        self, make, files, monkeypatch, caplog
    ):
        before, looked = watching_threads(), threading.Event()
        rounds = []

        def look(_self: object) -> None:
            rounds.append(1)
            if len(rounds) < 4:
                raise ZeroDivisionError
            looked.set()

        monkeypatch.setattr(ReloadingValidator, "look_for_changes", look)
        validator = make(watch_interval_seconds=0.001)
        (own,) = watching_threads() - before

        assert looked.wait(30)
        validator.close()
        validator.close()

        assert not own.is_alive()
        assert [event["kind"] for event in events(caplog, "Looking for changes failed.")] == ["ZeroDivisionError"]


class TestInPart:
    """Of a version that cannot be used as a whole, each file by itself is used, and whoever it denies is refused."""

    def test_a_key_file_is_used_while_the_configuration_file_is_malformed(self, validator, files, caplog):
        put(files.config, "{")
        put(files.keys, key_text(FIRST, SECOND, THIRD, revoked=FIRST))

        validator.look_for_changes()

        assert accepted(validator) == [False, True, True, True]
        (event,) = events(caplog, IN_PART)
        assert (event["configuration_file"], event["key_file"]) == ("last good version", "newest version")
        assert (event["setting"], event["api_keys"]) == ("MICROMEGAS_ACCESS_CONFIG", 2)
        assert "restart" in str(event["remedy"])

    def test_a_configuration_file_is_used_while_the_key_file_is_malformed(self, validator, files, caplog):
        put(files.config, files.config_text(denied=["api_key|alpha"]))
        put(files.keys, "[")

        validator.look_for_changes()

        assert accepted(validator) == [False, True, False, True]
        (event,) = events(caplog, IN_PART)
        assert (event["configuration_file"], event["key_file"]) == ("newest version", "last good version")

    def test_the_corrected_file_makes_the_version_whole(self, validator, files, caplog):
        put(files.config, "{")
        put(files.keys, key_text(FIRST, THIRD))
        validator.look_for_changes()
        put(files.config, files.config_text(denied=["api_key|delta"]))

        validator.look_for_changes()

        assert accepted(validator) == [True, False, False, True]
        assert len(events(caplog, READ_AGAIN)) == 1

    @pytest.mark.parametrize("members", [{"colour": "red"}, {"admins": ["https://other.example|x"]}])
    def test_who_is_denied_by_a_version_that_is_refused_stays_denied_while_it_is_malformed(
        self, validator, files, members
    ):
        put(files.config, files.config_text(**members, denied=["api_key|alpha", f"{ISSUER}|alice"]))
        validator.look_for_changes()
        refused = accepted(validator)
        put(files.config, "{")

        validator.look_for_changes()

        assert refused == accepted(validator) == [False, True, False, False]
        assert is_accepted(validator, mint(key=ec_key(), exp=4_000_000_000, iat=0, sub="bob"))
        put(files.config, files.config_text())
        validator.look_for_changes()
        assert accepted(validator) == [True, True, False, True]

    def test_keys_of_another_file_are_not_taken_for_those_of_this_one(self, validator, files):
        put(files.config, files.config_text(api_key_file=str(files.folder / "missing"), denied=["api_key|alpha"]))

        validator.look_for_changes()

        assert accepted(validator) == [False, True, False, True]
        assert [key.name for key in validator.settings.api_keys] == ["alpha", "bravo"]

    @pytest.mark.parametrize("error", [ConfigurationError("No such column.", key="roles"), RuntimeError("secret")])
    def test_a_revocation_counts_although_no_new_configuration_can_be_used(self, make, files, error):
        problems: list[Exception] = []

        def check(_settings: AccessSettings) -> None:
            if problems:
                raise problems[0]

        validator = make(check=check)
        problems.append(error)
        put(files.config, files.config_text(rate_limits={}))
        put(files.keys, key_text(FIRST, SECOND, revoked=FIRST))

        validator.look_for_changes()

        assert accepted(validator) == [False, True, False, True]

    def test_a_key_with_a_misspelled_role_does_not_keep_another_from_being_revoked(self, validator, files):
        put(files.config, files.config_text(roles={"ops": {"tables": {"*": None}}}))
        put(files.keys, key_text(FIRST, SECOND, roles=["typo"]))
        validator.look_for_changes()
        assert accepted(validator)[:2] == [True, True]
        assert validator.validate_token(FIRST).table_access.filters == {}

        put(files.keys, key_text(FIRST, SECOND, roles=["typo"], revoked=FIRST))
        validator.look_for_changes()

        assert accepted(validator)[:2] == [False, True]


class TestTriedAgain:
    """What may keep a version from being used for a passing reason."""

    @pytest.mark.parametrize("error", [Unavailable("busy"), ResourcesExhausted("full"), RuntimeError("secret")])
    def test_it_is_tried_again_after_five_seconds_and_logged_once(self, make, files, clock, caplog, error):
        problems: list[Exception] = []

        def check(_settings: AccessSettings) -> None:
            if problems:
                raise problems[0]

        validator = make(check=check)
        problems.append(error)
        put(files.config, files.config_text(api_key_file=str(files.folder / "other.json")))
        (files.folder / "other.json").write_text(key_text(THIRD))
        for _ in range(3):
            clock.advance(5)
            validator.look_for_changes()
        with pytest.raises(Unavailable if isinstance(error, RuntimeError) else type(error)) as caught:
            validator.reload()
        during = accepted(validator)
        problems.clear()
        validator.look_for_changes()
        too_early = accepted(validator)
        clock.advance(5)

        validator.look_for_changes()

        assert during == too_early == [True, True, False, True]
        assert accepted(validator) == [False, False, True, True]
        assert [event["kind"] for event in events(caplog, TRIED_AGAIN)] == [type(error).__name__] * 2
        assert len(events(caplog, READ_AGAIN)) == 1
        assert "secret" not in str([caught.value, *(vars(record) for record in caplog.records)])

    def test_a_file_of_an_issuer_that_comes_later_brings_the_version_in_force(self, validator, files, clock, caplog):
        files.jwks.rename(files.jwks.with_name("elsewhere"))
        put(files.config, files.config_text(denied=["api_key|alpha"]))
        for _ in range(3):
            validator.look_for_changes()
            clock.advance(5)
        refused = events(caplog, KEPT)
        files.jwks.with_name("elsewhere").rename(files.jwks)

        validator.look_for_changes()

        assert [event["setting"] for event in refused] == ["MICROMEGAS_ACCESS_CONFIG.oidc.issuers[0].jwks_file"]
        assert str(files.folder) not in str(refused[0]["problem"])
        assert len(events(caplog, READ_AGAIN)) == 1

    @pytest.fixture
    def busy(self, make: Make) -> Iterator[ReloadingValidator]:
        begun, go_on, is_first = threading.Event(), threading.Event(), [True]

        def check(_settings: AccessSettings) -> None:
            if not is_first:
                begun.set()
                assert go_on.wait(30)

        validator = make(check=check)
        is_first.clear()
        other = threading.Thread(target=validator.reload)
        other.start()
        assert begun.wait(30)
        yield validator
        go_on.set()
        other.join(60)

    def test_another_reload_ends_as_unavailable_and_a_look_does_not_wait(self, busy, files, monkeypatch, caplog):
        monkeypatch.setattr(module, "RELOAD_TIMEOUT_SECONDS", 0.01)
        put(files.keys, "[")

        for use in (busy.reload, busy.clear_caches):
            with pytest.raises(Unavailable):
                use()
        busy.look_for_changes()

        assert events(caplog, KEPT) == events(caplog, IN_PART) == []


class TestReports:
    """What is counted and logged of the version in force."""

    def test_reloads_are_counted_by_outcome(self, validator, files, monkeypatch):
        def reloads() -> list[float | None]:
            get = validator.metrics.registry.get_sample_value
            name = "micromegas_access_reloads_total"
            return [get(name, {"outcome": outcome}) for outcome in ("in_force", "refused", "failed")]

        before = reloads()
        put(files.keys, key_text(THIRD))
        validator.look_for_changes()
        put(files.keys, "[")
        for _ in range(2):
            validator.look_for_changes()
        monkeypatch.setattr(validator, "_check", lambda _settings: 1 / 0)
        put(files.config, files.config_text(admins=[]))
        put(files.keys, key_text(FIRST))
        validator.look_for_changes()

        assert (before, reloads()) == ([0, 0, 0], [1, 1, 1])

    def test_the_time_of_the_configuration_is_that_of_its_last_change(self, validator, files, clock):
        name = "micromegas_access_configuration_in_force_timestamp_seconds"
        get = validator.metrics.registry.get_sample_value
        start = get(name)
        clock.advance(10)
        put(files.config, "[")
        validator.look_for_changes()
        refused = get(name)
        put(files.config, files.config_text(admins=[]))
        validator.look_for_changes()

        assert (refused, get(name)) == (start, start + 10)

    def test_fetches_of_the_configured_issuers_are_counted_from_zero(self, validator):
        get = validator.metrics.registry.get_sample_value

        assert get("micromegas_access_key_fetches_total", {"issuer": ISSUER, "outcome": "failed"}) == 0

    def test_the_event_counts_what_is_in_force_and_warns_when_there_are_no_roles_any_more(
        self, validator, files, caplog
    ):
        put(files.keys, key_text(FIRST, SECOND, revoked=FIRST))
        put(
            files.config,
            files.config_text(
                roles={"a": {"tables": {}}}, admins=[f"{ISSUER}|x"], denied=["api_key|bravo", "api_key|gone"]
            ),
        )
        validator.look_for_changes()
        put(files.config, files.config_text())
        validator.look_for_changes()

        first, second = events(caplog, READ_AGAIN)
        names = ("issuers", "api_keys", "denied", "roles", "admins", "admin_groups")
        assert [first[name] for name in names] == [1, 1, 2, 1, 1, 0]
        assert [second[name] for name in names] == [1, 1, 0, 0, 0, 0]
        assert (first["levelno"], second["levelno"]) == (logging.INFO, logging.WARNING)
        unknown = events(caplog, "An entry of denied names no API key that there is.")
        assert [event["subject"] for event in unknown] == ["gone"]

    def test_where_all_keys_have_ended_the_event_is_a_warning(self, make, files, caplog):
        validator = make(by_key_file(files.keys))
        put(files.keys, key_text(FIRST, revoked=FIRST))

        validator.look_for_changes()

        assert [(event["levelno"], event["api_keys"]) for event in events(caplog, READ_AGAIN)] == [(logging.WARNING, 0)]

    def test_names_that_match_nobody_are_logged_and_do_not_flood_the_log(self, make, files, caplog):
        denied = [f"api_key|{number}" for number in range(300)]
        put(files.config, json.dumps({"api_key_file": str(files.keys), "admins": ["ops"], "denied": denied}))

        make()

        assert len(events(caplog, "An entry of denied names no API key that there is.")) == 100
        administrators = [vars(record) for record in caplog.records if "API keys administer nothing" in record.message]
        assert [event["setting"] for event in administrators] == ["MICROMEGAS_ACCESS_CONFIG.admins"]
