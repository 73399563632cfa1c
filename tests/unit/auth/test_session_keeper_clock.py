"""A machine whose clock is an hour ahead or behind neither renews in a loop nor uses a token that has ended."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from tests.fakes.clock import FakeClock
from tests.fakes.scripted_provider import ScriptedProvider
from tests.fakes.stored_sign_in import StoredSignIn

if TYPE_CHECKING:
    from pathlib import Path

    from micromegas_jupyter.auth import OidcAuthProvider

BEARERS = ["id_token", "access_token"]


class TwoClocks:
    """The provider's clock and this machine's, which is ahead by so much."""

    def __init__(self, *, machine_ahead_seconds: float) -> None:
        self.idp = FakeClock()
        self.machine = FakeClock(self.idp.now() + timedelta(seconds=machine_ahead_seconds))

    def advance(self, seconds: float) -> None:
        self.idp.advance(seconds)
        self.machine.advance(seconds)


@pytest.fixture(params=[3600, -3600, 1800, -1800], ids=lambda seconds: f"{seconds:+} s")
def clocks(request: pytest.FixtureRequest) -> TwoClocks:
    return TwoClocks(machine_ahead_seconds=request.param)


@pytest.fixture
def idp(clocks: TwoClocks) -> ScriptedProvider:
    return ScriptedProvider(clock=clocks.idp)


@pytest.fixture
def sign_in(idp: ScriptedProvider, clocks: TwoClocks, tmp_path: Path) -> StoredSignIn:
    return StoredSignIn(idp, tmp_path / "tokens.json", clock=clocks.machine, idp_clock=clocks.idp)


@pytest.fixture
def programs(sign_in: StoredSignIn, idp: ScriptedProvider) -> list[OidcAuthProvider]:
    """Programs that have refreshed once, so that each knows how far the clock is off."""
    opened = []
    for _ in range(3):
        opened.append(sign_in.opened(ends_in_seconds=-100_000))
        opened[-1].get_token()
    idp.requests.clear()
    return opened


@pytest.mark.parametrize("bearer", BEARERS)
def test_a_fresh_token_is_not_refreshed_in_a_loop(
    bearer: str, programs: list[OidcAuthProvider], idp: ScriptedProvider
) -> None:
    found = {program.get_token(bearer=bearer) for program in programs for _ in range(10)}  # type: ignore[arg-type]

    assert len(found) == 1
    assert idp.requests == []


@pytest.mark.parametrize("bearer", BEARERS)
def test_each_expiry_costs_one_refresh_over_all_programs(
    bearer: str, programs: list[OidcAuthProvider], idp: ScriptedProvider, clocks: TwoClocks
) -> None:
    for _ in range(5):
        clocks.advance(3310)
        for program in programs:
            program.get_token(bearer=bearer)  # type: ignore[arg-type]

    assert len(idp.refreshes()) == 5


def test_a_refresh_is_due_by_the_clock_of_the_machine(programs: list[OidcAuthProvider], clocks: TwoClocks) -> None:
    due = programs[0].renewal_due_at()

    assert due is not None
    assert (due - clocks.machine.now()).total_seconds() == pytest.approx(3302, abs=3)


def test_an_unknown_difference_is_found_out_by_one_refresh_at_most(
    sign_in: StoredSignIn, idp: ScriptedProvider
) -> None:
    provider = sign_in.opened()

    for _ in range(20):
        provider.get_token()

    assert len(idp.refreshes()) <= 1


def test_a_server_that_refuses_an_ended_token_leads_to_a_valid_one(
    sign_in: StoredSignIn, idp: ScriptedProvider, clocks: TwoClocks
) -> None:
    provider = sign_in.opened(ends_in_seconds=-10)
    provider.invalidate(str(sign_in.token()["id_token"]))

    assert provider.get_token() == sign_in.token()["id_token"]
    expected = (clocks.idp.now() - clocks.machine.now()).total_seconds()
    assert provider.clock_offset_seconds == pytest.approx(expected, abs=1)
    assert len(idp.refreshes()) == 1
