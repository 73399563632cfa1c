"""How many calls one caller has open at once, whatever they do.

How many of them may query is `admission`'s business, how many may send rows that of `ingest`.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from micromegas_jupyter.errors import ResourcesExhausted
from micromegas_jupyter.executors.limits import CallerKey


class OpenCalls:
    """Counts the open calls of each caller. Belongs to one event loop.

    Args:
        per_caller: How many one caller may have.
    """

    def __init__(self, per_caller: int) -> None:
        self._per_caller = per_caller
        self._open: Counter[CallerKey] = Counter()

    @contextmanager
    def one_of(self, caller: CallerKey) -> Iterator[None]:
        """Have the body be a call of this caller.

        Raises:
            ResourcesExhausted: They have as many as they may.
        """
        if self._open[caller] >= self._per_caller:
            raise ResourcesExhausted(
                f"You have {self._per_caller} calls open, as many as one caller may.",
                remedy="Wait for some to end, read results to their end, or cancel them.",
                limit="calls",
            )
        self._open[caller] += 1
        try:
            yield
        finally:
            self._open[caller] -= 1
            if not self._open[caller]:
                del self._open[caller]
