"""The program behind `%micromegas_serve`: a small server for one kernel, on a free port of loopback, with one key.

It is told on standard input what to serve, answers with one line of JSON, and ends when standard input closes. Nothing
is recorded. A server for others, with sign-ins and telemetry, is `server_side`'s.
"""

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import BinaryIO, Final

from micromegas_jupyter.access import ApiKeyValidator
from micromegas_jupyter.config.access import ApiKeySetting
from micromegas_jupyter.config.server_limits import ServerLimits
from micromegas_jupyter.core.protocols import TableSource
from micromegas_jupyter.errors import MicromegasError, Unavailable, UsageError
from micromegas_jupyter.executors.launcher import open_launcher
from micromegas_jupyter.executors.pool import Pool
from micromegas_jupyter.lake import Lake, ParquetFolder
from micromegas_jupyter.server import FlightServerSettings, ServerThread
from micromegas_jupyter.wiring.serve_options import ServeOptions
from micromegas_jupyter.wiring.server_limits import build_pool_settings, build_worker_options
from micromegas_jupyter.wiring.spill_directory import make_process_folder, remove_spilled_by_the_dead

_MAX_ORDER_BYTES: Final = 64 * 1024
_LOOK_SECONDS: Final = 1.0
_NEEDED: Final = "Name a folder of *.parquet files, or of folders of them."


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
    os._exit(0)


def _serve(order: dict[str, object], ended: threading.Event) -> None:
    source, problems = _open_source(Path(str(order["folder"])), is_lake=bool(order["is_lake"]))
    memory_mib = int(str(order["memory_mib"]))
    remove_spilled_by_the_dead(None)
    try:
        spill_folder = make_process_folder(None)
    except OSError as error:
        raise Unavailable(f"No folder for temporary files can be made: {error.strerror}.") from None
    limits = ServerLimits()
    options = build_worker_options(
        limits,
        memory_mib=memory_mib,
        lake=None,
        denials_file=None,
        spill_directory=spill_folder.path,
        default_conditions={},
    )
    serve_options = ServeOptions(lake=Path(), memory_mib=memory_mib, spare_executors=1)
    pool = Pool(open_launcher(options), source, settings=build_pool_settings(limits, serve_options), options=options)
    key = ApiKeySetting(name="local", sha256=bytes.fromhex(str(order["key_sha256"])))
    server = ServerThread(pool=pool, validator=ApiKeyValidator([key]), settings=FlightServerSettings(port=0))
    server.start()
    try:
        names = [snapshot.name for snapshot in source.snapshot()]
        _answer({"uri": server.uri, "tables": names, "problems": list(problems)})
        # Standard input stays open when another child of the kernel holds its other end.
        while not ended.wait(_LOOK_SECONDS) and os.getppid() == order["parent"]:
            pass
    finally:
        server.stop(0.0)
        spill_folder.close()


def _open_source(folder: Path, *, is_lake: bool) -> tuple[TableSource, tuple[str, ...]]:
    if is_lake:
        if not folder.is_dir():
            raise UsageError("There is no such folder.", remedy="Name a folder that micromegas serve has written to.")
        return Lake(folder), ()
    parquet = ParquetFolder(folder)
    if not parquet.snapshot():
        found = f" {parquet.problems[0]}" if parquet.problems else ""
        raise UsageError(f"The folder holds no Parquet file that can be read.{found}", remedy=_NEEDED)
    return parquet, parquet.problems


def _answer(answer: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _await_close(stream: BinaryIO, ended: threading.Event) -> None:
    while stream.read(4096):
        pass
    ended.set()


if __name__ == "__main__":
    main()
