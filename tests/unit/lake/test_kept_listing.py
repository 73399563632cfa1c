"""A listing is kept for a second, and looked at afresh after it."""

from micromegas_jupyter.lake import CachedListing
from tests.fakes.clock import FakeClock


class Source:
    """Counts how often it is asked."""

    def __init__(self):
        self.count = 0

    def snapshot(self):
        self.count += 1
        return (self.count,)


def test_within_a_second_the_folder_is_looked_at_once():
    source, clock = Source(), FakeClock()
    listing = CachedListing(source, clock=clock)

    at_once = [listing.snapshot() for _ in range(5)]
    clock.advance(1.0)

    assert at_once == [(1,)] * 5
    assert listing.snapshot() == (2,)
