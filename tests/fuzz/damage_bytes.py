"""Damages bytes as a hostile or broken client would: bits, cuts, copies, and the numbers that lengths are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

_PIECES = (
    b"", b"\0", b"\xff", b"\x7f", b"\x80", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80",
    b"\xff\xff\xff\xff\xff\xff\xff\xff", b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"\xff" * 10 + b"\x01",
    b"\x0a", b"\x12", b"\x0a\x80\x80\x80\x80\x10", b"\x0b", b"\x0c", b"\x0f", b"\xc2\x3e", b"\x00" * 64,
    b"type.googleapis.com/arrow.flight.protocol.sql.", b"\n-- prepared ", b"micromegas-ticket-1:", "é\u2028".encode(),
)  # fmt: skip


def damage_bytes(data: bytes, random: random.Random) -> bytes:
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
