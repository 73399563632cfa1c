"""The program that runs a `LocalServer` in a worker process: told what on standard input, it ends when that closes.

It answers with one line of JSON, then supervises. What starts it, and ends with it, is `notebook.local_server`; what
the worker serves is `workers.served`'s job.
"""

import json
import os
import signal
import sys
import threading
from typing import BinaryIO, Final

from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.seams import SYSTEM_RANDOMNESS

_MAX_ORDER_BYTES: Final = 64 * 1024
_LOOK_SECONDS: Final = 1.0
_HOST: Final = "127.0.0.1"
_WORKERS: Final = 1
_SECRET_BYTES: Final = 32


def main() -> None:
    """Serve until standard input closes, the process that started this one is gone, or SIGTERM comes."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    order: dict[str, object] = json.loads(sys.stdin.buffer.readline(_MAX_ORDER_BYTES))
    threading.Thread(target=_await_close, args=(sys.stdin.buffer, ended), daemon=True).start()
    try:
        _serve(order, ended)
    except MicromegasError as error:
        _answer({"failure": [error.what, error.remedy]})
    # Threads of a query that does not end would keep the process.
    os._exit(0)


def _serve(order: dict[str, object], ended: threading.Event) -> None:
    from micromegas_jupyter.assembly.spill_directory import remove_spilled_by_the_dead
    from micromegas_jupyter.assembly.workers.limits import memory_limits
    from micromegas_jupyter.assembly.workers.order import WorkerOrder
    from micromegas_jupyter.assembly.workers.port import ReservedPort
    from micromegas_jupyter.assembly.workers.supervisor import Supervisor

    remove_spilled_by_the_dead(None)
    limits = memory_limits(int(str(order["memory_mib"])), _WORKERS)
    task = {name: order[name] for name in ("folder", "is_lake", "key_sha256")}
    with ReservedPort(_HOST, 0) as port:
        supervisor = Supervisor(
            WorkerOrder(
                kind="local",
                task=task,
                port=port.number,
                number=0,
                pool_bytes=limits.pool,
                hard_bytes=limits.hard,
                secret=SYSTEM_RANDOMNESS.token_urlsafe(_SECRET_BYTES),
            ),
            workers=_WORKERS,
            limits=limits,
        )
        try:
            supervisor.start()
            facts = supervisor.facts()
            uri = f"grpc://{_HOST}:{port.number}"
            _answer({"uri": uri, "tables": facts["tables"], "problems": facts["problems"]})
            parent = order["parent"]
            # Standard input stays open when another child of the kernel holds its other end.
            while not ended.wait(_LOOK_SECONDS) and os.getppid() == parent:
                pass
        finally:
            supervisor.kill()
            supervisor.stop(0.0)  # returns when it has ended and its spilled rows are gone


def _answer(answer: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _await_close(stream: BinaryIO, ended: threading.Event) -> None:
    while stream.read(4096):
        pass
    ended.set()


if __name__ == "__main__":
    main()
