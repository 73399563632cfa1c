"""Searches what a run left in every place for every secret that was in play.

What may stand where is decided by a list that the caller gives: nothing is allowed that it does not name.
"""

from __future__ import annotations

import enum
import re
from collections import Counter
from dataclasses import dataclass, field

from tests.integration.system.escapes.secrets_in_play import PIECE_CHARACTERS, Kind

_EXCERPT_CHARACTERS = 60
# What secrets and their encoded forms are written with; almost all text falls into few different runs of it.
_RUN = re.compile(r"[A-Za-z0-9_.~%+/=-]{8,}")


class Place(enum.StrEnum):
    ARGUMENTS = "process arguments"
    ENVIRONMENT = "environment"
    FILE = "file"
    HISTORY = "history"
    LOG = "log"
    NOTEBOOK = "notebook"
    OUTPUT = "output"
    REPR = "repr"
    TELEMETRY = "telemetry"
    TRACEBACK = "traceback"


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    place: Place
    name: str
    text: str = field(repr=False)
    mode: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """Kinds of secrets that belong into places whose name has a pattern in it, and why."""

    place: Place
    name: str
    kinds: frozenset[Kind]
    reason: str

    def covers(self, secret, text):
        return secret.kind in self.kinds and self.place is text.place and re.search(self.name, text.name) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A secret where it must not be; its excerpt is of a test's own secret."""

    kind: Kind
    place: Place
    name: str
    excerpt: str

    def __str__(self):
        return f"{self.kind} in {self.place} {self.name!r}: …{self.excerpt}…"


def scan(texts, secrets, allowed=()):
    """Return every secret that stands in a text, in any of its forms, unless it may be there."""
    holders = {}
    for secret in secrets:
        for piece in secret.pieces():
            holders.setdefault(piece, []).append(secret)
    there = _pieces_in(texts, holders)
    return [finding for text in texts for finding in _findings(text, there, allowed)]


def _pieces_in(texts, holders):
    """Return those pieces that stand in any text at all: few do, and most text is in many places."""
    runs = {run for text in texts for run in _RUN.findall(text.text)}
    by_length = {}
    others = []
    for piece in holders:
        if _RUN.fullmatch(piece):
            by_length.setdefault(len(piece), set()).add(piece)
        else:
            others.append(piece)
    found = {
        run[start : start + length]
        for run in runs
        for length in by_length
        for start in range(len(run) - length + 1)
        if run[start : start + length] in by_length[length]
    }
    found.update(piece for piece in others if any(piece in text.text for text in texts))
    return {piece: holders[piece] for piece in found}


def _findings(text, there, allowed):
    found = {}
    for piece, secrets in there.items():
        # Tokens begin alike: where one of them may be, that beginning says nothing of the others.
        if piece in text.text and not any(rule.covers(secret, text) for rule in allowed for secret in secrets):
            found.setdefault(secrets[0].kind, piece)
    return [
        Finding(kind=kind, place=text.place, name=text.name, excerpt=_excerpt(text.text, piece))
        for kind, piece in found.items()
    ]


def _excerpt(text, piece):
    start = text.index(piece)
    return text[max(0, start - _EXCERPT_CHARACTERS) : start + PIECE_CHARACTERS].replace("\n", " ")


def summary(findings):
    counted = Counter(str(finding) for finding in findings)
    return "\n".join(f"{count} × {line}" for line, count in sorted(counted.items()))
