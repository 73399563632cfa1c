"""A server over a lake, until it is killed or its input ends. Argument: the lake's folder. It prints its address."""

import sys
from pathlib import Path

from tests.integration.ingest.lake_server import lake_server


def main(root: str) -> None:
    with lake_server(Path(root)) as server:
        print(server.uri, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
