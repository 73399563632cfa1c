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
    """A sign-in that this machine has renewed once, so that it knows how far its clock is off."""
    made = StoredSignIn(idp, tmp_path / "tokens.json", clock=clocks.machine, idp_clock=clocks.idp)
    made.write(ends_in_seconds=-100_000)
    made.open().get_token()
    idp.requests.clear()
    return made


@pytest.mark.parametrize("bearer", BEARERS)
def test_a_fresh_token_is_not_renewed_in_a_loop(bearer: str, sign_in: StoredSignIn, idp: ScriptedProvider) -> None:
    programs = [sign_in.open() for _ in range(3)]

    found = {program.get_token(bearer=bearer) for program in programs for _ in range(10)}  # type: ignore[arg-type]

    assert len(found) == 1
    assert idp.requests == []


@pytest.mark.parametrize("bearer", BEARERS)
def test_each_expiry_costs_one_renewal_over_all_programs(
    bearer: str, sign_in: StoredSignIn, idp: ScriptedProvider, clocks: TwoClocks
) -> None:
    programs = [sign_in.open() for _ in range(3)]

    for _ in range(5):
        clocks.advance(3310)
        for program in programs:
            program.get_token(bearer=bearer)  # type: ignore[arg-type]

    assert len(idp.refreshes()) == 5


def test_a_program_that_only_reads_the_file_never_uses_a_token_that_has_ended(
    sign_in: StoredSignIn, clocks: TwoClocks
) -> None:
    reader = sign_in.open()
    first = reader.get_token()
    clocks.advance(3299)
    assert reader.get_token() == first
    clocks.advance(302)

    assert reader.get_token() != first


def test_the_difference_is_stored_with_the_sign_in(sign_in: StoredSignIn, clocks: TwoClocks) -> None:
    expected = (clocks.idp.now() - clocks.machine.now()).total_seconds()

    reader = sign_in.open()
    reader.identity()

    assert reader.clock_offset_seconds == pytest.approx(expected, abs=2)


def test_a_renewal_is_due_by_the_clock_of_the_machine(sign_in: StoredSignIn, clocks: TwoClocks) -> None:
    due = sign_in.open().renewal_due_at()

    assert due is not None
    assert (due - clocks.machine.now()).total_seconds() == pytest.approx(3302, abs=3)


def test_an_unknown_difference_is_found_out_by_one_renewal_at_most(
    idp: ScriptedProvider, clocks: TwoClocks, tmp_path: Path
) -> None:
    sign_in = StoredSignIn(idp, tmp_path / "new.json", clock=clocks.machine, idp_clock=clocks.idp)
    provider = sign_in.opened()

    for _ in range(20):
        provider.get_token()

    assert len(idp.refreshes()) <= 1
