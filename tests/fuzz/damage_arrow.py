"""Damages the messages of an ingest as a hostile or broken client would: their order, headers and buffers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa

from micromegas_jupyter.flightsql import messages
from tests.fakes.arrow_messages import encode_stream
from tests.fakes.ingest_rows import sent_processes

if TYPE_CHECKING:
    import random

JSONB = bytes.fromhex("400000011000000410000005") + b"namevalue"
_WHEN = datetime(2026, 11, 25, tzinfo=UTC)
_ODD_NUMBERS = (0, 1, -1, 7, 2**31 - 1, -(2**31), 2**31, 2**62, -(2**62), 1000, 65535)


def sample_streams() -> list[list[bytes]]:
    """Return the messages of six ingests: compressed or not, with dictionaries and their deltas, with JSONB."""
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
    jsonb = sent_processes("a", "b", properties=pa.array([JSONB, JSONB]).dictionary_encode())
    return [
        encode_stream(rows),
        encode_stream(rows, compression="lz4"),
        encode_stream(rows, compression="zstd"),
        encode_stream(rows, rows, deltas=True),
        encode_stream(sent_processes("a", "b")),
        encode_stream(jsonb),
    ]


def damage_places(data: bytes, random: random.Random) -> bytes:
    """Change one to three places of `data`, mostly to numbers that lengths are made of."""
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
        return damage_places(frame, random)
    data = messages.FlightData.FromString(frame)
    if random.random() < 0.6:
        data.data_header = damage_places(data.data_header, random)
    else:
        # Its length stays, so that the damage reaches further than the first check.
        data.data_body = damage_places(data.data_body, random)[: len(data.data_body)].ljust(len(data.data_body), b"\0")
    damaged: bytes = data.SerializeToString()
    return damaged


def damage_stream(frames: list[bytes], random: random.Random) -> list[bytes]:
    """Leave out, repeat or damage one of the messages of a call."""
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
