"""Damages texts, JSON, bytes and Arrow messages as hostile clients would; a seed gives the same damage again."""

import base64
import binascii
import json
from datetime import UTC, datetime

import pyarrow as pa

from micromegas_jupyter.flightsql.commands import messages
from tests.fakes.fixed_tables import encode_stream
from tests.fakes.telemetry_rows import sent_processes

ODD_TEXTS = (
    "", "\0", "\r\n", "\u2028", "\ud800", "é" * 50, "none", "HS256", "RS256", "../../etc/passwd", "' OR 1=1 --",
    "http://169.254.169.254/", "a" * 5000, "=", "==", "+/", "%00", "\ufeff", "{tenantid}", "*",
)  # fmt: skip
ODD_VALUES = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, -(10**30), 0.5, 1e308, -0.0, float("nan"), float("inf"), "", [],
    {}, [[]], [None], {"": ""}, {"a": {"a": {"a": {}}}}, "0", "true", *ODD_TEXTS,
)  # fmt: skip


def damage_text(text, random):
    """Change one to four places of a text."""
    for _ in range(random.randint(1, 4)):
        position = random.randrange(len(text) + 1)
        length = random.choice((0, 0, 1, 1, 2, 8, 64))
        piece = random.choice((_random_character, _odd_text, _copy_of_a_part))(text, random)
        text = text[:position] + piece + text[position + length :]
    return text


def damage_token(token, random):
    """Change a compact JWS: as text, in its segments, or in the JSON inside a segment."""
    return random.choice((damage_text, _damage_segments, _damage_inside, _damage_inside))(token, random)


def damage_json(value, random, *, chance=0.2):
    """Return a JSON value with some parts replaced, doubled, renamed or taken away."""
    if random.random() < chance / 2:
        return random.choice(ODD_VALUES)
    if isinstance(value, dict):
        changed = {
            (random.choice(ODD_TEXTS) if random.random() < chance / 4 else name): damage_json(inner, random)
            for name, inner in value.items()
            if random.random() > chance / 4
        }
        if random.random() < chance:
            changed[random.choice(tuple(value) or ("x",))] = random.choice(ODD_VALUES)
        return changed
    if isinstance(value, list):
        changed_items = [damage_json(inner, random, chance=chance) for inner in value if random.random() > chance / 4]
        return changed_items * random.choice((1, 1, 1, 2)) + random.choice(([], [], [random.choice(ODD_VALUES)]))
    return damage_text(value, random) if isinstance(value, str) and random.random() < chance else value


def encode_any_json(value):
    """Write JSON that may hold NaN and half surrogate pairs, as hostile writers do."""
    return json.dumps(value).encode("utf-8", "surrogatepass")


def _random_character(_text, random):
    return chr(random.choice((random.randrange(128), random.randrange(0x180), random.randrange(0x110000))))


def _odd_text(_text, random):
    return random.choice(ODD_TEXTS)


def _copy_of_a_part(text, random):
    start = random.randrange(len(text) + 1)
    return text[start : start + random.randrange(40)]


def _damage_segments(token, random):
    segments = token.split(".")
    operations = (
        lambda: random.shuffle(segments),
        lambda: segments.append(random.choice(segments)),
        lambda: segments.pop(random.randrange(len(segments))),
        lambda: segments.__setitem__(random.randrange(len(segments)), ""),
        lambda: segments.__setitem__(0, segments[-1]),
    )
    random.choice(operations)()
    return random.choice((".", ".", "..", "")).join(segments)


def _damage_inside(token, random):
    segments = token.split(".")
    place = random.randrange(min(2, len(segments)))
    try:
        inner = json.loads(base64.urlsafe_b64decode(segments[place] + "=="))
    except (ValueError, binascii.Error):
        return damage_text(token, random)
    written = encode_any_json(damage_json(inner, random))
    if random.random() < 0.1:
        written = damage_text(written.decode("latin-1"), random).encode("utf-8", "surrogatepass")
    segments[place] = base64.urlsafe_b64encode(written).rstrip(b"=").decode("ascii")
    return ".".join(segments)


_PIECES = (
    b"", b"\0", b"\xff", b"\x7f", b"\x80", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80",
    b"\xff\xff\xff\xff\xff\xff\xff\xff", b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"\xff" * 10 + b"\x01",
    b"\x0a", b"\x12", b"\x0a\x80\x80\x80\x80\x10", b"\x0b", b"\x0c", b"\x0f", b"\xc2\x3e", b"\x00" * 64,
    b"type.googleapis.com/arrow.flight.protocol.sql.", b"\n-- prepared ", b"micromegas-ticket-1:", "é\u2028".encode(),
)  # fmt: skip


def damage_bytes(data, random):
    """Change one to four places of `data`."""
    damaged = bytearray(data)
    for _ in range(random.randint(1, 4)):
        place = random.randrange(len(damaged) + 1)
        match random.randrange(6):
            case 0 if damaged:
                damaged[place % len(damaged)] ^= 1 << random.randrange(8)
            case 1:
                del damaged[place:]
            case 2:
                del damaged[place : place + random.choice((1, 2, 4, 8, 64))]
            case 3:
                damaged[place:place] = damaged[place : place + random.randrange(64)]
            case 4:
                damaged[place:place] = random.choice(_PIECES)
            case _:
                piece = random.choice(_PIECES)
                damaged[place : place + len(piece)] = piece
    return bytes(damaged)


JSONB = bytes.fromhex("400000011000000410000005") + b"namevalue"
_WHEN = datetime(2026, 11, 25, tzinfo=UTC)
_ODD_NUMBERS = (0, 1, -1, 7, 2**31 - 1, -(2**31), 2**31, 2**62, -(2**62), 1000, 65535)


def sample_streams():
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


def damage_places(data, random):
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


def _damage_frame(frame, random):
    if random.random() < 0.1:
        return damage_places(frame, random)
    data = messages.FlightData.FromString(frame)
    if random.random() < 0.6:
        data.data_header = damage_places(data.data_header, random)
    else:
        # Its length stays, so that the damage reaches further than the first check.
        data.data_body = damage_places(data.data_body, random)[: len(data.data_body)].ljust(len(data.data_body), b"\0")
    return data.SerializeToString()


def damage_stream(frames, random):
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
