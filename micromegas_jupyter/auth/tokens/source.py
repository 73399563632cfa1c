"""Bearer tokens that stay valid: one refresher for users, JupyterHub, service accounts, and workloads."""

import logging
import threading
import weakref
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.auth.tokens.store import LOCK_WAIT_SECONDS, LoginKey, StoredLogin, TokenStore
from micromegas_jupyter.config.client import Bearer
from micromegas_jupyter.core.files import FileMark, LeaseLost
from micromegas_jupyter.core.system import Clock, Secret
from micromegas_jupyter.errors import (
    InternalError,
    LoginFailed,
    LoginRequired,
    MicromegasError,
    ProviderMisbehaved,
    ProviderUnavailable,
    TokenStoreError,
    Unavailable,
)
from micromegas_jupyter.oidc.authorization import TokenSet, merge_refreshed, usable_token
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

# A token is renewed in the last five minutes or the last quarter of its lifetime, whichever is shorter, so that tokens
# with a lifetime of a few minutes are usable, too.
MAX_MARGIN = timedelta(minutes=5)
MARGIN_SHARE = 4
# A server that rejects every token must not make a program renew repeatedly.
FORCED_PAUSE_SECONDS = 10.0
RENEWAL_WAIT_SECONDS = 60.0
# During an outage, attempts are made twice a second while a token is needed, and twice a minute while the old one is
# still valid.
NEEDED_PAUSE_SECONDS = 0.5
OPTIONAL_PAUSE_SECONDS = 30.0
# The assumed lifetime of a token without a known expiry, which RFC 6749 section 5.1 makes optional.
UNKNOWN_LIFETIME = timedelta(minutes=5)
MAX_CACHED = timedelta(hours=24)

_log = logging.getLogger(__name__)


def due_at(begins_at: datetime | None, ends_at: datetime) -> datetime:
    """Return when a token should be renewed."""
    margin = MAX_MARGIN if begins_at is None else min(MAX_MARGIN, (ends_at - begins_at) / MARGIN_SHARE)
    return ends_at - margin


@dataclass(frozen=True, slots=True, kw_only=True)
class BearerToken:
    """A token with its times by the local clock (aware UTC), or None for unknown times.

    Attributes:
        text: The token.
        due_at: When it should be renewed.
        expires_at: When it expires.
        is_renewable: Whether it can be renewed.
    """

    text: Secret
    due_at: datetime | None
    expires_at: datetime | None
    is_renewable: bool = True

    def is_valid(self, now: datetime) -> bool:
        """Whether the token has not expired."""
        return self.expires_at is None or now < self.expires_at

    def is_due(self, now: datetime) -> bool:
        """Whether the token should be renewed."""
        return self.due_at is not None and now >= self.due_at


