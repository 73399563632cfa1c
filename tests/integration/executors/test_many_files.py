"""A table of very many small files is read on very many threads, whose stacks are reserved, not used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from micromegas_jupyter import FlightSQLClient
from micromegas_jupyter.auth import StaticTokenAuthProvider
from tests.integration.executors.conftest import ATTACKER, KEYS, OPTIONS
from tests.integration.executors.server_process import ServerProcess

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration

FILES = 4000


def test_reading_thousands_of_files_ends_no_executor(tmp_path: Path) -> None:
    folder = tmp_path / "lake" / "small"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"id": [1, 2]}), folder / "0.parquet")
    content = (folder / "0.parquet").read_bytes()
    for number in range(1, FILES):
        (folder / f"{number}.parquet").write_bytes(content)

    with (
        ServerProcess(tmp_path / "server", lake=tmp_path / "lake", keys=KEYS, options=OPTIONS) as server,
        FlightSQLClient(server.uri, auth_provider=StaticTokenAuthProvider(KEYS[ATTACKER])) as client,
    ):
        found = [client.query_arrow("SELECT count(*) AS n, count(DISTINCT id) AS m FROM small") for _ in range(3)]

    assert [one.to_pylist() for one in found] == [[{"n": 2 * FILES, "m": 2}]] * 3
