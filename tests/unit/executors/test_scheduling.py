"""Long statements take turns: nobody starves, and no caller gets more by asking for more."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest

from micromegas_jupyter.executors.scheduling import LongStatement, choose_largest, choose_running


def _simulate(
    owners: dict[str, str], *, slots: int, seconds: int, arrivals: dict[str, int] | None = None
) -> list[set[str]]:
    """Return what runs at each tenth of a second, as the pool would have it.

    Args:
        owners: Each statement's caller.
        slots: How many run at once.
        seconds: How long.
        arrivals: When statements come, in seconds; 0 when left out.
    """
    arrivals = arrivals or {}
    statements: dict[str, LongStatement] = {}
    seen: list[set[str]] = []
    for tick in range(seconds * 10):
        now = tick / 10
        for key, caller in owners.items():
            if key not in statements and arrivals.get(key, 0) <= now:
                statements[key] = LongStatement(key=key, caller=caller, is_stopped=False, slice_at=now)
        chosen = choose_running(list(statements.values()), slots=slots, now=now)
        for key, one in statements.items():
            if one.is_stopped == (key in chosen):
                statements[key] = replace(one, is_stopped=key not in chosen, slice_at=now)
        seen.append({str(key) for key in chosen})
    return seen


def _shares(seen: list[set[str]]) -> Counter[str]:
    return Counter(key for chosen in seen for key in chosen)


def test_all_run_while_there_are_slots() -> None:
    seen = _simulate({"a": "ann", "b": "bob"}, slots=2, seconds=5)

    assert all(chosen == {"a", "b"} for chosen in seen)


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_no_more_run_than_there_are_slots_and_every_place_is_used(slots: int) -> None:
    seen = _simulate({str(number): f"caller {number % 2}" for number in range(5)}, slots=slots, seconds=20)

    assert {len(chosen) for chosen in seen} == {slots}


def test_a_statement_of_an_hour_does_not_starve_another_ones() -> None:
    seen = _simulate({"hour": "ann", "second": "bob"}, slots=1, seconds=60, arrivals={"second": 30})

    first_turn = next(tick for tick, chosen in enumerate(seen) if chosen == {"second"})
    assert first_turn - 300 <= 10  # within a slice of its arrival
    shares = _shares(seen[300:])
    assert abs(shares["hour"] - shares["second"]) <= 10


def test_callers_share_alike_however_many_statements_they_have() -> None:
    owners = {f"ann {number}": "ann" for number in range(9)} | {"bob": "bob"}

    shares = _shares(_simulate(owners, slots=1, seconds=100))

    assert 450 <= shares["bob"] <= 550
    anns = [share for key, share in shares.items() if key != "bob"]
    assert len(anns) == 9
    assert max(anns) - min(anns) <= 10


def test_two_slots_go_to_two_callers() -> None:
    owners = {"ann 1": "ann", "ann 2": "ann", "ann 3": "ann", "bob": "bob"}

    seen = _simulate(owners, slots=2, seconds=30)

    assert all("bob" in chosen for chosen in seen[10:])


def test_a_slice_lasts_a_second() -> None:
    seen = _simulate({"a": "ann", "b": "bob"}, slots=1, seconds=20)

    changes = [tick for tick in range(1, len(seen)) if seen[tick] != seen[tick - 1]]
    assert {later - earlier for earlier, later in pairwise(changes)} == {10}


def test_the_largest_is_ended_once_all_together_are_too_large() -> None:
    assert choose_largest({"a": 10, "b": 30, "c": 20}, limit_bytes=60) is None
    assert choose_largest({"a": 10, "b": 30, "c": 20}, limit_bytes=59) == "b"
    assert choose_largest({}, limit_bytes=1) is None
