"""A caller whose queries end workers again and again has to wait, for a while."""

from __future__ import annotations

from micromegas_jupyter.assembly.workers.restraint import PAUSE_SECONDS, WINDOW_SECONDS, Restraint

ALICE, BOB = ("https://id.example", "alice"), ("https://id.example", "bob")


def test_the_third_in_ten_minutes_is_one_too_many_and_others_do_not_count() -> None:
    restraint = Restraint(3)

    assert [restraint.note(ALICE, now) for now in (0.0, 1.0)] == [False, False]
    assert restraint.note(BOB, 2.0) is False
    assert restraint.note(ALICE, 3.0) is True

    assert restraint.waiting(3.0) == {ALICE: PAUSE_SECONDS}


def test_three_over_a_longer_time_are_not_too_many() -> None:
    restraint = Restraint(3)

    assert [restraint.note(ALICE, now) for now in (0.0, 1.0, WINDOW_SECONDS + 0.5)] == [False, False, False]


def test_the_wait_ends() -> None:
    restraint = Restraint(1)
    restraint.note(ALICE, 0.0)

    assert restraint.waiting(PAUSE_SECONDS - 1) == {ALICE: 1.0}
    assert restraint.waiting(PAUSE_SECONDS) == {}


def test_no_number_is_too_many_when_it_is_turned_off() -> None:
    restraint = Restraint(0)

    assert not any(restraint.note(ALICE, 0.0) for _ in range(10))


def test_only_so_many_callers_are_kept() -> None:
    restraint = Restraint(1)

    for number in range(2000):
        restraint.note(("issuer", str(number)), 0.0)

    assert len(restraint.waiting(0.0)) == 1024
    assert ("issuer", "1999") in restraint.waiting(0.0)
