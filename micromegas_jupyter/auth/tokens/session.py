"""A person's sign-in in step with its store: refreshed once among all programs that share the store."""

import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeVar

from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.auth.tokens.source import BearerToken, TokenSource, due_at
from micromegas_jupyter.auth.tokens.store import LOCK_WAIT_SECONDS, LoginKey, StoredLogin, TokenStore
from micromegas_jupyter.config.client import Bearer
from micromegas_jupyter.core.files import FileMark, LeaseLost
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import LoginRequired, ProviderMisbehaved, TokenStoreError, Unavailable
from micromegas_jupyter.oidc.authorization import TokenSet, merge_refreshed
from micromegas_jupyter.oidc.jwt import (
    IdTokenClaims,
    TokenProblem,
    check_refreshed_claims,
    expiry_of,
    parse_token,
    read_stored_id_token,
    shown_groups,
    shown_text,
)

# A process that is suspended and resumed again and again gives up eventually.
_MAX_LEASES = 3
# How soon to refresh again if the provider returned no ID token.
MIN_ID_TOKEN_PAUSE = timedelta(seconds=30)
# Stored times are whole seconds, and clocks that differ by two seconds count as equal.
_INACCURACY = timedelta(seconds=2)

T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The tokens of one sign-in and the claims of its ID token, if there is one; times are by the provider's clock."""

    tokens: TokenSet
    claims: IdTokenClaims | None

    @property
    def reuses_id_token(self) -> bool:
        """Whether the ID token was already due when the access token came, so that none came with it."""
        obtained_at = self.tokens.obtained_at
        if self.claims is None or obtained_at is None:
            return False
        begins_at, ends_at = self.claims.issued_at, self.claims.expires_at
        return obtained_at >= due_at(begins_at, ends_at) - min(_INACCURACY, (ends_at - begins_at) / 4)

    def renewable_from(self, bearer: Bearer) -> datetime | None:
        """Return from when on another refresh may bring more than the last one did; None when that is at once.

        A provider that refreshed without an ID token may never give one. So the pauses grow with the time since the
        ID token ended, and are the same for all programs that share the sign-in.
        """
        obtained_at = self.tokens.obtained_at
        if bearer is Bearer.ACCESS_TOKEN or self.claims is None or obtained_at is None or not self.reuses_id_token:
            return None
        return obtained_at + max(MIN_ID_TOKEN_PAUSE, obtained_at - self.claims.expires_at)

    def bearer_token(self, bearer: Bearer, *, offset: timedelta) -> BearerToken | None:
        """Return the token that `bearer` names, or None; `offset` is how far the provider's clock is ahead."""
        if bearer is Bearer.ACCESS_TOKEN:
            text, begins_at, ends_at = self.tokens.access_token, self.tokens.obtained_at, self.tokens.expires_at
        elif self.claims is None or self.tokens.id_token is None:
            return None
        else:
            text, begins_at, ends_at = self.tokens.id_token, self.claims.issued_at, self.claims.expires_at
        due, renewable_from = None if ends_at is None else due_at(begins_at, ends_at), self.renewable_from(bearer)
        if due is not None and renewable_from is not None:
            due = max(due, renewable_from)
        return BearerToken(
            text=text,
            due_at=None if due is None else due - offset,
            expires_at=None if ends_at is None else ends_at - offset,
            is_renewable=self.tokens.refresh_token is not None,
        )


def session_of(tokens: TokenSet, *, issuer: str, client_id: str) -> Session:
    """Make a session of tokens that were verified when they came."""
    if tokens.id_token is None:
        return Session(tokens=tokens, claims=None)
    try:
        claims = read_stored_id_token(tokens.id_token, issuer=issuer, client_id=client_id)
    except ProviderMisbehaved:
        raise LoginRequired("The stored sign-in holds an ID token that cannot be used.") from None
    return Session(tokens=tokens, claims=claims)


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """A session with the mark of the store when it held that session; without a mark the store is read again."""

    session: Session | None
    mark: FileMark | None = None


