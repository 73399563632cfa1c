"""What all processes that had one worker's number have counted, so that no counter goes back when one is replaced.

Which samples there are and when they are read is `metrics`' business.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client.core import Metric
from prometheus_client.samples import Sample

COUNTED_TYPES: Final = frozenset({"counter", "histogram", "summary"})
#: A process that has been replaced may tell its last counts a little later; then it is over.
_MOST_PROCESSES: Final = 8

_Key = tuple[str, tuple[tuple[str, str], ...]]
_Counts = dict[_Key, float]


class WorkerCounts:
    """The counts of one worker's processes. Covered by its owner's lock."""

    def __init__(self) -> None:
        self._older: _Counts = {}
        self._processes: OrderedDict[int, _Counts] = OrderedDict()
        self._families: dict[str, tuple[str, str, str]] = {}

    def note(self, pid: int, families: Iterable[Metric]) -> list[Metric]:
        """Take what a process has counted so far; return the families that are no counts."""
        others: list[Metric] = []
        counts = self._processes.setdefault(pid, {})
        for family in families:
            if family.type not in COUNTED_TYPES:
                others.append(family)
                continue
            for sample in family.samples:
                self._families[sample.name] = (family.name, family.documentation, family.type)
                counts[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
        while len(self._processes) > _MOST_PROCESSES:
            _, oldest = self._processes.popitem(last=False)
            _add(self._older, oldest)
        return others

    def families(self) -> Iterator[Metric]:
        """Return the sums over all processes."""
        sums = dict(self._older)
        for counts in self._processes.values():
            _add(sums, counts)
        found: dict[str, Metric] = {}
        for (name, labels), value in sums.items():
            family, documentation, kind = self._families[name]
            metric = found.setdefault(family, Metric(family, documentation, kind))
            metric.samples.append(Sample(name, dict(labels), value))
        yield from found.values()


def _add(sums: _Counts, counts: _Counts) -> None:
    for key, value in counts.items():
        sums[key] = sums.get(key, 0.0) + value
