"""Tests of `access.reloading`: what is counted, and what is told of the version in force."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from tests.fakes.mint import ISSUER
from tests.unit.access import reloading_in_part_scene as scene
from tests.unit.access.reloading_in_part_scene import FIRST, SECOND, THIRD
from tests.unit.access.reloading_scene import READ_AGAIN, events, put

if TYPE_CHECKING:
    from micromegas_jupyter.access.config import ReloadingValidator

# A module's own fixtures win over those of its folder, which has another `validator`.
files, make, validator = scene.files, scene.make, scene.validator


def reloads(validator: ReloadingValidator) -> list[float | None]:
    name = "micromegas_access_reloads_total"
    get = validator.metrics.registry.get_sample_value
    return [get(name, {"outcome": outcome}) for outcome in ("in_force", "refused", "failed")]


def test_reloads_are_counted_by_outcome(validator, files) -> None:
    before = reloads(validator)
    put(files.keys, files.key_text(THIRD))
    validator.look_for_changes()
    put(files.keys, "[")
    validator.look_for_changes()
    validator.look_for_changes()
    validator._versions._check = lambda _settings: 1 / 0  # type: ignore[assignment,return-value]
    put(files.keys, files.key_text(FIRST))
    validator.look_for_changes()

    assert (before, reloads(validator)) == ([0, 0, 0], [1, 1, 1])


def test_the_time_of_the_configuration_is_that_of_its_last_change(validator, files) -> None:
    name = "micromegas_access_configuration_in_force_timestamp_seconds"
    clock, get = validator._clock, validator.metrics.registry.get_sample_value
    start = get(name)
    clock.advance(10)
    put(files.config, "[")
    validator.look_for_changes()
    refused = get(name)
    put(files.config, files.config_text(admins=[]))
    validator.look_for_changes()

    assert (refused, get(name)) == (start, start + 10)


def test_fetches_of_the_configured_issuers_are_counted_from_nought(validator) -> None:
    get = validator.metrics.registry.get_sample_value

    assert get("micromegas_access_key_fetches_total", {"issuer": ISSUER, "outcome": "failed"}) == 0


def test_the_event_counts_what_is_in_force_and_warns_when_there_are_no_roles_any_more(validator, files, caplog) -> None:
    put(files.keys, files.key_text(FIRST, SECOND, revoked=FIRST))
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
