"""Keeps one sign-in usable: notices what others did to the file, renews in time, at most once per expiry.

Calls to the provider are `provider_connection`'s and the file is `token_store`'s.
"""

import logging
from contextlib import ExitStack
from dataclasses import dataclass, replace

from micromegas_jupyter.auth.private_files import FileMark
from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.auth.renewal_turn import RenewalTurn
from micromegas_jupyter.auth.session import Bearer, Freshness, Session, session_from_storage
from micromegas_jupyter.auth.token_format import StoredLogin
from micromegas_jupyter.auth.token_store import LOCK_WAIT_SECONDS, TokenStore
from micromegas_jupyter.contracts import Secret
from micromegas_jupyter.errors import LoginRequired, ProviderMisbehaved, TokenStoreError, Unavailable
from micromegas_jupyter.oidc.id_token import check_refreshed_claims
from micromegas_jupyter.oidc.token import TokenSet, merge_refreshed
from micromegas_jupyter.seams import Clock

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """A session with the mark of the file that it is in step with; None for a session that no file holds."""

    session: Session | None
    mark: FileMark | None = None


class SessionKeeper:
    """Owns the session of one provider object; safe to use from several threads.

    The state is one value that is replaced as a whole. A thread that puts an older one back is corrected at the
    next use, because its mark no longer fits the file.

    Args:
        connection: Calls the provider.
        store: Where the sign-in is kept; None keeps it in memory only.
        session: The sign-in to begin with; None takes the stored one.
        audience: What was asked for; stored with the sign-in.
        scope: What was asked for; None takes the stored one.
        clock: Tells the time.
    """

    def __init__(  # noqa: PLR0913 - its parts
        self,
        connection: ProviderConnection,
        store: TokenStore | None,
        *,
        session: Session | None,
        audience: str | None,
        scope: str | None,
        clock: Clock,
    ) -> None:
        self._connection = connection
        self._audience = audience
        self._scope = scope
        self._clock = clock
        self._turn: RenewalTurn[Session] = RenewalTurn(clock)
        self._state = _State(session=session)
        # A session that was handed in counts until it is saved; from then on the file is what counts.
        self._file_counts = store is not None and session is None
        self.store = store

    @property
    def scope(self) -> str | None:
        """The scope that was asked for, as far as it is known."""
        return self._scope

    def current(self) -> Session:
        """Return the session as it stands now, without calling the provider.

        Raises:
            LoginRequired: Nobody is signed in, or the file now holds another sign-in.
            TokenStoreError: The file cannot be used safely.
        """
        state = self._state
        if self.store is None or not self._file_counts:
            if state.session is None:
                raise LoginRequired(f"You are not signed in at {self._connection.issuer}.")
            return state.session
        mark = self.store.mark()
        if mark is not None and mark == state.mark and state.session is not None:
            return state.session
        # What is gone or changed is forgotten first, so that no failure below leaves it in use.
        self._state = _State(session=None)
        login, mark = self.store.load()
        session = self._session_of(login)
        self._scope = login.scope or self._scope
        self._state = _State(session=session, mark=mark)
        return session

    def token(self, bearer: Bearer) -> Secret:
        """Return a token that is valid now, renewing the session when it ends soon.

        Raises:
            LoginRequired: Nobody is signed in, or the sign-in has ended.
            TokenStoreError: The file cannot be used safely.
            Unavailable: A renewal is needed and not possible now.
            ProviderMisbehaved: The provider's answer breaks the protocol or is for somebody else.
        """
        session = self.current()
        freshness = session.freshness(bearer, self._clock.now())
        if freshness is not Freshness.FRESH:
            session = self._renewed(session, bearer, is_valid=freshness is Freshness.ENDING)
        return session.token(bearer)

    def save(self) -> None:
        """Store the session, replacing any other sign-in in the file.

        Raises:
            LoginRequired: There is no session.
            TokenStoreError: It cannot be written.
            Unavailable: Another program holds the file's lock.
        """
        if self.store is None:
            raise TokenStoreError("The sign-in has no file to be kept in.", remedy="Give a token file.")
        session = self.current()
        with self.store.locked():
            mark = self.store.save(self._login_of(session.tokens))
        self._state = _State(session=session, mark=mark)
        self._file_counts = True

    def end(self) -> tuple[Session | None, int]:
        """Forget the session here and in the file; returns what it was and how many files were removed.

        A file that holds another provider's or application's sign-in is left alone; a damaged one is removed.

        Raises:
            TokenStoreError: The file cannot be used safely or cannot be removed.
            Unavailable: Another program holds the file's lock.
        """
        session = self._state.session
        if self.store is None:
            self._state = _State(session=None)
            return session, 0
        with self.store.locked():
            try:
                login, _ = self.store.load()
                is_own = self._is_own(login)
                session = self._session_of(login) if is_own else session
            except LoginRequired:
                is_own = True
            removed_count = self.store.remove() if is_own else 0
        self._state = _State(session=None)
        self._file_counts = True
        return session, removed_count

    def _renewed(self, session: Session, bearer: Bearer, *, is_valid: bool) -> Session:
        if not self._can_renew(session, bearer):
            if is_valid:
                return session
            raise _ended(session)
        try:
            renewed = self._turn.run(lambda: self._renew_once(bearer, is_optional=is_valid), is_optional=is_valid)
        except (Unavailable, ProviderMisbehaved, LoginRequired, TokenStoreError) as error:
            # A token that is still valid serves on, unless the sign-in itself was found to be gone.
            if not is_valid or self._state.session is None:
                raise
            _log.warning("A token could not be renewed in time; the old one serves on.", extra={"code": error.code})
            return session
        return session if renewed is None else renewed

    def _can_renew(self, session: Session, bearer: Bearer) -> bool:
        if session.tokens.refresh_token is None:
            return False
        # A provider that renews access tokens only is not asked again before the access token ends, too.
        only_access_token = bearer is Bearer.ID_TOKEN and session.id_token_was_kept
        return not only_access_token or session.freshness(Bearer.ACCESS_TOKEN, self._clock.now()) is not Freshness.FRESH

    def _renew_once(self, bearer: Bearer, *, is_optional: bool) -> Session:
        if self.store is None:
            return self._renew_unless_fresh(bearer)
        with ExitStack() as held:
            try:
                held.enter_context(self.store.locked(wait_seconds=0 if is_optional else LOCK_WAIT_SECONDS))
            except Unavailable:
                if is_optional:
                    return self.current()  # another process renews, and the present token serves until it is done
                raise
            return self._renew_unless_fresh(bearer)

    def _renew_unless_fresh(self, bearer: Bearer) -> Session:
        session = self.current()
        if session.freshness(bearer, self._clock.now()) is Freshness.FRESH:
            return session  # another thread or process was faster
        if not self._can_renew(session, bearer) or session.tokens.refresh_token is None:
            raise _ended(session)
        # Documents first: once the refresh token is spent, its successor must not be lost for want of a key.
        self._connection.keys()
        try:
            answer = self._connection.refresh(session.tokens.refresh_token, granted_scope=session.tokens.scope)
        except LoginRequired:
            self._keep(replace(session, tokens=replace(session.tokens, refresh_token=None)))
            raise
        renewed = self._accept(session, answer)
        if renewed.freshness(bearer, self._clock.now()) is Freshness.ENDED:
            raise _ended(renewed)
        return renewed

    def _accept(self, session: Session, answer: TokenSet) -> Session:
        try:
            claims = self._connection.verify(answer, nonce=None)
            if claims is not None and session.claims is not None:
                check_refreshed_claims(session.claims, claims)
        except Unavailable:
            # The spent refresh token is worthless: its successor is kept, the ID token that nobody could check is not.
            kept = merge_refreshed(session.tokens, replace(answer, id_token=None))
            self._keep(Session(tokens=kept, claims=session.claims))
            raise
        except ProviderMisbehaved:
            self._drop()
            raise
        return self._keep(
            Session(
                tokens=merge_refreshed(session.tokens, answer),
                claims=claims or session.claims,
                id_token_was_kept=claims is None,
            )
        )

    def _keep(self, session: Session) -> Session:
        """Put a renewed session in place of the one before, and return the one that counts now."""
        if self.store is None:
            self._state = _State(session=session)
            return session
        known = self._state.mark
        login = self._login_of(session.tokens)
        try:
            mark = self.store.replace(login, known=known) if self._file_counts else self.store.save(login)
        except TokenStoreError as error:
            # The old file is still there, so the new tokens serve from memory until the file can be written.
            _log.warning("Renewed tokens could not be stored.", extra={"code": error.code})
            self._state = _State(session=session, mark=known)
            return session
        self._file_counts = True
        if mark is None:
            return self.current()  # somebody signed out or in without taking the lock
        self._state = _State(session=session, mark=mark)
        return session

    def _drop(self) -> None:
        known = self._state.mark
        self._state = _State(session=None)
        if self.store is not None and self._file_counts and self.store.mark() == known:
            self.store.remove()

    def _session_of(self, login: StoredLogin) -> Session:
        if not self._is_own(login):
            raise LoginRequired("The stored sign-in is for another identity provider or application.")
        return session_from_storage(login.tokens, issuer=login.issuer, client_id=login.client_id)

    def _is_own(self, login: StoredLogin) -> bool:
        return (login.issuer, login.client_id) == (self._connection.issuer, self._connection.client_id)

    def _login_of(self, tokens: TokenSet) -> StoredLogin:
        return StoredLogin(
            issuer=self._connection.issuer,
            client_id=self._connection.client_id,
            tokens=tokens,
            audience=self._audience,
            scope=self._scope,
        )


def _ended(session: Session) -> LoginRequired:
    if session.id_token_was_kept:
        return LoginRequired("The ID token has ended, and the identity provider renews access tokens only.")
    return LoginRequired("The sign-in has ended and cannot be renewed.")
