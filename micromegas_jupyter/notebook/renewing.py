"""Keeps a provider's token fresh beside the cells, and tells of every change of it, not of failures alone.

The thread and its pauses are `auth.background_renewal`'s; what is shown is the session's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from micromegas_jupyter.auth.background_renewal import BackgroundRenewal
from micromegas_jupyter.errors import ProviderUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from micromegas_jupyter.auth.background_renewal import RenewableProvider
    from micromegas_jupyter.errors import MicromegasError
    from micromegas_jupyter.seams import Clock

# One fruitless attempt may only mean that another program is renewing just now.
_FRUITLESS_ATTEMPTS = 2


class TokenRenewal:
    """Implements `parts.Renewal` for one provider.

    Args:
        provider: Whose token is kept fresh.
        clock: Tells the time.
        on_change: Told None when the token was renewed, by whomever, and the error when that fails; on a thread.
    """

    def __init__(
        self, provider: RenewableProvider, *, clock: Clock, on_change: Callable[[MicromegasError | None], None]
    ) -> None:
        # Held here, because the renewal knows its provider weakly.
        self._watched = WatchedProvider(provider, clock=clock, tell=on_change)
        self._background = BackgroundRenewal(self._watched, clock=clock, on_change=on_change)

    def start(self) -> None:
        """Begin; returns at once."""
        self._background.start()

    def stop(self) -> None:
        """End, after a renewal that is on its way."""
        self._background.stop()


class WatchedProvider:
    """Passes on what a renewal asks its provider, and tells what the answers mean; used by one thread.

    Args:
        provider: Answers.
        clock: Tells the time.
        tell: Told None for another token, an error for a token that serves on because it could not be renewed.
    """

    def __init__(
        self, provider: RenewableProvider, *, clock: Clock, tell: Callable[[MicromegasError | None], None]
    ) -> None:
        self._provider = provider
        self._clock = clock
        self._tell = tell
        self._known_due_at = provider.renewal_due_at()
        self._fruitless_attempts = 0

    def get_token(self) -> str:
        """Return a token that is valid now, renewed if that was due and possible."""
        token = self._provider.get_token()
        due_at = self._provider.renewal_due_at()
        if due_at is None or due_at > self._clock.now():
            self._fruitless_attempts = 0
            return token
        self._fruitless_attempts += 1
        if self._fruitless_attempts >= _FRUITLESS_ATTEMPTS:
            self._tell(ProviderUnavailable("the identity provider gave no new token."))
        return token

    def renewal_due_at(self) -> datetime | None:
        """Return from when on `get_token` renews; None when there is nothing to renew."""
        due_at = self._provider.renewal_due_at()
        if due_at != self._known_due_at:
            self._known_due_at = due_at
            self._tell(None)
        return due_at
