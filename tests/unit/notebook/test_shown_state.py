from dataclasses import replace

from micromegas_jupyter.notebook.login.pending import ShownState
from micromegas_jupyter.notebook.login.state import IdentityState, IdentityStatus
from tests.fakes.notebook_world import SETTINGS

SIGNED_OUT = IdentityState(status=IdentityStatus.SIGNED_OUT, server="lake.example.com")
SIGNED_IN = replace(SIGNED_OUT, status=IdentityStatus.SIGNED_IN)
OTHER = replace(SETTINGS, profile="other")


def test_nothing_is_shown_before_anything_was_asked() -> None:
    assert ShownState().state is None


def test_every_listener_is_told_what_is_shown() -> None:
    shown = ShownState()
    first: list[IdentityState] = []
    second: list[IdentityState] = []
    shown.subscribe(first.append)
    shown.subscribe(second.append)

    shown.show(SETTINGS, SIGNED_OUT)
    shown.change(SETTINGS, lambda _: SIGNED_IN)

    assert first == second == [SIGNED_OUT, SIGNED_IN]
    assert shown.state == SIGNED_IN


def test_a_change_of_other_settings_is_not_shown() -> None:
    shown = ShownState()
    told: list[IdentityState] = []
    shown.subscribe(told.append)
    shown.change(SETTINGS, lambda _: SIGNED_IN)
    shown.show(SETTINGS, SIGNED_OUT)

    shown.change(OTHER, lambda _: SIGNED_IN)

    assert told == [SIGNED_OUT]


def test_a_change_that_changes_nothing_is_not_told() -> None:
    shown = ShownState()
    told: list[IdentityState] = []
    shown.show(SETTINGS, SIGNED_OUT)
    shown.subscribe(told.append)

    shown.change(SETTINGS, replace)

    assert told == []
