"""Every secret that a run had in play, the forms it may be found in, and the search for them."""

from __future__ import annotations

import base64
import enum
import json
import re
import threading
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, quote_plus, unquote_plus, urlsplit

SHORTEST_SECRET = 8
SHORTEST_SEGMENT = 20
# A log line or a table cell may cut a secret short: its two ends are searched for.
PIECE_CHARACTERS = 20

_JWT = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]+")
_KEY_LINE = re.compile(r"[A-Za-z0-9+/]{40,}")


class Kind(enum.StrEnum):
    ACCESS_TOKEN = "access token"
    API_KEY = "API key"
    ASSERTION = "assertion"
    AUTHORIZATION_CODE = "authorization code"
    CHALLENGE = "code challenge"
    CLIENT_SECRET = "client secret"
    DEVICE_CODE = "device code"
    HUB_TOKEN = "server's token at a Hub"
    ID_TOKEN = "ID token"
    NONCE = "nonce"
    PLATFORM_TOKEN = "platform's token"
    PRIVATE_KEY = "private key"
    REFRESH_TOKEN = "refresh token"
    START_ADDRESS = "start address"
    STATE = "state"
    USER_CODE = "user code"
    VERIFIER = "code verifier"


KINDS_BY_NAME = {
    "access_token": Kind.ACCESS_TOKEN,
    "assertion": Kind.ASSERTION,
    "client_assertion": Kind.ASSERTION,
    "client_secret": Kind.CLIENT_SECRET,
    "code": Kind.AUTHORIZATION_CODE,
    "code_challenge": Kind.CHALLENGE,
    "code_verifier": Kind.VERIFIER,
    "device_code": Kind.DEVICE_CODE,
    "id_token": Kind.ID_TOKEN,
    "id_token_hint": Kind.ID_TOKEN,
    "nonce": Kind.NONCE,
    "refresh_token": Kind.REFRESH_TOKEN,
    "state": Kind.STATE,
    "subject_token": Kind.PLATFORM_TOKEN,
    "token": Kind.ACCESS_TOKEN,
    "user_code": Kind.USER_CODE,
    "value": Kind.PLATFORM_TOKEN,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownSecret:
    kind: Kind
    text: str = field(repr=False)

    def pieces(self):
        """Return texts of which one stands wherever the secret does, in any form that is searched for."""
        wholes = {self.text, *_private_key_parts(self.text), *_segments(self.text)}
        forms = {form for whole in wholes for form in _forms(whole)}
        return {piece for form in forms for piece in (form[:PIECE_CHARACTERS], form[-PIECE_CHARACTERS:])}


def _forms(text):
    yield text
    yield quote(text, safe="")
    yield quote_plus(text)
    yield json.dumps(text)[1:-1]
    yield repr(text)[1:-1]
    data = text.encode()
    yield data.hex()
    for lead in range(3):  # where base64 text begins to hold it depends on what stands before
        encoded = base64.b64encode(bytes(lead) + data).decode().rstrip("=")
        inner = encoded[4:-4] if lead else encoded[:-4]
        if len(inner) >= SHORTEST_SECRET:
            yield inner
            yield inner.replace("+", "-").replace("/", "_")


def _segments(text):
    return [part for part in text.split(".") if len(part) > SHORTEST_SEGMENT] if text.count(".") >= 2 else []


def _private_key_parts(text):
    return _KEY_LINE.findall(text) if "PRIVATE KEY" in text else []


class SecretsInPlay:
    """What is noted; its lock covers the list, and several threads note at once."""

    def __init__(self):
        self._lock = threading.Lock()
        self._known = set()

    def __iter__(self):
        with self._lock:
            return iter(list(self._known))

    def note(self, kind, text):
        if len(text) >= SHORTEST_SECRET:
            with self._lock:
                self._known.add(KnownSecret(kind=kind, text=text))

    def note_members(self, members):
        for name, value in members:
            if name in KINDS_BY_NAME and isinstance(value, str):
                self.note(KINDS_BY_NAME[name], value)

    def note_address(self, address):
        self.note_members(parse_qsl(urlsplit(address).query))

    def note_headers(self, headers):
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            password = base64.b64decode(given).decode().partition(":")[2]
            self.note(Kind.CLIENT_SECRET, password)
            self.note(Kind.CLIENT_SECRET, unquote_plus(password))
        elif given:
            self.note(Kind.PLATFORM_TOKEN, given)
        if "x-identity-header" in headers:
            self.note(Kind.PLATFORM_TOKEN, headers["x-identity-header"])

    def note_text(self, text):
        for token in _JWT.findall(text):
            self.note(Kind.ACCESS_TOKEN, token)
        try:
            members = json.loads(text)
        except ValueError:
            return
        if isinstance(members, dict):
            self.note_members(members.items())


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
