"""Keys behind certificates and a token of their own, as a cluster's API server publishes them."""

from __future__ import annotations

import json
import threading
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from micromegas_jupyter.access import Unavailable
from micromegas_jupyter.access.jwks import KeyCaches, KeyPolicy, KeysPending
from micromegas_jupyter.config.issuers import IssuerSetting
from micromegas_jupyter.core.http import ProviderHttp
from tests.fakes.mint import ec_key
from tests.fakes.tls_provider import server_context

pytestmark = pytest.mark.integration

ISSUER = "https://kubernetes.default.svc.cluster.local"


class Cluster(ThreadingHTTPServer):
    """Shows its documents over TLS to whoever brings the token."""

    daemon_threads = True

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), Handler)
        context, self.ca_file = server_context(folder, host="127.0.0.1")
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.base = f"https://127.0.0.1:{self.server_port}"
        self.token = "sesame"
        self.documents = {
            "/.well-known/openid-configuration": {"issuer": ISSUER, "jwks_uri": f"{self.base}/openid/v1/jwks"},
            "/openid/v1/jwks": {"keys": [ec_key().jwk()]},
        }


class Handler(BaseHTTPRequestHandler):
    """Answers from the server's documents."""

    server: Cluster

    def do_GET(self):
        is_allowed = self.headers["Authorization"] == f"Bearer {self.server.token}"
        body = json.dumps(self.server.documents[self.path] if is_allowed else {"kind": "Status"}).encode()
        self.send_response(200 if is_allowed else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments):
        """Write nothing."""


@pytest.fixture
def cluster(tmp_path):
    with Cluster(tmp_path) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join(60)


@pytest.fixture
def caches(clock):
    http = ProviderHttp()
    made = KeyCaches(http=http, clock=clock)
    yield made
    made.close()
    http.close()


def keys_of(source):
    try:
        return source.get()
    except KeysPending as pending:
        pending.fetch.result(60)
        return source.get()


@pytest.mark.parametrize(("missing", "expected"), [(None, ["ec"]), ("bearer_token_file", None), ("ca_file", None)])
def test_keys_come_with_the_certificates_and_the_token(cluster, caches, tmp_path, missing, expected):
    (tmp_path / "token").write_text("sesame\n")
    files = {"ca_file": str(cluster.ca_file), "bearer_token_file": str(tmp_path / "token")}
    files = {name: path for name, path in files.items() if name != missing}
    setting = IssuerSetting(issuer=ISSUER, discovery_url=f"{cluster.base}/.well-known/openid-configuration", **files)

    with nullcontext() if expected else pytest.raises(Unavailable):
        assert [key.key_id for key in keys_of(caches.cache_of(setting, KeyPolicy())).keys] == expected
