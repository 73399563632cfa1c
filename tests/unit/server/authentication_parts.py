"""What the tests of `server.authentication` share."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from micromegas_jupyter.access.audit import CallFacts, current_call
from micromegas_jupyter.access.rate_limit import CallLimits
from micromegas_jupyter.access.validator import Accepted, BaseValidator, Decision, Refused, Undecided
from micromegas_jupyter.core.protocols import AuthContext, TokenValidator
from micromegas_jupyter.server.authentication import Authenticator
from tests.fakes.validator import ALICE

OTHER_ISSUER = "https://other.example.com"
CALL = CallFacts(method="/x/DoGet", client_address="192.0.2.7", call_id="q-1")


class Deciding(BaseValidator):
    """A validator that writes its own events; `calls` are the facts that it saw."""

    def __init__(self) -> None:
        self.calls: list[CallFacts] = []

    def decide(self, token: str) -> Decision:
        self.calls.append(current_call())
        if token == "outage":
            return Undecided(reason="keys_unavailable")
        return Accepted(context=ALICE) if token == "alice" else Refused(reason="expired")

    def cached_context(self, token: str) -> AuthContext | None:
        return None


@contextmanager
def open_authenticator(
    validator: TokenValidator | None, *, check_seconds: float = 10.0, limits: CallLimits | None = None
) -> Iterator[Authenticator]:
    authenticator = Authenticator(validator, check_seconds=check_seconds, limits=limits)
    try:
        yield authenticator
    finally:
        authenticator.close()


def access_events(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    return [json.loads(record.getMessage()) for record in caplog.records if record.name.endswith("audit.access")]


def authenticate(authenticator: Authenticator, *values: str) -> AuthContext:
    headers = {"authorization": values} if values else {}
    return asyncio.run(authenticator.authenticate(headers, lambda: CALL))
