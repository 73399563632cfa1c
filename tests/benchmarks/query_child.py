"""A program that runs one query and tells what it cost; one process for each measurement, so that none helps the next.

It reads what to run as JSON from standard input and writes the cost as JSON to standard output.
"""

import contextlib
import json
import resource
import sys
from functools import partial
from pathlib import Path

from micromegas_jupyter.core.system import SYSTEM_CLOCK


def ours(task, *, preserve_dictionary=False, **arguments):
    from micromegas_jupyter import FlightSQLClient
    from micromegas_jupyter.auth import StaticTokenAuthProvider

    provider = StaticTokenAuthProvider(task["key"])
    client = FlightSQLClient(task["uri"], preserve_dictionary=preserve_dictionary, auth_provider=provider)
    return lambda sql: client.query(sql, **arguments)


def upstream(task, *, preserve_dictionary=False):
    from micromegas.auth import StaticTokenAuthProvider
    from micromegas.flightsql.client import FlightSQLClient

    provider = StaticTokenAuthProvider(task["key"])
    return FlightSQLClient(task["uri"], auth_provider=provider, preserve_dictionary=preserve_dictionary).query


def magic(_task, options=""):
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "micromegas_jupyter")

    def run(sql):
        shell.run_cell_magic("sql", f"frame << {options}", sql)
        return shell.user_ns.pop("frame")

    return run


def magic_reader(task):
    read = magic(task, "--format reader")
    return lambda sql: sum(batch.num_rows for batch in read(sql))


WAYS = {
    "ours": ours,
    "ours, ArrowDtype": partial(ours, dtype_backend="pyarrow"),
    "ours, dictionaries kept": partial(ours, preserve_dictionary=True),
    "ours, dictionaries kept, ArrowDtype": partial(ours, preserve_dictionary=True, dtype_backend="pyarrow"),
    "upstream": upstream,
    "upstream, dictionaries kept": partial(upstream, preserve_dictionary=True),
    "%%sql": magic,
    "%%sql --dtype pyarrow": partial(magic, options="--dtype pyarrow"),
    "%%sql --format reader": magic_reader,
}


def memory_mib(name):
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


def cpu_seconds():
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return spent.ru_utime + spent.ru_stime


def main():
    task = json.load(sys.stdin)
    answer = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        run = WAYS[task["way"]](task)
        run(f"{task['sql']} LIMIT 1000")
        # From here on the peak is a new one (proc_pid_clear_refs(5)).
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before, wall, cpu = memory_mib("VmRSS"), SYSTEM_CLOCK.monotonic(), cpu_seconds()
        result = run(task["sql"])
        cost = {
            "wall": SYSTEM_CLOCK.monotonic() - wall,
            "processor": cpu_seconds() - cpu,
            "peak": memory_mib("VmHWM") - before,
            "rows": result if isinstance(result, int) else len(result),
        }
        if task["kept_at"]:
            result.to_pickle(task["kept_at"])
    answer.write(json.dumps(cost))
    answer.flush()


if __name__ == "__main__":
    main()
