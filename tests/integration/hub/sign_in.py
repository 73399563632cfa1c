"""The kernel's side of a sign-in by the redirect of the whole Hub, step by step, with a server's own Hub token."""

from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import requests

from micromegas_jupyter.core.system import SYSTEM_RANDOMNESS
from micromegas_jupyter.oidc.authorization import build_authorization_request
from micromegas_jupyter.oidc.discovery import build_metadata_url, parse_metadata

TIMEOUT_SECONDS = 60


class KernelSignIn:
    """A sign-in that a person's kernel has begun or is about to begin."""

    def __init__(self, hub, login):
        self.hub = hub
        self._token = hub.server_token(login)
        self.offered = self.call("GET", "redirect").json()
        issuer = hub.provider.issuer
        document = requests.get(build_metadata_url(issuer), timeout=TIMEOUT_SECONDS).json()
        self.metadata = parse_metadata(document, issuer=issuer)
        self.request = build_authorization_request(
            self.metadata,
            client_id=self.offered["client_id"],
            redirect_uri=self.offered["redirect_uri"],
            scope="openid email profile",
            randomness=SYSTEM_RANDOMNESS,
        )

    def call(self, method, path, **options):
        """Call the service as the kernel."""
        headers = {"Authorization": f"Bearer {self._token}"}
        url = f"{self.hub.service_url}{path}"
        return requests.request(method, url, headers=headers, timeout=TIMEOUT_SECONDS, **options)

    def url_with(self, **changes):
        """Return the provider's address with other parameters; None takes one out."""
        base, _, query = self.request.url.partition("?")
        parameters = {**dict(parse_qsl(query)), **changes}
        return f"{base}?{urlencode({name: value for name, value in parameters.items() if value is not None})}"

    def begin(self):
        """Register the sign-in and return the address that starts it."""
        answer = self.call("POST", "sign-ins", json={"authorization_url": self.request.url})
        assert answer.status_code == 201, answer.text
        self.name = answer.json()["name"]
        return str(answer.json()["start_url"])

    def answer(self, *, wait_seconds=0):
        """Ask for what a browser has brought back."""
        return self.call("POST", f"sign-ins/{self.name}/answer", json={"wait_seconds": wait_seconds})

    def exchange(self, query):
        """Exchange the code at the provider with the verifier that only this kernel has."""
        form = {
            "grant_type": "authorization_code",
            "code": parse_qs(query)["code"][0],
            "redirect_uri": self.request.redirect_uri,
            "code_verifier": self.request.code_verifier.reveal(),
            "client_id": self.offered["client_id"],
        }
        answer = requests.post(str(self.metadata.token_endpoint), data=form, timeout=TIMEOUT_SECONDS)
        return answer.json()

    @property
    def state(self):
        return parse_qs(urlsplit(self.request.url).query)["state"][0]
