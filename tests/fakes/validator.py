"""A validator that knows a few tokens by heart."""

from micromegas_jupyter.core.protocols import AuthContext, AuthType, WriteAccess
from micromegas_jupyter.errors import ProviderUnavailable, Rejected

ALICE = AuthContext(
    subject="alice", issuer="https://id.example", auth_type=AuthType.OIDC, email="alice@example.com",
    name="Alice Martin", is_admin=True,
)  # fmt: skip
BOB = AuthContext(subject="bob", issuer="https://id.example", auth_type=AuthType.OIDC)
SERVICE = AuthContext(subject="grafana", issuer="api_key", auth_type=AuthType.API_KEY, may_delegate=True)
EVERYTHING = frozenset({"*"})
INGESTER = AuthContext(
    subject="collector", issuer="api_key", auth_type=AuthType.API_KEY, scopes=frozenset({"ingest"}),
    write_access=WriteAccess(ingest=EVERYTHING, creates=EVERYTHING),
)  # fmt: skip
SCRAPER = AuthContext(subject="prometheus", issuer="api_key", auth_type=AuthType.API_KEY, scopes=frozenset({"metrics"}))
LATE = AuthContext(
    subject="cron", issuer="api_key", auth_type=AuthType.API_KEY, notice="This key ends soon.\nGet a new one, Zoë."
)


class FakeValidator:
    """Implements `core.protocols.TokenValidator`; `outage` cannot be decided.

    Tokens: `alice`, `bob`, `service`; `collector` may only send rows, `scraper` only read metrics,
    `late` carries a notice.
    """

    def __init__(self):
        self.known = {
            "alice": ALICE,
            "bob": BOB,
            "service": SERVICE,
            "collector": INGESTER,
            "scraper": SCRAPER,
            "late": LATE,
        }
        self.validated = []
        self.cached = {}
        self.is_closed = False

    def validate_token(self, token):
        self.validated.append(token)
        if token == "outage":
            raise ProviderUnavailable("The identity provider does not answer.")
        if token not in self.known:
            raise Rejected(reason="unknown")
        return self.known[token]

    def cached_context(self, token):
        return self.cached.get(token)

    def close(self):
        self.is_closed = True


class ReloadableFake(FakeValidator):
    """A validator whose configuration can be read again; `failure` is what comes of it."""

    def __init__(self):
        super().__init__()
        self.reloads = 0
        self.failure = None

    def reload(self):
        self.reloads += 1
        if self.failure is not None:
            raise self.failure


def is_accepted(validator, token):
    if validator.cached_context(token) is not None:
        return True
    try:
        validator.validate_token(token)
    except Rejected:
        return False
    return True
