"""An OpenID provider on loopback that does as it is told.

Left alone it is honest and strict: code with PKCE, rotation that revokes the family on reuse, real signatures. A
test may have the next answer of a path replaced, change what ID tokens say, or stop it; every request is kept.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
from typing import TYPE_CHECKING, Self
from urllib.parse import unquote_plus, urlencode, urlsplit

from micromegas_jupyter.core.http import Callee, HttpAnswer, RawAnswer, check_answer, read_answer
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import ProviderUnavailable
from tests.fakes.mint import SigningKey, ec_key, encode, encode_json, mint_raw
from tests.fakes.scripted_device import ScriptedDeviceFlow
from tests.fakes.scripted_http import Reply, ScriptedServer, Seen, flat_query

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from micromegas_jupyter.core.system import Clock


class ScriptedProvider:
    """A context manager that serves on a socket while entered; its lock covers all of its state.

    Attributes:
        id_token_changes: Claims to add or replace in ID tokens; None removes one.
        callback_changes: Parameters to add or replace in callbacks; None removes one.
        metadata_changes: Members to add or replace in the discovery document; None removes one.
        device: The device flow, and the person in it.
        poll_seconds: How long it may take to notice that it is to stop.
    """

    poll_seconds = 0.05

    def __init__(
        self,
        *,
        client_id: str = "notebook",
        client_secret: str | None = None,
        clock: Clock = SYSTEM_CLOCK,
        issuer_path: str = "",
        lifetime_seconds: int = 3600,
    ) -> None:
        self.client_id = client_id
        self.client_secret = client_secret
        self.lifetime_seconds = lifetime_seconds
        self.id_token_changes: dict[str, object] = {}
        self.callback_changes: dict[str, str | None] = {}
        self.metadata_changes: dict[str, object] = {}
        self.refresh_changes: dict[str, object] = {}
        self.unsigned = False
        self.signing_key: SigningKey = ec_key()
        self.published_keys: tuple[SigningKey, ...] = (ec_key(),)
        self.requests: list[Seen] = []
        self.is_down = False
        self.device = ScriptedDeviceFlow(clock)
        self._clock = clock
        self._lock = threading.RLock()
        self._replies: dict[str, list[Reply]] = {}
        self._codes: dict[str, dict[str, str]] = {}
        self._live_refresh_tokens: dict[str, str] = {}
        self._spent_refresh_tokens: dict[str, str] = {}
        # Until it serves, it is reached through `DirectCalls` only.
        self.base = "http://127.0.0.1:1"
        self.issuer = self.base + issuer_path
        self._issuer_path = issuer_path
        self._server: ScriptedServer | None = None

    def __enter__(self) -> Self:
        self._server = ScriptedServer(self)
        self.base = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.issuer = self.base + self._issuer_path
        threading.Thread(target=self._server.serve_forever, args=(self.poll_seconds,), daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    def now(self) -> datetime:
        """Return the provider's time."""
        return self._clock.now()

    def reply_once(self, path: str, reply: Reply) -> None:
        """Answer the next request for `path` with `reply`."""
        with self._lock:
            self._replies.setdefault(path, []).append(reply)

    def seen(self, path: str) -> list[Seen]:
        """Return the requests that came for `path`."""
        with self._lock:
            return [request for request in self.requests if request.path == path]

    def refreshes(self) -> list[Seen]:
        """Return the refresh requests that came."""
        return [request for request in self.seen("/token") if request.form.get("grant_type") == "refresh_token"]

    def issue(
        self, *, family: str | None = None, nonce: str | None = None, scope: str | None = None
    ) -> dict[str, object]:
        """Make a token answer as the token endpoint would."""
        with self._lock:
            access_token = secrets.token_urlsafe(24)
            refresh_token = secrets.token_urlsafe(24)
            self._live_refresh_tokens[refresh_token] = family or secrets.token_hex(4)
            answer: dict[str, object] = {
                "access_token": access_token,
                "token_type": "Bearer",
                "expires_in": self.lifetime_seconds,
                "refresh_token": refresh_token,
                "id_token": self.mint_id_token(access_token=access_token, nonce=nonce),
            }
            if scope is not None:
                answer["scope"] = scope
            return answer

    def mint_id_token(self, *, access_token: str | None = None, nonce: str | None = None, **changes: object) -> str:
        """Make an ID token; a change to None removes a claim."""
        now = int(self._clock.now().timestamp())
        claims: dict[str, object] = {
            "iss": self.issuer,
            "aud": self.client_id,
            "sub": "alice-1",
            "name": "Alice Example",
            "email": "alice@example.com",
            "iat": now,
            "exp": now + self.lifetime_seconds,
            "nonce": nonce,
        }
        if access_token is not None:
            claims["at_hash"] = encode(hashlib.sha256(access_token.encode()).digest()[:16])
        claims.update(self.id_token_changes)
        claims.update(changes)
        payload = json.dumps({name: value for name, value in claims.items() if value is not None}).encode()
        if self.unsigned:
            return f"{encode_json({'alg': 'none'})}.{encode(payload)}."
        return mint_raw(payload, key=self.signing_key)

    def stored_token(self, *, ends_in_seconds: float, lifetime_seconds: int = 3600) -> dict[str, object]:
        """Make the `token` of a token file whose tokens end in `ends_in_seconds`."""
        ends_at = int(self._clock.now().timestamp() + ends_in_seconds)
        answer = self.issue()
        answer["id_token"] = self.mint_id_token(exp=ends_at, iat=ends_at - lifetime_seconds)
        answer["expires_at"], answer["expires_in"] = ends_at, lifetime_seconds
        return answer

    def handle(self, seen: Seen) -> Reply:
        """Answer one request."""
        with self._lock:
            self.requests.append(seen)
            if self.is_down:
                return Reply(status=503, body={})
            if self._replies.get(seen.path):
                return self._replies[seen.path].pop(0)
            handlers = {
                f"{self._issuer_path.removesuffix('/')}/.well-known/openid-configuration": self._discovery,
                "/keys": self._keys,
                "/authorize": self._authorize,
                "/token": self._token,
                "/revoke": self._revoke,
                "/device_authorization": self._start_device,
            }
            handler = handlers.get(seen.path)
            return Reply(status=404, body={"error": "not_found"}) if handler is None else handler(seen)

    def _discovery(self, _seen: Seen) -> Reply:
        document = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.base}/authorize",
            "token_endpoint": f"{self.base}/token",
            "jwks_uri": f"{self.base}/keys",
            "revocation_endpoint": f"{self.base}/revoke",
            "device_authorization_endpoint": f"{self.base}/device_authorization",
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
            **self.metadata_changes,
        }
        return Reply(body={name: value for name, value in document.items() if value is not None})

    def _keys(self, _seen: Seen) -> Reply:
        return Reply(body={"keys": [key.jwk() for key in self.published_keys]})

    def _authorize(self, seen: Seen) -> Reply:
        query = seen.query
        if query.get("code_challenge_method") != "S256" or query.get("client_id") != self.client_id:
            return Reply(status=400, body={"error": "invalid_request"})
        code = secrets.token_urlsafe(16)
        self._codes[code] = dict(query)
        callback: dict[str, str | None] = {"code": code, "state": query["state"], "iss": self.issuer}
        callback.update(self.callback_changes)
        sent = urlencode({name: value for name, value in callback.items() if value is not None})
        return Reply(status=302, text="", headers={"Location": f"{query['redirect_uri']}?{sent}"})

    def _token(self, seen: Seen) -> Reply:
        if not self._is_authenticated(seen):
            return Reply(status=401, body={"error": "invalid_client"})
        match seen.form.get("grant_type"):
            case "authorization_code":
                return self._exchange(seen.form)
            case "refresh_token":
                return self._refresh(seen.form)
            case "urn:ietf:params:oauth:grant-type:device_code":
                error, scope = self.device.ask(seen.form.get("device_code", ""))
                return Reply(status=400, body={"error": error}) if error else Reply(body=self.issue(scope=scope))
            case "client_credentials" if self.client_secret is not None:
                return Reply(
                    body={
                        "access_token": f"service-{secrets.token_hex(8)}",
                        "token_type": "bearer",
                        "expires_in": self.lifetime_seconds,
                    }
                )
            case _:
                return Reply(status=400, body={"error": "unsupported_grant_type"})

    def _start_device(self, seen: Seen) -> Reply:
        if not self._is_authenticated(seen):
            return Reply(status=401, body={"error": "invalid_client"})
        return Reply(body=self.device.start(base=self.base, scope=seen.form.get("scope", "")))

    def _is_authenticated(self, seen: Seen) -> bool:
        if self.client_secret is None:
            return seen.form.get("client_id") == self.client_id
        scheme, _, credentials = seen.headers.get("authorization", "").partition(" ")
        if scheme == "Basic":
            name, _, password = base64.b64decode(credentials).decode().partition(":")
            return (unquote_plus(name), unquote_plus(password)) == (self.client_id, self.client_secret)
        return (seen.form.get("client_id"), seen.form.get("client_secret")) == (self.client_id, self.client_secret)

    def _exchange(self, form: Mapping[str, str]) -> Reply:
        asked = self._codes.pop(form.get("code", ""), None)
        if asked is None or asked["redirect_uri"] != form.get("redirect_uri"):
            return Reply(status=400, body={"error": "invalid_grant"})
        if encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest()) != asked["code_challenge"]:
            return Reply(status=400, body={"error": "invalid_grant", "error_description": "wrong verifier"})
        return Reply(body=self.issue(nonce=asked["nonce"], scope=asked["scope"]))

    def _refresh(self, form: Mapping[str, str]) -> Reply:
        token = form.get("refresh_token", "")
        if token in self._spent_refresh_tokens:
            family = self._spent_refresh_tokens[token]
            self._live_refresh_tokens = {
                live: owner for live, owner in self._live_refresh_tokens.items() if owner != family
            }
        family = self._live_refresh_tokens.pop(token, None)
        if family is None:
            return Reply(status=400, body={"error": "invalid_grant"})
        self._spent_refresh_tokens[token] = family
        answer = {**self.issue(family=family), **self.refresh_changes}
        return Reply(body={name: value for name, value in answer.items() if value is not None})

    def _revoke(self, seen: Seen) -> Reply:
        if seen.form.get("token_type_hint") == "access_token":
            return Reply(status=400, body={"error": "unsupported_token_type"})
        self._live_refresh_tokens.pop(seen.form.get("token", ""), None)
        return Reply(text="", headers={"Content-Type": "text/html"})


