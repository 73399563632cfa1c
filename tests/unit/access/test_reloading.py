"""Tests of `access.reloading`: the start, a reload that is asked for, and the thread that watches."""

from __future__ import annotations

import json
import threading

import pytest

from micromegas_jupyter.access import validator_from_environment
from micromegas_jupyter.config.access import LegacyApiKeys
from micromegas_jupyter.errors import ConfigurationError
from tests.fakes.asking import is_accepted
from tests.fakes.mint import ISSUER, ec_key
from tests.unit.access import reloading_scene as scene
from tests.unit.access.reloading_scene import KEPT, LASTING, NEW, OLD, READ_AGAIN, events, keys_text, put

# A module's own fixtures win over those of its folder, which has another `validator`.
clock, make, path, validator = scene.clock, scene.make, scene.path, scene.validator


def watching_threads() -> set[threading.Thread]:
    """Return the threads that watch for changes; another test's validator may have one."""
    return {thread for thread in threading.enumerate() if thread.name == "micromegas-access"}


class TestReload:
    def test_it_puts_the_new_version_in_force(self, validator, path, caplog) -> None:
        put(path, keys_text(NEW))

        validator.reload()

        assert (is_accepted(validator, OLD), is_accepted(validator, NEW)) == (False, True)
        assert [key.name for key in validator.settings.api_keys] == ["new"]
        assert [(event["issuers"], event["api_keys"]) for event in events(caplog, READ_AGAIN)] == [(0, 1)]

    def test_a_malformed_version_raises_is_told_and_keeps_the_old_one(self, validator, path, caplog) -> None:
        before = validator.settings
        put(path, "[")

        with pytest.raises(ConfigurationError):
            validator.reload()

        assert is_accepted(validator, OLD)
        assert validator.settings is before
        assert [event["setting"] for event in events(caplog, KEPT)] == ["MICROMEGAS_API_KEY_FILE"]

    def test_a_missing_file_keeps_the_old_version(self, validator, path) -> None:
        path.unlink()

        with pytest.raises(ConfigurationError):
            validator.reload()
        assert is_accepted(validator, OLD)

    def test_findings_are_forgotten_even_when_nothing_has_changed(self, make, tmp_path) -> None:
        keys = tmp_path / "jwks.json"
        keys.write_text(json.dumps({"keys": [ec_key().jwk()]}))
        issuer = {"issuer": ISSUER, "audience": "lake", "jwks_file": str(keys)}
        validator = make(MICROMEGAS_OIDC_CONFIG=json.dumps({"issuers": [issuer]}))
        token = LASTING
        for forget in (validator.reload, validator.clear_caches):
            validator.validate_token(token)
            assert validator.cached_context(token) is not None

            forget()

            assert validator.cached_context(token) is None

    def test_clearing_caches_reads_no_file(self, validator, path) -> None:
        put(path, "[")

        validator.clear_caches()

        assert is_accepted(validator, OLD)

    def test_counters_go_on(self, validator) -> None:
        before = validator.metrics
        validator.validate_token(OLD)

        validator.reload()
        validator.validate_token(OLD)

        assert validator.metrics is before
        name = "micromegas_access_decisions_total"
        assert before.registry.get_sample_value(name, {"outcome": "accepted", "reason": ""}) == 2

    def test_what_becomes_of_plain_text_keys_stays_overridden(self, path) -> None:
        environ = {"MICROMEGAS_API_KEY_FILE": str(path), "MICROMEGAS_LEGACY_API_KEYS": "refuse"}
        validator = validator_from_environment(environ, legacy_api_keys=LegacyApiKeys.ON)
        put(path, keys_text(NEW))

        validator.reload()

        assert is_accepted(validator, NEW)
        assert validator.settings.legacy_api_keys is LegacyApiKeys.ON
        validator.close()

    def test_a_check_under_way_ends_on_the_validator_that_it_began_on(self, validator, path, monkeypatch) -> None:
        old = validator._current
        begun, go_on, found = threading.Event(), threading.Event(), []
        decide = old.decide

        def slow_decide(token: str) -> object:
            begun.set()
            assert go_on.wait(30)
            return decide(token)

        monkeypatch.setattr(old, "decide", slow_decide)
        caller = threading.Thread(target=lambda: found.append(validator.validate_token(OLD)))
        caller.start()
        assert begun.wait(30)
        put(path, keys_text(NEW))

        validator.reload()
        go_on.set()
        caller.join(60)

        assert [context.subject for context in found] == ["old"]
        assert not is_accepted(validator, OLD)


class TestStart:
    def test_a_missing_file_stops_it_also_when_something_else_is_configured(self, make, tmp_path) -> None:
        with pytest.raises(ConfigurationError, match="does not exist"):
            make(MICROMEGAS_API_KEYS=keys_text(NEW), MICROMEGAS_API_KEY_FILE=str(tmp_path / "missing"))

    def test_a_malformed_file_stops_it(self, make, path) -> None:
        path.write_text("[")

        with pytest.raises(ConfigurationError) as caught:
            make(MICROMEGAS_API_KEY_FILE=str(path))
        assert caught.value.key == "MICROMEGAS_API_KEY_FILE"

    def test_an_empty_list_stops_it_when_nothing_else_is_configured(self, make, path) -> None:
        path.write_text("[]")

        with pytest.raises(ConfigurationError, match="nobody could sign in"):
            make(MICROMEGAS_API_KEY_FILE=str(path))

    def test_an_empty_list_is_fine_beside_something_else(self, make, path) -> None:
        path.write_text("[]")

        validator = make(MICROMEGAS_API_KEY_FILE=str(path), MICROMEGAS_API_KEYS=keys_text(NEW))

        assert is_accepted(validator, NEW)

    def test_a_start_that_fails_leaves_no_thread(self, make, path) -> None:
        path.write_text(keys_text(OLD, OLD))
        before = watching_threads()

        with pytest.raises(ConfigurationError):
            make(MICROMEGAS_API_KEY_FILE=str(path))

        assert watching_threads() <= before


class TestWatching:
    def test_without_files_there_is_no_thread(self, make) -> None:
        before = watching_threads()

        make(MICROMEGAS_API_KEYS=keys_text(NEW))

        assert watching_threads() <= before

    def test_closing_ends_the_thread_and_twice_does_no_harm(self, path) -> None:
        before = watching_threads()
        validator = validator_from_environment({"MICROMEGAS_API_KEY_FILE": str(path)})
        (own,) = watching_threads() - before

        validator.close()
        validator.close()

        assert not own.is_alive()
