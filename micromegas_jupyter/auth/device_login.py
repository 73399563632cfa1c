"""Waits for a person who types a short code on any device, by asking the provider again and again.

Requests and answers are `provider_connection`'s; showing the code is the caller's.
"""

import threading
from typing import Protocol

from micromegas_jupyter.auth.login_request import LoginRequest
from micromegas_jupyter.auth.pending_login import LoginPrompt, RunningFlow
from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.errors import Unavailable
from micromegas_jupyter.oidc.device import DeviceAuthorization, DevicePending
from micromegas_jupyter.oidc.tokens import TokenSet

SLOW_DOWN_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 60.0


class StopSignal(Protocol):
    """A flag that can be waited for, as `threading.Event` is one."""

    def set(self) -> None:
        """Raise the flag and end every wait."""
        ...

    def is_set(self) -> bool:
        """Whether it was raised."""
        ...

    def wait(self, timeout: float) -> bool:
        """Wait until it is raised, for `timeout` seconds at most; whether it is."""
        ...


class DeviceLogin(RunningFlow):
    """A device authorization under way (RFC 8628).

    Args:
        prompt: What the person is shown.
        authorization: The provider's answer; its device code leaves for the token endpoint only.
        connection: Calls the provider.
        request: What was asked for.
        clock: Tells the time.
        stopped: Ends the pauses between two questions.
    """

    def __init__(  # noqa: PLR0913 - its parts
        self,
        prompt: LoginPrompt,
        authorization: DeviceAuthorization,
        connection: ProviderConnection,
        request: LoginRequest,
        *,
        clock: Clock,
        stopped: StopSignal | None = None,
    ) -> None:
        super().__init__(prompt)
        self._authorization = authorization
        self._connection = connection
        self._request = request
        self._clock = clock
        self._stopped: StopSignal = threading.Event() if stopped is None else stopped

    def tokens(self) -> TokenSet | None:
        """Ask at the provider's pace until the person has answered.

        Source: RFC 8628 section 3.5 (`slow_down` adds five seconds for good; a provider that does not answer is
        asked half as often each time).
        """
        interval_seconds = pause_seconds = self._authorization.interval_seconds
        failure: Unavailable | None = None
        while self._pause(pause_seconds):
            try:
                answer = self._ask()
            except Unavailable as error:
                failure = error
                pause_seconds = min(2 * pause_seconds, max(LONGEST_PAUSE_SECONDS, interval_seconds))
                continue
            if isinstance(answer, TokenSet):
                return answer
            failure = None
            interval_seconds += SLOW_DOWN_SECONDS if answer.slow_down else 0.0
            pause_seconds = interval_seconds
        if failure is not None and not self._stopped.is_set():
            raise failure  # the person may well have signed in, so that is no reason to say that nobody did
        return None

    def stop(self) -> None:
        """End the wait at once."""
        self._stopped.set()

    def _ask(self) -> TokenSet | DevicePending:
        # Keys first: the tokens are given once only and must not be lost for want of a key to check them with.
        self._connection.keys()
        return self._connection.poll_device(
            self._authorization, scope=self._request.scope, needs_id_token=self._request.needs_id_token
        )

    def _pause(self, seconds: float) -> bool:
        """Wait; whether to ask once more."""
        left_seconds = (self.prompt.expires_at - self._clock.now()).total_seconds()
        if left_seconds <= 0 or self._stopped.wait(min(seconds, left_seconds)):
            return False
        return self._clock.now() < self.prompt.expires_at
