"""The demo's provider as tests script it: whoever comes is signed in, and what it answers can be changed.

Left alone it is honest and strict: code with PKCE, rotation that revokes the family on reuse, real signatures. A test
may replace the next answer of a path, change what ID tokens say, or stop it; every request is kept.
"""

import hashlib
import json
import secrets
import threading
from datetime import timedelta
from urllib.parse import urlencode, urlsplit

import flask

from micromegas_jupyter.core.http import Callee, RawAnswer, check_answer, read_answer
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Secret
from micromegas_jupyter.demo.provider import DemoProvider
from micromegas_jupyter.demo.provider.state import (
    AUTHORIZATION_CODE,
    CLIENT_CREDENTIALS,
    DEVICE_CODE,
    PEOPLE,
    REFRESH_TOKEN,
    AuthorizationCode,
    Client,
    Grant,
    OAuthError,
    RefreshToken,
    SignedIn,
)
from micromegas_jupyter.errors import ProviderUnavailable
from tests.fakes.loopback_http import FORM_TYPE, LoopbackHandler, LoopbackServer, Reply, Seen, flat_query
from tests.fakes.mint import ec_key, encode, encode_json, mint_raw

__all__ = ["DirectCalls", "Reply", "ScriptedProvider", "Seen"]

CODE_SECONDS = 60
GRANT_TYPES = (AUTHORIZATION_CODE, REFRESH_TOKEN, CLIENT_CREDENTIALS, DEVICE_CODE)


class ScriptedDevices:
    """How the provider treats devices, and the person in that flow."""

    def __init__(self, provider):
        self.interval_seconds = 5
        self.lifetime_seconds = 600
        self._provider = provider

    def decide(self, user_code, *, allow=True):
        (device,) = (found for found in self._provider.state.devices.values() if found.user_code == user_code)
        device.is_decided = True
        device.grant = self._provider.grant(device.scope) if allow else None


