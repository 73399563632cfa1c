"""Who else is in the run: stand-ins of platforms and of token endpoints, and a provider that repeats what it is sent.

Each notes what it receives and issues.
"""

import json
import socket
from contextlib import ExitStack

from cryptography.hazmat.primitives import serialization

from tests.fakes.mint import encode_number, rsa_key
from tests.fakes.platform_stand_ins import (
    PLATFORM_KEY,
    AzureApp,
    AzureMachine,
    ExchangingProvider,
    GithubRunner,
    GoogleMetadataServer,
    GoogleTokenEndpoint,
)
from tests.integration.system.escapes.library_program import MANNERS
from tests.integration.system.escapes.secrets_in_play import Kind
from tests.integration.system.escapes.watched_providers import EchoingProvider, watched

ECHOED_SECRET = "a secret+with/signs&that=are%encoded-0123456789"
FOREIGN_KEY = "a-key-of-another-server-0123456789"
_AZURE_AUDIENCE = "api://AzureADTokenExchange"


class Others:
    """A context manager; everything runs on loopback."""

    def __init__(self, run, processes):
        self._run = run
        self._look = processes.look
        self._held = ExitStack()

    def __enter__(self):
        self._idp = self._start(ExchangingProvider)
        self._azure_idp = self._start(ExchangingProvider, trusted_audience=_AZURE_AUDIENCE)
        self._keyed_idp = self._start(ExchangingProvider)
        self._keyed_idp.trusted_audience = f"{self._keyed_idp.base}/token"
        self._google = self._start(GoogleTokenEndpoint)
        self.echo = self._held.enter_context(
            EchoingProvider(self._run.secrets, self._look, client_secret=ECHOED_SECRET, lifetime_seconds=3600)
        )
        self._run.secrets.note(Kind.CLIENT_SECRET, ECHOED_SECRET)
        self._run.secrets.note(Kind.API_KEY, FOREIGN_KEY)
        return self

    def __exit__(self, *_error):
        self._held.close()

    def application(self):
        return {"MICROMEGAS_OIDC_ISSUER": self.echo.issuer, "MICROMEGAS_OIDC_CLIENT_ID": self.echo.client_id}

    def told(self):
        """Return what the program over the library is told; the echoes are in the order in which it asks."""
        self.echo.manners = [*MANNERS * 3, "description", "honest", "description", "description", "description"]
        self.echo.device.interval_seconds = 1
        ended = self.echo.stored_token(ends_in_seconds=-10)
        self._run.secrets.note_members(ended.items())
        folder = {"MICROMEGAS_CONFIG_DIR": self._run.environ["MICROMEGAS_CONFIG_DIR"]}
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            dead = f"127.0.0.1:{unused.getsockname()[1]}"
        return {
            "accounts": {name: {**account, **folder} for name, account in self._accounts().items()},
            "dead_provider": f"http://{dead}",
            "dead_server": f"grpc://{dead}",
            "secret_file": self._run.give("echoed-secret", ECHOED_SECRET),
            "key_file": self._run.give("foreign.key", FOREIGN_KEY),
            "echo": {
                "issuer": self.echo.issuer,
                "client_id": self.echo.client_id,
                "ended_token": self._run.give("ended-token.json", json.dumps(ended)),
            },
        }

    def _accounts(self):
        give, run = self._run.give, self._run
        service = run.stack.service_environment()
        github, google, azure, app = map(self._start, (GithubRunner, GoogleMetadataServer, AzureMachine, AzureApp))
        pod_token = self._idp.mint(issuer="https://kubernetes", subject="pod-1", audience=self._idp.issuer)
        run.secrets.note(Kind.PLATFORM_TOKEN, pod_token)
        key_file = self._google.key_file()
        self._note_key(self._google.key)
        exchange = {**_application(self._idp), "MICROMEGAS_OIDC_WORKLOAD_EXCHANGE": "token-exchange"}
        return {
            "secret": service,
            "wrong secret": {**service, "MICROMEGAS_OIDC_CLIENT_SECRET": f"not-{run.service_secret}"},
            "private key": {
                **_application(self._keyed_idp),
                "MICROMEGAS_OIDC_SCOPE": "api://lake/.default",
                "MICROMEGAS_OIDC_PRIVATE_KEY_FILE": give("key.pem", self._note_key(PLATFORM_KEY)),
                "MICROMEGAS_OIDC_PRIVATE_KEY_ID": PLATFORM_KEY.kid,
            },
            "wrong private key": {
                **_application(self._keyed_idp),
                "MICROMEGAS_OIDC_SCOPE": "api://lake/.default",
                "MICROMEGAS_OIDC_PRIVATE_KEY_FILE": give("other.pem", self._note_key(rsa_key("other"))),
            },
            "google key file": {
                "MICROMEGAS_OIDC_SERVICE_ACCOUNT_FILE": give("google.json", key_file),
                "MICROMEGAS_OIDC_AUDIENCE": "lake",
            },
            "github": {**_workload("github-actions"), **github.environ()},
            "github exchanged": {**_workload("github-actions", audience=None), **exchange, **github.environ()},
            "google metadata": {**_workload("google"), **google.environ()},
            "azure machine": {**_workload("azure"), **azure.environ()},
            "azure app as application": {
                **_workload("azure", audience=None),
                **_application(self._azure_idp),
                **app.environ(),
                "MICROMEGAS_OIDC_WORKLOAD_EXCHANGE": "client-assertion",
                "MICROMEGAS_OIDC_SCOPE": "api://lake/.default",
                "MICROMEGAS_OIDC_PRESET": "entra",
            },
            "kubernetes exchanged": {
                **_workload("kubernetes", audience=None),
                **exchange,
                "MICROMEGAS_OIDC_WORKLOAD_TOKEN_FILE": give("pod-token", pod_token),
            },
        }

    def _start(self, kind, **options):
        return self._held.enter_context(watched(kind, self._run.secrets, self._look)(**options))

    def _note_key(self, key):
        private = key.private
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
        numbers = private.private_numbers()
        self._run.secrets.note(Kind.PRIVATE_KEY, pem)
        for number in (numbers.d, numbers.p, numbers.q):
            self._run.secrets.note(Kind.PRIVATE_KEY, str(number))
            self._run.secrets.note(Kind.PRIVATE_KEY, encode_number(number))
        return pem


def _application(idp):
    return {
        "MICROMEGAS_OIDC_ISSUER": idp.issuer,
        "MICROMEGAS_OIDC_CLIENT_ID": idp.client_id,
        "MICROMEGAS_OIDC_AUDIENCE": "lake",
    }


def _workload(platform, *, audience="lake"):
    named = {} if audience is None else {"MICROMEGAS_OIDC_WORKLOAD_AUDIENCE": audience}
    return {"MICROMEGAS_OIDC_WORKLOAD": platform, **named}
