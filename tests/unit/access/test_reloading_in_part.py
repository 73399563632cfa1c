"""Tests of `access.reloading`: what of a version counts that cannot be used as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.errors import ConfigurationError
from tests.fakes.asking import is_accepted
from tests.fakes.mint import ISSUER, ec_key, mint
from tests.unit.access import reloading_in_part_scene as scene
from tests.unit.access.reloading_in_part_scene import FIRST, IN_PART, SECOND, THIRD, accepted
from tests.unit.access.reloading_scene import KEPT, LASTING, READ_AGAIN, events, put

if TYPE_CHECKING:
    from micromegas_jupyter.config.access import AccessSettings

# A module's own fixtures win over those of its folder, which has another `validator`.
files, make, validator = scene.files, scene.make, scene.validator


class TestOneFile:
    """One of the two files cannot be used, the other one is."""

    def test_a_key_file_is_used_while_the_configuration_file_is_malformed(self, validator, files, caplog) -> None:
        put(files.config, "{")
        put(files.keys, files.key_text(FIRST, SECOND, THIRD, revoked=FIRST))

        validator.look_for_changes()

        assert accepted(validator) == [False, True, True, True]
        (event,) = events(caplog, IN_PART)
        assert (event["configuration_file"], event["key_file"]) == ("as it was", "as it is now")
        assert (event["setting"], event["api_keys"]) == ("MICROMEGAS_ACCESS_CONFIG", 2)
        assert event["remedy"]

    def test_a_configuration_file_is_used_while_the_key_file_is_malformed(self, validator, files, caplog) -> None:
        put(files.config, files.config_text(denied=["api_key|alpha"]))
        put(files.keys, "[")

        validator.look_for_changes()

        assert accepted(validator) == [False, True, False, True]
        (event,) = events(caplog, IN_PART)
        assert (event["configuration_file"], event["key_file"]) == ("as it is now", "as it was")

    def test_the_mended_file_makes_the_version_whole(self, validator, files, caplog) -> None:
        put(files.config, "{")
        put(files.keys, files.key_text(FIRST, THIRD))
        validator.look_for_changes()
        put(files.config, files.config_text(denied=["api_key|delta"]))

        validator.look_for_changes()

        assert accepted(validator) == [True, False, False, True]
        assert len(events(caplog, READ_AGAIN)) == 1

    def test_what_was_denied_by_a_version_that_was_refused_stays_denied_while_it_is_malformed(
        self, validator, files
    ) -> None:
        put(files.config, files.config_text(colour="red", denied=["api_key|alpha"]))
        validator.look_for_changes()
        refused = accepted(validator)
        put(files.config, "{")

        validator.look_for_changes()

        assert refused == accepted(validator) == [False, True, False, True]


def test_who_is_denied_by_a_configuration_that_cannot_be_used_is_refused_all_the_same(validator, files, caplog) -> None:
    put(files.config, files.config_text(admins=["https://other.example|x"], denied=[f"{ISSUER}|alice"]))

    validator.look_for_changes()

    assert accepted(validator) == [True, True, False, False]
    assert is_accepted(validator, mint(key=ec_key(), exp=4_000_000_000, iat=0, sub="bob"))
    (event,) = events(caplog, KEPT)
    assert event["setting"] == "MICROMEGAS_ACCESS_CONFIG.admins"
    assert (event["configuration_file"], event["key_file"]) == ("as it was", "as it is now")
    assert (event["denied"], event["denied_in_addition"]) == (1, 1)


def test_a_revocation_counts_although_no_version_with_it_can_be_used(validator, files, caplog) -> None:
    def refuse(settings: AccessSettings) -> None:
        raise ConfigurationError("The conditions do not fit.", key="roles")

    validator._versions._check = refuse
    put(files.keys, files.key_text(FIRST, SECOND, THIRD, revoked=FIRST))

    validator.look_for_changes()

    assert accepted(validator) == [False, True, False, True]
    assert validator.settings.roles is None
    (event,) = events(caplog, KEPT)
    assert (event["keys_shut_out"], event["api_keys"]) == (1, 1)


def test_a_key_with_a_misspelt_role_does_not_keep_another_from_being_revoked(validator, files) -> None:
    put(files.config, files.config_text(roles={"ops": {"tables": {"*": None}}}))
    put(files.keys, files.key_text(FIRST, SECOND, roles=["typo"]))
    validator.look_for_changes()
    assert accepted(validator)[:2] == [True, True]
    assert validator.validate_token(FIRST).table_access.filters == {}

    put(files.keys, files.key_text(FIRST, SECOND, roles=["typo"], revoked=FIRST))
    validator.look_for_changes()

    assert accepted(validator)[:2] == [False, True]


def test_findings_that_were_forgotten_do_not_come_back_with_a_reload_that_is_refused(validator, files) -> None:
    validator.validate_token(LASTING)
    validator.clear_caches()
    put(files.config, "{")

    with pytest.raises(ConfigurationError):
        validator.reload()

    assert validator.cached_context(LASTING) is None
