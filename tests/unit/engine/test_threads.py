"""DataFusion's threads are started once: two more than heavy statements keep busy, and less urgent than the others."""

from __future__ import annotations

import json
import subprocess
import sys

CHILD = """
import json, os
from micromegas_jupyter.engine.threads import start_threads
start_threads(3)
start_threads(7)
found = []
for task in os.listdir("/proc/self/task"):
    with open(f"/proc/self/task/{task}/comm") as file:
        if "tokio" in file.read():
            found.append(os.getpriority(os.PRIO_PROCESS, int(task)))
own = os.getpriority(os.PRIO_PROCESS, 0)
print(json.dumps({"niceness": found, "own": own, "left": "TOKIO_WORKER_THREADS" in os.environ}))
"""


def _run(**variables: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", CHILD], capture_output=True, text=True, timeout=60, check=True, env=variables
    )
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_there_are_two_more_than_are_kept_busy_and_they_are_less_urgent() -> None:
    found = _run()

    assert found == {"niceness": [found["own"] + 5] * 5, "own": found["own"], "left": False}  # type: ignore[operator]


def test_what_an_operator_says_wins() -> None:
    found = _run(TOKIO_WORKER_THREADS="2")

    assert len(found["niceness"]) == 2  # type: ignore[arg-type]
    assert found["left"] is True