class TokenSource:
    """An `AuthProvider` that renews its token before it expires; subclasses hold the token and obtain the next one.

    Safe to use from several threads: one of them renews, and the others use the token while it is valid and otherwise
    wait for the result. Each caller gets its own error object, because callers add facts to it. `bearer` is for
    subclasses that hold several tokens.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._renewing = threading.Lock()
        self._failure: MicromegasError | None = None
        self._failed_at = 0.0
        self._failure_count = 0
        self._refused: Secret | None = None
        self._forced_at: float | None = None

    def _held(self, bearer: Bearer | None) -> BearerToken | None:
        """Return the current token without making any calls."""
        raise NotImplementedError

    def _obtain(self, bearer: Bearer | None, *, is_optional: bool) -> BearerToken:
        """Obtain and hold the next token, unless `_needs_renewal` finds that the current one is sufficient."""
        raise NotImplementedError

    def _check_renewable(self, bearer: Bearer | None) -> None:
        """Raise `LoginRequired` if the next token can't be obtained right now."""

    def _is_held(self, token: Secret) -> bool:
        held = self._held(None)
        return held is not None and held.text == token

    def get_token(self) -> str:
        """Return a currently valid token, renewing it if needed.

        Raises:
            LoginRequired: JupyterHub requires that its user sign in again.
            LoginFailed: The platform or the provider rejects the program.
            ProviderUnavailable: A token is needed, but the platform or the provider does not respond.
            ProviderMisbehaved: A response breaks the protocol.
            ConfigurationError: The program does not run on its platform, or is set up incorrectly.
        """
        return self._valid_token(None).reveal()

    def renew(self) -> None:
        """Renew the token now, but at most every ten seconds; on failure, keep the current one."""
        self._renew(None)

    def invalidate(self, token: str) -> None:
        """Make the next `get_token` renew the token because a server rejected `token`; other tokens have no effect."""
        refused = Secret(token)
        with suppress(MicromegasError):  # the next `get_token` reports that the store is unreadable
            if self._is_held(refused):
                self._refused = refused

    def renewal_due_at(self) -> datetime | None:
        """Return when `get_token` will renew the token (aware UTC), or None if there is nothing to renew."""
        with suppress(MicromegasError):
            held = self._held(None)
            return held.due_at if held is not None and held.is_renewable else None
        return None

    def _valid_token(self, bearer: Bearer | None) -> Secret:
        may_force = self._may_force()  # before reading the token, which a renewal may replace
        held, now = self._held(bearer), self._clock.now()
        is_refused = may_force and held is not None and held.text == self._refused
        is_valid = held is not None and held.is_valid(now)
        if held is not None and is_valid and (not held.is_renewable or not (is_refused or held.is_due(now))):
            return held.text
        try:
            self._check_renewable(bearer)
            renewed = self._renew_once(bearer, is_optional=is_valid and not is_refused, is_forced=is_refused)
        except MicromegasError as error:
            if not is_valid:
                raise
            held = self._held(bearer)  # raises if the sign-in no longer exists
            _log.warning("A token could not be renewed; the old one remains in use.", extra={"code": error.code})
            renewed = None
        if renewed is None and held is None:
            raise Unavailable("No token could be obtained.")
        return (renewed or held).text  # type: ignore[union-attr]  # one of them is there

    def _renew(self, bearer: Bearer | None) -> None:
        held = self._held(bearer)
        try:
            self._check_renewable(bearer)
        except LoginRequired:
            self._valid_token(bearer)  # raises if the current token has expired, too
            return
        refused, self._refused = self._refused, None if held is None else held.text
        try:
            self._renew_once(bearer, is_optional=False, is_forced=self._may_force())
        except MicromegasError:
            self._refused = refused  # otherwise each later call would try again
            raise

    def _needs_renewal(self, held: BearerToken | None) -> bool:
        if held is None or (self._may_force() and held.text == self._refused):
            return True
        now = self._clock.now()
        return held.is_due(now) or not held.is_valid(now)

    def _may_force(self) -> bool:
        return self._forced_at is None or self._clock.monotonic() - self._forced_at >= FORCED_PAUSE_SECONDS

    def _renew_once(self, bearer: Bearer | None, *, is_optional: bool, is_forced: bool) -> BearerToken | None:
        """Obtain a token, one thread at a time; late callers receive the failure of the attempt that they waited for.

        `is_optional` means that the caller has a valid token: it neither waits for another thread nor retries soon
        after a failure. Returns None only for such a call, if no token was obtained.
        """
        failures_seen = self._failure_count
        if is_optional and self._pause_left(OPTIONAL_PAUSE_SECONDS) > 0:
            return None
        if not self._renewing.acquire(timeout=0 if is_optional else RENEWAL_WAIT_SECONDS):
            if is_optional:
                return None
            raise Unavailable("Token renewal is stuck.")
        try:
            if self._failure is not None and self._failure_count != failures_seen:
                raise self._failure.copy()
            threading.Event().wait(self._pause_left(NEEDED_PAUSE_SECONDS))
            try:
                obtained = self._obtain(bearer, is_optional=is_optional)
            except MicromegasError as error:
                self._failure, self._failed_at = error.copy(), self._clock.monotonic()
                self._failure_count += 1
                raise
            self._failure = self._refused = None
            return obtained
        finally:
            if is_forced:  # not earlier, because other callers with a rejected token wait for this
                self._forced_at = self._clock.monotonic()
            self._renewing.release()

    def _pause_left(self, pause_seconds: float) -> float:
        if self._failure is None:
            return 0.0
        return min(pause_seconds, max(0.0, self._failed_at + pause_seconds - self._clock.monotonic()))

    def __reduce__(self) -> str:
        raise TypeError("a sign-in cannot be pickled")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceToken:
    """A program's bearer token; its times are by the local clock (aware UTC), or None if unknown."""

    text: Secret
    obtained_at: datetime
    expires_at: datetime | None = None


