"""How fast queries are beside the unmodified upstream client, on one server in one run; printed, never judged."""

import statistics
import sys

import pytest
from micromegas.flightsql.client import FlightSQLClient as UpstreamClient

from micromegas_jupyter import FlightSQLClient
from micromegas_jupyter.auth import StaticTokenAuthProvider
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from tests.integration.executors.server_process import ServerProcess

pytestmark = [pytest.mark.integration, pytest.mark.slow]

KEY = "a-key-for-this-benchmark-only"
ROWS = """
SELECT value AS id, value % 1000 AS part, CAST(value AS DOUBLE) / 3 AS amount,
       concat('name-', value % 5000) AS name, to_timestamp(value) AS time, value % 7 = 0 AS flag
FROM generate_series(1, {count})
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    options = ("--no-telemetry",)
    with ServerProcess(folder, lake=folder / "lake", keys={"bench": KEY}, options=options) as running:
        yield running


@pytest.fixture
def clients(server):
    provider = StaticTokenAuthProvider(KEY)
    with FlightSQLClient(server.uri, auth_provider=provider) as ours:
        yield {"ours": ours, "upstream": UpstreamClient(server.uri, auth_provider=provider)}


def in_order(frame):
    return frame.sort_values(frame.columns[0], ignore_index=True)


def _medians(clients, sql, *, repeats):
    seconds = {name: [] for name in clients}
    for client in clients.values():
        client.query(sql)
    for _ in range(repeats):
        for name, client in clients.items():
            started = SYSTEM_CLOCK.monotonic()
            client.query(sql)
            seconds[name].append(SYSTEM_CLOCK.monotonic() - started)
    return {name: statistics.median(found) for name, found in seconds.items()}


@pytest.mark.parametrize(
    ("title", "sql", "repeats"),
    [
        ("SELECT 1 to a DataFrame", "SELECT 1 AS one", 100),
        ("1M rows x 6 columns to a DataFrame", ROWS.format(count=1_000_000), 3),
    ],
    ids=["small", "large"],
)
def test_a_query_beside_the_upstream_client(clients, capsys, title, sql, repeats):
    expected, found = clients["upstream"].query(sql), clients["ours"].query(sql)

    medians = _medians(clients, sql, repeats=repeats)

    # The engine's partitions run side by side: rows come in any order.
    assert in_order(found).equals(in_order(expected))
    with capsys.disabled():
        ratio = medians["ours"] / medians["upstream"]
        print(
            f"\n{title}: ours {medians['ours'] * 1e3:.1f} ms, upstream client {medians['upstream'] * 1e3:.1f} ms, "
            f"ratio {ratio:.2f}",
            file=sys.stderr,
        )
