"""A flow whose person is the test, and a sign-in that goes on by it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from micromegas_jupyter.auth.flows.base import LoginFlow, LoginPrompt
from micromegas_jupyter.auth.provider import PendingLogin
from micromegas_jupyter.auth.tokens.manager import Identity
from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import LoginRequired
from micromegas_jupyter.oidc.authorization import TokenSet

if TYPE_CHECKING:
    from collections.abc import Callable

    from micromegas_jupyter.auth.flows.base import LoginOutcome, Page
    from tests.fakes.clock import FakeClock

DEADLINE_SECONDS = 60
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
TOKENS = TokenSet(access_token=Secret("acc"))


class ScriptedFlow(LoginFlow):
    """A flow whose person is the test."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(
            LoginPrompt(flow=Flow.DEVICE, timeout_seconds=60, expires_at=clock.now() + timedelta(seconds=60))
        )
        self.events: list[str] = []
        self.page: Page | None = None
        self.outcome: TokenSet | Exception | None = None
        self.came = threading.Event()
        self.waiting = threading.Event()

    def come(self, outcome: TokenSet | Exception | None) -> None:
        self.outcome = outcome
        self.came.set()

    def tokens(self) -> TokenSet | None:
        self.waiting.set()
        assert self.came.wait(DEADLINE_SECONDS), "the test's person never came"
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def stop(self) -> None:
        self.events.append("stop")
        self.came.set()

    def show(self, ending: LoginOutcome) -> None:
        self.page = ending.page()
        self.events.append("show")

    def close(self, *, linger_seconds: float = 0.0) -> None:
        self.events.append(f"close {linger_seconds:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody who is signed in."""

    tokens: TokenSet
    name: str | None = "Alice Example"

    def identity(self) -> Identity:
        if self.name is None:
            raise LoginRequired("The sign-in does not say who you are.")
        return Identity(
            subject="alice-1",
            name=self.name,
            email=None,
            issuer="https://id.example.com",
            expires_at=NOON,
            renews=False,
        )


def begin(
    flow: ScriptedFlow,
    keep: Callable[[TokenSet, Callable[[], None]], Person] = lambda tokens, _check: Person(tokens=tokens),
    discarded: list[TokenSet] | None = None,
) -> PendingLogin:
    return PendingLogin(flow, keep, discard=([] if discarded is None else discarded).append)


def closed(pending: PendingLogin) -> bool:
    return pending.wait_closed(DEADLINE_SECONDS)
