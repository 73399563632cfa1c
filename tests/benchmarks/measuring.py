"""Runs `query_child` for the benchmarks, over one server and one file of rows."""

from __future__ import annotations

import json
import os
import secrets
import statistics
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tests.benchmarks.query_child import Cost, Task
from tests.integration.executors.server_process import ServerProcess

TABLE = "events"
ROWS, LONG_ROWS = 200_000, 1_000_000
WAIT_SECONDS = 600
_ROW_GROUPS = 8
_MEMORY_MIB = 1024


def write_rows(folder, count):
    """Write the rows that all are asked for: numbers, nulls, few and many different texts, a time, words."""
    numbers = np.arange(count)
    names = [None if number % 13 == 0 else f"name-{number % 5000}" for number in range(count)]
    words = pa.DictionaryArray.from_arrays(pa.array((numbers % 6).astype("int32")), pa.array([*"abcdef"]))
    table = pa.table(
        {
            "id": numbers,
            "part": pa.array(numbers % 1000, mask=numbers % 17 == 0),
            "amount": pa.array(numbers / 3, mask=numbers % 11 == 0),
            "name": names,
            "time": pa.array(numbers * 1_000_000_007).cast(pa.timestamp("ns", "UTC")),
            "word": words,
            "message": [f"request {number} was answered" for number in range(count)],
        }
    )
    path = folder / f"{TABLE}.parquet"
    pq.write_table(table, path, row_group_size=count // _ROW_GROUPS)
    return path


@dataclass(frozen=True)
class Bench:
    """A server over the rows, and a folder for what the children need."""

    uri: str
    key: str
    rows: Path
    row_count: int
    folder: Path

    def run(self, way, sql, *, warm_up=None, kept_at=""):
        task = Task(
            way=way,
            sql=sql,
            warm_up=f"{sql} LIMIT 1000" if warm_up is None else warm_up,
            uri=self.uri,
            key=self.key,
            kept_at=kept_at,
        )
        environ = {**os.environ, "MICROMEGAS_CONFIG_DIR": str(self.folder), "IPYTHONDIR": str(self.folder)}
        done = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.query_child"],
            input=json.dumps(asdict(task)),
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS,
            env=environ,
            cwd=Path(__file__).parents[2],
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return Cost(**json.loads(done.stdout))

    def compare(self, statements, *, tries):
        """Run the statement of each way in turn, `tries` times over; return the medians and the last frames.

        The frames are in the order of `id`, as the server's partitions run side by side.
        """
        costs = {way: [] for way in statements}
        paths = {way: self.folder / f"frame-{number}" for number, way in enumerate(statements)}
        for last in (False,) * (tries - 1) + (True,):
            for way, sql in statements.items():
                costs[way].append(self.run(way, sql, kept_at=str(paths[way]) if last else ""))
        frames = {way: pd.read_pickle(path).sort_values("id", ignore_index=True) for way, path in paths.items()}
        return {way: median(found) for way, found in costs.items()}, frames


def median(costs):
    names = asdict(costs[0])
    return Cost(**{name: statistics.median(getattr(cost, name) for cost in costs) for name in names})


@contextmanager
def bench(folder, *, row_count):
    served, own = folder / "served", folder / "own"
    served.mkdir()
    own.mkdir(mode=0o700)
    rows = write_rows(served, row_count)
    key = secrets.token_hex(32)
    key_file = own / "key"
    key_file.touch(mode=0o600)
    key_file.write_text(key, encoding="ascii")
    options = ("--no-telemetry",)
    with ServerProcess(
        folder / "server", lake=served, keys={"bench": key}, options=options, memory_mib=_MEMORY_MIB
    ) as server:
        configuration = {"uri": server.uri, "api_key_file": str(key_file)}
        (own / "config.json").write_text(json.dumps(configuration), encoding="utf-8")
        yield Bench(uri=server.uri, key=key, rows=rows, row_count=row_count, folder=own)


def load_text():
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
