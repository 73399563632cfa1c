"""Stores rows where files may not grow beyond a bound, as on a full disk.

Arguments: the lake's folder, and the most bytes that a file may have. It prints what came of it, as JSON.
"""

import json
import random
import resource
import sys
from pathlib import Path

import pyarrow as pa

from micromegas_jupyter.core.protocols import WriteMode, WriteRequest
from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.lake import Lake

_NOISE = random.Random(1).randbytes(4 * 1024 * 1024)


def main(root: str, file_bytes: str) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(file_bytes), int(file_bytes)))
    folder = Path(root)
    told = [
        store(folder, "kept", WriteMode.CREATE, pa.record_batch({"data": [b"before"]})),
        store(folder, "kept", WriteMode.APPEND, noise()),
        store(folder, "other", WriteMode.CREATE, noise()),
        store(folder, "kept", WriteMode.APPEND, pa.record_batch({"data": [b"after"]})),
    ]
    print(json.dumps(told))


def noise() -> pa.RecordBatch:
    return pa.record_batch({"data": [_NOISE[start : start + 1024] for start in range(0, len(_NOISE), 1024)]})


def store(folder: Path, table: str, mode: WriteMode, rows: pa.RecordBatch) -> dict[str, object]:
    write = Lake(folder).sink().open_write(WriteRequest(table=table, mode=mode), rows.schema)
    try:
        write.write(rows)
        outcome: object = write.commit()
    except MicromegasError as error:
        outcome = f"{error.code} {error.what}"
    finally:
        write.abandon()
    return {"outcome": outcome, "files": sum(path.is_file() for path in folder.rglob("*"))}


if __name__ == "__main__":
    main(*sys.argv[1:])
