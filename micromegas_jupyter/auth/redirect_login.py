"""Waits for a person's browser to come back to a Jupyter server, which hands on what it came back with.

The server reaches this through `redirect_desk`; what an answer means is `code_grant`'s.
"""

import threading
from collections.abc import Callable
from contextlib import suppress

from micromegas_jupyter.auth.code_grant import CodeGrant
from micromegas_jupyter.auth.pending_login import LoginPrompt, RunningFlow
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.oidc.tokens import TokenSet
from micromegas_jupyter.redirect import Ending
from micromegas_jupyter.redirect.messages import Started
from micromegas_jupyter.redirect.routing import digest_of


class RedirectLogin(RunningFlow):
    """Authorization code with PKCE, whose redirect a Jupyter server receives.

    Verifier, state and nonce stay here. The redirect URI comes with the first start, because only the server knows
    under which address a browser reaches it; a start from another address begins anew, with a state of its own.

    Its lock covers the grant, its answer, the ending, and who is told of a start.

    Args:
        prompt: What the person is shown.
        build_grant: Makes an authorization request for a redirect URI; touches no network.
        fetch_keys: Fetches the keys that the ID token is checked with, and keeps them.
    """

    def __init__(
        self,
        prompt: LoginPrompt,
        build_grant: Callable[[str], CodeGrant],
        *,
        fetch_keys: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(prompt)
        self._build_grant = build_grant
        self._fetch_keys = fetch_keys
        self._lock = threading.Lock()
        self._grant: CodeGrant | None = None
        self._answer: Secret | MicromegasError | None = None
        self._over = threading.Event()
        self._ending: Ending | None = None
        self._tell_started: Callable[[str], None] = lambda _redirect_uri: None

    @property
    def state_digest(self) -> str | None:
        """The digest of the state that an answer must carry; None before the first start."""
        with self._lock:
            return None if self._grant is None else _digest_of(self._grant)

    @property
    def ending(self) -> Ending | None:
        """How it ended; None while it goes on."""
        with self._lock:
            return self._ending

    def start(self, redirect_uri: str) -> Started | None:
        """Return where the browser goes that a person opened the start address with; None when it is too late.

        Args:
            redirect_uri: Where the provider is to send the browser back to.
        """
        with self._lock:
            if self._over.is_set():
                return None
            if self._grant is None or self._grant.request.redirect_uri != redirect_uri:
                self._grant = self._build_grant(redirect_uri)
            started = Started(authorization_url=self._grant.request.url, state_digest=_digest_of(self._grant))
            tell = self._tell_started
        tell(redirect_uri)
        return started

    def on_started(self, callback: Callable[[str], None]) -> None:
        """Have `callback` told the redirect URI at each start."""
        with self._lock:
            self._tell_started = callback

    def take(self, query: Secret) -> bool:
        """Take what the browser came back with; whether it is this sign-in's, which takes one answer only."""
        with self._lock:
            if self._grant is None or self._over.is_set() or not self._grant.is_answered_by(query.reveal()):
                return False
            try:
                self._answer = self._grant.code_in(query)
            except MicromegasError as error:
                self._answer = error
            self._over.set()
            return True

    def tokens(self) -> TokenSet | None:
        """Wait for the answer and exchange its code."""
        # While the person signs in there is time for it; what fails now is asked for again then.
        with suppress(MicromegasError):
            self._fetch_keys()
        self._over.wait(self.prompt.timeout_seconds)
        self._over.set()  # what comes from now on comes too late
        with self._lock:
            grant, answer, self._answer = self._grant, self._answer, None
        if isinstance(answer, MicromegasError):
            raise answer
        return None if answer is None or grant is None else grant.redeem(answer)

    def stop(self) -> None:
        """End the wait; without effect once an answer was taken."""
        self._over.set()

    def show(self, ending: Ending) -> None:
        """Keep how it ended for the page that the browser waits for."""
        with self._lock:
            self._ending = ending


def _digest_of(grant: CodeGrant) -> str:
    return digest_of(grant.request.state.reveal())