class SessionSource(TokenSource):
    """Holds one sign-in in step with its store and refreshes it.

    With a store it follows the store: another program's sign-in, refresh, or logout counts here, too. The state is one
    value that is replaced as a whole. A thread that puts an older one back is corrected at the next use, because its
    mark no longer equals the store's. An unknown scope of `key` is taken from the stored sign-in.
    """

    issuer = client_id = ""  # a traceback shows the object before it is complete

    def __init__(
        self,
        connection: ProviderConnection,
        store: TokenStore | None,
        *,
        key: LoginKey,
        bearer: Bearer,
    ) -> None:
        super().__init__(connection.clock)
        self.issuer = connection.issuer
        self.client_id = connection.client_id
        self.audience = key.audience
        self.store = store
        self.bearer = bearer
        self._connection = connection
        self._key = key
        self._state = _State(session=None)
        self._follows_store = store is not None
        self._scope = key.scope

    def begin(self, session: Session) -> None:
        """Take a new sign-in, which counts in place of the stored one until it is saved."""
        self._follows_store = False
        self._state = _State(session=session)

    def current(self, *, reads_store: bool = False) -> Session:
        """Return the present session without calling the provider; `reads_store` even if the store looks unchanged."""
        state = self._state
        if self.store is None or not self._follows_store:
            if state.session is None:
                raise LoginRequired(f"You are not signed in at {self._key.issuer}.")
            return state.session
        mark = self.store.mark()
        if not reads_store and mark is not None and mark == state.mark and state.session is not None:
            return state.session
        return self._load(self.store)[0]

    def _held(self, bearer: Bearer | None) -> BearerToken | None:
        return self._bearer_token(self.current(), bearer)

    def _bearer_token(self, session: Session, bearer: Bearer | None) -> BearerToken | None:
        offset = timedelta(seconds=self._connection.clock_offset_seconds)
        return session.bearer_token(bearer or self.bearer, offset=offset)

    def _is_held(self, token: Secret) -> bool:
        tokens = self.current().tokens
        return token in {tokens.access_token, tokens.id_token}

    def _check_renewable(self, bearer: Bearer | None) -> None:
        session = self.current()
        if not self._can_refresh(session, bearer):
            raise _ended(session)

    def keep(self, *, check: Callable[[], None] = lambda: None) -> None:
        """Store the session in place of any other sign-in, unless `check` raises under the store's lock."""
        if self.store is None:
            raise TokenStoreError("There is no file to store the sign-in in.", remedy="Give a token file.")
        session, store = self.current(), self.store

        def store_session() -> FileMark:
            with store.locked(interrupts=True):
                check()
                mark = store.save(self._login_of(session))
                store.note_stored(rotates=None)
                return mark

        self._state = _State(session=session, mark=_with_leases(store_session))
        self._follows_store = True

    def _end(self) -> tuple[Session | None, int]:
        """Forget the session here and in the store; returns what it was and how many files or entries were removed.

        A sign-in of another provider, application or request is left alone; a damaged one is removed.
        """
        session = self._state.session
        removed_count = 0
        if self.store is not None:
            with self.store.locked(interrupts=True):
                try:
                    login, _ = self.store.load()
                    is_own = login.key.satisfies(self._key)
                    session = self._session_of(login) if is_own else session
                except LoginRequired:
                    is_own = True
                removed_count = self.store.remove() if is_own else 0
            self._follows_store = True
        self._state = _State(session=None)
        return session, removed_count

    def _load(self, store: TokenStore) -> tuple[Session, FileMark]:
        try:
            login, mark = store.load()
            session = self._session_of(login)
        except BaseException:
            self._state = _State(session=None)  # what is gone or cannot be read is not used from memory
            raise
        self._scope = login.key.scope or self._scope
        self._state = _State(session=session, mark=mark)
        return session, mark

    def _can_refresh(self, session: Session, bearer: Bearer | None) -> bool:
        if session.tokens.refresh_token is None:
            return False
        renewable_from = session.renewable_from(bearer or self.bearer)
        return renewable_from is None or self._connection.now() >= renewable_from

    def _obtain(self, bearer: Bearer | None, *, is_optional: bool) -> BearerToken:
        return _with_leases(lambda: self._refresh_with_lease(bearer, is_optional=is_optional))

    def _refresh_with_lease(self, bearer: Bearer | None, *, is_optional: bool) -> BearerToken:
        with ExitStack() as held:
            if self.store is not None:
                try:
                    held.enter_context(self.store.locked(wait_seconds=0 if is_optional else LOCK_WAIT_SECONDS))
                except Unavailable:
                    present = self._held(bearer)
                    if is_optional and present is not None:
                        return present  # another process refreshes; the present token serves until then
                    raise
            session = self.current(reads_store=True)
            token = self._bearer_token(session, bearer)
            if token is not None and not self._needs_renewal(token):
                return token  # another thread or process was faster
            if not self._can_refresh(session, bearer) or session.tokens.refresh_token is None:
                raise _ended(session)
            try:
                refreshed = self._refresh(session, session.tokens.refresh_token)
            except Unavailable:
                if self.store is not None:
                    self.store.check_lock()  # if this process was suspended, its successor may have new tokens
                raise
            token = self._bearer_token(refreshed, bearer)
            if token is None:
                raise LoginRequired("The sign-in has no ID token.")
            if not token.is_valid(self._clock.now()):
                raise _ended(refreshed)
            return token

    def _refresh(self, session: Session, refresh_token: Secret) -> Session:
        # Keys first: once the refresh token is spent, its successor must not be lost for want of a key.
        self._connection.keys()
        if self.store is not None:
            self.store.note_spending()
        try:
            answer = self._connection.refresh(
                refresh_token, granted_scope=session.tokens.scope, resource=self._key.resource
            )
        except LoginRequired:
            replaced = self._replace(session, _with_refresh_token(session, None))
            if replaced.tokens.refresh_token is not None:
                return replaced  # a program that takes no lock was faster
            raise
        return self._accept(session, answer)

    def _accept(self, session: Session, answer: TokenSet) -> Session:
        """Store what the provider answered, as far as it can be trusted.

        The old refresh token may be spent by now, so its successor is stored also when the ID token cannot be checked
        or is not acceptable: it goes to nobody but the provider, and what it brings must be for the same person. An
        answer for somebody else leaves the tokens that are there, and nothing to refresh them with.
        """
        claims = None
        try:
            claims = self._connection.verify(answer, nonce=None)
            if claims is not None and session.claims is not None:
                check_refreshed_claims(session.claims, claims)
        except Unavailable:
            unchecked = merge_refreshed(session.tokens, replace(answer, id_token=None))
            self._replace(session, Session(tokens=unchecked, claims=session.claims))
            raise
        except ProviderMisbehaved:
            is_same_person = claims is None or session.claims is None or session.claims.subject == claims.subject
            successor = (answer.refresh_token or session.tokens.refresh_token) if is_same_person else None
            self._replace(session, _with_refresh_token(session, successor))
            raise
        merged = merge_refreshed(session.tokens, answer)
        replaced = self._replace(session, Session(tokens=merged, claims=claims or session.claims))
        if self.store is not None:
            self.store.note_stored(rotates=merged.refresh_token != session.tokens.refresh_token)
        return replaced

    def _replace(self, session: Session, successor: Session) -> Session:
        """Store `successor` in place of `session`, and return the session that counts now; only under the store's lock.

        If the lock was taken over because this process was suspended, it is acquired again, so that what was stored
        meanwhile is compared with what was refreshed.
        """
        store = self.store
        if store is None:
            self._state = _State(session=successor)
            return successor
        with suppress(LeaseLost):
            store.check_lock()
            return self._replace_stored(store, session, successor)

        def replace_again() -> Session:
            with store.locked():
                return self._replace_stored(store, session, successor)

        try:
            return _with_leases(replace_again)
        except (Unavailable, TokenStoreError) as error:
            _log.warning("Refreshed tokens could not be stored.", extra={"code": error.code})
        self._state = _State(session=successor, mark=self._state.mark)
        return successor

    def _replace_stored(self, store: TokenStore, session: Session, successor: Session) -> Session:
        """Do the same, or raise `LeaseLost`.

        Upstream's programs take no lock. So the store is read once more, and its tokens are compared with what was
        refreshed: its mark would also change when somebody changes the file's mode.
        """
        mark = self._state.mark
        try:
            if self._follows_store:
                stored, mark = self._load(store)
                if stored.tokens.refresh_token != session.tokens.refresh_token and not _is_spent(stored, session):
                    return stored  # another program signed in or refreshed, without the lock or after taking it over
            mark = store.save(self._login_of(successor))
            self._follows_store = True
        except TokenStoreError as error:
            # What was stored before is still there, so the new tokens serve from memory until they can be stored.
            _log.warning("Refreshed tokens could not be stored.", extra={"code": error.code})
        self._state = _State(session=successor, mark=mark)
        return successor

    def _session_of(self, login: StoredLogin) -> Session:
        if not login.key.satisfies(self._key):
            raise LoginRequired("The stored sign-in is for another identity provider, application, audience or scope.")
        return session_of(login.tokens, issuer=login.key.issuer, client_id=login.key.client_id)

    def _login_of(self, session: Session) -> StoredLogin:
        return StoredLogin(key=replace(self._key, scope=self._scope), tokens=session.tokens)


