"""Damaged and enormous rows and parameters of one caller hurt nobody else."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from google.protobuf import any_pb2
from grpc import StatusCode

from micromegas_jupyter import FlightSQLClient
from micromegas_jupyter.auth import StaticTokenAuthProvider
from micromegas_jupyter.flightsql.commands import messages, pack_any, prepared_ticket
from tests.fakes.fixed_tables import encode_stream
from tests.fuzz.damage import damage_stream, sample_streams
from tests.integration.executors.callers import end_of
from tests.integration.executors.conftest import KEYS, MEMORY_MIB, UPLOADER
from tests.integration.executors.server_process import MIB, wait_until
from tests.integration.executors.test_isolation import BASE_MIB
from tests.integration.flight_harness import action_bytes, descriptor_bytes, ticket_bytes
from tests.integration.ingest.lake_server import create_command, with_command

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from tests.integration.executors.callers import Answer, Caller, SmallStatements
    from tests.integration.executors.server_process import MemoryWatch, ServerProcess


pytestmark = [pytest.mark.integration, pytest.mark.timeout(3600)]

SHORT_TRIES, LONG_TRIES = 150, 5000
SEED = 13
STATEMENT = "SELECT ? IS NULL AS is_null"
# What a caller is told who sends what cannot be read, or too much of it.
REFUSALS = {
    StatusCode.OK, StatusCode.INVALID_ARGUMENT, StatusCode.RESOURCE_EXHAUSTED, StatusCode.UNIMPLEMENTED,
    StatusCode.FAILED_PRECONDITION, StatusCode.ALREADY_EXISTS, StatusCode.DEADLINE_EXCEEDED, StatusCode.ABORTED,
}  # fmt: skip
_BOMB_BYTES, _BOMB_COLUMNS = 64 * MIB, 32
_MANY_COLUMNS = 20_000
_DEPTH = 60
# TableExistsOption.TABLE_EXISTS_OPTION_APPEND of CommandStatementIngest
_APPEND = 2


class Uploads:
    """A caller who appends a row, again and again, until its `with` block ends."""

    def __init__(self, server: ServerProcess, key: str, table: str) -> None:
        self.failures: list[str] = []
        self.count = 0
        self.table = table
        self._client = FlightSQLClient(server.uri, auth_provider=StaticTokenAuthProvider(key))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            try:
                self._client.bulk_ingest(self.table, pa.table({"number": [self.count]}), mode="create_append")
            except Exception as error:  # noqa: BLE001 - whatever it is, the test fails and says so
                self.failures.append(f"{type(error).__name__} {error}")
            else:
                self.count += 1

    def stored(self) -> int:
        """Return how many rows there are; call it after the `with` block."""
        found: int = self._client.query_arrow(f"SELECT count(*) FROM {self.table}")[0][0].as_py()
        return found

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(lambda: self.count > 0 or bool(self.failures), "an upload")
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()


def enormous_streams() -> Iterator[list[bytes]]:
    """Yield small messages that ask for gigabytes, or for very many or very deep columns."""
    zeros = pa.Array.from_buffers(pa.int64(), _BOMB_BYTES // 8, [None, pa.py_buffer(bytes(_BOMB_BYTES))])
    bomb = pa.table([zeros] * _BOMB_COLUMNS, names=[f"c{number}" for number in range(_BOMB_COLUMNS)])
    yield encode_stream(bomb, compression="zstd")
    for compression in ("lz4", "zstd"):
        schema, batch = encode_stream(pa.table({"n": list(range(1000))}), compression=compression)
        data = messages.FlightData.FromString(batch)
        data.data_body = (1 << 40).to_bytes(8, "little") + data.data_body[8:]
        yield [schema, data.SerializeToString()]
    yield encode_stream(pa.table({f"c{number}": [1] for number in range(_MANY_COLUMNS)}))
    deep = pa.int64()
    for _ in range(_DEPTH):
        deep = pa.list_(deep)
    yield encode_stream(pa.table({"deep": pa.array([None], deep)}))


def for_table(frames: list[bytes], table: str) -> list[bytes]:
    """Return the messages of a call that appends the rows to a table, which is made if there is none."""
    command = create_command(table)
    command.table_definition_options.if_exists = _APPEND
    return [with_command(frames[0], command), *frames[1:]]


def upload(attacker: Caller, frames: list[bytes]) -> Answer:
    return end_of(attacker.call("DoPut", frames))


def test_damaged_uploads_hurt_nobody_else(
    server: ServerProcess, others: SmallStatements, attacker: Caller, pytestconfig: pytest.Config
) -> None:
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


def test_enormous_uploads_hurt_nobody_else(
    server: ServerProcess, others: SmallStatements, attacker: Caller, memory: MemoryWatch
) -> None:
    with Uploads(server, KEYS[UPLOADER], "beside_enormous") as uploads:
        answers = [
            upload(attacker, for_table(frames, f"enormous_{number}"))
            for number, frames in enumerate(enormous_streams())
        ]
        others.wait_for_all()

    assert not others.failures, others.report
    assert uploads.failures == []
    assert uploads.stored() == uploads.count
    assert [answer for answer in answers if answer.code not in REFUSALS] == []
    assert memory.peak_bytes < (MEMORY_MIB + BASE_MIB) * MIB


def _prepare(attacker: Caller) -> bytes:
    body = pack_any(messages.ActionCreatePreparedStatementRequest(query=STATEMENT))
    (reply,) = attacker.call("DoAction", [action_bytes("CreatePreparedStatement", body)])
    envelope = any_pb2.Any.FromString(messages.Result.FromString(reply).body)
    handle: bytes = messages.ActionCreatePreparedStatementResult.FromString(envelope.value).prepared_statement_handle
    return handle


def _run_bound(attacker: Caller, handle: bytes, frames: list[bytes]) -> list[Answer]:
    """Bind values and run the statement with them; return how both ended."""
    bound, answers = handle, []
    put = attacker.call("DoPut", frames)
    replies: list[bytes] = []

    def kept() -> Iterator[bytes]:
        for reply in put:
            replies.append(reply)
            yield reply

    answers.append(end_of(kept()))
    if replies:
        result = messages.PutResult.FromString(replies[0]).app_metadata
        bound = messages.DoPutPreparedStatementResult.FromString(result).prepared_statement_handle or handle
    answers.append(end_of(attacker.call("DoGet", [ticket_bytes(prepared_ticket(bound))])))
    return answers


def test_damaged_parameters_hurt_nobody_else(
    others: SmallStatements, attacker: Caller, pytestconfig: pytest.Config
) -> None:
    source = random.Random(SEED)
    handle = _prepare(attacker)
    values = [
        pa.array([1]), pa.array(["x"]).dictionary_encode(), pa.array(["long enough for a buffer"], pa.string_view()),
        pa.array([[1, 2]]), pa.array([{"a": 1, "b": "x"}]), pa.array([None], pa.list_(pa.int8(), 2)),
    ]  # fmt: skip
    descriptor = descriptor_bytes(messages.CommandPreparedStatementQuery(prepared_statement_handle=handle))
    streams = []
    for value in values:
        for compression in (None, "zstd"):
            first, *rest = encode_stream(pa.table({"0": value}), compression=compression)
            data = messages.FlightData.FromString(first)
            data.flight_descriptor.ParseFromString(descriptor)
            streams.append([data.SerializeToString(), *rest])
    tries = LONG_TRIES if pytestconfig.getoption("--long") else SHORT_TRIES

    whole = _run_bound(attacker, handle, streams[0])
    answers = [
        answer
        for _ in range(tries)
        for answer in _run_bound(attacker, handle, damage_stream(source.choice(streams), source))
    ]
    others.wait_for_all()

    assert [answer.code for answer in whole] == [StatusCode.OK] * 2
    assert not others.failures, others.report
    assert [answer for answer in answers if answer.code not in REFUSALS] == []
    assert sum(answer.code is not StatusCode.OK for answer in answers) > tries // 4
