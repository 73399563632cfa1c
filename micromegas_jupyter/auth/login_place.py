"""The place that a running sign-in is to be kept in, as it stood when the sign-in was begun.

Storing it there is `kept_session`'s job, and when that is too late by the person's own wish is `pending_login`'s.
"""

import logging

from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.auth.revocation import LogoutCalls
from micromegas_jupyter.auth.sign_in_store import SignInStore
from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.errors import LoginFailed, TokenStoreError
from micromegas_jupyter.oidc.tokens import TokenSet

_log = logging.getLogger(__name__)


class LoginPlace:
    """Remembers whether a sign-in was kept when another one was begun.

    Args:
        store: The place; None for a sign-in in memory.

    Raises:
        TokenStoreError: The place cannot be looked at.
    """

    def __init__(self, store: SignInStore | None) -> None:
        self._store = store
        self._was_taken = self._is_taken()

    def check_not_emptied(self) -> None:
        """Check that nobody has signed out since; only for the holder of the store's lock.

        A sign-in that another program has put there meanwhile is no hindrance: of two the last one counts. Where
        nothing was kept at the beginning, a sign-out by another program leaves no trace and is not seen.

        Raises:
            LoginFailed: Somebody has.
        """
        if self._was_taken and not self._is_taken():
            raise LoginFailed("You signed out meanwhile, so this sign-in was not kept.")

    def discard(self, tokens: TokenSet, connection: ProviderConnection, *, clock: Clock) -> None:
        """Have the provider end tokens that were not kept, as far as it does so within a logout's deadline.

        Some providers end everything that a person has given the application as soon as one of its tokens is revoked
        (Google). So while a sign-in is kept, the new tokens are forgotten only, which leaves nobody who has them.
        """
        try:
            if self._is_taken():
                return
        except TokenStoreError:
            return  # it cannot be known
        problem = LogoutCalls(clock).revoke(tokens, connection).problem
        if problem is not None:
            _log.warning("The tokens of a sign-in that was not kept could not be revoked.", extra={"problem": problem})

    def _is_taken(self) -> bool:
        return self._store is not None and self._store.mark() is not None
