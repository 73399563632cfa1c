"""Waits for a person who pastes the address that their browser ended at, where no browser can come back by itself.

Nobody listens at that address: the browser shows that it cannot be reached, which is as it should be. What an
answer means is `code_grant`'s.
"""

import threading
from urllib.parse import parse_qsl

from micromegas_jupyter.auth.code_grant import CodeGrant
from micromegas_jupyter.auth.pending_login import LoginPrompt, RunningFlow
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.errors import (
    LoginFailed,
    LoginRefused,
    MicromegasError,
    ProviderMisbehaved,
    ProviderUnavailable,
    UsageError,
)
from micromegas_jupyter.oidc.authorization import MAX_CALLBACK_PARAMETERS
from micromegas_jupyter.oidc.tokens import TokenSet

MAX_PASTED_CHARACTERS = 16 * 1024
MAX_TRIES = 10

_QUOTES = "\"'`<>\u2018\u2019\u201c\u201d"


class PasteLogin(RunningFlow):
    """Authorization code with PKCE, whose answer a person carries over.

    Its lock covers the count of tries and the answer.

    Args:
        prompt: What the person is shown.
        grant: What the pasted address is held against.
    """

    def __init__(self, prompt: LoginPrompt, grant: CodeGrant) -> None:
        super().__init__(prompt)
        self._grant = grant
        self._lock = threading.Lock()
        self._tries = 0
        self._answer: Secret | MicromegasError | None = None
        self._ended = threading.Event()

    def tokens(self) -> TokenSet | None:
        """Wait for a fitting address and exchange its code."""
        self._ended.wait(self.prompt.timeout_seconds)
        self._ended.set()  # what is pasted from now on comes too late
        with self._lock:
            answer, self._answer = self._answer, None
        if isinstance(answer, MicromegasError):
            raise answer
        return None if answer is None else self._grant.redeem(answer)

    def stop(self) -> None:
        """End the wait; without effect once a fitting address was pasted."""
        self._ended.set()

    def submit(self, text: str | Secret) -> None:
        """Take what the person pasted: the whole address, or the part behind its question mark.

        Raises:
            UsageError: It is not this sign-in's address, or the sign-in waits for none any more.
            ProviderMisbehaved: It is from another provider or malformed.
        """
        text = text if isinstance(text, Secret) else Secret(text)  # or a traceback would show it
        with self._lock:
            if self._ended.is_set():
                raise UsageError("This sign-in waits for no address any more.", remedy="Start the sign-in again.")
            self._tries += 1
            try:
                self._answer = self._answer_in(text)
            except (UsageError, ProviderMisbehaved):
                if self._tries >= MAX_TRIES:
                    self._answer = LoginFailed(f"{MAX_TRIES} pasted addresses did not fit this sign-in.")
                    self._ended.set()
                raise
            self._ended.set()

    def _answer_in(self, text: Secret) -> Secret | MicromegasError:
        if len(text.reveal()) > MAX_PASTED_CHARACTERS:
            raise self._misfit("The pasted text is too long.")
        query = Secret(_query_in(text.reveal()))
        if not self._grant.is_answered_by(query.reveal()):
            raise self._misfit("The pasted text is not the address that this sign-in ended at.")
        if not {"code", "error"} & _parameter_names(query.reveal()):
            raise self._misfit("The pasted address is one from before the sign-in has ended.")
        try:
            return self._grant.code_in(query)
        except (LoginRefused, ProviderUnavailable) as error:
            return error

    def _misfit(self, what: str) -> UsageError:
        return UsageError(
            what,
            remedy=(
                "Sign in on the page that was shown, and when the browser says that it cannot open the next one, "
                f"paste the whole address from its address bar; it begins with {self._grant.request.redirect_uri}?"
            ),
        )


def _query_in(text: str) -> str:
    """Return the query string of a pasted address, which a terminal or a mail program may have broken or quoted."""
    address = "".join(text.split()).strip(_QUOTES)
    before, mark, after = address.partition("?")
    query = after if mark and "=" not in before else address
    return query.partition("#")[0]


def _parameter_names(query: str) -> set[str]:
    return {name for name, _ in parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_CALLBACK_PARAMETERS)}
