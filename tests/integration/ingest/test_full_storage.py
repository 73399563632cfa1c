"""What callers, the log, and `/ready` report while the lake's storage is full, and once it has space again."""

import os

import psutil
import pyarrow as pa
import pytest
import requests

from micromegas_jupyter import FlightSQLClient
from micromegas_jupyter.errors import ResourcesExhausted
from tests.fakes.waiting import wait_until
from tests.integration.executors.server_process import ServerProcess

pytestmark = pytest.mark.integration

MAX_FILE_BYTES = 64 * 1024
SMALL, LARGE = pa.table({"data": [b"x"]}), pa.table({"data": [os.urandom(1024) for _ in range(1024)]})


def limit_files(server, size):
    """Let no process that stores rows grow a file beyond `size`, as a quota does; the log is written elsewhere."""
    for process in server.processes()[1:]:
        _, most = process.rlimit(psutil.RLIMIT_FSIZE)
        process.rlimit(psutil.RLIMIT_FSIZE, (size, most))


def ready(server, query=""):
    response = requests.get(f"{server.ready['http']}/ready{query}", timeout=60)
    return response.status_code, response.json().get("reason")


def test_full_storage_is_logged_and_fails_ready_for_writes_until_a_write_succeeds(tmp_path):
    lake = tmp_path / "lake"
    options = ("--disable-auth", "--no-telemetry")
    with ServerProcess(tmp_path / "server", lake=lake, keys={}, options=options) as server:
        with FlightSQLClient(server.uri) as client:
            client.bulk_ingest("kept", SMALL, mode="create")
            before = ready(server)

            limit_files(server, MAX_FILE_BYTES)
            for _ in range(2):
                with pytest.raises(ResourcesExhausted, match="storage is full"):
                    client.bulk_ingest("kept", LARGE)
            wait_until(lambda: ready(server)[0] == 503, "the readiness of a second ago has expired")
            full = ready(server), ready(server, "?for=reads"), ready(server, "?for=writes")
            counted = client.query("SELECT count(*) AS n FROM kept")["n"].tolist()

            limit_files(server, psutil.RLIM_INFINITY)
            client.bulk_ingest("kept", LARGE)
        after = ready(server)
        wait_until(lambda: "storage has space again" in server.log(), "the log says so")
        log = server.log()

    assert (before, after, counted) == ((200, None), (200, None), [1])
    assert full == ((503, "lake_disk"), (200, None), (503, "lake_disk"))
    assert log.count("The lake's storage is full") == 1
    assert log.count("storage has space again") == 1
