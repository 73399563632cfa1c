"""The kernel's side of a sign-in by the redirect of the whole Hub, step by step, with a server's own Hub token."""

import secrets

import requests

from tests.fakes.raw_client import RawClient, query_of

TIMEOUT_SECONDS = 60


class KernelSignIn:
    """A sign-in that a person's kernel has begun or is about to begin."""

    def __init__(self, hub, login):
        self.hub = hub
        self._token = hub.server_token(login)
        self.offered = self.call("GET", "redirect").json()
        redirect_uri = self.offered["redirect_uri"]
        self._client = RawClient(hub.provider.issuer, self.offered["client_id"], redirect_uri=redirect_uri)
        self.state = secrets.token_urlsafe(32)
        self.url = self.url_with()

    def call(self, method, path, **options):
        """Call the service as the kernel."""
        headers = {"Authorization": f"Bearer {self._token}"}
        url = f"{self.hub.service_url}{path}"
        return requests.request(method, url, headers=headers, timeout=TIMEOUT_SECONDS, **options)

    def url_with(self, **changes):
        """Return the provider's address with other parameters."""
        own = {"scope": "openid email profile", "prompt": None, "state": self.state}
        return self._client.authorization_url(**{**own, **changes})

    def begin(self):
        """Register the sign-in and return the address that starts it."""
        answer = self.call("POST", "sign-ins", json={"authorization_url": self.url})
        assert answer.status_code == 201, answer.text
        self.name = answer.json()["name"]
        return str(answer.json()["start_url"])

    def answer(self, *, wait_seconds=0):
        """Ask for what a browser has brought back."""
        return self.call("POST", f"sign-ins/{self.name}/answer", json={"wait_seconds": wait_seconds})

    def exchange(self, query):
        """Exchange the code at the provider with the verifier that only this kernel has."""
        return self._client.exchange(query_of(f"?{query}")["code"]).json()