class ScriptedProvider(DemoProvider):
    """A context manager that serves on a socket while entered; before, it is reached through `DirectCalls` only.

    What stands in `…_changes` is added to answers, or replaces their members; None removes one.
    """

    handler: type[LoopbackHandler] = LoopbackHandler
    client_id: str

    def __init__(
        self, *, client_id="notebook", client_secret=None, clock=SYSTEM_CLOCK, issuer_path="", lifetime_seconds=3600
    ):
        super().__init__(token_lifetime_seconds=lifetime_seconds, clock=clock)
        self.client_id = client_id
        self.client_secret = client_secret
        self.id_token_changes = {}
        self.callback_changes = {}
        self.metadata_changes = {}
        self.refresh_changes = {}
        self.unsigned = False
        self.signing_key = ec_key()
        self.published_keys = (ec_key(),)
        self.requests = []
        self.is_down = False
        self.device = ScriptedDevices(self)
        self.base = "http://127.0.0.1:1"
        # Tests go on for days.
        self.state.codes, self.state.devices, self.state.refresh_tokens = {}, {}, {}
        self._client = _ScriptedClient(self)
        self._issuer_path = issuer_path
        self._issuer = None
        self._lock = threading.RLock()
        self._replies = {}

    def start(self):
        self._loopback = LoopbackServer(self, self.handler)
        self.base = self._loopback.base
        self._loopback.start(poll_seconds=self.poll_seconds)

    def stop(self):
        self._loopback.stop()

    def __enter__(self):
        self.start()
        return self

    @property
    def issuer(self):
        return self.base + self._issuer_path if self._issuer is None else self._issuer

    @issuer.setter
    def issuer(self, issuer):
        self._issuer = issuer

    @property
    def lifetime_seconds(self):
        return self.token_lifetime_seconds

    @lifetime_seconds.setter
    def lifetime_seconds(self, seconds):
        self.token_lifetime_seconds = seconds

    @property
    def clients(self):
        return {self.client_id: self._client}

    def now(self):
        return self.clock.now()

    def grant(self, scope=""):
        person = SignedIn(person=PEOPLE["alice"], authenticated_at=self.clock.now())
        return Grant(client=self._client, signed_in=person, scope=scope)

    def reply_once(self, path, reply):
        with self._lock:
            self._replies.setdefault(path, []).append(reply)

    def seen(self, path):
        with self._lock:
            return [request for request in self.requests if request.path == path]

    def refreshes(self):
        return [request for request in self.seen("/token") if request.form.get("grant_type") == "refresh_token"]

    def handle(self, seen):
        with self._lock:
            self.requests.append(seen)
            if self.is_down:
                return Reply(status=503, body={})
            if self._replies.get(seen.path):
                return self._replies[seen.path].pop(0)
            headers = {name: value for name, value in seen.headers.items() if name not in _OF_THE_CONNECTION}
            response = self.app.test_client().open(
                seen.path,
                method=seen.method,
                base_url=self.base,
                query_string=urlencode(seen.query),
                data=urlencode(seen.form) if seen.method == "POST" else None,
                content_type=FORM_TYPE,
                headers=headers,
            )
        body, text = (response.get_json(), None) if response.is_json else (None, response.text)
        headers = {name: value for name, value in response.headers.items() if name != "Content-Length"}
        return Reply(status=response.status_code, body=body, text=text, headers=headers)

    def issue(self, *, grant=None, nonce=None, scope=None):
        with self._lock:
            access_token, refresh_token = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
            grant = grant or self.grant(scope or "")
            self.state.refresh_tokens[refresh_token] = RefreshToken(grant=grant)
            tokens = {"access_token": access_token, "refresh_token": refresh_token}
            id_token = self.mint_id_token(access_token=access_token, nonce=nonce)
            answer = {**tokens, "token_type": "Bearer", "expires_in": self.lifetime_seconds, "id_token": id_token}
            return answer if scope is None else {**answer, "scope": scope}

    def mint_id_token(self, *, access_token=None, nonce=None, **changes):
        now = int(self.clock.now().timestamp())
        person = {"sub": "alice-1", "name": "Alice Example", "email": "alice@example.com"}
        times = {"iat": now, "exp": now + self.lifetime_seconds}
        claims = {"iss": self.issuer, "aud": self.client_id, **person, **times, "nonce": nonce}
        if access_token is not None:
            claims["at_hash"] = encode(hashlib.sha256(access_token.encode()).digest()[:16])
        payload = json.dumps(_without_none(claims | self.id_token_changes | changes)).encode()
        if self.unsigned:
            return f"{encode_json({'alg': 'none'})}.{encode(payload)}."
        return mint_raw(payload, key=self.signing_key)

    def stored_token(self, *, ends_in_seconds, lifetime_seconds=3600):
        ends_at = int(self.clock.now().timestamp() + ends_in_seconds)
        times = {"expires_at": ends_at, "expires_in": lifetime_seconds}
        return {**self.issue(), "id_token": self.mint_id_token(exp=ends_at, iat=ends_at - lifetime_seconds), **times}

    # What the demo's provider does otherwise.

    def register(self, app):
        super().register(app)
        app.view_functions |= {"authorize": self._authorize, "revoke": lambda answer: self._revoke()}
        if self._issuer_path:
            path = f"{self._issuer_path.removesuffix('/')}/.well-known/openid-configuration"
            app.add_url_rule(path, "scripted", self.metadata)

    def metadata(self):
        names = {"authorization": "authorize", "token": "token", "revocation": "revoke"}
        document = {
            "issuer": self.issuer,
            "jwks_uri": f"{self.base}/keys",
            "device_authorization_endpoint": f"{self.base}/device_authorization",
            **{f"{name}_endpoint": f"{self.base}/{path}" for name, path in names.items()},
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
        }
        return _without_none(document | self.metadata_changes)

    def public_keys(self):
        return {"keys": [key.jwk() for key in self.published_keys]}

    def select_scope(self, client, scope):
        return scope or ""

    def check_request(self, parameters):
        """Take every audience and resource."""

    def _authorize(self):
        query = flask.request.args
        if query.get("code_challenge_method") != "S256" or query.get("client_id") != self.client_id:
            raise OAuthError("invalid_request")
        code = secrets.token_urlsafe(16)
        self.state.codes[code] = AuthorizationCode(
            grant=self.grant(query["scope"]),
            redirect_uri=query["redirect_uri"],
            code_challenge=query["code_challenge"],
            nonce=query["nonce"],
            expires_at=self.clock.now() + timedelta(seconds=CODE_SECONDS),
        )
        callback = {"code": code, "state": query["state"], "iss": self.issuer, **self.callback_changes}
        location = f"{query['redirect_uri']}?{urlencode(_without_none(callback))}"
        return flask.Response(status=302, headers={"Location": location})

    def issue_tokens(self, grant, *, scope, nonce=None):
        return self.issue(grant=grant, nonce=nonce, scope=scope)

    def issue_access_token(self, client, grant, scope, *, resource=None):
        if self.client_secret is None:
            raise OAuthError("unsupported_grant_type")
        token = f"service-{secrets.token_hex(8)}"
        return {"access_token": token, "token_type": "bearer", "expires_in": self.lifetime_seconds}

    def refresh(self, client, form):
        answer = super().refresh(client, {"refresh_token": form.get("refresh_token", "")})
        del answer["scope"]
        return _without_none(answer | self.refresh_changes)

    def _revoke(self):
        form = flask.request.form
        if form.get("token_type_hint") == "access_token":
            raise OAuthError("unsupported_token_type")
        self.state.refresh_tokens.pop(form.get("token", ""), None)
        return flask.Response("", mimetype="text/html")

    def answer_device_authorization(self, client, form):
        answer = super().answer_device_authorization(client, form)
        device = self.state.devices[str(answer["device_code"])]
        device.interval_seconds = self.device.interval_seconds
        device.expires_at = self.clock.now() + timedelta(seconds=self.device.lifetime_seconds)
        changes = {
            "verification_uri": f"{self.base}/activate",
            "verification_uri_complete": f"{self.base}/activate?user_code={device.user_code}",
            "expires_in": self.device.lifetime_seconds,
            "interval": self.device.interval_seconds,
        }
        return _without_none(answer | changes)


_OF_THE_CONNECTION = frozenset({"host", "content-length", "content-type", "connection"})


class _ScriptedClient(Client):
    """The one application, whose secret a test may change."""

    def __init__(self, provider):
        super().__init__(client_id=provider.client_id, grant_types=GRANT_TYPES)
        object.__setattr__(self, "provider", provider)

    def is_secret(self, secret):
        return self.provider.client_secret in {None, secret}


def _without_none(members):
    return {name: value for name, value in members.items() if value is not None}


class DirectCalls:
    """Implements `http.ProviderCalls` without a socket, for tests whose time is a fake clock's."""

    def __init__(self, provider):
        self._provider = provider

    def fetch_json(self, url):
        return self._call("GET", url, {}, {}, needs_body=True)

    def post_form(self, url, fields, *, headers=None, needs_body=True):
        return self._call("POST", url, _revealed(fields), _revealed(headers or {}), needs_body=needs_body)

    def _call(self, method, url, form, headers, *, needs_body):
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
        callee = Callee(name="The identity provider 127.0.0.1")
        check_answer(raw, callee, max_bytes=1_000_000, needs_body=needs_body)
        return read_answer(raw, callee, needs_body=needs_body)


def _revealed(values):
    return {name: value.reveal() if isinstance(value, Secret) else value for name, value in values.items()}
