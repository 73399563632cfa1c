"""Tests of `access.reloading`: what a look for changed files finds, and what becomes of it."""

from __future__ import annotations

import json
import logging

import pytest

from micromegas_jupyter.access.config import ReloadingValidator, marks_of
from micromegas_jupyter.errors import ConfigurationError
from tests.fakes.asking import is_accepted
from tests.fakes.mint import ISSUER, ec_key
from tests.unit.access import reloading_scene as scene
from tests.unit.access.reloading_scene import KEPT, LASTING, NEW, OLD, READ_AGAIN, events, keys_text, put

# A module's own fixtures win over those of its folder, which has another `validator`.
clock, make, path, validator = scene.clock, scene.make, scene.path, scene.validator


class TestLookingForChanges:
    @pytest.mark.parametrize("in_place", [False, True], ids=["renamed", "in place"])
    def test_a_changed_file_takes_effect(self, validator, path, in_place) -> None:
        path.write_text(keys_text(NEW)) if in_place else put(path, keys_text(NEW))

        validator.look_for_changes()

        assert (is_accepted(validator, OLD), is_accepted(validator, NEW)) == (False, True)

    def test_an_unchanged_file_changes_nothing(self, validator, caplog) -> None:
        before = validator._current

        validator.look_for_changes()

        assert validator._current is before
        assert caplog.records == []

    def test_a_file_that_was_only_touched_changes_nothing(self, validator, path, caplog) -> None:
        before = validator._current
        put(path, path.read_text())

        validator.look_for_changes()

        assert validator._current is before
        assert caplog.records == []

    def test_a_malformed_version_keeps_the_old_one_and_is_told_once(self, validator, path, caplog) -> None:
        put(path, "[")
        for _ in range(3):
            validator.look_for_changes()
        put(path, "[")

        validator.look_for_changes()

        assert is_accepted(validator, OLD)
        (event,) = events(caplog, KEPT)
        assert event["setting"] == "MICROMEGAS_API_KEY_FILE"
        assert event["levelno"] == logging.ERROR

    def test_a_missing_file_keeps_the_old_version_and_is_told_once(self, validator, path, caplog) -> None:
        path.unlink()

        for _ in range(3):
            validator.look_for_changes()

        assert is_accepted(validator, OLD)
        assert len(events(caplog, KEPT)) == 1

    def test_a_missing_file_is_told_once_however_often_the_others_change(self, make, path, tmp_path, caplog) -> None:
        config = tmp_path / "access.json"
        config.write_text(json.dumps({"api_key_file": str(path)}))
        validator = make(MICROMEGAS_ACCESS_CONFIG=str(config))
        path.unlink()
        for _ in range(3):
            put(config, config.read_text())

            validator.look_for_changes()

        assert len(events(caplog, KEPT)) == 1

    def test_a_file_that_comes_back_takes_effect(self, validator, path) -> None:
        path.unlink()
        validator.look_for_changes()
        path.write_text(keys_text(NEW))

        validator.look_for_changes()

        assert (is_accepted(validator, OLD), is_accepted(validator, NEW)) == (False, True)

    def test_another_malformed_version_is_told_again(self, validator, path, caplog) -> None:
        for text in ("[", "{", "[{}]"):
            put(path, text)
            validator.look_for_changes()

        assert len(events(caplog, KEPT)) == 3

    @pytest.mark.parametrize("text", [keys_text(OLD), keys_text(NEW)], ids=["the old one", "a new one"])
    def test_a_good_version_after_a_malformed_one_takes_effect(self, validator, path, text, caplog) -> None:
        put(path, "[")
        validator.look_for_changes()
        put(path, text)

        validator.look_for_changes()

        assert is_accepted(validator, json.loads(text)[0]["key"])
        assert len(events(caplog, READ_AGAIN)) == 1

    def test_a_change_that_leaves_no_mark_is_seen_while_the_mark_is_young(self, path) -> None:
        validator = ReloadingValidator({"MICROMEGAS_API_KEY_FILE": str(path)}, watch_interval_seconds=3600)
        path.write_text(keys_text(NEW))
        # As if both versions had been written within one tick of the file system's clock.
        validator._marks = marks_of([path])

        validator.look_for_changes()

        assert is_accepted(validator, NEW)
        validator.close()

    def test_an_old_mark_is_relied_on_and_the_file_is_not_read(self, validator, path, caplog) -> None:
        path.write_text("[")
        validator._marks = marks_of([path])

        validator.look_for_changes()

        assert caplog.records == []

    def test_a_configuration_file_may_name_another_key_file(self, make, path, tmp_path) -> None:
        config, other = tmp_path / "access.json", tmp_path / "other.json"
        config.write_text(json.dumps({"api_key_file": str(path)}))
        other.write_text(keys_text(NEW))
        validator = make(MICROMEGAS_ACCESS_CONFIG=str(config))
        put(config, json.dumps({"api_key_file": str(other)}))
        validator.look_for_changes()
        assert (is_accepted(validator, OLD), is_accepted(validator, NEW)) == (False, True)

        put(other, keys_text(OLD))
        validator.look_for_changes()

        assert (is_accepted(validator, OLD), is_accepted(validator, NEW)) == (True, False)

    def test_a_file_that_is_no_longer_named_makes_no_second_event(self, make, path, tmp_path, caplog) -> None:
        config, other = tmp_path / "access.json", tmp_path / "other.json"
        config.write_text(json.dumps({"api_key_file": str(path)}))
        other.write_text(keys_text(NEW))
        validator = make(MICROMEGAS_ACCESS_CONFIG=str(config))
        put(config, json.dumps({"api_key_file": str(other)}))
        validator.look_for_changes()
        path.unlink()

        for _ in range(2):
            validator.look_for_changes()

        assert len(events(caplog, READ_AGAIN)) == 1
        assert events(caplog, KEPT) == []

    def test_an_issuer_can_be_added_and_taken_away(self, make, path, tmp_path) -> None:
        keys, config = tmp_path / "jwks.json", tmp_path / "access.json"
        keys.write_text(json.dumps({"keys": [ec_key().jwk()]}))
        issuers = [{"issuer": ISSUER, "audience": "lake", "jwks_file": str(keys)}]
        with_issuer = json.dumps({"api_key_file": str(path), "oidc": {"issuers": issuers}})
        without_issuer = json.dumps({"api_key_file": str(path)})
        config.write_text(without_issuer)
        validator, found, watched = make(MICROMEGAS_ACCESS_CONFIG=str(config)), [], []

        for text in (with_issuer, without_issuer):
            put(config, text)
            validator.look_for_changes()
            found.append(is_accepted(validator, LASTING))
            age = validator.metrics.registry.get_sample_value(
                "micromegas_access_key_set_age_seconds", {"issuer": ISSUER}
            )
            watched.append(age is not None)

        assert found == [True, False]
        assert watched == [True, False]

    def test_a_version_in_which_nobody_could_sign_in_is_refused_as_at_start(self, validator, path, caplog) -> None:
        put(path, "[]")

        validator.look_for_changes()

        assert is_accepted(validator, OLD)
        assert ["nobody could sign in" in str(event["problem"]) for event in events(caplog, KEPT)] == [True]
        with pytest.raises(ConfigurationError, match="nobody could sign in"):
            validator.reload()

    def test_where_all_keys_have_ended_the_event_is_a_warning(self, validator, path, caplog) -> None:
        put(path, keys_text(OLD, revoked_at="2026-01-01T00:00:00Z"))

        validator.look_for_changes()

        assert not is_accepted(validator, OLD)
        assert [(event["levelno"], event["api_keys"]) for event in events(caplog, READ_AGAIN)] == [(logging.WARNING, 0)]

    def test_keys_do_not_show_in_the_log(self, validator, path, caplog) -> None:
        for text in (keys_text(NEW, NEW), json.dumps([{NEW: "x"}]), f'[{{"name": "x", "key": {NEW}}}]'):
            put(path, text)
            validator.look_for_changes()

        assert len(events(caplog, KEPT)) == 3
        assert NEW not in str([vars(record) for record in caplog.records])
        assert str(path.parent) not in str(
            [vars(record) for record in caplog.records if record.name.endswith("access")]
        )
