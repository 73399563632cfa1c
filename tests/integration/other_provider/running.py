"""Runs the other provider as a child process that ends with the tests."""

import contextlib
import json
import queue
import secrets
import subprocess
import threading

from joserfc.jwk import ECKey, RSAKey

from micromegas_jupyter.core.system import Secret
from tests.fakes.ports import free_port
from tests.integration.other_provider.installing import OtherProviderMissing, find_node

_READY_TIMEOUT_SECONDS = 120
_STOP_TIMEOUT_SECONDS = 10


def _make_key():
    return RSAKey.generate_key(2048, {"alg": "RS256", "use": "sig"}, auto_kid=True)


class OtherProvider:
    """npm's `oidc-provider`, certified and written by others, on a free port of loopback, with clients of each kind."""

    client_id = "micromegas-other"
    hub_client_id = "jupyterhub"
    service_client_id = "micromegas-other-service"
    service_post_client_id = "micromegas-other-service-post"
    service_key_client_id = "micromegas-other-service-key"
    service_key_id = "service-key"
    redirect_uri = "http://127.0.0.1:48080/callback"
    resource = "https://lake.example.com"

    def __init__(self, folder, *, token_lifetime_seconds=600):
        # Characters that have to be form-encoded inside HTTP Basic, RFC 6749 section 2.3.1.
        self.service_secret = Secret(f"a secret: 100% & +{secrets.token_urlsafe(24)}")
        key = ECKey.generate_key("P-256", {"kid": self.service_key_id, "alg": "ES256", "use": "sig"})
        self.service_key = Secret(key.as_pem(private=True).decode())
        self._service_public_key = dict(key.as_dict())
        self.issuer = ""
        self._keys = []
        self._port = 0
        self._folder = folder
        self._token_lifetime_seconds = token_lifetime_seconds
        self._process = None

    def start(self):
        """Start it; after a stop, at the same address and with the same keys."""
        node, _npm = find_node()
        self._keys = self._keys or [_make_key()]
        self._port = self._port or free_port()
        settings = {
            "port": self._port,
            "clientId": self.client_id,
            "hubClientId": self.hub_client_id,
            "serviceClientId": self.service_client_id,
            "serviceSecret": self.service_secret.reveal(),
            "serviceKey": self._service_public_key,
            "resource": self.resource,
            "tokenLifetimeSeconds": self._token_lifetime_seconds,
            "cookieKey": secrets.token_urlsafe(32),
            "keys": self._private_keys(),
        }
        with (self._folder / "stderr.txt").open("w") as stderr:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": stderr, "text": True}
            self._process = subprocess.Popen([node, "server.mjs"], cwd=self._folder, **pipes)
        # By standard input, because arguments are readable by everybody on the machine.
        self.issuer = self._ask(settings)["issuer"]

    def rotate(self, *, keep=1):
        """Sign with a new key from now on, publish the last `keep` ones still, and return the new key's id."""
        self._keys = [_make_key(), *self._keys[:keep]]
        self._ask({"keys": self._private_keys()})
        return str(self._keys[0].kid)

    def counts(self):
        """Return what was counted.

        `renewals` of sign-ins, `reuses` of refresh tokens that were used before, `exchanges` of tokens, and `hangUps`
        on whoever connected in an outage.
        """
        return self._ask({})

    @contextlib.contextmanager
    def outage(self):
        """Hang up on everybody who connects, and on who is connected; afterwards it goes on where it was."""
        self._ask({"out": True})
        try:
            yield
        finally:
            self._ask({"out": False})

    def _ask(self, request):
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{json.dumps(request)}\n")
            self._process.stdin.flush()
        return json.loads(self._next_line(self._process))

    def stop(self):
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.communicate(timeout=_STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_error):
        self.stop()

    def _private_keys(self):
        return [dict(key.as_dict(private=True)) for key in self._keys]

    def _next_line(self, process):
        lines = queue.Queue()
        threading.Thread(target=lambda: lines.put(process.stdout.readline()), daemon=True).start()
        try:
            line = lines.get(timeout=_READY_TIMEOUT_SECONDS)
        except queue.Empty:
            line = ""
        if not line:
            self.stop()
            said = (self._folder / "stderr.txt").read_text()[-800:]
            raise OtherProviderMissing(f"The other provider did not start. It said: {said}")
        return line
