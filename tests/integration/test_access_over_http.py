"""A validator from the environment against a provider behind a real socket."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from micromegas_jupyter.access import Rejected, Unavailable, validator_from_environment
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from tests.fakes.mint import ec_key, mint, rsa_key

pytestmark = pytest.mark.integration


class Provider(ThreadingHTTPServer):
    """Serves a discovery document and keys; `answer` may be replaced by another status and body."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self.server_port}"
        self.status = 200
        self.documents = {
            "/.well-known/openid-configuration": {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/keys"},
            "/keys": {"keys": [rsa_key().jwk(), {"kty": "oct", "k": "AAAA"}, None]},
        }
        self.requested: list[str] = []


class Handler(BaseHTTPRequestHandler):
    """Answers from the server's documents."""

    server: Provider

    def do_GET(self):
        self.server.requested.append(self.path)
        body = json.dumps(self.server.documents[self.path]).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments):
        pass


@pytest.fixture
def provider():
    server = Provider()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join(60)
    server.server_close()


def token_of(provider, **changes):
    now = int(SYSTEM_CLOCK.now().timestamp())
    return mint(**{"issuer": provider.issuer, "iat": now, "exp": now + 300, **changes})  # type: ignore[arg-type]


def environ_of(provider):
    config = {"issuers": [{"issuer": provider.issuer, "audience": "lake"}]}
    return {"MICROMEGAS_OIDC_CONFIG": json.dumps(config), "MICROMEGAS_ADMINS": json.dumps([f"{provider.issuer}|root"])}


def test_tokens_are_judged_with_keys_from_the_network(provider):
    validator = validator_from_environment(environ_of(provider))

    assert validator.validate_token(token_of(provider)).subject == "alice"
    assert validator.validate_token(token_of(provider, subject="root")).is_admin
    with pytest.raises(Rejected):
        validator.validate_token(token_of(provider, key=ec_key(), header={"kid": "rsa"}))
    assert provider.requested == ["/.well-known/openid-configuration", "/keys"]
    validator.close()


def test_a_rotation_is_followed_without_a_pause(provider):
    validator = validator_from_environment(environ_of(provider))
    validator.validate_token(token_of(provider))
    provider.documents["/keys"] = {"keys": [ec_key().jwk()]}

    assert validator.validate_token(token_of(provider, key=ec_key())).subject == "alice"
    validator.close()


@pytest.mark.parametrize("status", [302, 404, 429, 500, 503])
def test_a_provider_in_trouble_is_undecided_and_then_forgotten(provider, status):
    validator = validator_from_environment(environ_of(provider))
    provider.status = status
    with pytest.raises(Unavailable) as caught:
        validator.validate_token(token_of(provider))
    assert type(caught.value) is Unavailable

    provider.status = 200
    threading.Event().wait(1)  # so long the provider is left alone after its first failure

    assert validator.validate_token(token_of(provider)).subject == "alice"
    validator.close()
