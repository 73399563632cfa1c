"""A server that takes exports, in a process that a test can kill: `python -m tests.integration.otlp.child ROOT`."""

import sys
from pathlib import Path

from tests.integration.otlp.exporting import export_server

if __name__ == "__main__":
    with export_server(Path(sys.argv[1])) as server:
        print(server.url, server.lake.uri, flush=True)
        sys.stdin.read()
