"""Every secret that a run had in play, noted by whoever issued or received it, and the forms it may be found in."""

from __future__ import annotations

import base64
import enum
import json
import re
import threading
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

    def kinds(self):
        return {secret.kind for secret in self}

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
