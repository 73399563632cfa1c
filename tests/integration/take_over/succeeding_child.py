"""A process that takes a server over: `succeeding_child.py HOST PORT`; it confirms when it is told a line."""

import os
import sys

from micromegas_jupyter.wiring.take_over import find_take_over_address, take_over


def main() -> None:
    """Take the sockets, wait for a line, confirm, and keep the sockets until standard input ends."""
    taken = take_over(find_take_over_address(sys.argv[1], int(sys.argv[2]), os.environ))
    print("took" if taken else "nothing", flush=True)
    if taken is not None and sys.stdin.readline():
        taken.confirm_serving()
        print("confirmed", flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    main()
