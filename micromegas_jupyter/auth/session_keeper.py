"""Keeps one sign-in usable: renews it in time, at most once per expiry over all programs that share it.

Calls to the provider are `provider_connection`'s; the session and the place that keeps it are `kept_session`'s.
"""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta

from micromegas_jupyter.auth.kept_session import KeptSession
from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.auth.renewal_turn import RenewalTurn
from micromegas_jupyter.auth.session import Freshness, Session, draw_delay_share
from micromegas_jupyter.auth.sign_in_entry import SignInEntry
from micromegas_jupyter.auth.sign_in_store import LOCK_WAIT_SECONDS, SignInStore
from micromegas_jupyter.config.client import Bearer
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.core.system import SYSTEM_RANDOMNESS, Clock, Randomness
from micromegas_jupyter.errors import LoginRequired, MicromegasError, ProviderMisbehaved, Unavailable
from micromegas_jupyter.oidc.id_token import IdTokenClaims, check_refreshed_claims
from micromegas_jupyter.oidc.tokens import TokenSet, merge_refreshed

# A server that refuses every token must not make a program renew again and again.
FORCED_PAUSE_SECONDS = 10.0

_log = logging.getLogger(__name__)


class SessionKeeper:
    """Owns the session of one provider object; safe to use from several threads.

    Args:
        connection: Calls the provider.
        store: Where the sign-in is kept; None keeps it in memory only.
        session: The sign-in to begin with; None takes the stored one.
        audience: What was asked for; stored with the sign-in.
        scope: What was asked for; None takes the stored one.
        clock: Tells the time.
        resource: What was asked for; stored with the sign-in.
        randomness: Draws by how much this keeper renews later than others.
    """

    def __init__(  # noqa: PLR0913 - its parts
        self,
        connection: ProviderConnection,
        store: SignInStore | None,
        *,
        session: Session | None,
        audience: str | None,
        scope: str | None,
        clock: Clock,
        resource: str | None = None,
        randomness: Randomness = SYSTEM_RANDOMNESS,
    ) -> None:
        self._connection = connection
        self._resource = resource
        self._clock = clock
        self._turn: RenewalTurn[Session] = RenewalTurn(clock)
        self._delay_share = draw_delay_share(randomness)
        entry = SignInEntry(
            issuer=connection.issuer, client_id=connection.client_id, audience=audience, scope=scope, resource=resource
        )
        self._kept = KeptSession(connection, store, session=session, entry=entry)
        self._refused: Secret | None = None
        self._forced_at: float | None = None

    @property
    def store(self) -> SignInStore | None:
        """Where the sign-in is kept."""
        return self._kept.store

    @store.setter
    def store(self, store: SignInStore | None) -> None:
        self._kept.store = store

    @property
    def scope(self) -> str | None:
        """The scope that was asked for, as far as it is known."""
        return self._kept.scope

    @property
    def clock_offset_seconds(self) -> float:
        """How far the provider's clock is ahead of this machine's, as far as it is known."""
        return self._connection.clock_offset_seconds

    def current(self) -> Session:
        """Return the session as it stands now, without calling the provider.

        Raises:
            LoginRequired: Nobody is signed in, or the file now holds another sign-in.
            TokenStoreError: The file cannot be used safely.
        """
        return self._kept.current()

    def token(self, bearer: Bearer) -> Secret:
        """Return a token that is valid now, renewing the session when it ends soon.

        Raises:
            LoginRequired: Nobody is signed in, or the sign-in has ended.
            TokenStoreError: The file cannot be used safely.
            LoginFailed: The provider does not accept the application.
            Unavailable: A renewal is needed and not possible now.
            ProviderMisbehaved: The provider's answer breaks the protocol or is for somebody else.
        """
        may_force = self._may_force()  # before the session is read, or the one before a renewal could pass for good
        session = self._kept.current()
        freshness = self._freshness(session, bearer)
        is_refused = may_force and self._holds_refused(session, bearer)
        if freshness is not Freshness.FRESH or is_refused:
            is_valid = freshness is not Freshness.ENDED
            session = self._renewed(session, bearer, is_valid=is_valid, is_optional=is_valid and not is_refused)
        return session.token(bearer)

    def renew(self, bearer: Bearer) -> Secret:
        """Renew the session now, however fresh it is, and return its token; as `token` where nothing can renew it.

        Renewals for this reason are ten seconds apart, too; a call in between renews nothing.

        Raises:
            LoginRequired: Nobody is signed in, or the provider has ended the sign-in; the token may still be valid.
            MicromegasError: As `token`, and also while the token is still valid.
        """
        session = self._kept.current()
        if not self._can_renew(session, bearer):
            return self.token(bearer)
        refused, self._refused = self._refused, session.token(bearer)
        try:
            return self._renewed(session, bearer, is_valid=False, is_optional=False).token(bearer)
        except MicromegasError:
            self._refused = refused  # or each later call would try again
            raise

    def invalidate(self, token: Secret) -> None:
        """Take note that the server refused a token, so that the next `token` renews it however fresh it looks.

        A token that is not in use any more is not taken note of. Renewals for this reason are ten seconds apart.
        """
        try:
            session = self._kept.current()
        except MicromegasError:
            return  # there is nothing to renew, which the next `token` says
        if token in {session.tokens.access_token, session.tokens.id_token}:
            self._refused = token

    def renewal_due_at(self, bearer: Bearer) -> datetime | None:
        """Return from when on `token` renews, by this machine's clock; None when nothing can be renewed."""
        try:
            session = self._kept.current()
        except MicromegasError:
            return None
        if session.tokens.refresh_token is None:
            return None
        due_at, renewable_from = session.due_at(bearer, delay_share=self._delay_share), session.renewable_from(bearer)
        if due_at is None:
            return None
        moment = due_at if renewable_from is None else max(due_at, renewable_from)
        return moment - timedelta(seconds=self.clock_offset_seconds)

    def save(self, *, check: Callable[[], None] = lambda: None) -> None:
        """Store the session, replacing any other sign-in in the file.

        Args:
            check: Called under the file's lock before anything is written; what it raises ends this.

        Raises:
            LoginRequired: There is no session.
            TokenStoreError: It cannot be written.
            Unavailable: Another program holds the file's lock.
        """
        self._kept.save(check=check)

    def end(self) -> tuple[Session | None, int]:
        """Forget the session here and in the file; returns what it was and how many files were removed.

        Raises:
            TokenStoreError: The file cannot be used safely or cannot be removed.
            Unavailable: Another program holds the file's lock.
        """
        return self._kept.end()

    def _freshness(self, session: Session, bearer: Bearer) -> Freshness:
        return session.freshness(bearer, self._connection.now(), delay_share=self._delay_share)

    def _is_refused(self, session: Session, bearer: Bearer) -> bool:
        return self._holds_refused(session, bearer) and self._may_force()

    def _holds_refused(self, session: Session, bearer: Bearer) -> bool:
        held = session.tokens.access_token if bearer is Bearer.ACCESS_TOKEN else session.tokens.id_token
        return self._refused is not None and held == self._refused

    def _may_force(self) -> bool:
        return self._forced_at is None or self._clock.monotonic() - self._forced_at >= FORCED_PAUSE_SECONDS

    def _is_good(self, session: Session, bearer: Bearer) -> bool:
        return self._freshness(session, bearer) is Freshness.FRESH and not self._is_refused(session, bearer)

    def _renewed(self, session: Session, bearer: Bearer, *, is_valid: bool, is_optional: bool) -> Session:
        if not self._can_renew(session, bearer):
            if is_valid:
                return session
            raise _ended(session)
        try:
            renewed = self._turn.run(
                lambda: self._renew_once(bearer, is_optional=is_optional),
                is_optional=is_optional,
                subject=session.tokens.refresh_token,
            )
        except MicromegasError as error:
            # A token that is still valid serves on, unless the sign-in itself was found to be gone.
            if not is_valid or self._kept.in_memory is None:
                raise
            _log.warning("A token could not be renewed in time; the old one serves on.", extra={"code": error.code})
            return session
        return session if renewed is None else renewed

    def _can_renew(self, session: Session, bearer: Bearer) -> bool:
        if session.tokens.refresh_token is None:
            return False
        renewable_from = session.renewable_from(bearer)
        return renewable_from is None or self._connection.now() >= renewable_from

    def _renew_once(self, bearer: Bearer, *, is_optional: bool) -> Session:
        with ExitStack() as held:
            if self.store is not None:
                try:
                    held.enter_context(self.store.locked(wait_seconds=0 if is_optional else LOCK_WAIT_SECONDS))
                except Unavailable:
                    if is_optional:
                        return self.current()  # another process renews; the present token serves until it is done
                    raise
            return self._renew_unless_good(bearer)

    def _renew_unless_good(self, bearer: Bearer) -> Session:
        session = self.current()
        if self._is_good(session, bearer):
            return session  # another thread or process was faster
        if not self._can_renew(session, bearer) or session.tokens.refresh_token is None:
            raise _ended(session)
        was_refused = self._is_refused(session, bearer)
        try:
            renewed = self._refreshed(session, session.tokens.refresh_token)
        finally:
            if was_refused:  # not earlier: whoever was refused, too, waits for this
                self._forced_at = self._clock.monotonic()
        if self._freshness(renewed, bearer) is Freshness.ENDED:
            raise _ended(renewed)
        return renewed

    def _refreshed(self, session: Session, refresh_token: Secret) -> Session:
        # Documents first: once the refresh token is spent, its successor must not be lost for want of a key.
        self._connection.keys()
        try:
            answer = self._connection.refresh(
                refresh_token, granted_scope=session.tokens.scope, resource=self._resource
            )
        except LoginRequired:
            kept = self._kept.keep(_with_refresh_token(session, None))
            if kept.tokens.refresh_token is not None:
                return kept  # a program that takes no lock was faster
            raise
        return self._accept(session, answer)

    def _accept(self, session: Session, answer: TokenSet) -> Session:
        """Keep what the provider answered, as far as it can be believed.

        The old refresh token may be spent by now, so its successor is kept also when the ID token cannot be checked or
        is not acceptable: it goes to nobody but the provider, and what it brings is held against the same person. An
        answer for somebody else leaves the tokens that are there, and nothing to renew them with.
        """
        claims = None
        try:
            claims = self._connection.verify(answer, nonce=None)
            if claims is not None and session.claims is not None:
                check_refreshed_claims(session.claims, claims)
        except Unavailable:
            unchecked = merge_refreshed(session.tokens, replace(answer, id_token=None))
            self._kept.keep(Session(tokens=unchecked, claims=session.claims))
            raise
        except ProviderMisbehaved:
            is_for_somebody_else = claims is not None and not _is_same_person(session, claims)
            successor = None if is_for_somebody_else else answer.refresh_token or session.tokens.refresh_token
            self._kept.keep(_with_refresh_token(session, successor))
            raise
        return self._kept.keep(Session(tokens=merge_refreshed(session.tokens, answer), claims=claims or session.claims))


def _is_same_person(session: Session, claims: IdTokenClaims) -> bool:
    return session.claims is None or session.claims.subject == claims.subject


def _with_refresh_token(session: Session, refresh_token: Secret | None) -> Session:
    return replace(session, tokens=replace(session.tokens, refresh_token=refresh_token))


def _ended(session: Session) -> LoginRequired:
    if session.id_token_was_kept:
        return LoginRequired(
            "The ID token has ended, and the identity provider renews access tokens only.",
            remedy=f"{LoginRequired.default_remedy} If the server takes access tokens, "
            "set MICROMEGAS_OIDC_BEARER=access_token.",
        )
    return LoginRequired("The sign-in has ended and cannot be renewed.")
