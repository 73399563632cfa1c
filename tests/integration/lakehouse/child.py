"""A process that records itself into a lake: `python -m tests.integration.lakehouse.child FOLDER`."""

import logging
import sys

from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.lake.writer import LakeWriter
from micromegas_jupyter.server.recorder.recorder import Recorder


def record(folder):
    """Record this process until its input ends; print its id once the first line is logged."""
    logging.getLogger().setLevel(logging.INFO)
    writer = LakeWriter(Storage(folder))
    recorder = Recorder(writer, exe="recording child", commit_interval_seconds=0.2, sample_interval_seconds=0.2)
    recorder.start()
    logging.getLogger("child").info("started", extra={"step": 1})
    print(recorder.process_id, flush=True)
    sys.stdin.read()
    logging.getLogger("child").error("last words, Bearer %s", "secret-key")
    recorder.stop()
    writer.close()


if __name__ == "__main__":
    record(sys.argv[1])
