"""How much is tried: a little in every run, the stated sizes in the long one; and what the worst case cost."""

import logging
import random
import resource
from contextlib import suppress
from time import thread_time

import pytest

SLOWEST_ALLOWED_SECONDS = 1.0
GROWTH_ALLOWED_KIB = 256 * 1024


class Fuzzing:
    """One run: its randomness, and bounds on the time and memory of what is tried."""

    def __init__(self, seed, tries):
        self.random, self.tries = random.Random(seed), tries
        self.slowest_seconds = 0.0
        self._start_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def attempt(self, action, *arguments):
        """Run one case and remember how long it kept the processor, whatever else the machine does meanwhile."""
        started = thread_time()
        try:
            return action(*arguments)
        finally:
            self.slowest_seconds = max(self.slowest_seconds, thread_time() - started)

    def try_all(self, make, read, *errors):
        """Make a damaged case and read it, again and again; return how many were not refused by one of `errors`."""
        count = 0
        for _ in range(self.tries):
            case = make(self.random)
            with suppress(*errors):
                self.attempt(read, case)
                count += 1
        return count

    def check_bounds(self):
        """Fail when a case took long or memory grew."""
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - self._start_kib
        print(f"{self.tries} cases, slowest {self.slowest_seconds * 1000:.1f} ms, memory grew {grown // 1024} MiB")
        assert self.slowest_seconds < SLOWEST_ALLOWED_SECONDS
        assert grown < GROWTH_ALLOWED_KIB


@pytest.fixture
def fuzzing(request, monkeypatch):
    """The run's seed is fixed in short runs, so that a failure comes again, and new in long ones."""
    # Lines are made and then dropped: pytest would keep each of them, and that memory would count.
    for name in ("micromegas_jupyter.access", "micromegas_jupyter.audit.access"):
        monkeypatch.setattr(logging.getLogger(name), "filters", [lambda _record: False])
    short, long = request.param
    is_long = request.config.getoption("--long")
    seed = random.SystemRandom().getrandbits(64) if is_long else 20261124
    print(f"seed {seed}")
    run = Fuzzing(seed, long if is_long else short)
    yield run
    run.check_bounds()


def sizes(*, short, long):
    """Say how many cases a test tries."""
    return pytest.mark.parametrize("fuzzing", [(short, long)], indirect=True, ids=["cases"])
