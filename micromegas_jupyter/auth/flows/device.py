"""The device flow: the user enters a short code on any device while this program polls the provider (RFC 8628)."""

import threading

from micromegas_jupyter.auth.flows.base import LoginFlow, LoginRequest
from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.errors import Unavailable
from micromegas_jupyter.oidc.authorization import TokenSet

SLOW_DOWN_SECONDS = 5.0
MAX_PAUSE_SECONDS = 60.0
MAX_DEVICE_SECONDS = 1800.0


class DeviceFlow(LoginFlow):
    """A device authorization that waits for the user; setting `stopped` cuts the pauses between polls short."""

    def __init__(self, request: LoginRequest, *, stopped: threading.Event | None = None) -> None:
        authorization = request.connection.start_device(
            scope=request.scope, audience=request.audience, resource=request.resource
        )
        life_seconds = (authorization.expires_at - request.connection.clock.now()).total_seconds()
        prompt = request.build_prompt(
            Flow.DEVICE,
            request.wait_seconds(MAX_DEVICE_SECONDS, maximum=life_seconds),
            user_code=authorization.user_code,
            verification_uri=authorization.verification_uri,
            verification_uri_complete=authorization.verification_uri_complete,
        )
        super().__init__(prompt)
        self._authorization = authorization
        self._request = request
        self._stopped = threading.Event() if stopped is None else stopped

    def tokens(self) -> TokenSet | None:
        """Poll at the interval that the provider requires until the user responds. Source: RFC 8628 section 3.5."""
        request, connection = self._request, self._request.connection
        interval_seconds = pause_seconds = self._authorization.interval_seconds
        failure: Unavailable | None = None
        while self._pause(pause_seconds):
            try:
                # Fetch the keys first: the provider returns the tokens only once, so a missing key must not lose them.
                connection.keys()
                answer = connection.poll_device(
                    self._authorization, scope=request.scope, needs_id_token=request.needs_id_token
                )
            except Unavailable as error:
                failure = error  # the poll interval doubles after each failure
                pause_seconds = min(2 * pause_seconds, max(MAX_PAUSE_SECONDS, interval_seconds))
                continue
            if isinstance(answer, TokenSet):
                return answer
            failure = None
            interval_seconds += SLOW_DOWN_SECONDS if answer.slow_down else 0.0
            pause_seconds = interval_seconds
        if failure is not None and not self._stopped.is_set():
            raise failure  # the user may have signed in, so don't report a timeout
        return None

    def stop(self) -> None:
        """Stop waiting immediately."""
        self._stopped.set()

    def _pause(self, seconds: float) -> bool:
        """Wait; return whether to poll again."""
        left_seconds = (self.prompt.expires_at - self._request.connection.clock.now()).total_seconds()
        if left_seconds <= 0 or self._stopped.wait(min(seconds, left_seconds)):
            return False
        return self._request.connection.clock.now() < self.prompt.expires_at
