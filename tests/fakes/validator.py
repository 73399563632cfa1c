"""A validator that knows a few tokens by heart."""

from __future__ import annotations

from micromegas_jupyter.contracts import AuthContext, AuthType
from micromegas_jupyter.errors import ProviderUnavailable, Rejected

ALICE = AuthContext(
    subject="alice",
    issuer="https://id.example",
    auth_type=AuthType.OIDC,
    email="alice@example.com",
    name="Alice Martin",
    is_admin=True,
)
BOB = AuthContext(subject="bob", issuer="https://id.example", auth_type=AuthType.OIDC)
SERVICE = AuthContext(subject="grafana", issuer="api_key", auth_type=AuthType.API_KEY, may_delegate=True)


class FakeValidator:
    """Implements `contracts.TokenValidator`: tokens `alice`, `bob`, `service`; `outage` cannot be decided."""

    def __init__(self) -> None:
        self.validated: list[str] = []
        self.cached: dict[str, AuthContext] = {}
        self.is_closed = False

    def validate_token(self, token: str) -> AuthContext:
        self.validated.append(token)
        if token == "outage":
            raise ProviderUnavailable("The identity provider does not answer.")
        known = {"alice": ALICE, "bob": BOB, "service": SERVICE}
        if token not in known:
            raise Rejected(reason="unknown")
        return known[token]

    def cached_context(self, token: str) -> AuthContext | None:
        return self.cached.get(token)

    def close(self) -> None:
        self.is_closed = True
