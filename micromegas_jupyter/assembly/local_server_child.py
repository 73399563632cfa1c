"""The program that runs a `LocalServer`: told what on standard input, it ends when that closes.

It answers with one line of JSON, then serves. What starts it, and ends with it, is `notebook.local_server`.
"""

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from micromegas_jupyter.errors import MicromegasError, UsageError

if TYPE_CHECKING:
    from micromegas_jupyter.contracts import TableSource

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
    from micromegas_jupyter.assembly.local_server import LocalServer

    source, problems = _open_source(Path(str(order["folder"])), is_lake=bool(order["is_lake"]))
    server = LocalServer(
        source, key_sha256=bytes.fromhex(str(order["key_sha256"])), memory_mib=int(str(order["memory_mib"]))
    )
    with server:
        _answer({"uri": server.uri, "tables": list(server.table_names()), "problems": list(problems)})
        parent = order["parent"]
        # Standard input stays open when another child of the kernel holds its other end.
        while not ended.wait(_LOOK_SECONDS) and os.getppid() == parent:
            pass


def _open_source(folder: Path, *, is_lake: bool) -> "tuple[TableSource, tuple[str, ...]]":
    if is_lake:
        if not folder.is_dir():
            raise UsageError("There is no such folder.", remedy="Name a folder that micromegas serve has written to.")
        from micromegas_jupyter.lakehouse import Lake

        return Lake(folder), ()
    from micromegas_jupyter.lakehouse import ParquetFolder

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
