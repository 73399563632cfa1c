"""A time of day that runs evenly."""

from datetime import timedelta

from micromegas_jupyter.auth.steady_clock import SteadyClock
from tests.fakes.clock import FakeClock


def test_it_begins_with_the_machines_time_and_runs_with_its_monotonic_hand():
    clock = FakeClock()
    steady = SteadyClock(clock)

    clock.advance(90)

    assert steady.now() == clock.now()
    assert steady.monotonic() == clock.monotonic()


def test_setting_the_machines_clock_does_not_move_it():
    clock = FakeClock()
    steady, began_at = SteadyClock(clock), clock.now()

    clock.sleep_through(3600)

    assert steady.now() == began_at


def test_a_moment_is_told_by_the_machines_clock_and_stays_while_that_is_not_set():
    clock = FakeClock()
    steady = SteadyClock(clock)
    moment = steady.now() + timedelta(minutes=5)

    clock.sleep_through(1)
    assert steady.on_the_machine(moment) == moment
    clock.sleep_through(3600)

    assert steady.on_the_machine(moment) == moment + timedelta(seconds=3601)
