"""Tests of `access.reloading`: what is tried again, and for what nobody waits."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.access import config as reloading
from micromegas_jupyter.errors import ResourcesExhausted, Unavailable
from tests.unit.access import reloading_in_part_scene as scene
from tests.unit.access.reloading_in_part_scene import FIRST, IN_PART, SECOND, THIRD, TRIED_AGAIN, Files, accepted
from tests.unit.access.reloading_scene import KEPT, READ_AGAIN, events, put

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from micromegas_jupyter.access.config import ReloadingValidator
    from micromegas_jupyter.config.access import AccessSettings

# A module's own fixtures win over those of its folder, which has another `validator`.
files, make, validator = scene.files, scene.make, scene.validator


class TestTriedAgain:
    """What keeps a version from being used for a passing reason."""

    @pytest.mark.parametrize("error", [Unavailable("busy"), ResourcesExhausted("full"), RuntimeError("secret")])
    def test_it_is_tried_at_each_look_and_told_once(self, make, files, caplog, error) -> None:
        problems: list[Exception] = []

        def check(_settings: AccessSettings) -> None:
            if problems:
                raise problems[0]

        validator = make(check)
        problems.append(error)
        put(files.keys, files.key_text(FIRST, SECOND, THIRD, revoked=FIRST))
        for _ in range(3):
            validator.look_for_changes()
        during = accepted(validator)
        problems.clear()

        validator.look_for_changes()

        assert during == [False, True, False, True]
        assert accepted(validator) == [False, True, True, True]
        assert [event["kind"] for event in events(caplog, TRIED_AGAIN)] == [type(error).__name__]
        assert len(events(caplog, READ_AGAIN)) == 1
        assert "secret" not in str([vars(record) for record in caplog.records])

    @pytest.mark.parametrize("error", [Unavailable("busy"), RuntimeError("secret")])
    def test_whoever_asked_for_it_is_told_that_it_could_not_be_done_now(self, make, error) -> None:
        problems: list[Exception] = []

        def check(_settings: AccessSettings) -> None:
            if problems:
                raise problems[0]

        validator = make(check)
        problems.append(error)

        with pytest.raises(Unavailable) as caught:
            validator.reload()
        assert "secret" not in str(caught.value)

    def test_a_problem_while_one_file_is_left_out_is_tried_again_too(self, make, files, caplog) -> None:
        problems: list[Exception] = []

        def check(_settings: AccessSettings) -> None:
            if problems:
                raise problems[0]

        validator = make(check)
        problems.append(Unavailable("busy"))
        put(files.config, "{")
        put(files.keys, files.key_text(FIRST, SECOND, THIRD))
        validator.look_for_changes()
        problems.clear()

        validator.look_for_changes()

        assert accepted(validator) == [True, True, True, True]
        assert (len(events(caplog, TRIED_AGAIN)), len(events(caplog, IN_PART))) == (1, 1)

    def test_a_file_of_an_issuer_that_comes_later_brings_the_version_in_force(self, validator, files, caplog) -> None:
        files.jwks.rename(files.jwks.with_name("elsewhere"))
        put(files.config, files.config_text(denied=["api_key|alpha"]))
        for _ in range(3):
            validator.look_for_changes()
        refused = events(caplog, KEPT)
        files.jwks.with_name("elsewhere").rename(files.jwks)

        validator.look_for_changes()

        assert [event["setting"] for event in refused] == ["MICROMEGAS_ACCESS_CONFIG.oidc.issuers[0].jwks_file"]
        assert str(files.jwks.parent) not in str(refused[0]["problem"])
        assert len(events(caplog, READ_AGAIN)) == 1


class TestAlone:
    """Nobody waits for another reload without an end."""

    @pytest.fixture
    def busy(self, make: Callable[..., ReloadingValidator], files: Files) -> Iterator[ReloadingValidator]:
        begun, go_on, is_first = threading.Event(), threading.Event(), [True]

        def check(_settings: AccessSettings) -> None:
            if not is_first:
                begun.set()
                assert go_on.wait(30)

        validator = make(check)
        is_first.clear()
        other = threading.Thread(target=validator.reload)
        other.start()
        assert begun.wait(30)
        yield validator
        go_on.set()
        other.join(60)

    def test_another_reload_ends_as_unavailable(self, busy, monkeypatch) -> None:
        monkeypatch.setattr(reloading, "RELOAD_WAIT_SECONDS", 0.01)

        for use in (busy.reload, busy.clear_caches):
            with pytest.raises(Unavailable, match="does not finish"):
                use()

    def test_a_look_does_not_wait(self, busy, files, caplog) -> None:
        put(files.keys, "[")

        busy.look_for_changes()

        assert events(caplog, KEPT) == events(caplog, IN_PART) == []
