"""`micromegas serve` processes that serve one port, one after another."""

from contextlib import ExitStack
from itertools import count

import pytest

from tests.integration.executors.server_process import ServerProcess


@pytest.fixture
def start(tmp_path, runtime_folder):
    """Starts servers over one lake, without waiting until they serve."""
    numbers = count()
    variables = {"XDG_RUNTIME_DIR": str(runtime_folder)}
    with ExitStack() as stack:

        def begin(*options):
            server = ServerProcess(
                tmp_path / f"server {next(numbers)}",
                lake=tmp_path / "lake",
                keys={},
                options=("--disable-auth", "--no-telemetry", *options),
                variables=variables,
            )
            stack.callback(server.stop)
            return server

        yield begin
