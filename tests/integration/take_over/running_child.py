"""A process that holds a port, listens on another, says so and when it was taken over: `running_child.py HOST`."""

import os
import socket
import sys

from micromegas_jupyter.wiring.take_over import ReservedPort, TakeOverListener, find_take_over_address

if __name__ == "__main__":
    reserved = ReservedPort(sys.argv[1], 0)
    http = socket.create_server((sys.argv[1], 0))
    TakeOverListener(
        find_take_over_address(sys.argv[1], reserved.number, os.environ).path,
        {"grpc": reserved.socket, "http": http},
        lambda: print("taken", flush=True),
        state={"ticket_key": "sesame"},
    ).start()
    print(reserved.number, http.getsockname()[1], flush=True)
    sys.stdin.read()
