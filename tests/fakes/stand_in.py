"""What `platform_stand_ins` and `exchange_stand_ins` have in common: a server on loopback, and tokens."""

from __future__ import annotations

import base64
import json
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Self
from urllib.parse import parse_qs, urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from micromegas_jupyter.seams import SYSTEM_CLOCK
from tests.fakes.mint import SigningKey, mint_raw, rsa_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from micromegas_jupyter.seams import Clock

EMAIL = "reporter@example-project.iam.gserviceaccount.com"
GOOGLE_ISSUER = "https://accounts.google.com"
PLATFORM_KEY = rsa_key("platform")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request that came."""

    method: str
    path: str
    query: Mapping[str, str]
    form: Mapping[str, str]
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer."""

    status: int = 200
    body: object = None
    text: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class StandIn:
    """A context manager that serves at `base`; every call is kept, and the next answer may be replaced.

    Args:
        clock: Tells its time, in tokens and in the Date header.
    """

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.clock = clock
        self.calls: list[Call] = []
        self.lifetime_seconds = 3600
        self._replacements: list[Reply] = []
        self._lock = threading.Lock()
        self._server = _Server(self)
        self.base = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def reply_once(self, reply: Reply) -> None:
        """Answer the next request with `reply`."""
        self._replacements.append(reply)

    def handle(self, call: Call) -> Reply:
        """Answer one request."""
        with self._lock:
            self.calls.append(call)
            return self._replacements.pop(0) if self._replacements else self.answer(call)

    def answer(self, call: Call) -> Reply:
        """Answer one request as the vendor does."""
        raise NotImplementedError

    def now_seconds(self) -> int:
        """Return the stand-in's time."""
        return int(self.clock.now().timestamp())

    def mint(self, *, issuer: str, subject: str, audience: object, **claims: object) -> str:
        """Make a token of the platform."""
        now = self.now_seconds()
        times = {"iat": now, "exp": now + self.lifetime_seconds, "jti": f"{len(self.calls)}"}
        content = {"iss": issuer, "sub": subject, "aud": audience, **times, **claims}
        return mint_raw(json.dumps(content).encode(), key=PLATFORM_KEY)


def verified_claims(token: str, key: SigningKey, *, key_id: str) -> dict[str, object] | None:
    """Return the claims of a token that the RSA key signed with RS256; None when it did not."""
    public = key.private.public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    try:
        head, body, signature = token.split(".")
        header = json.loads(_decoded(head))
        if header != {"alg": "RS256", "typ": "JWT", "kid": key_id}:
            return None
        public.verify(_decoded(signature), f"{head}.{body}".encode(), padding.PKCS1v15(), hashes.SHA256())
        claims = json.loads(_decoded(body))
    except (ValueError, InvalidSignature):
        return None
    return claims if isinstance(claims, dict) else None


def _decoded(segment: str) -> bytes:
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, stand_in: StandIn) -> None:
        self.stand_in = stand_in
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        assert self.headers["Content-Type"] == "application/x-www-form-urlencoded"
        self._answer(_flat(self.rfile.read(int(self.headers["Content-Length"])).decode()))

    def date_time_string(self, timestamp: float | None = None) -> str:
        assert isinstance(self.server, _Server)
        return format_datetime(self.server.stand_in.clock.now(), usegmt=True)

    def _answer(self, form: dict[str, str]) -> None:
        assert isinstance(self.server, _Server)
        parts = urlsplit(self.path)
        reply = self.server.stand_in.handle(
            Call(
                method=self.command,
                path=parts.path,
                query=_flat(parts.query),
                form=form,
                headers={name.lower(): value for name, value in self.headers.items()},
            )
        )
        content = (json.dumps(reply.body) if reply.text is None else reply.text).encode()
        with suppress(OSError):
            self.send_response(reply.status)
            headers = {"Content-Type": "application/json", **reply.headers, "Content-Length": str(len(content))}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *_parts: object) -> None:
        """Write nothing."""


def _flat(query: str) -> dict[str, str]:
    found = parse_qs(query, keep_blank_values=True, strict_parsing=bool(query))
    assert all(len(values) == 1 for values in found.values()), "a parameter came twice"
    return {name: values[0] for name, values in found.items()}
