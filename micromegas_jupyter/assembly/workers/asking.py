"""Asks several workers the same question at once."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from micromegas_jupyter.assembly.workers.peer import Facts
from micromegas_jupyter.assembly.workers.process import WorkerProcess
from micromegas_jupyter.errors import MicromegasError


def ask_workers(
    workers: Sequence[WorkerProcess], what: str, facts: Mapping[str, object], *, timeout_seconds: float
) -> list[tuple[int, Facts | MicromegasError]]:
    """Return each worker's answer, or what it raised, by its number."""
    if not workers:
        return []

    def ask(worker: WorkerProcess) -> tuple[int, Facts | MicromegasError]:
        try:
            return worker.order.number, worker.ask(what, timeout_seconds=timeout_seconds, **facts)
        except MicromegasError as error:
            return worker.order.number, error

    with ThreadPoolExecutor(len(workers), thread_name_prefix="ask-workers") as threads:
        return list(threads.map(ask, workers))
