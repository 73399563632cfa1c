"""Who is signed in, as the tests of the notebook say it: identities, providers of tokens, and their renewal."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from micromegas_jupyter.errors import MicromegasError

SECRET_TOKEN = "secret-token-that-nobody-may-see"


@dataclass(frozen=True, kw_only=True)
class FakeIdentity:
    subject: str = "user-1"
    name: str | None = "Alice Martin"
    email: str | None = "alice@example.com"
    issuer: str = "https://id.example.com"
    expires_at: datetime = datetime(2026, 11, 24, 15, 42, tzinfo=UTC)
    renews: bool = True
    groups: tuple[str, ...] = ("analysts", "lake-admins")


@dataclass(frozen=True, kw_only=True)
class FakeServerIdentity:
    subject: str = "user-1"
    name: str | None = "Alice Martin"
    email: str | None = "alice@example.com"
    issuer: str = "https://id.example.com"
    auth_type: str = "oidc"
    is_admin: bool = True
    expires_at: datetime | None = None
    groups: tuple[str, ...] = ()
    group_count: int = 0


class FakePersonalProvider:
    """A person's sign-in; `failure` is raised instead of giving a token, `renewal_failure` instead of a renewal."""

    def __init__(self, identity: FakeIdentity | None = None, *, through: str = "") -> None:
        self.through = through
        self.failure: MicromegasError | None = None
        self.renewal_failure: MicromegasError | None = None
        self.token_count = 0
        self.renewal_count = 0
        self._identity = identity or FakeIdentity()

    def get_token(self) -> str:
        self.token_count += 1
        if self.failure is not None:
            raise self.failure
        return SECRET_TOKEN + "-renewed" * self.renewal_count

    def renew(self) -> None:
        if self.renewal_failure is not None:
            raise self.renewal_failure
        self.renewal_count += 1

    def identity(self) -> FakeIdentity:
        return self._identity


class FakeServiceProvider:
    """A service account: gives a token and knows nothing of a person."""

    def get_token(self) -> str:
        return SECRET_TOKEN


class FakeRenewal:
    """Stands in for `TokenRenewal`; the test calls `on_change` as the real one would on its thread."""

    def __init__(self, provider: Any, on_change: Callable[[MicromegasError | None], None]) -> None:
        self.provider = provider
        self.on_change = on_change
        self.start_count = 0
        self.stop_count = 0

    @property
    def is_running(self) -> bool:
        return self.start_count > 0 and self.stop_count == 0

    def start(self) -> None:
        self.start_count += 1

    def stop(self) -> None:
        self.stop_count += 1