class CachedTokenSource(TokenSource):
    """Holds a token in memory; a subclass fetches it."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._cached: BearerToken | None = None

    def _fetch(self) -> ServiceToken:
        """Fetch the next token."""
        raise NotImplementedError

    def renew(self) -> None:
        """Fetch the next token now, even just after a server rejected one; on failure the current one stays in use."""
        self._forced_at = None
        super().renew()

    def invalidate(self, token: str) -> None:
        """Discard `token` because a server rejected it, at most every ten seconds; other tokens have no effect."""
        if self._may_force() and self._is_held(Secret(token)):
            self._forced_at = self._clock.monotonic()
            self._cached = None

    def _held(self, bearer: Bearer | None) -> BearerToken | None:  # noqa: ARG002 - there is one
        return self._cached

    def _obtain(self, bearer: Bearer | None, *, is_optional: bool) -> BearerToken:  # noqa: ARG002 - there is one
        cached = self._cached
        if cached is not None and not self._needs_renewal(cached):
            return cached
        fetched = self._fetch()
        ends_at = min(fetched.expires_at or fetched.obtained_at + UNKNOWN_LIFETIME, fetched.obtained_at + MAX_CACHED)
        cached = BearerToken(text=fetched.text, due_at=due_at(fetched.obtained_at, ends_at), expires_at=ends_at)
        if not cached.is_valid(self._clock.now()):
            raise LoginFailed(
                "The token that was just fetched has already expired.",
                remedy="Check this machine's clock and the provider's token lifetime.",
            )
        self._cached = cached
        return cached


def checked_token(value: object, *, source: str) -> Secret:
    """Return a token from `source` as a secret."""
    token = usable_token(value) if value else None
    del value  # verbose tracebacks show variables
    if token is None or " " in token.reveal():
        raise ProviderMisbehaved(
            f"{source} didn't return a usable token.", remedy="Contact the platform's administrator."
        )
    return token


# Smaller differences are network latency; larger ones must be corrected by an administrator.
_MIN_OFFSET = timedelta(seconds=2)
_MAX_OFFSET = timedelta(hours=24)


def clock_offset(date: datetime | None, now: datetime) -> timedelta:
    """Return how far the remote clock (its Date header) is ahead of the local one, within limits."""
    offset = timedelta() if date is None else date - now
    return offset if _MIN_OFFSET < abs(offset) <= _MAX_OFFSET else timedelta()


def jwt_service_token(
    token: Secret, *, audience: str | None, now: datetime, source: str, date: datetime | None = None
) -> ServiceToken:
    """Create a service token from a JWT, using only its `exp`; nothing else in it is trusted or used.

    If an `audience` is requested, the token must contain it. `date` is the source's own clock when it issued the
    token.
    """
    try:
        claims = parse_token(token.reveal()).claims
        expires_at = expiry_of(claims)
    except TokenProblem as problem:
        raise ProviderMisbehaved(f"{source} returned a token that isn't a usable JWT ({problem.reason}).") from None
    found = claims.get("aud")
    if audience is not None and audience not in (found if isinstance(found, list) else [found]):
        raise ProviderMisbehaved(f"{source} returned a token for a different audience than requested.")
    return ServiceToken(text=token, obtained_at=now, expires_at=expires_at - clock_offset(date, now))


def opaque_service_token(token: Secret, *, now: datetime, expires_at: datetime | None) -> ServiceToken:
    """Create a service token from a string that is opaque to clients; without `expires_at`, a JWT's `exp` is used."""
    if expires_at is None:
        with suppress(TokenProblem):
            expires_at = expiry_of(parse_token(token.reveal()).claims)
    return ServiceToken(text=token, obtained_at=now, expires_at=expires_at)


