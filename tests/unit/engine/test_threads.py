"""DataFusion's threads are started once: two more than heavy statements keep busy, and less urgent than the others."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

CHILD = """
import contextlib, json, os, time
from micromegas_jupyter.engine.threads import start_threads

def niceness():
    found = []
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError), open(f"/proc/self/task/{task}/comm") as file:
            if "tokio" in file.read():
                found.append(os.getpriority(os.PRIO_PROCESS, int(task)))
    return found

os.nice(int(os.environ["NICE"]))
start_threads(3)
start_threads(7)
deadline = time.monotonic() + 30
while len(niceness()) < int(os.environ["THREADS"]) and time.monotonic() < deadline:
    time.sleep(0.01)  # a thread takes its name when it runs for the first time
own = os.getpriority(os.PRIO_PROCESS, 0)
print(json.dumps({"niceness": niceness(), "own": own, "left": "TOKIO_WORKER_THREADS" in os.environ}))
"""


def _run(**variables: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={"NICE": "0", "THREADS": "5"} | variables,
    )
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_there_are_two_more_than_are_kept_busy_and_they_are_less_urgent() -> None:
    found = _run()

    assert found == {"niceness": [found["own"] + 5] * 5, "own": found["own"], "left": False}  # type: ignore[operator]


def test_they_are_less_urgent_than_a_process_that_is_not_urgent_itself() -> None:
    found = _run(NICE="8")

    assert found["niceness"] == [min(found["own"] + 5, 19)] * 5  # type: ignore[operator]


@pytest.mark.parametrize("text", ["0", "", "many", "-1", "12345"])
def test_a_number_of_threads_that_is_none_is_refused_by_name(text: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        _run(TOKIO_WORKER_THREADS=text)

    assert "ConfigurationError: TOKIO_WORKER_THREADS is not a number" in caught.value.stderr


def test_what_an_operator_says_wins() -> None:
    found = _run(TOKIO_WORKER_THREADS="2", THREADS="2")

    assert len(found["niceness"]) == 2  # type: ignore[arg-type]
    assert found["left"] is True
