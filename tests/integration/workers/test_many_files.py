"""A table of very many small files is read on very many threads, whose stacks are reserved, not used."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import micromegas_jupyter
from micromegas_jupyter.auth import StaticTokenAuthProvider
from tests.integration.workers.serving import Serving

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration

FILES = 4000
MANY_THREADS = 400
KEY = "a-key-for-these-tests-only-of-many-files"


def test_reading_thousands_of_files_ends_no_worker(tmp_path: Path) -> None:
    folder = tmp_path / "lake" / "small"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"id": [1, 2]}), folder / "0.parquet")
    content = (folder / "0.parquet").read_bytes()
    for number in range(1, FILES):
        (folder / f"{number}.parquet").write_bytes(content)
    environ = {"MICROMEGAS_API_KEYS": json.dumps([{"name": "reader", "key": KEY}])}
    options = ("--no-telemetry", "--workers", "1", "--spare-workers", "0", "--memory-mib", "64")

    with Serving(tmp_path / "lake", *options, environ=environ) as server:
        workers = server.pids()
        with micromegas_jupyter.connect(server.uri, auth_provider=StaticTokenAuthProvider(KEY)) as client:
            found = [client.query_arrow("SELECT count(*) AS n, count(DISTINCT id) AS m FROM small") for _ in range(3)]
        (worker,) = server.pids()

        assert [one.to_pylist() for one in found] == [[{"n": 2 * FILES, "m": 2}]] * 3
        assert {worker} == workers
        assert psutil.Process(worker).num_threads() > MANY_THREADS, "otherwise this test says nothing"
