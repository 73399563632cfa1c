"""A Flight server that takes over the one before on its port: `serving_child.py PORT`, 0 for the first.

It says its port once it serves, and ends when it is taken over or told a line.
"""

import os
import sys
import threading

from micromegas_jupyter.assembly.port import ReservedPort
from micromegas_jupyter.assembly.take_over import TakeOverListener, find_take_over_key, take_over
from micromegas_jupyter.seams import SYSTEM_RANDOMNESS
from micromegas_jupyter.server import FlightServerSettings, ServerThread
from tests.fakes.servers import build_pool

HOST = "127.0.0.1"
DRAIN_SECONDS = 30.0


def main() -> None:
    """Serve."""
    port = int(sys.argv[1])
    taken = take_over(find_take_over_key(HOST, port, os.environ)) if port else None
    ticket_key = taken.state["ticket_key"] if taken else SYSTEM_RANDOMNESS.token_urlsafe(32)
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
    with ReservedPort(HOST, port, taken=taken.sockets["grpc"] if taken else None) as reserved:
        server = ServerThread(
            pool=build_pool(lasts=False, max_executors=16, max_per_caller=32, spare_executors=2),
            validator=None,
            settings=FlightServerSettings(host=HOST, port=reserved.number, is_port_reserved=True),
            ticket_key=ticket_key.encode(),
        )
        server.start()
        if taken is not None:
            taken.confirm_serving()
        listener = TakeOverListener(
            find_take_over_key(HOST, reserved.number, os.environ),
            {"grpc": reserved.socket},
            stop.set,
            state={"ticket_key": ticket_key},
        )
        listener.start()
        print(reserved.number, flush=True)
        stop.wait()
        listener.stop()
        server.stop(DRAIN_SECONDS)


if __name__ == "__main__":
    main()
