"""Damages texts and JSON documents in ways that parsers meet in hostile input; a seed gives the same damage again."""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

ODD_TEXTS = (
    "", "\0", "\r\n", "\u2028", "\ud800", "é" * 50, "none", "HS256", "RS256", "../../etc/passwd", "' OR 1=1 --",
    "http://169.254.169.254/", "a" * 5000, "=", "==", "+/", "%00", "\ufeff", "{tenantid}", "*",
)  # fmt: skip
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, -(10**30), 0.5, 1e308, -0.0, float("nan"), float("inf"), "", [],
    {}, [[]], [None], {"": ""}, {"a": {"a": {"a": {}}}}, "0", "true", *ODD_TEXTS,
)  # fmt: skip


def damage_text(text: str, random: random.Random) -> str:
    """Change one to four places of a text."""
    for _ in range(random.randint(1, 4)):
        position = random.randrange(len(text) + 1)
        length = random.choice((0, 0, 1, 1, 2, 8, 64))
        piece = random.choice((_random_character, _odd_text, _copy_of_a_part))(text, random)
        text = text[:position] + piece + text[position + length :]
    return text


def damage_token(token: str, random: random.Random) -> str:
    """Change a compact JWS: as text, in its segments, or in the JSON inside a segment."""
    return random.choice((damage_text, _damage_segments, _damage_inside, _damage_inside))(token, random)


def damage_json(value: Any, random: random.Random, *, chance: float = 0.2) -> Any:
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


def encode_any_json(value: Any) -> bytes:
    """Write JSON that may hold NaN and half surrogate pairs, as hostile writers do."""
    return json.dumps(value).encode("utf-8", "surrogatepass")


def _random_character(_text: str, random: random.Random) -> str:
    return chr(random.choice((random.randrange(128), random.randrange(0x180), random.randrange(0x110000))))


def _odd_text(_text: str, random: random.Random) -> str:
    return random.choice(ODD_TEXTS)


def _copy_of_a_part(text: str, random: random.Random) -> str:
    start = random.randrange(len(text) + 1)
    return text[start : start + random.randrange(40)]


def _damage_segments(token: str, random: random.Random) -> str:
    segments = token.split(".")
    operations: Sequence[Callable[[], object]] = (
        lambda: random.shuffle(segments),
        lambda: segments.append(random.choice(segments)),
        lambda: segments.pop(random.randrange(len(segments))),
        lambda: segments.__setitem__(random.randrange(len(segments)), ""),
        lambda: segments.__setitem__(0, segments[-1]),
    )
    random.choice(operations)()
    return random.choice((".", ".", "..", "")).join(segments)


def _damage_inside(token: str, random: random.Random) -> str:
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
