"""Damaged Arrow data and commands of an ingest: rows that fit, or a refusal, and never anything else."""

from __future__ import annotations

import random  # noqa: TC003 - the tests draw from it
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from micromegas_jupyter.contracts import WriteMode, WriteRequest
from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.flightsql import messages
from micromegas_jupyter.flightsql.commands import pack_any
from micromegas_jupyter.flightsql.ingest_command import parse_ingest_descriptor
from micromegas_jupyter.lakehouse.user_columns import check_fits, convert_rows, stored_schema
from micromegas_jupyter.server.ingest_settings import IngestSettings
from micromegas_jupyter.server.ingest_stream import IngestStream
from micromegas_jupyter.telemetry import PROCESSES, TableDefinition
from micromegas_jupyter.telemetry.conversion import check_columns
from micromegas_jupyter.telemetry.conversion import convert_rows as convert_telemetry
from micromegas_jupyter.telemetry.jsonb import parse_properties
from tests.fakes.arrow_messages import encode_stream
from tests.fakes.ingest_rows import sent_processes
from tests.fuzz.conftest import sizes

if TYPE_CHECKING:
    from collections.abc import Callable

    from micromegas_jupyter.contracts import TableWrite
    from tests.fuzz.conftest import Fuzzing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

_REQUEST = WriteRequest(table="t", mode=WriteMode.CREATE)
_SETTINGS = IngestSettings(max_row_bytes=1024 * 1024, max_bytes=8 * 1024 * 1024)
_JSONB = bytes.fromhex("400000011000000410000005") + b"namevalue"
_WHEN = datetime(2026, 11, 25, tzinfo=UTC)
_ODD_NUMBERS = (0, 1, -1, 7, 2**31 - 1, -(2**31), 2**31, 2**62, -(2**62), 1000, 65535)


class _Converting:
    """Implements `contracts.TableSink` and `contracts.TableWrite`: fits the rows to a table and forgets them."""

    def open_write(self, request: WriteRequest, schema: pa.Schema) -> TableWrite:
        self._definition: TableDefinition | None = PROCESSES if "process_id" in schema.names else None
        if self._definition is None:
            self._schema = stored_schema(schema)
            check_fits(schema, self._schema)
        else:
            check_columns(schema, self._definition)
        return self

    def write(self, batch: pa.RecordBatch) -> None:
        if self._definition is None:
            convert_rows(batch, self._schema).validate(full=True)
        else:
            convert_telemetry(batch, self._definition).validate(full=True)

    def commit(self) -> int:
        return 0

    def abandon(self) -> None:
        """Nothing is kept."""


def _streams() -> list[list[bytes]]:
    rows = pa.table(
        {
            "n": pa.array([1, None, 3]),
            "flag": pa.array([True, None, False]),
            "text": ["a", None, "ü" * 20],
            "view": pa.array(["a", None, "long enough for a buffer"], pa.string_view()),
            "word": pa.array(["x", "y", "x"]).dictionary_encode(),
            "time": pa.array([_WHEN, None, _WHEN], pa.timestamp("us", "UTC")),
            "list": [[1, 2], [], None],
            "struct": [{"a": 1, "b": "x"}, None, {"a": 2, "b": None}],
            "map": pa.array([[("k", 1)], [], None], pa.map_(pa.utf8(), pa.int64())),
            "pair": pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int8(), 2)),
            "nothing": pa.array([b"", None, b"\0"]),
        }
    )
    jsonb = sent_processes("a", "b", properties=pa.array([_JSONB, _JSONB]).dictionary_encode())
    return [
        encode_stream(rows),
        encode_stream(rows, compression="lz4"),
        encode_stream(rows, compression="zstd"),
        encode_stream(rows, rows, deltas=True),
        encode_stream(sent_processes("a", "b")),
        encode_stream(jsonb),
    ]


def _damage_bytes(data: bytes, random: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random.randint(1, 3)):
        position = random.randrange(len(changed) + 1)
        width = random.choice((1, 1, 2, 4, 8))
        kind = random.randrange(4)
        if kind == 0:
            del changed[position : position + random.choice((1, 8, 64))]
        elif kind == 1:
            changed[position:position] = random.randbytes(width)
        else:
            number = random.choice(_ODD_NUMBERS) if kind == 2 else random.getrandbits(8 * width)
            changed[position : position + width] = (number % (1 << 8 * width)).to_bytes(width, "little")
    return bytes(changed)


def _damage_frame(frame: bytes, random: random.Random) -> bytes:
    if random.random() < 0.1:
        return _damage_bytes(frame, random)
    data = messages.FlightData.FromString(frame)
    if random.random() < 0.6:
        data.data_header = _damage_bytes(data.data_header, random)
    else:
        # Its length stays, so that the damage reaches further than the first check.
        data.data_body = _damage_bytes(data.data_body, random)[: len(data.data_body)].ljust(len(data.data_body), b"\0")
    damaged: bytes = data.SerializeToString()
    return damaged


def _damage_stream(frames: list[bytes], random: random.Random) -> list[bytes]:
    changed = list(frames)
    position = random.randrange(len(changed))
    kind = random.randrange(8)
    if kind == 0:
        del changed[position]
    elif kind == 1:
        changed.insert(position, random.choice(changed))
    else:
        changed[position] = _damage_frame(changed[position], random)
    return changed


def _refused(action: Callable[[], object]) -> bool:
    try:
        action()
    except MicromegasError:
        return True
    return False


def _send(frames: list[bytes]) -> None:
    stream = IngestStream(_Converting(), _REQUEST, settings=_SETTINGS, row_count=None)
    for frame in frames:
        stream.take(frame)
    stream.commit()


@sizes(short=3_000, long=300_000)
def test_damaged_rows_are_taken_or_refused(fuzzing: Fuzzing) -> None:
    streams = _streams()
    refused = 0

    for frames in streams:
        _send(frames)
    for _ in range(fuzzing.tries):
        frames = _damage_stream(fuzzing.random.choice(streams), fuzzing.random)
        refused += bool(fuzzing.attempt(lambda frames=frames: _refused(lambda: _send(frames))))

    assert fuzzing.tries // 4 < refused < fuzzing.tries
    fuzzing.check_bounds()


@sizes(short=3_000, long=300_000)
def test_damaged_commands_are_read_or_refused(fuzzing: Fuzzing) -> None:
    command = messages.CommandStatementIngest(table="t", catalog="c", options={"a": "b"})
    command.table_definition_options.if_exists = 2
    packed = pack_any(command)

    for _ in range(fuzzing.tries):
        descriptor = messages.FlightDescriptor(type=2, cmd=_damage_bytes(packed, fuzzing.random))
        fuzzing.attempt(lambda found=descriptor: _refused(lambda: parse_ingest_descriptor(found)))

    fuzzing.check_bounds()


@sizes(short=3_000, long=300_000)
def test_damaged_properties_are_read_or_refused(fuzzing: Fuzzing) -> None:
    nested = bytes.fromhex("400000011000000150000010") + b"k" + bytes.fromhex("80000001200000024000ff") + b"\0" * 5
    for _ in range(fuzzing.tries):
        data = _damage_bytes(fuzzing.random.choice((_JSONB, nested)), fuzzing.random)
        fuzzing.attempt(lambda data=data: _refused(lambda: parse_properties(data)))

    fuzzing.check_bounds()
