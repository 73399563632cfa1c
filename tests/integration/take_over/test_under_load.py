"""While one server after another takes a port over, no read of ours fails."""

import threading
from collections import Counter

import pytest

from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.wiring.take_over import is_take_over_supported

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not is_take_over_supported(), reason="sockets are handed over on Linux"),
]

NEW_CALLS = 64

READS = {
    "small": lambda client: client.query_arrow("SELECT value FROM generate_series(1, 1000)").num_rows == 1000,
    "stream": lambda client: sum(1 for _ in client.query_stream("SELECT value FROM generate_series(1, 300000)")) > 1,
    "values": lambda client: client.query("SELECT :n AS n", params={"n": 7}).n.tolist() == [7],
    "new connection": lambda client: client.query("SELECT 1 AS n").n.tolist() == [1],
    "prepared": lambda client: client.prepare_statement("SELECT 1 AS n").dataset_schema.names == ["n"],
    "identity": lambda client: client.whoami().is_admin,
}


def test_no_read_fails_while_servers_take_a_port_over(start, pytestconfig):
    running = start("--no-http")
    uri = running.uri
    port = uri.rpartition(":")[2]
    made = Counter()
    wrong = []
    changed = threading.Condition()
    stop = threading.Event()

    def read_on(kind):
        client = FlightSQLClient(uri)
        while not stop.is_set():
            if kind == "new connection":
                client.close()
                client = FlightSQLClient(uri)
            try:
                outcome = "" if READS[kind](client) else "wrong rows"
            except Exception as error:  # noqa: BLE001 - whatever it is, the call has failed
                outcome = repr(error)
            with changed:
                made[kind] += 1
                wrong.extend([f"{kind}: {outcome}"] if outcome else [])
                changed.notify_all()
        client.close()

    def await_calls():
        """Wait until so many more calls have been made, and some of each kind."""
        with changed:
            goal = made.total() + NEW_CALLS
            before = Counter(made)
            assert changed.wait_for(
                lambda: made.total() >= goal and all(made[kind] > before[kind] for kind in READS), timeout=120
            )

    threads = [threading.Thread(target=read_on, args=(kind,)) for kind in (*READS, *READS)]
    try:
        for thread in threads:
            thread.start()
        await_calls()
        for _ in range(5 if pytestconfig.getoption("--long") else 1):
            successor = start("--port", port, "--no-http", "--take-over")
            assert successor.uri == uri
            assert running.wait() == 0
            running = successor
            await_calls()
    finally:
        stop.set()
        for thread in threads:
            thread.join(120)

    assert wrong == []
