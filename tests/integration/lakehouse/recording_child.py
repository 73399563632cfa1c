"""A process that records itself, says what it logged, and ends when its input does.

Arguments: folder. It prints its process id once it has logged its first line.
"""

import logging
import sys
from pathlib import Path

from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.server.recorder.recorder import Recorder


def main(folder: str) -> None:
    logging.getLogger().setLevel(logging.INFO)
    recorder = Recorder(Lake(Path(folder)), exe="recording child", flush_interval_seconds=0.2)
    with recorder:
        logging.getLogger("child").info("started", extra={"step": 1})
        print(recorder.process_id, flush=True)
        sys.stdin.read()
        logging.getLogger("child").error("last words, Bearer %s", "secret-key")


if __name__ == "__main__":
    main(*sys.argv[1:])
