"""Sail (pysail) as a process of its own, with tables of a folder of Delta tables."""

import subprocess
import sys
import sysconfig
from contextlib import contextmanager
from pathlib import Path

from pyarrow import flight

from micromegas_jupyter.flightsql.commands import messages, pack_any
from tests.fakes.ports import free_port
from tests.fakes.waiting import wait_until


class Sail:
    """A running Sail; `run` sends it a statement past all rights."""

    def __init__(self, port, process):
        self.uri = f"grpc://127.0.0.1:{port}"
        self.process = process

    def run(self, sql):
        with flight.connect(self.uri) as client:
            command = pack_any(messages.CommandStatementQuery(query=sql))
            info = client.get_flight_info(flight.FlightDescriptor.for_command(command))
            return client.do_get(info.endpoints[0].ticket).read_all()

    def add_tables(self, folder):
        for table in sorted(folder.iterdir()):
            self.run(f"CREATE TABLE {table.name} USING delta LOCATION '{table}'")

    def answers(self):
        try:
            return self.run("SELECT 1").num_rows == 1
        except flight.FlightError:
            assert self.process.poll() is None
            return False


@contextmanager
def running(folder):
    """Run Sail on a free port of loopback."""
    port = free_port()
    binary = Path(sysconfig.get_path("scripts")) / ("sail.exe" if sys.platform == "win32" else "sail")
    with (folder / "sail.log").open("wb") as log:
        process = subprocess.Popen(
            [binary, "flight", "server", "--ip", "127.0.0.1", "--port", str(port)], stdout=log, stderr=log
        )
    try:
        sail = Sail(port, process)
        wait_until(sail.answers, "Sail answers")
        yield sail
    finally:
        process.kill()
        process.wait()
