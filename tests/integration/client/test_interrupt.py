"""Ctrl-C: a real SIGINT to a real process, while the server says nothing."""

import signal
import subprocess
import sys
import time

import pyarrow as pa
import pytest

from tests.fakes.flight_server import SMALL_TABLE, rows
from tests.fakes.servers import ENDLESS, WAITING

pytestmark = pytest.mark.integration

_CHILD = """
import sys, time
from micromegas_jupyter.client.flight_client import FlightSQLClient

class Alice:
    def get_token(self):
        return "alice"

client = FlightSQLClient(sys.argv[1], auth_provider=Alice())
try:
    print("ready", flush=True)
    if sys.argv[2] == "loop":
        for batch in client.query_stream(sys.argv[3]):
            pass
    else:
        client.whoami() if sys.argv[2] == "whoami" else client.query(sys.argv[3])
except KeyboardInterrupt:
    print(time.time(), flush=True)
sys.stdin.readline()
print(len(client.query("SELECT n FROM (VALUES (1), (2), (3)) AS t(n)")), flush=True)
"""
# Far above what is seen, some hundredths of a second: a busy machine fails no test. The calls never end by themselves.
_SLACK_SECONDS = 10.0


class _Child:
    """A process that makes one call, is interrupted, and makes another."""

    def __init__(self, *arguments):
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        self._process = subprocess.Popen([sys.executable, "-c", _CHILD, *arguments], **pipes, text=True)
        assert self._process.stdout.readline() == "ready\n"

    def interrupt(self):
        """Return the seconds from the signal to `KeyboardInterrupt`."""
        sent_at = time.time()  # two processes compare their clocks
        self._process.send_signal(signal.SIGINT)
        return float(self._process.stdout.readline()) - sent_at

    def finish(self):
        """Let the process make its other call; returns what it wrote and how it ended."""
        output, noise = self._process.communicate("go\n", timeout=60)
        return output.strip(), noise, self._process.returncode


def _stall_once(server, *first):
    stall = server.stall_after(*first)

    def answer(call):
        yield from stall(call) if len(server.calls) == 1 else rows(SMALL_TABLE)

    server.answers = dict.fromkeys(["DoGet", "DoAction:MicromegasWhoAmI", "DoAction:CreatePreparedStatement"], answer)


@pytest.mark.parametrize(
    ("kind", "first"),
    [("query", ()), ("whoami", ()), ("query", tuple(rows(SMALL_TABLE))[:1]), ("loop", tuple(rows(SMALL_TABLE)))],
    ids=["before the schema", "no rows", "after the schema", "after a batch"],
)
def test_a_query_is_left_at_once_and_the_client_stays_usable(fake_server, kind, first):
    _stall_once(fake_server, *first)
    child = _Child(fake_server.uri, kind, "SELECT 1")
    assert fake_server.call_arrived.wait(30)

    took = child.interrupt()
    # Before the schema there is nothing that could be cancelled yet: see the next test.
    told = fake_server.calls[0].ended.wait(60 if first else 0)

    assert took < _SLACK_SECONDS
    assert told is bool(first)
    assert child.finish() == ("3", "", 0)


@pytest.mark.parametrize("sql", [WAITING, ENDLESS], ids=["computes", "sends"])
def test_the_real_server_stops_the_query(engine_server, sql):
    child = _Child(engine_server.uri, "loop", sql)
    engine_server.wait_until_running()

    took = child.interrupt()

    assert took < _SLACK_SECONDS
    engine_server.wait_until_quiet()
    assert child.finish() == ("3", "", 0)


def test_a_process_may_end_while_a_query_runs(fake_server):
    def answer(_call):
        first, *batches = rows(pa.table({"n": range(10_000)}))
        yield first
        while not fake_server.closing.is_set():
            yield from batches

    fake_server.answers["DoGet"] = answer
    script = (
        "import sys\nfrom micromegas_jupyter import FlightSQLClient\n"
        "reader = FlightSQLClient(sys.argv[1]).open_query('SELECT 1')\nprint(next(reader).num_rows)\n"
    )

    ended = subprocess.run(
        [sys.executable, "-c", script, fake_server.uri], capture_output=True, text=True, timeout=60, check=False
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "10000\n", "")
