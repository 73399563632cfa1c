"""Processes that write into a lake: `python -m tests.integration.lakehouse.child ROLE FOLDER ARGUMENTS`."""

import logging
import sys
from pathlib import Path

from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.lake.maintenance import LakeLimits
from micromegas_jupyter.server.recorder.recorder import Recorder
from tests.fakes.telemetry_rows import log_batch


def record(folder):
    """Record this process until its input ends; print its id once the first line is logged."""
    logging.getLogger().setLevel(logging.INFO)
    recorder = Recorder(Lake(Path(folder)), exe="recording child", flush_interval_seconds=0.2)
    recorder.start()
    logging.getLogger("child").info("started", extra={"step": 1})
    print(recorder.process_id, flush=True)
    sys.stdin.read()
    logging.getLogger("child").error("last words, Bearer %s", "secret-key")
    recorder.stop()


def write(folder, writer_id, rows, grace_seconds="3.0"):
    """Write numbered rows and tend the lake; print each number once its row is stored."""
    limits = LakeLimits(fan_in=3, tiers=3, grace_seconds=float(grace_seconds))
    writer = Lake(Path(folder), limits=limits).open_writer(writer_id)
    for number in range(int(rows)):
        writer.append("log_entries", log_batch([number], writer=writer_id))
        print(number, flush=True)
        if number % 3 == 2:
            writer.maintain()
    writer.close()


if __name__ == "__main__":
    {"record": record, "write": write}[sys.argv[1]](*sys.argv[2:])
