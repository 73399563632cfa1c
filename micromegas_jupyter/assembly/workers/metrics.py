"""The workers' metrics as one set: each worker's samples with a label that says whose they are."""

import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from micromegas_jupyter.assembly.workers.counts import WorkerCounts
from micromegas_jupyter.assembly.workers.supervisor import Supervisor

LABEL: Final = "worker"
_SUPERVISOR: Final = "supervisor"
_ASK_SECONDS: Final = 3.0
_LOG: Final = logging.getLogger("micromegas_jupyter.supervisor")


class WorkerMetrics(Collector):
    """Collects from all workers when asked; of one that does not answer in time, its counts so far are shown.

    `_counts_lock` covers the counts of each worker's processes.

    Attributes:
        registry: What an endpoint shows.

    Args:
        supervisor: Asks the workers.
        own: What this process counts itself; its samples bear the label's value `supervisor`.
    """

    def __init__(self, supervisor: Supervisor, own: Sequence[CollectorRegistry]) -> None:
        self._supervisor = supervisor
        self._own = tuple(own)
        self._counts_lock = threading.Lock()
        self._counts: dict[int, WorkerCounts] = {}
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """Return nothing: what the workers count is known when they answer."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Return the workers' metrics, and how the workers are."""
        merged: dict[str, Metric] = {}
        for number, answer in self._supervisor.ask_all("metrics", timeout_seconds=_ASK_SECONDS):
            match answer:
                case {"text": str(text), "pid": int(pid)}:
                    _merge(merged, self._note(number, pid, text), str(number))
                case _:
                    _LOG.warning("A worker's metrics could not be had.", extra={"worker": number})
        for number, pid, text in self._supervisor.take_last_counts():
            self._note(number, pid, text)
        with self._counts_lock:
            for number, counts in sorted(self._counts.items()):
                _merge(merged, counts.families(), str(number))
        for registry in self._own:
            _merge(merged, registry.collect(), _SUPERVISOR)
        yield from merged.values()
        yield from self._supervision()

    def _note(self, number: int, pid: int, text: str) -> list[Metric]:
        with self._counts_lock:
            return self._counts.setdefault(number, WorkerCounts()).note(pid, text_string_to_metric_families(text))

    def _supervision(self) -> Iterator[Metric]:
        state = self._supervisor.state()
        yield GaugeMetricFamily("micromegas_workers", "Worker processes that there should be.", state.workers)
        yield GaugeMetricFamily("micromegas_workers_ready", "Worker processes that answer calls.", state.ready)
        yield GaugeMetricFamily("micromegas_workers_spare", "Worker processes that wait to take over.", state.spares)
        ended = CounterMetricFamily(
            "micromegas_workers_replaced", "Worker processes that were replaced, by reason.", labels=("reason",)
        )
        for reason, count in sorted(self._supervisor.replaced.items()):
            ended.add_metric((reason,), count)
        yield ended


def _merge(merged: dict[str, Metric], families: Iterable[Metric], worker: str) -> None:
    for family in families:
        into = merged.setdefault(family.name, Metric(family.name, family.documentation, family.type))
        into.samples += [sample._replace(labels={**sample.labels, LABEL: worker}) for sample in family.samples]
