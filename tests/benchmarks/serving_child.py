"""A program that serves the Parquet files of a folder until its standard input ends; it prints its address first."""

from __future__ import annotations

import sys
from pathlib import Path

from micromegas_jupyter.engine import DataFusionEngine, EngineSettings
from micromegas_jupyter.lakehouse import ParquetFolder
from micromegas_jupyter.server import FlightServerSettings, ServerThread


def main() -> None:
    engine = DataFusionEngine(ParquetFolder(Path(sys.argv[1])), EngineSettings())
    server = ServerThread(engine=engine, validator=None, settings=FlightServerSettings(port=0))
    server.start()
    print(server.uri, flush=True)
    sys.stdin.read()
    server.stop(grace_seconds=0)
    engine.close()


if __name__ == "__main__":
    main()
