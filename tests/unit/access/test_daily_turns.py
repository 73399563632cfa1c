"""Tests of `access.daily_turns`."""

from micromegas_jupyter.access.rate_limit import ONE_DAY_SECONDS, DailyTurns


def test_a_name_has_one_turn_a_day_and_learns_when_the_next_one_is(clock):
    turns = DailyTurns(clock)

    first = turns.take(b"a")
    clock.advance(ONE_DAY_SECONDS - 1)
    second = turns.take(b"a")
    clock.advance(1)
    third = turns.take(b"a")

    due_at = 1000.0 + ONE_DAY_SECONDS
    assert (first, second, third) == ((True, due_at), (False, due_at), (True, due_at + ONE_DAY_SECONDS))


def test_names_do_not_share_turns(clock):
    turns = DailyTurns(clock)

    assert [turns.take(name)[0] for name in (b"a", b"b", b"a")] == [True, True, False]


def test_the_memory_is_bounded_and_forgets_the_oldest_turn(clock):
    turns = DailyTurns(clock, max_remembered=2)
    for name in (b"a", b"b", b"c"):
        turns.take(name)

    assert [turns.take(name)[0] for name in (b"c", b"b", b"a")] == [False, False, True]
