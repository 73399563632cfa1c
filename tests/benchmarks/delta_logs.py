"""Makes a large Delta table of log entries: `python -m tests.benchmarks.delta_logs FOLDER [FILES] [ROWS_A_FILE]`."""

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute
from deltalake import write_deltalake

from micromegas_jupyter.telemetry.tables import build_constant_properties

DAYS = 30
FIRST_DAY = datetime(2026, 10, 1, tzinfo=UTC)
TIME = pa.timestamp("us", "UTC")
WORDS = ("connection", "timeout", "retry", "shard", "request", "session", "cache", "user", "frame", "packet")


def process_id(number):
    return f"{number:08x}-0000-4000-8000-{number * 7919:012x}"


def log_entries(number, *, files, rows):
    """Return the rows of one of `files` files, whose times follow one another through `DAYS` days."""
    random_numbers = np.random.default_rng(number)
    day, place = divmod(number * DAYS, files)
    start = FIRST_DAY + timedelta(days=day + place / files)
    length = timedelta(days=DAYS) // files
    times = np.sort(random_numbers.integers(0, length // timedelta(microseconds=1), rows))
    times = times + int(start.timestamp() * 1_000_000)
    processes = pa.array([process_id(number * 20 + index) for index in range(50)])
    words = pa.array(WORDS)

    def pick(values):
        return pa.array(random_numbers.integers(0, len(values), rows)).cast(pa.int32()), values

    def text(values):
        return pa.DictionaryArray.from_arrays(*pick(values)).cast(pa.string())

    picked = [words.take(pick(words)[0]) for _ in range(3)]
    numbers = pa.array(random_numbers.integers(0, 1_000_000, rows)).cast(pa.string())
    empty = build_constant_properties({}, rows).cast(pa.binary())
    return pa.table(
        {
            "process_id": text(processes),
            "stream_id": text(pa.array([f"stream {index}" for index in range(8)])),
            "block_id": text(pa.array([f"block {number} {index}" for index in range(40)])),
            "insert_time": pa.array(times + 1_000_000, TIME),
            "exe": text(pa.array([f"program-{index}" for index in range(12)])),
            "username": text(pa.array(["ann", "bob", "eve"])),
            "computer": text(pa.array([f"host-{index}" for index in range(30)])),
            "time": pa.array(times, TIME),
            "target": text(pa.array([f"module::{index}" for index in range(60)])),
            "level": pa.array(random_numbers.integers(1, 7, rows), pa.int32()),
            "msg": pa.compute.binary_join_element_wise(*picked, numbers, " "),
            "properties": empty,
            "process_properties": empty,
            "date": pa.array(times, TIME).cast(pa.date32()),
        }
    )


def write(folder, *, files=500, rows=40_000):
    for number in range(files):
        write_deltalake(
            folder / "log_entries", log_entries(number, files=files, rows=rows), mode="append", partition_by=["date"]
        )


def write_links(folder, *, files=20_000):
    """Write a table of many small files in one commit: each is the first under another name, with times of its own."""
    table = folder / "log_entries"
    write_deltalake(table, log_entries(0, files=files, rows=100), partition_by=["date"])
    log = table / "_delta_log"
    lines = (log / f"{0:020}.json").read_text(encoding="utf-8").splitlines()
    (first,) = (json.loads(line)["add"] for line in lines if line.startswith('{"add"'))
    (table / first["path"]).rename(table / "first.parquet")
    statistics, actions = json.loads(first["stats"]), [{"remove": {"path": first["path"], "dataChange": True}}]
    for number in range(files):
        begins_at = FIRST_DAY + timedelta(days=DAYS) * number / files
        ends_at = begins_at + timedelta(days=DAYS) / files - timedelta(milliseconds=1)
        path = f"{number:05}.parquet"
        (table / path).hardlink_to(table / "first.parquet")
        for bounds, at in (("minValues", begins_at), ("maxValues", ends_at)):
            for name in ("time", "insert_time"):
                statistics[bounds][name] = at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        date = {"date": begins_at.date().isoformat()}
        actions.append({"add": {**first, "path": path, "partitionValues": date, "stats": json.dumps(statistics)}})
    text = "\n".join(map(json.dumps, actions))
    (log / f"{1:020}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]), **dict(zip(("files", "rows"), map(int, sys.argv[2:]), strict=False)))
