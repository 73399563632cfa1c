"""Waits for a person's browser to come back to a loopback address of this process.

Listening is `loopback_receiver`'s job, what comes back means is `code_grant`'s.
"""

from micromegas_jupyter.auth.code_grant import CodeGrant
from micromegas_jupyter.auth.loopback_receiver import LoopbackReceiver
from micromegas_jupyter.auth.pending_login import LoginPrompt, RunningFlow
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.oidc.tokens import TokenSet
from micromegas_jupyter.redirect import Ending


class BrowserLogin(RunningFlow):
    """Authorization code with PKCE over loopback (RFC 8252 section 7.3); listens from now on.

    Args:
        prompt: What the person is shown.
        receiver: Bound and not yet serving; owned from now on.
        grant: What the callback is held against.
    """

    def __init__(self, prompt: LoginPrompt, receiver: LoopbackReceiver, grant: CodeGrant) -> None:
        super().__init__(prompt)
        self._receiver = receiver
        self._grant = grant
        self._came_back = False
        receiver.serve(authorization_url=grant.request.url, is_own=grant.is_answered_by)

    def tokens(self) -> TokenSet | None:
        """Wait for the callback and exchange its code."""
        query = _hidden(self._receiver.wait(self.prompt.timeout_seconds))
        if query is None:
            return None
        self._came_back = True
        return self._grant.redeem(self._grant.code_in(query))

    def stop(self) -> None:
        """End the wait; without effect once the browser has come back."""
        self._receiver.stop_waiting()

    def show(self, ending: Ending) -> None:
        """Set the page that the browser shows at the end."""
        self._receiver.finish(ending.page())

    def close(self, *, linger_seconds: float = 0.0) -> None:
        """Stop listening; lingers only when there is a browser that wants the last page."""
        self._receiver.close(linger_seconds=linger_seconds if self._came_back else 0.0)


def _hidden(query: str | None) -> Secret | None:
    """Return a callback's query as text that does not show among the variables of a traceback."""
    return None if query is None else Secret(query)