# A process that is suspended and resumed repeatedly eventually gives up.
_MAX_LEASES = 3
# The minimum pause before another refresh if the provider returned no ID token.
MIN_ID_TOKEN_PAUSE = timedelta(seconds=30)
# Stored times are whole seconds, and clocks that differ by up to two seconds count as equal.
_INACCURACY = timedelta(seconds=2)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The tokens of a sign-in and the claims of its ID token, if any; times are based on the provider's clock."""

    tokens: TokenSet
    claims: IdTokenClaims | None

    @property
    def reuses_id_token(self) -> bool:
        """Whether the ID token was already due when the access token was issued, so the refresh returned no new one."""
        obtained_at = self.tokens.obtained_at
        if self.claims is None or obtained_at is None:
            return False
        begins_at, ends_at = self.claims.issued_at, self.claims.expires_at
        return obtained_at >= due_at(begins_at, ends_at) - min(_INACCURACY, (ends_at - begins_at) / 4)

    def renewable_from(self, bearer: Bearer) -> datetime | None:
        """Return when another refresh may return more than the last one did, or None if immediately.

        A provider that refreshed without an ID token may never return one. So the pauses grow with the time since the
        ID token expired, and are the same for all programs that share the sign-in.
        """
        obtained_at = self.tokens.obtained_at
        if bearer is Bearer.ACCESS_TOKEN or self.claims is None or obtained_at is None or not self.reuses_id_token:
            return None
        return obtained_at + max(MIN_ID_TOKEN_PAUSE, obtained_at - self.claims.expires_at)

    def bearer_token(self, bearer: Bearer, *, offset: timedelta) -> BearerToken | None:
        """Return the token that `bearer` selects, or None; `offset` is how far the provider's clock is ahead."""
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
    """Create a session from tokens that were verified on receipt."""
    if tokens.id_token is None:
        return Session(tokens=tokens, claims=None)
    try:
        claims = read_stored_id_token(tokens.id_token, issuer=issuer, client_id=client_id)
    except ProviderMisbehaved:
        raise LoginRequired("The stored sign-in contains an unusable ID token.") from None
    return Session(tokens=tokens, claims=claims)


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """A session and the store's mark when it held that session; without a mark, the store is read again."""

    session: Session | None
    mark: FileMark | None = None