class DirectCalls:
    """Implements `http.ProviderCalls` without a socket, for tests whose time is a fake clock's."""

    def __init__(self, provider: ScriptedProvider) -> None:
        self._provider = provider

    def fetch_json(self, url: str) -> HttpAnswer:
        return self._call("GET", url, {}, {}, needs_body=True)

    def post_form(
        self,
        url: str,
        fields: Mapping[str, str | Secret],
        *,
        headers: Mapping[str, str | Secret] | None = None,
        needs_body: bool = True,
    ) -> HttpAnswer:
        return self._call("POST", url, _revealed(fields), _revealed(headers or {}), needs_body=needs_body)

    def _call(
        self, method: str, url: str, form: dict[str, str], headers: dict[str, str], *, needs_body: bool
    ) -> HttpAnswer:
        parts = urlsplit(url)
        if parts.netloc != urlsplit(self._provider.base).netloc:
            raise ProviderUnavailable("The identity provider is another one.")
        lower = {name.lower(): value for name, value in headers.items()}
        reply = self._provider.handle(
            Seen(method=method, path=parts.path, query=flat_query(parts.query), form=form, headers=lower)
        )
        raw = RawAnswer(
            status=reply.status,
            headers={name.lower(): value for name, value in reply.all_headers.items()},
            body=reply.content,
        )
        callee = Callee(name="The identity provider 127.0.0.1", group="identity providers")
        check_answer(raw, callee, max_bytes=1_000_000, needs_body=needs_body)
        return read_answer(raw, callee, needs_body=needs_body)


def _revealed(values: Mapping[str, str | Secret]) -> dict[str, str]:
    return {name: value.reveal() if isinstance(value, Secret) else value for name, value in values.items()}
