"""One session in memory, in step with the place that keeps it for all programs of a person.

When to renew it and what of an answer to keep is `session_keeper`'s job; the place itself is `sign_in_store`'s.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from micromegas_jupyter.auth.private_files import FileMark
from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.auth.session import Session, session_from_storage
from micromegas_jupyter.auth.sign_in_entry import SignInEntry
from micromegas_jupyter.auth.sign_in_store import SignInStore
from micromegas_jupyter.auth.token_format import StoredLogin
from micromegas_jupyter.errors import LoginRequired, TokenStoreError
from micromegas_jupyter.oidc.tokens import TokenSet

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """A session with the mark of the store that it is in step with; None for a session that no store holds."""

    session: Session | None
    mark: FileMark | None = None


class KeptSession:
    """Holds the session and follows the store; safe to use from several threads.

    The state is one value that is replaced as a whole. A thread that puts an older one back is corrected at the
    next use, because its mark no longer fits the store.

    Args:
        connection: Says how far the provider's clock is ahead.
        store: Where the sign-in is kept; None keeps it in memory only.
        session: The sign-in to begin with; None takes the stored one.
        entry: What was asked for; a scope that it leaves open is taken from the stored sign-in.
    """

    def __init__(
        self,
        connection: ProviderConnection,
        store: SignInStore | None,
        *,
        session: Session | None,
        entry: SignInEntry,
    ) -> None:
        self._connection = connection
        self._entry = entry
        self._state = _State(session=session)
        # A session that was handed in counts until it is saved; from then on the store is what counts.
        self._store_counts = store is not None and session is None
        self.store = store
        self.scope = entry.scope

    @property
    def in_memory(self) -> Session | None:
        """The session as it was last seen; None when there was none."""
        return self._state.session

    def current(self) -> Session:
        """Return the session as it stands now.

        Raises:
            LoginRequired: Nobody is signed in, or the store now holds another sign-in.
            TokenStoreError: The store cannot be used safely.
        """
        state = self._state
        if self.store is None or not self._store_counts:
            if state.session is None:
                raise LoginRequired(f"You are not signed in at {self._entry.issuer}.")
            return state.session
        mark = self.store.mark()
        if mark is not None and mark == state.mark and state.session is not None:
            return state.session
        try:
            login, mark = self.store.load()
            session = self._session_of(login)
        except BaseException:
            self._state = _State(session=None)  # what is gone or cannot be read is not used from memory
            raise
        self.scope = login.scope or self.scope
        self._connection.assume_clock_offset(login.clock_offset_seconds)
        self._state = _State(session=session, mark=mark)
        return session

    def save(self, *, check: Callable[[], None] = lambda: None) -> None:
        """Store the session in place of any other sign-in.

        Args:
            check: Called under the store's lock before anything is written; what it raises ends this.

        Raises:
            LoginRequired: There is no session.
            TokenStoreError: It cannot be written.
            Unavailable: Another program holds the store's lock.
        """
        if self.store is None:
            raise TokenStoreError("The sign-in has no file to be kept in.", remedy="Give a token file.")
        session = self.current()
        with self.store.locked():
            check()
            mark = self.store.save(self._login_of(session.tokens))
        self._state = _State(session=session, mark=mark)
        self._store_counts = True

    def keep(self, session: Session) -> Session:
        """Put a renewed session in place of the one before, and return the one that counts now.

        Only for the holder of the store's lock.

        Raises:
            LoginRequired: Somebody signed out meanwhile.
        """
        known = self._state.mark
        if self.store is None:
            self._state = _State(session=session)
            return session
        login = self._login_of(session.tokens)
        try:
            mark = self.store.replace(login, known=known) if self._store_counts else self.store.save(login)
        except TokenStoreError as error:
            # What was stored before is still there, so the new tokens serve from memory until they can be stored.
            _log.warning("Renewed tokens could not be stored.", extra={"code": error.code})
            self._state = _State(session=session, mark=known)
            return session
        self._store_counts = True
        if mark is None:
            return self.current()  # somebody signed out or in without taking the lock
        self._state = _State(session=session, mark=mark)
        return session

    def end(self) -> tuple[Session | None, int]:
        """Forget the session here and in the store; returns what it was and how many files or entries were removed.

        What is another provider's, application's or request's sign-in is left alone; a damaged one is removed.

        Raises:
            TokenStoreError: The store cannot be used safely, or the sign-in cannot be removed from it.
            Unavailable: Another program holds the store's lock.
        """
        session = self._state.session
        if self.store is None:
            self._state = _State(session=None)
            return session, 0
        with self.store.locked():
            try:
                login, _ = self.store.load()
                is_own = login.entry.answers(self._entry)
                session = self._session_of(login) if is_own else session
            except LoginRequired:
                is_own = True
            removed_count = self.store.remove() if is_own else 0
        self._state = _State(session=None)
        self._store_counts = True
        return session, removed_count

    def _session_of(self, login: StoredLogin) -> Session:
        if not login.entry.answers(self._entry):
            raise LoginRequired("The stored sign-in is for another identity provider, application, audience or scope.")
        return session_from_storage(login.tokens, issuer=login.issuer, client_id=login.client_id)

    def _login_of(self, tokens: TokenSet) -> StoredLogin:
        return StoredLogin(
            issuer=self._entry.issuer,
            client_id=self._entry.client_id,
            tokens=tokens,
            audience=self._entry.audience,
            scope=self.scope,
            resource=self._entry.resource,
            clock_offset_seconds=self._connection.clock_offset_seconds,
        )