class SessionSource(TokenSource):
    """Holds one sign-in, refreshes it, and keeps it in sync with its store.

    Another program's sign-in, refresh, or logout in the same store takes effect here, too. The state is one immutable
    value. If a thread restores an older value, the next use corrects it, because its mark no longer equals the
    store's. If the scope of `key` is unknown, the stored sign-in's scope is used.
    """

    issuer = client_id = ""  # tracebacks show the object before it is complete

    def __init__(
        self,
        connect: Callable[[], ProviderConnection],
        store: TokenStore | None,
        *,
        key: LoginKey,
        bearer: Bearer,
        clock: Clock,
    ) -> None:
        super().__init__(clock)
        self.issuer = key.issuer
        self.client_id = key.client_id
        self.audience = key.audience
        self.store = store
        self.bearer = bearer
        self._connect = connect
        self._connected: ProviderConnection | None = None
        self._key = key
        self._state = _State(session=None)
        self._follows_store = store is not None
        self._scope = key.scope

    @property
    def _connection(self) -> ProviderConnection:
        """The connection to the provider, first used when a token is due."""
        if self._connected is None:
            self._connected = self._connect()
        return self._connected

    @property
    def clock_offset_seconds(self) -> float:
        """How far the provider's clock is ahead of the local one, as measured so far."""
        return 0.0 if self._connected is None else self._connected.clock_offset_seconds

    def _begin(self, session: Session) -> None:
        """Start a new sign-in, which takes precedence over the stored one until it is saved."""
        self._follows_store = False
        self._state = _State(session=session)

    def _current(self, *, reads_store: bool = False) -> Session:
        """Return the session without calling the provider; `reads_store` reads the store even if it looks unchanged."""
        state = self._state
        if self.store is None or not self._follows_store:
            if state.session is None:
                raise LoginRequired(f"You are not signed in to {self._key.issuer}.")
            return state.session
        mark = self.store.mark()
        if not reads_store and mark is not None and mark == state.mark and state.session is not None:
            return state.session
        return self._load(self.store)[0]

    def _held(self, bearer: Bearer | None) -> BearerToken | None:
        return self._bearer_token(self._current(), bearer)

    def _bearer_token(self, session: Session, bearer: Bearer | None) -> BearerToken | None:
        offset = timedelta(seconds=self.clock_offset_seconds)
        return session.bearer_token(bearer or self.bearer, offset=offset)

    def _is_held(self, token: Secret) -> bool:
        tokens = self._current().tokens
        return token in {tokens.access_token, tokens.id_token}

    def _check_renewable(self, bearer: Bearer | None) -> None:
        session = self._current()
        if not self._can_refresh(session, bearer):
            raise _ended(session)

    def _keep(self, *, check: Callable[[], None] = lambda: None) -> None:
        """Store the session, replacing any other sign-in, unless `check` raises under the store's lock."""
        if self.store is None:
            raise TokenStoreError("The sign-in doesn't have a token file.", remedy="Specify a token file.")
        session, store = self._current(), self.store

        def store_session() -> FileMark:
            with store.locked(interrupts=True):
                check()
                mark = store.save(self._login_of(session))
                store.note_stored(rotates=None)
                return mark

        self._state = _State(session=session, mark=_with_leases(store_session))
        self._follows_store = True

    def _end(self) -> tuple[Session | None, int]:
        """Remove the session here and from the store; return it and the number of removed files or entries.

        A sign-in with a different provider, application, or request is left alone; a corrupted one is removed.
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
            self._state = _State(session=None)  # a removed or unreadable sign-in must not be used from memory
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
                        return present  # another process is refreshing; the current token is used until then
                    raise
            session = self._current(reads_store=True)
            token = self._bearer_token(session, bearer)
            if token is not None and not self._needs_renewal(token):
                return token  # another thread or process got there first
            if not self._can_refresh(session, bearer) or session.tokens.refresh_token is None:
                raise _ended(session)
            try:
                refreshed = self._refresh(session, session.tokens.refresh_token)
            except Unavailable:
                if self.store is not None:
                    self.store.check_lock()  # if this process was suspended, another one may have stored new tokens
                raise
            token = self._bearer_token(refreshed, bearer)
            if token is None:
                raise LoginRequired("The sign-in doesn't have an ID token.")
            if not token.is_valid(self._clock.now()):
                raise _ended(refreshed)
            return token

    def _refresh(self, session: Session, refresh_token: Secret) -> Session:
        # Fetch the keys first: once the refresh token is used, a missing key must not lose the new one.
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
                return replaced  # a program that doesn't lock the store got there first
            raise
        return self._accept(session, answer)

    def _accept(self, session: Session, answer: TokenSet) -> Session:
        """Store the provider's response, as far as it can be trusted.

        The old refresh token may be used up by now, so the new one is stored even if the ID token cannot be verified
        or is invalid: it is only ever sent to the provider, and the tokens it returns must be for the same user. A
        response for another user leaves the current tokens in place, without a refresh token.
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
        """Store `successor` in place of `session` and return the resulting session; only under the store's lock.

        If the lock was taken over because this process was suspended, it is acquired again, so that any changes in the
        meantime are compared with the refreshed tokens.
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
        """Do the same as `_replace`, or raise `LeaseLost`.

        Upstream's programs don't use a lock. So the store is read once more, and its tokens are compared with the
        refreshed ones. Comparing marks is not enough, because a mark also changes with the file's mode.
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
            # The store's previous content is still there, so the new tokens are used from memory until they can be
            # stored.
            _log.warning("Refreshed tokens could not be stored.", extra={"code": error.code})
        self._state = _State(session=successor, mark=mark)
        return successor

    def _session_of(self, login: StoredLogin) -> Session:
        if not login.key.satisfies(self._key):
            raise LoginRequired(
                "The stored sign-in is for a different identity provider, application, audience, or scope."
            )
        return session_of(login.tokens, issuer=login.key.issuer, client_id=login.key.client_id)

    def _login_of(self, session: Session) -> StoredLogin:
        return StoredLogin(key=replace(self._key, scope=self._scope), tokens=session.tokens)


