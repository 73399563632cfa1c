"""The servers that a benchmark compares: this one, another version of it, and pyarrow.flight over DataFusion."""

import random
import statistics
import subprocess
import sys
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import psutil
from pyarrow import flight

from micromegas_jupyter.flightsql.commands import statement_ticket
from tests.integration.executors.server_process import ROOT, ServerProcess

OURS, PREVIOUS, BARE = "this version", "previous version", "bare"
BATCH_ROWS = {"small": 8192, "large": 65_536}
_CALL_SECONDS = 600


@dataclass(frozen=True)
class Server:
    """An address, and the processor seconds so far of the server's first process and of all others."""

    uri: str
    front: psutil.Process
    total: object

    def cpu(self):
        front = sum(self.front.cpu_times()[:2])
        return front, max(0.0, self.total() - front)


@contextmanager
def running(folder, workplace, *, previous=None, batches="small", options=()):
    """Run all of them over a folder of Parquet tables; `previous` is the interpreter of another version."""
    with ExitStack() as stack:
        found = {}
        for name, python in ((OURS, None), (PREVIOUS, previous)):
            if name == OURS or python:
                process = ServerProcess(
                    workplace / name.replace(" ", "-"), lake=folder, keys={}, python=python,
                    options=("--no-telemetry", *options),
                )  # fmt: skip
                stack.enter_context(process)
                found[name] = Server(process.uri, process.front, process.cpu_seconds)
        command = [sys.executable, "-m", "tests.benchmarks.bare", str(folder), str(BATCH_ROWS[batches])]
        child = stack.enter_context(
            subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        stack.callback(child.terminate)
        bare = psutil.Process(child.pid)
        found[BARE] = Server(child.stdout.readline().strip(), bare, lambda: sum(bare.cpu_times()[:2]))
        yield found


@contextmanager
def connected(uri):
    """Give a function that runs a statement and returns its rows; each has a connection of its own."""
    options = flight.FlightCallOptions(timeout=_CALL_SECONDS)
    # Without this all clients of a process share one connection.
    with flight.connect(uri, generic_options=[("grpc.use_local_subchannel_pool", 1)]) as client:
        yield lambda sql: sum(
            chunk.data.num_rows for chunk in client.do_get(flight.Ticket(statement_ticket(sql)), options)
        )


class Costs:
    """What each server cost in several rounds, in turns: milliseconds of the front, of the others, and a rate."""

    def __init__(self, servers):
        self._servers = servers
        self._rounds = defaultdict(list)

    def in_turns(self, rounds):
        for _ in range(rounds):
            yield from random.sample(list(self._servers), len(self._servers))

    @contextmanager
    def measured(self, name):
        """Add one round; the block appends (statements, seconds) to what it is given."""
        result, server = [], self._servers[name]
        before = server.cpu()
        yield result
        count, seconds = result
        front, others = (1000 * (after - first) / count for after, first in zip(server.cpu(), before, strict=True))
        self._rounds[name].append((front, others, count / seconds))

    def lines(self):
        medians = {name: tuple(map(statistics.median, zip(*of, strict=True))) for name, of in self._rounds.items()}
        for name, (front, others, rate) in medians.items():
            yield (
                f"  {name}: {front:.2f} + {others:.2f} = {front + others:.2f} ms of CPU, {rate:.4g}/s"
                + "".join(self._ratio(medians[name], other, medians.get(other)) for other in (BARE, PREVIOUS))
                * (name == OURS)
            )

    @staticmethod
    def _ratio(own, name, other):
        if other is None:
            return ""
        cost = sum(other[:2])
        return f"; to {name} {sum(own[:2]) / cost:.2f} (front {own[0] / cost:.2f}), rate {own[2] / other[2]:.2f}"
