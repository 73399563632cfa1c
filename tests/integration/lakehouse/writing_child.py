"""A process that writes numbered rows to a lake and tends it, until it is killed.

Arguments: folder, writer id, how many rows at most, for how many seconds merged files stay. It prints each number once
its row is stored.
"""

import sys
from dataclasses import replace
from pathlib import Path

from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.lake.maintenance import LakeLimits
from tests.fakes.telemetry_rows import log_batch

LIMITS = LakeLimits(fan_in=3, tiers=3, grace_seconds=3.0)


def main(folder: str, writer_id: str, rows: str, grace_seconds: str = "3.0") -> None:
    limits = replace(LIMITS, grace_seconds=float(grace_seconds))
    writer = Lake(Path(folder), limits=limits).open_writer(writer_id)
    for number in range(int(rows)):
        writer.append("log_entries", log_batch([number], writer=writer_id))
        print(number, flush=True)
        if number % 3 == 2:
            writer.maintain()
    writer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