def _with_leases(work: Callable[[], T]) -> T:
    """Run `work`, which acquires a store's lock, and repeat it if another program took over the lock."""
    for _ in range(_MAX_LEASES):
        with suppress(LeaseLost):
            return work()
    raise Unavailable("Other programs took over the stored sign-in because this program was suspended several times.")


def _is_spent(stored: Session, session: Session) -> bool:
    """Whether another program found the refresh token of `session` already used and didn't store a newer one."""
    return stored.tokens.refresh_token is None and stored.tokens.access_token == session.tokens.access_token


def _with_refresh_token(session: Session, refresh_token: Secret | None) -> Session:
    return replace(session, tokens=replace(session.tokens, refresh_token=refresh_token))


def _ended(session: Session) -> LoginRequired:
    if session.reuses_id_token:
        return LoginRequired(
            "The ID token has expired, and the identity provider only refreshes access tokens.",
            remedy=f"{LoginRequired.default_remedy} If the server accepts access tokens, set "
            "MICROMEGAS_OIDC_BEARER=access_token.",
        )
    return LoginRequired("The sign-in has expired and cannot be refreshed.")


_MAX_SHOWN_CHARACTERS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The signed-in user, from the claims of the ID token that was verified on receipt.

    Attributes:
        subject: The issuer's identifier for the user; unique together with the issuer.
        name: The user's name, for display.
        email: The user's email address, for display.
        issuer: The provider's issuer URL.
        expires_at: When the ID token expires (aware UTC).
        renews: Whether it is renewed without user interaction.
        groups: The user's groups and roles, if the token contains them; for display.
    """

    subject: str
    name: str | None
    email: str | None
    issuer: str
    expires_at: datetime
    renews: bool
    groups: tuple[str, ...] = ()


def identity_of_session(session: Session, *, issuer: str, bearer: Bearer) -> Identity:
    """Return the user from the ID token or a readable access token; `bearer` selects the token whose expiry is used."""
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
        "The sign-in doesn't identify you because the identity provider didn't return an ID token.",
        remedy="Ask the identity provider's administrator to allow the openid scope for this application.",
    )


def identity_of_bearer(bearer: Secret, *, user: str, issuer: str, expires_at: datetime) -> Identity:
    """Return the user of a token from a trusted service, or `user` if the token doesn't identify one."""
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


# Upper bound for detecting a machine's wake-up, or a sign-in or sign-out in another program.
MAX_WAIT_SECONDS = 60.0
FIRST_PAUSE_SECONDS = 5.0
# After one attempt without a new token, another program may be refreshing it.
MAX_VAIN_ATTEMPTS = 2
# A program that exits before storing the provider's response loses the sign-in if refresh tokens are single-use.
STOP_WAIT_SECONDS = 3.0


