"""A process that holds a port, listens on another and can be taken over: `running_child.py HOST PORT`.

It says what happens in lines on standard output, and ends when standard input does.
"""

import os
import socket
import sys

from micromegas_jupyter.wiring.take_over import ReservedPort, TakeOverListener, find_take_over_address


def main():
    """Run until standard input ends, then stop in the order in which a server does."""
    host, port = sys.argv[1], int(sys.argv[2])
    reserved = ReservedPort(host, port)
    http = socket.create_server((host, 0))
    listener = TakeOverListener(
        find_take_over_address(host, reserved.number, os.environ).path,
        {"grpc": reserved.socket, "http": http},
        lambda: print("taken", flush=True),
        state={"ticket_key": "sesame"},
    )
    listener.start()
    print(reserved.number, http.getsockname()[1], flush=True)
    sys.stdin.readline()
    listener.stop()
    print("stopped", flush=True)
    sys.stdin.readline()
    reserved.close()


if __name__ == "__main__":
    main()
