"""A sign-in through the one redirect that a JupyterHub has for all of its users: the Hub checks whose browser it is.

Verifier, state, nonce and tokens stay here; the service is told the authorization address and hands over what the
browser came back with. How it is asked is `hub_service`'s job, what an answer means `code_grant`'s.
"""

import threading
from collections.abc import Callable
from datetime import timedelta

from micromegas_jupyter.auth.code_grant import CodeGrant
from micromegas_jupyter.auth.hub_refusals import HUB, unreadable
from micromegas_jupyter.auth.hub_service import HubService
from micromegas_jupyter.auth.pending_login import LoginPrompt, RunningFlow
from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.core.urls import host_text
from micromegas_jupyter.errors import LoginFailed, MicromegasError, ProviderUnavailable
from micromegas_jupyter.oidc.tokens import TokenSet
from micromegas_jupyter.redirect.redirect_address import is_callback_address, is_web_address

# The service waits 25 seconds for the browser before it says that there is nothing yet.
ANSWER_TIMEOUT_SECONDS = 40.0
PAUSE_SECONDS = 0.5


class HubRedirectLogin(RunningFlow):
    """Waits until the service hands over what the browser came back with.

    Args:
        prompt: What the person is shown.
        grant: What the answer is held against.
        service: Is asked for it; owned from now on.
        name: The sign-in's name there.
        clock: Tells the time.
    """

    def __init__(self, prompt: LoginPrompt, grant: CodeGrant, service: HubService, *, name: str, clock: Clock) -> None:
        super().__init__(prompt)
        self._grant = grant
        self._service = service
        self._name = Secret(name)
        self._clock = clock
        self._stopped = threading.Event()

    def tokens(self) -> TokenSet | None:
        """Wait for the answer and exchange its code."""
        deadline = self._clock.monotonic() + self.prompt.timeout_seconds
        while not self._stopped.is_set() and self._clock.monotonic() < deadline:
            try:
                query = self._service.answer(self._name.reveal(), timeout_seconds=ANSWER_TIMEOUT_SECONDS)
            except ProviderUnavailable:
                query = None  # the service may be restarted just now
            if query is not None:
                return self._grant.redeem(self._grant.code_in(query))
            self._stopped.wait(PAUSE_SECONDS)
        return None

    def stop(self) -> None:
        """End the wait."""
        self._stopped.set()
        self._service.close()

    def close(self, *, linger_seconds: float = 0.0) -> None:  # noqa: ARG002 - the last page is the Hub's
        """Make no calls any more."""
        self._service.close()


def start_hub_redirect(  # noqa: PLR0913 - what the two sides have to agree on
    service: HubService,
    build_grant: Callable[[str], CodeGrant],
    *,
    issuer: str,
    client_id: str,
    longest_seconds: float,
    clock: Clock,
) -> HubRedirectLogin:
    """Have the service take a sign-in.

    Args:
        service: The Hub's; owned by the sign-in.
        build_grant: Makes an authorization request for a redirect URI.
        issuer: The provider that the settings name.
        client_id: The application there.
        longest_seconds: How long the person is waited for at most.
        clock: Tells the time.

    Raises:
        LoginFailed: The Hub's redirect is for another provider or application.
        LoginRequired: The Hub takes no sign-in.
        ProviderUnavailable: The service does not answer.
        ProviderMisbehaved: The service's answer cannot be used.
    """
    offered = service.redirect()
    if (offered.issuer, offered.client_id) != (issuer, client_id):
        raise _told(
            LoginFailed(
                f"The Hub's redirect is for the application {offered.client_id} at {host_text(offered.issuer)}, and "
                f"the settings name {client_id} at {host_text(issuer)}.",
                remedy="Correct MICROMEGAS_OIDC_ISSUER and MICROMEGAS_OIDC_CLIENT_ID, or leave them out.",
            )
        )
    if not is_callback_address(offered.redirect_uri):
        raise unreadable()
    grant = build_grant(offered.redirect_uri)
    taken = service.begin(grant.request.url)
    if not is_web_address(taken.start_url):
        raise unreadable()
    seconds = min(longest_seconds, float(taken.expires_in_seconds))
    prompt = LoginPrompt(
        flow=Flow.REDIRECT,
        timeout_seconds=seconds,
        expires_at=clock.now() + timedelta(seconds=seconds),
        start_url=taken.start_url,
    )
    return HubRedirectLogin(prompt, grant, service, name=taken.name, clock=clock)


def _told(error: MicromegasError) -> MicromegasError:
    error.giver = HUB
    return error