class RenewableProvider(Protocol):
    """A provider whose token can be kept fresh."""

    def get_token(self) -> str:
        """Return a currently valid token, renewing it when it is due."""

    def renewal_due_at(self) -> datetime | None:
        """Return the time after which `get_token` renews the token, or None if there is nothing to renew."""


class BackgroundRenewal:
    """A thread that keeps one provider's token fresh, from `start` to `stop`.

    It keeps neither the provider nor this object alive: the thread stops when either is garbage-collected. After a
    failure it waits five seconds, and then twice as long each time, up to a minute. In the thread, `on_change`
    receives an error when renewal starts to fail, and None for each new token and when renewal works again. `wait`
    waits until renewal is stopped and returns whether it is.
    """

    def __init__(
        self,
        provider: RenewableProvider,
        *,
        clock: Clock,
        on_change: Callable[[MicromegasError | None], None] = lambda _error: None,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        stopped = threading.Event()
        reference = weakref.ref(provider, lambda _reference: stopped.set())
        self._thread = threading.Thread(
            target=_keep_fresh,
            args=(reference, provider.renewal_due_at(), clock, on_change, wait or stopped.wait),
            name="micromegas-background-renewal",
            daemon=True,
        )
        # Also called when the program exits, while threads are still running.
        self._finish = weakref.finalize(self, _finish, stopped, self._thread)

    def start(self) -> None:
        """Start the thread; call only once."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread once any renewal in progress has finished, or after a few seconds."""
        self._finish()


def _keep_fresh(
    reference: Callable[[], RenewableProvider | None],
    known_due_at: datetime | None,
    clock: Clock,
    on_change: Callable[[MicromegasError | None], None],
    wait: Callable[[float], bool],
) -> None:
    failing, vain_attempts, pause_seconds = None, 0, FIRST_PAUSE_SECONDS
    while (provider := reference()) is not None:
        error: MicromegasError | None = None
        left_seconds, is_news = 0.0, False
        try:
            due_at = provider.renewal_due_at()
            if due_at is None or due_at <= clock.now():
                provider.get_token()  # if there is nothing to renew, this reports whether a sign-in exists
                due_at = provider.renewal_due_at()
            left_seconds = MAX_WAIT_SECONDS if due_at is None else (due_at - clock.now()).total_seconds()
            if left_seconds > 0:
                known_due_at, is_news = due_at, due_at != known_due_at
                pause_seconds, vain_attempts = FIRST_PAUSE_SECONDS, 0
            else:
                vain_attempts += 1
                if vain_attempts >= MAX_VAIN_ATTEMPTS:
                    error = ProviderUnavailable("the identity provider didn't return a new token.")
        except MicromegasError as failure:
            error = failure.with_traceback(None)  # its frames reference the provider
        except Exception as failure:  # noqa: BLE001 - the thread continues whatever happens
            _log.error("A token could not be renewed in the background.", extra={"kind": type(failure).__name__})
            error = InternalError("The token could not be renewed.", remedy="See the log for details.")
        del provider
        if is_news or (error is not None and type(error) is not failing) or (left_seconds > 0 and failing is not None):
            failing = None if error is None else type(error)
            _notify(on_change, error)
        del error
        if wait(min(MAX_WAIT_SECONDS, left_seconds) if left_seconds > 0 else pause_seconds):
            return
        if left_seconds <= 0:
            pause_seconds = min(MAX_WAIT_SECONDS, 2 * pause_seconds)


def _notify(on_change: Callable[[MicromegasError | None], None], error: MicromegasError | None) -> None:
    try:
        on_change(error)
    except Exception as failure:  # noqa: BLE001 - a failing listener must not end the thread
        _log.error("The listener of a background renewal failed.", extra={"kind": type(failure).__name__})


def _finish(stopped: threading.Event, thread: threading.Thread) -> None:
    stopped.set()
    if thread.is_alive() and thread is not threading.current_thread():
        thread.join(STOP_WAIT_SECONDS)
