"""What `platform_stand_ins` and `exchange_stand_ins` have in common: a server on loopback, and tokens."""

from __future__ import annotations

import base64
import json
import threading
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from micromegas_jupyter.core.system import SYSTEM_CLOCK
from tests.fakes.loopback_http import LoopbackHttp, RawCall, RawReply
from tests.fakes.mint import SigningKey, mint_raw, rsa_key
from tests.fakes.scripted_http import Reply, Seen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from micromegas_jupyter.core.system import Clock

EMAIL = "reporter@example-project.iam.gserviceaccount.com"
GOOGLE_ISSUER = "https://accounts.google.com"
PLATFORM_KEY = rsa_key("platform")


class StandIn(LoopbackHttp):
    """A context manager that serves at `base`; every call is kept, and the next answer may be replaced.

    Args:
        clock: Tells its time, in tokens and in the Date header.
    """

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__(clock=clock)
        self.calls: list[Seen] = []
        self.lifetime_seconds = 3600
        self._replacements: list[Reply] = []
        self._lock = threading.Lock()

    def reply_once(self, reply: Reply) -> None:
        """Answer the next request with `reply`."""
        self._replacements.append(reply)

    def respond(self, call: RawCall) -> RawReply:
        form: Mapping[str, str] = {}
        if call.method == "POST":
            assert call.headers["content-type"] == "application/x-www-form-urlencoded"
            form = _flat(call.body.decode())
        parts = urlsplit(call.target)
        query = _flat(parts.query)
        reply = self.handle(Seen(method=call.method, path=parts.path, query=query, form=form, headers=call.headers))
        return RawReply(status=reply.status, content=reply.content, headers=reply.all_headers)

    def handle(self, call: Seen) -> Reply:
        """Keep a request and answer it."""
        with self._lock:
            self.calls.append(call)
            return self._replacements.pop(0) if self._replacements else self.answer(call)

    def answer(self, call: Seen) -> Reply:
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


def _flat(query: str) -> dict[str, str]:
    found = parse_qs(query, keep_blank_values=True, strict_parsing=bool(query))
    assert all(len(values) == 1 for values in found.values()), "a parameter came twice"
    return {name: values[0] for name, values in found.items()}
