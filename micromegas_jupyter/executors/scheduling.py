"""Which long statements run now and which are stopped; which one is ended when memory runs out. Pure decisions.

A statement is long after `LONG_SECONDS` of running. Long ones share a few places: each runs for a slice, then it is the
turn of the caller who has waited longest, and of that caller's statement that has waited longest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

_Key = TypeVar("_Key", bound="Hashable")

LONG_SECONDS: Final = 1.0
SLICE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LongStatement(Generic[_Key]):
    """A long statement that has work to do.

    Attributes:
        key: What identifies it.
        caller: Whose it is.
        is_stopped: Whether it is stopped now.
        turn_at: When its turn began, or ended when it is stopped; monotonic seconds.
    """

    key: _Key
    caller: Hashable
    is_stopped: bool
    turn_at: float


def choose_running(statements: Sequence[LongStatement[_Key]], *, places: int, now: float) -> set[_Key]:
    """Return the keys of the statements that run from now on, at most `places`.

    Args:
        statements: All long statements that have work to do.
        places: How many may run.
        now: Monotonic seconds.
    """
    if len(statements) <= places:
        return {one.key for one in statements}
    running = [one for one in statements if not one.is_stopped]
    # Whoever is in the middle of a slice keeps it, the longest-running first where there are too many.
    kept = sorted((one for one in running if now - one.turn_at < SLICE_SECONDS), key=lambda one: one.turn_at)[:places]
    chosen = {one.key for one in kept}
    served = {one.caller for one in kept}
    waiting = [one for one in statements if one.key not in chosen]
    last_turns = _last_turns(statements, now)
    while len(chosen) < places:
        # A caller without a place comes first; then the caller, and the statement, whose turn was longest ago.
        following = min(waiting, key=lambda one: (one.caller in served, last_turns[one.caller], _last_turn(one, now)))
        waiting.remove(following)
        chosen.add(following.key)
        served.add(following.caller)
        last_turns[following.caller] = now
    return chosen


def _last_turn(statement: LongStatement[_Key], now: float) -> float:
    """Return when a statement last ran; one that runs now had its turn just now."""
    return statement.turn_at if statement.is_stopped else now


def _last_turns(statements: Iterable[LongStatement[_Key]], now: float) -> dict[Hashable, float]:
    """Return when each caller last had a turn."""
    found: dict[Hashable, float] = {}
    for one in statements:
        last = _last_turn(one, now)
        found[one.caller] = max(last, found.get(one.caller, last))
    return found


def choose_largest(private_bytes: Mapping[_Key, int], *, limit_bytes: int) -> _Key | None:
    """Return whose statement is to be ended for memory; None while all together are within the limit."""
    if sum(private_bytes.values()) <= limit_bytes:
        return None
    return max(private_bytes, key=lambda key: private_bytes[key])
