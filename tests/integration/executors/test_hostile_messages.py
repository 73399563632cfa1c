"""Damaged rows of one caller hurt nobody else."""

import random
import threading

import pyarrow as pa
import pytest
from grpc import StatusCode

from micromegas_jupyter import FlightSQLClient
from micromegas_jupyter.auth import StaticTokenAuthProvider
from tests.fuzz.damage import damage_stream, sample_streams
from tests.integration.executors.callers import end_of
from tests.integration.executors.conftest import KEYS, UPLOADER
from tests.integration.executors.server_process import wait_until
from tests.integration.ingest.lake_server import create_command, with_command

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3600)]

SHORT_TRIES, LONG_TRIES = 150, 5000
SEED = 13
# What a caller is told who sends what cannot be read, or too much of it.
REFUSALS = {
    StatusCode.OK, StatusCode.INVALID_ARGUMENT, StatusCode.RESOURCE_EXHAUSTED, StatusCode.UNIMPLEMENTED,
    StatusCode.FAILED_PRECONDITION, StatusCode.ALREADY_EXISTS, StatusCode.DEADLINE_EXCEEDED, StatusCode.ABORTED,
}  # fmt: skip
# TableExistsOption.TABLE_EXISTS_OPTION_APPEND of CommandStatementIngest
_APPEND = 2


class Uploads:
    """A caller who appends a row, again and again, until its `with` block ends."""

    def __init__(self, server, key, table):
        self.failures = []
        self.count = 0
        self.table = table
        self._client = FlightSQLClient(server.uri, auth_provider=StaticTokenAuthProvider(key))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        while not self._stop.wait(0.05):
            try:
                self._client.bulk_ingest(self.table, pa.table({"number": [self.count]}), mode="create_append")
            except Exception as error:  # noqa: BLE001 - whatever it is, the test fails and says so
                self.failures.append(f"{type(error).__name__} {error}")
            else:
                self.count += 1

    def stored(self):
        """Return how many rows there are; call it after the `with` block."""
        return self._client.query_arrow(f"SELECT count(*) FROM {self.table}")[0][0].as_py()

    def __enter__(self):
        self._thread.start()
        wait_until(lambda: self.count > 0 or bool(self.failures), "an upload")
        return self

    def __exit__(self, *_error):
        self._stop.set()
        self._thread.join()


def for_table(frames, table):
    """Return the messages of a call that appends the rows to a table, which is made if there is none."""
    command = create_command(table)
    command.table_definition_options.if_exists = _APPEND
    return [with_command(frames[0], command), *frames[1:]]


def upload(attacker, frames):
    return end_of(attacker.call("DoPut", frames))


def test_damaged_uploads_hurt_nobody_else(server, others, attacker, pytestconfig):
    source = random.Random(SEED)
    streams = [for_table(frames, f"damaged_{number}") for number, frames in enumerate(sample_streams())]
    tries = LONG_TRIES if pytestconfig.getoption("--long") else SHORT_TRIES

    with Uploads(server, KEYS[UPLOADER], "beside_damaged") as uploads:
        whole = [upload(attacker, frames) for frames in streams]
        answers = [upload(attacker, damage_stream(source.choice(streams), source)) for _ in range(tries)]
        others.wait_for_all()

    assert StatusCode.OK in {answer.code for answer in whole}
    assert not others.failures, others.report
    assert uploads.failures == []
    assert uploads.stored() == uploads.count
    assert [answer for answer in [*whole, *answers] if answer.code not in REFUSALS] == []
    assert sum(answer.code is not StatusCode.OK for answer in answers) > tries // 4
