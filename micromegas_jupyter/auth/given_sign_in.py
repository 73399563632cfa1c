"""`GivenSignIn`: a sign-in that needs nobody, because what signs people in here has just given it.

It has the face of `pending_login.PendingSignIn`, for whoever shows and awaits sign-ins of every kind.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Generic, Self, TypeVar

from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.errors import UsageError

P = TypeVar("P")


class GivenSignIn(Generic[P]):
    """A sign-in that has ended well.

    Args:
        provider: What it gave.
        flow: The way.
        at: When (aware UTC).
    """

    start_url: str | None = None
    user_code: str | None = None
    verification_uri: str | None = None
    verification_uri_complete: str | None = None
    done = True

    def __init__(self, provider: P, *, flow: Flow, at: datetime) -> None:
        self._provider = provider
        self.flow = flow
        self.expires_at = at

    def result(self, timeout_seconds: float | None = None) -> P:  # noqa: ARG002 - nothing is waited for
        """Return the provider."""
        return self._provider

    def on_done(self, callback: Callable[[Self], None]) -> None:
        """Call `callback` at once."""
        callback(self)

    def on_started(self, callback: Callable[[str], None]) -> None:
        """Do nothing: no browser is sent anywhere."""

    def submit(self, text: str | Secret) -> None:  # noqa: ARG002 - nothing is taken
        """Refuse.

        Raises:
            UsageError: Always.
        """
        raise UsageError("This sign-in waits for nothing.", remedy="Start one with the flow `paste` for that.")

    def cancel(self) -> None:
        """Do nothing: it has ended."""

    def wait_closed(self, timeout_seconds: float) -> bool:  # noqa: ARG002 - nothing is open
        """Return at once."""
        return True
