"""Damaged rows of one caller hurt nobody else."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

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

SHORT_TRIES, LONG_TRIES = 60, 5000
SEED = 13
# What a caller is told who sends what cannot be read, or too much of it.
REFUSALS = {
    StatusCode.OK, StatusCode.INVALID_ARGUMENT, StatusCode.RESOURCE_EXHAUSTED, StatusCode.UNIMPLEMENTED,
    StatusCode.FAILED_PRECONDITION, StatusCode.ALREADY_EXISTS, StatusCode.DEADLINE_EXCEEDED, StatusCode.ABORTED,
}  # fmt: skip
# TableExistsOption.TABLE_EXISTS_OPTION_APPEND of CommandStatementIngest
_APPEND = 2


@contextmanager
def uploading(server, key, table):
    """Have a caller append a row, again and again; at the end each one that was acknowledged is stored."""
    count, stop = 0, threading.Event()
    with (
        ThreadPoolExecutor(1) as thread,
        FlightSQLClient(server.uri, auth_provider=StaticTokenAuthProvider(key)) as one,
    ):

        def upload_on():
            nonlocal count
            while not stop.wait(0.05):
                one.bulk_ingest(table, pa.table({"number": [count]}), mode="create_append")
                count += 1

        running = thread.submit(upload_on)
        try:
            wait_until(lambda: count or running.done(), "an upload")
            yield
        finally:
            stop.set()
        running.result()
        assert one.query_arrow(f"SELECT count(*) FROM {table}")[0][0].as_py() == count


def for_table(frames, number):
    """Return the messages of a call that appends the rows to a table, which is made if there is none."""
    command = create_command(f"damaged_{number}")
    command.table_definition_options.if_exists = _APPEND
    return [with_command(frames[0], command), *frames[1:]]


def test_damaged_uploads_hurt_nobody_else(server, others, attacker, pytestconfig):
    source = random.Random(SEED)
    streams = [for_table(frames, number) for number, frames in enumerate(sample_streams())]
    tries = LONG_TRIES if pytestconfig.getoption("--long") else SHORT_TRIES

    def upload(frames):
        return end_of(attacker.call("DoPut", frames))

    with uploading(server, KEYS[UPLOADER], "beside_damaged"):
        whole = [upload(frames) for frames in streams]
        answers = [upload(damage_stream(source.choice(streams), source)) for _ in range(tries)]
        others.wait_for_all()

    assert StatusCode.OK in {answer.code for answer in whole}
    assert not others.failures, others.report
    assert [answer for answer in [*whole, *answers] if answer.code not in REFUSALS] == []
    assert sum(answer.code is not StatusCode.OK for answer in answers) > tries // 4
