"""Queries, and waits for a silent server, interrupted in a real kernel: the next query works."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.fakes.flight_server import FakeFlightServer
from tests.integration.notebook.interrupting import LOAD, check_stopped, interrupt, served
from tests.integration.notebook.kernels import attended_kernel

pytestmark = pytest.mark.integration

ENDLESS = "generate_series(1, 100000000000000)"
SHAPES = {
    "rows as fast as they come": f"SELECT value FROM {ENDLESS}",
    "a scan that finds nothing": f"SELECT value FROM {ENDLESS} WHERE value % 7 = 8",
    "a sort": "SELECT value FROM generate_series(1, 100000000000) ORDER BY value % 1000003",
    "a join": f"SELECT count(*) FROM events AS e JOIN {ENDLESS} AS s ON e.n = s.value % 100000",
    "a recursion": "WITH RECURSIVE r AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM r) SELECT count(*) FROM r",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    numbers = range(100_000)
    pq.write_table(pa.table({"n": numbers, "name": [f"event {n}" for n in numbers]}), folder / "events.parquet")
    with served(folder) as running:
        yield running


@pytest.fixture(scope="module")
def kernel(server, tmp_path_factory):
    home = str(tmp_path_factory.mktemp("home"))
    with attended_kernel({"MICROMEGAS_ANALYTICS_URI": server[0], "HOME": home}) as running:
        assert running.run(LOAD).reply["status"] == "ok"
        yield running


@pytest.mark.parametrize("shape", SHAPES)
def test_a_query_is_stopped_in_the_cell_and_on_the_server_and_the_next_one_works(kernel, server, shape):
    sql = SHAPES[shape]

    found = interrupt(kernel, f"%%sql rows <<\n{sql}")
    again = kernel.run("%sql SELECT 1 AS one")

    check_stopped(found, name=shape)
    assert found.line.startswith("✗ cancelled after ")
    assert ", stopped on the server · query " in found.line
    assert server[1].of(sql)["status"] == "incomplete"
    assert again.reply["status"] == "ok"


# The first query of a kernel loads the module: an interrupt can come then, when no row has been asked for yet.
INTERRUPTED_LOADING = """
import sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "micromegas_jupyter.notebook.query_result":
            sys.meta_path.remove(self)
            raise KeyboardInterrupt

sys.modules.pop("micromegas_jupyter.notebook.query_result", None)
sys.meta_path.insert(0, Interrupting())
"""


def test_a_query_that_is_interrupted_before_its_rows_are_read_is_stopped_on_the_server(kernel, server):
    assert kernel.run(INTERRUPTED_LOADING).reply["status"] == "ok"
    sql = f"SELECT value AS never FROM {ENDLESS} WHERE value % 7 = 8"

    found = kernel.run(f"%%sql rows <<\n{sql}")

    (error,) = found.of("error")
    assert error["ename"] == "QueryCancelled"
    assert server[1].of(sql)["status"] == "incomplete"


@pytest.fixture
def fake_server():
    server = FakeFlightServer()
    yield server
    server.close()


def ask(kernel, uri):
    """Let later cells ask the server at `uri`."""
    reply = kernel.run(f"%env MICROMEGAS_ANALYTICS_URI={uri}").reply
    assert reply["status"] == "ok"


def check_next_query(kernel, server):
    ask(kernel, server[0])
    assert kernel.run("%sql SELECT 1 AS one").reply["status"] == "ok"


@pytest.mark.parametrize("magic", ["%sql SELECT 1", "%micromegas_whoami"])
def test_a_server_that_takes_the_call_and_never_answers(kernel, server, fake_server, magic):
    fake_server.answers = dict.fromkeys(["DoGet", "DoAction:MicromegasWhoAmI"], fake_server.stall_after())
    ask(kernel, fake_server.uri)

    def call_has_arrived(_message):
        return fake_server.call_arrived.wait(30)

    found = interrupt(kernel, magic, when=call_has_arrived)

    check_stopped(found, name=f"{magic} without an answer")
    check_next_query(kernel, server)
