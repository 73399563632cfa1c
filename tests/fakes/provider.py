"""An identity provider's documents without a network: what it answers is set, what was asked is counted."""

import threading
from types import SimpleNamespace

from micromegas_jupyter.errors import ProviderUnavailable
from tests.fakes.mint import ISSUER, ec_key, ed25519_key, rsa_key


class FakeProvider:
    """Stands in for `core.http.ProviderHttp` where it fetches documents of one issuer.

    While `gate` is clear, every fetch waits; `arrived` is set when one waits. `elsewhere` holds further documents by
    their address, and `private_urls` are those whose host is at a private address, by default all.
    """

    def __init__(self, issuer=ISSUER, *, keys=None):
        self.issuer = issuer
        self.discovery = {"issuer": issuer, "jwks_uri": f"{issuer}/keys"}
        self.jwks = None
        self.publish(*(keys or (rsa_key(), ec_key(), ed25519_key())))
        self.failure = None
        self.status = 200
        self.requested = []
        self.requests = []
        self.elsewhere = {}
        self.private_urls = None
        self.gate = threading.Event()
        self.gate.set()
        self.arrived = threading.Event()
        self._lock = threading.Lock()

    def publish(self, *keys):
        self.jwks = {"keys": [key.jwk() for key in keys]}

    def go_down(self):
        self.failure = ProviderUnavailable("The identity provider id.example.com does not answer.")

    def come_back(self):
        self.failure = None

    def fetch_json(self, url, *, headers=None, refuses_private=False):
        with self._lock:
            self.requested.append(url)
            self.requests.append(SimpleNamespace(url=url, headers=dict(headers or {}), refuses_private=refuses_private))
        self.arrived.set()
        assert self.gate.wait(30), "the test never opened the gate"
        if self.failure is not None:
            raise self.failure
        is_private = self.private_urls is None or url in self.private_urls
        if is_private and refuses_private:
            raise ProviderUnavailable("The identity provider could not be reached: its address is a private one.")
        documents = {
            f"{self.issuer}/.well-known/openid-configuration": self.discovery,
            f"{self.issuer}/keys": self.jwks,
            **self.elsewhere,
        }
        return SimpleNamespace(body=documents[url], status=self.status, reached_private=is_private)