def _with_leases(work: Callable[[], T]) -> T:
    """Do `work`, which acquires a store's lock, again if another program took the lock over meanwhile."""
    for _ in range(_MAX_LEASES):
        with suppress(LeaseLost):
            return work()
    raise Unavailable("Other programs took over the stored sign-in, because this one was suspended several times.")


def _is_spent(stored: Session, session: Session) -> bool:
    """Whether another program found that the refresh token of `session` was spent already, and stored nothing newer."""
    return stored.tokens.refresh_token is None and stored.tokens.access_token == session.tokens.access_token


def _with_refresh_token(session: Session, refresh_token: Secret | None) -> Session:
    return replace(session, tokens=replace(session.tokens, refresh_token=refresh_token))


def _ended(session: Session) -> LoginRequired:
    if session.reuses_id_token:
        return LoginRequired(
            "The ID token has expired, and the identity provider refreshes access tokens only.",
            remedy=f"{LoginRequired.default_remedy} If the server takes access tokens, "
            "set MICROMEGAS_OIDC_BEARER=access_token.",
        )
    return LoginRequired("The sign-in has expired and cannot be refreshed.")


_MAX_SHOWN_CHARACTERS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who is signed in, from the claims of the ID token that was verified when it came.

    Attributes:
        subject: The issuer's name for the person; unique together with the issuer.
        name: The person's name, for display.
        email: The person's address, for display.
        issuer: The provider.
        expires_at: When the ID token ends (aware UTC).
        renews: Whether it is renewed without the person.
        groups: The person's groups and roles, as far as the token names them; for display.
    """

    subject: str
    name: str | None
    email: str | None
    issuer: str
    expires_at: datetime
    renews: bool
    groups: tuple[str, ...] = ()


def identity_of_session(session: Session, *, issuer: str, bearer: Bearer) -> Identity:
    """Return who is signed in by the ID token or a readable access token; `bearer` names the one whose end counts."""
    claims, renews = session.claims, session.tokens.refresh_token is not None
    if claims is not None:
        ends_at = session.tokens.expires_at if bearer is Bearer.ACCESS_TOKEN else None
        return Identity(
            subject=claims.subject,
            name=claims.name,
            email=claims.email,
            issuer=claims.issuer,
            expires_at=ends_at or claims.expires_at,
            renews=renews,
            groups=claims.groups,
        )
    with suppress(TokenProblem):
        unverified = parse_token(session.tokens.access_token.reveal()).claims
        ends_at = session.tokens.expires_at or expiry_of(unverified)
        subject = shown_text(unverified, "sub")
        if subject is not None:
            return _identity_of_claims(unverified, subject=subject, issuer=issuer, expires_at=ends_at, renews=renews)
    raise LoginRequired(
        "The sign-in does not say who you are: the identity provider gave no ID token.",
        remedy="Ask the identity provider's administrator to allow the scope openid for this application.",
    )


def identity_of_bearer(bearer: Secret, *, user: str, issuer: str, expires_at: datetime) -> Identity:
    """Return who a token from a trusted service is for; `user` when the token does not say."""
    claims: Mapping[str, object] = {}
    with suppress(TokenProblem):  # the token may be opaque to this program
        claims = parse_token(bearer.reveal()).claims
    user = user[:_MAX_SHOWN_CHARACTERS]
    subject = shown_text(claims, "sub") or user
    identity = _identity_of_claims(claims, subject=subject, issuer=issuer, expires_at=expires_at, renews=True)
    return identity if identity.name or identity.email else replace(identity, name=user)


def _identity_of_claims(
    claims: Mapping[str, object], *, subject: str, issuer: str, expires_at: datetime, renews: bool
) -> Identity:
    # For display only, so it need not be verified: it came from the provider itself, and the server will verify it.
    return Identity(
        subject=subject,
        name=shown_text(claims, "name") or shown_text(claims, "preferred_username"),
        email=shown_text(claims, "email"),
        issuer=issuer,
        expires_at=expires_at,
        renews=renews,
        groups=shown_groups(claims),
    )
