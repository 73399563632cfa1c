"""A program that runs one query and tells what it cost; one process for each measurement, so that none helps the next.

It reads a `Task` as JSON from standard input and writes a `Cost` as JSON to standard output.
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from micromegas_jupyter.core.system import SYSTEM_CLOCK


@dataclass(frozen=True, kw_only=True)
class Task:
    """What to run."""

    way: str
    sql: str
    warm_up: str
    uri: str = ""
    key: str = ""
    kept_at: str = ""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a query took."""

    wall_seconds: float
    cpu_seconds: float
    peak_mib: float
    rows: int


def ours(task, *, preserve_dictionary=False, **arguments):
    from micromegas_jupyter import FlightSQLClient
    from micromegas_jupyter.auth import StaticTokenAuthProvider

    provider = StaticTokenAuthProvider(task.key)
    client = FlightSQLClient(task.uri, preserve_dictionary=preserve_dictionary, auth_provider=provider)
    return lambda sql: client.query(sql, **arguments)


def upstream(task, *, preserve_dictionary=False):
    from micromegas.auth import StaticTokenAuthProvider
    from micromegas.flightsql.client import FlightSQLClient

    provider = StaticTokenAuthProvider(task.key)
    client = FlightSQLClient(task.uri, auth_provider=provider, preserve_dictionary=preserve_dictionary)
    return client.query


def new_shell():
    from IPython.core.interactiveshell import InteractiveShell

    return InteractiveShell.instance()


def magic(task, line="frame <<"):
    shell = new_shell()
    shell.run_line_magic("load_ext", "micromegas_jupyter")

    def run(sql):
        shell.run_cell_magic("sql", line, sql)
        return shell.user_ns.pop("frame")

    return run


def magic_reader(task):
    read = magic(task, "frame << --format reader")
    return lambda sql: sum(batch.num_rows for batch in read(sql))


WAYS = {
    "ours": ours,
    "ours, ArrowDtype": lambda task: ours(task, dtype_backend="pyarrow"),
    "ours, dictionaries kept": lambda task: ours(task, preserve_dictionary=True),
    "ours, dictionaries kept, ArrowDtype": lambda task: ours(task, preserve_dictionary=True, dtype_backend="pyarrow"),
    "upstream": upstream,
    "upstream, dictionaries kept": lambda task: upstream(task, preserve_dictionary=True),
    "%%sql": magic,
    "%%sql --dtype pyarrow": lambda task: magic(task, "frame << --dtype pyarrow"),
    "%%sql --format reader": magic_reader,
}


def memory_mib(name):
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


def measure(run, task):
    # From here on the peak is a new one (proc_pid_clear_refs(5)).
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = memory_mib("VmRSS")
    wall, cpu = SYSTEM_CLOCK.monotonic(), cpu_seconds()
    result = run(task.sql)
    cost = Cost(
        wall_seconds=SYSTEM_CLOCK.monotonic() - wall,
        cpu_seconds=cpu_seconds() - cpu,
        peak_mib=memory_mib("VmHWM") - before,
        rows=result if isinstance(result, int) else len(result),
    )
    if task.kept_at:
        result.to_pickle(task.kept_at)
    return cost


def cpu_seconds():
    """Return what all threads of this process have used, in user mode and for it in the kernel."""
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return spent.ru_utime + spent.ru_stime


def main():
    task = Task(**json.load(sys.stdin))
    answer = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        run = WAYS[task.way](task)
        run(task.warm_up)
        cost = measure(run, task)
    answer.write(json.dumps(asdict(cost)))
    answer.flush()


if __name__ == "__main__":
    main()
