"""Keeps one sign-in valid: refreshes it in time, at most once per expiry among all programs that share its store."""

import enum
import logging
import threading
import weakref
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Generic, Protocol, TypeVar

from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.auth.tokens.store import LOCK_WAIT_SECONDS, LoginKey, StoredLogin, TokenStore
from micromegas_jupyter.config.client import Bearer
from micromegas_jupyter.core.files import FileMark, LeaseLost
from micromegas_jupyter.core.system import Clock, Secret
from micromegas_jupyter.errors import (
    InternalError,
    LoginRequired,
    MicromegasError,
    ProviderMisbehaved,
    ProviderUnavailable,
    TokenStoreError,
    Unavailable,
)
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

# Tokens are renewed within the last five minutes or the last quarter of their life, whichever is shorter, so that
# those that live for a few minutes only are usable, too.
MAX_MARGIN = timedelta(minutes=5)
MARGIN_SHARE = 4
# A server that refuses every token must not make a program renew again and again.
FORCED_PAUSE_SECONDS = 10.0
REFRESH_LOCK_WAIT_SECONDS = 60.0
# A process that is suspended and continued again and again gives up at some time.
_MAX_LEASES = 3
# In an outage: twice a second while a token is needed, twice a minute while the old one is still valid.
NEEDED_PAUSE_SECONDS = 0.5
OPTIONAL_PAUSE_SECONDS = 30.0
# How soon to ask a provider again that refreshed without an ID token.
MIN_ID_TOKEN_PAUSE = timedelta(seconds=30)
# Stored times are whole seconds, and clocks that differ by two seconds count as equal.
_INACCURACY = timedelta(seconds=2)

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Freshness(enum.Enum):
    """How much of a token's life is left."""

    FRESH = enum.auto()
    ENDING = enum.auto()
    ENDED = enum.auto()


def freshness_of(begins_at: datetime | None, ends_at: datetime | None, now: datetime) -> Freshness:
    """Judge a token's life; one without a known end is fresh."""
    if ends_at is None:
        return Freshness.FRESH
    if now >= ends_at:
        return Freshness.ENDED
    return Freshness.ENDING if now >= due_at(begins_at, ends_at) else Freshness.FRESH


def due_at(begins_at: datetime | None, ends_at: datetime) -> datetime:
    """Return when a token should be renewed."""
    margin = MAX_MARGIN if begins_at is None else min(MAX_MARGIN, (ends_at - begins_at) / MARGIN_SHARE)
    return ends_at - margin


class RefreshLock(Generic[T]):
    """Runs renewals one after another: late callers get the failure that they waited for, and failures are spaced.

    Each caller gets its own error: callers add their own facts to it.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failure: MicromegasError | None = None
        self._failed_at = 0.0
        self._failure_count = 0

    def run(self, renew: Callable[[], T], *, is_optional: bool) -> T | None:
        """Return the result of `renew`; None only for an optional call that was left out.

        `is_optional` says that the caller has a valid token: it then neither waits for another thread nor tries again
        soon after a failure.
        """
        failures_seen = self._failure_count
        if is_optional and self._pause_left(OPTIONAL_PAUSE_SECONDS) > 0:
            return None
        if not self._lock.acquire(timeout=0 if is_optional else REFRESH_LOCK_WAIT_SECONDS):
            if is_optional:
                return None
            raise Unavailable("The token is being renewed, and that does not finish.")
        try:
            if self._failure is not None and self._failure_count != failures_seen:
                raise self._failure.copy()
            threading.Event().wait(self._pause_left(NEEDED_PAUSE_SECONDS))
            return self._renew(renew)
        finally:
            self._lock.release()

    def _renew(self, renew: Callable[[], T]) -> T:
        try:
            result = renew()
        except MicromegasError as error:
            self._failure, self._failed_at = error.copy(), self._clock.monotonic()
            self._failure_count += 1
            raise
        self._failure = None
        return result

    def _pause_left(self, pause_seconds: float) -> float:
        if self._failure is None:
            return 0.0
        return min(pause_seconds, max(0.0, self._failed_at + pause_seconds - self._clock.monotonic()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The tokens of one sign-in and the claims of its ID token, if there is one; times are by the provider's clock."""

    tokens: TokenSet
    claims: IdTokenClaims | None

    def freshness(self, bearer: Bearer, now: datetime) -> Freshness:
        """Return how much life is left in the token that `bearer` names; a missing one has ended."""
        if bearer is Bearer.ID_TOKEN and self.claims is None:
            return Freshness.ENDED
        return freshness_of(*self._life(bearer), now)

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

    def due_at(self, bearer: Bearer) -> datetime | None:
        """Return from when on the token should be refreshed; None when that is not known."""
        begins_at, ends_at = self._life(bearer)
        return None if ends_at is None else due_at(begins_at, ends_at)

    def token(self, bearer: Bearer) -> Secret:
        """Return the token that `bearer` names."""
        token = self.tokens.access_token if bearer is Bearer.ACCESS_TOKEN else self.tokens.id_token
        if token is None:
            raise LoginRequired("The sign-in has no ID token.")
        return token

    def _life(self, bearer: Bearer) -> tuple[datetime | None, datetime | None]:
        if bearer is Bearer.ACCESS_TOKEN:
            return self.tokens.obtained_at, self.tokens.expires_at
        return (None, None) if self.claims is None else (self.claims.issued_at, self.claims.expires_at)


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


class TokenManager:
    """Holds the session of one provider object in step with its store; safe to use from several threads.

    Methods raise `LoginRequired` when nobody is signed in, or the sign-in has ended; `TokenStoreError` when the store
    cannot be used safely; `Unavailable` when a refresh is needed and not possible now; `LoginFailed` when the provider
    does not accept the application; `ProviderMisbehaved` when its answer breaks the protocol or is for somebody else.

    The state is one value that is replaced as a whole. A thread that puts an older one back is corrected at the next
    use, because its mark no longer equals the store's. An unknown scope of `key` is taken from the stored sign-in.
    """

    def __init__(
        self, connection: ProviderConnection, store: TokenStore | None, *, key: LoginKey, clock: Clock
    ) -> None:
        self.connection = connection
        self._key = key
        self._clock = clock
        self._refresh_lock: RefreshLock[Session] = RefreshLock(clock)
        self._state = _State(session=None)
        self._follows_store = store is not None
        self._refused: Secret | None = None
        self._forced_at: float | None = None
        self.store = store
        self.scope = key.scope

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

    def token(self, bearer: Bearer) -> Secret:
        """Return a token that is valid now, refreshing the session when it ends soon."""
        may_force = self._may_force()  # before reading the session, or the one before a refresh could pass for good
        session = self.current()
        freshness = session.freshness(bearer, self.connection.now())
        is_refused = may_force and self._is_refused(session, bearer)
        if freshness is Freshness.FRESH and not is_refused:
            return session.token(bearer)
        is_valid = freshness is not Freshness.ENDED
        session = self._refreshed(session, bearer, is_valid=is_valid, is_optional=is_valid and not is_refused)
        return session.token(bearer)

    def renew(self, bearer: Bearer) -> None:
        """Refresh the session now, at most every ten seconds; as `token` where nothing can refresh it."""
        session = self.current()
        if not self._can_refresh(session, bearer):
            self.token(bearer)
            return
        refused, self._refused = self._refused, session.token(bearer)
        try:
            self._refreshed(session, bearer, is_valid=False, is_optional=False)
        except MicromegasError:
            self._refused = refused  # or each later call would try again
            raise

    def invalidate(self, token: Secret) -> None:
        """Have the next `token` refresh, because a server refused this one; a token that is not in use is ignored."""
        try:
            session = self.current()
        except MicromegasError:
            return  # there is nothing to refresh, which the next `token` says
        if token in {session.tokens.access_token, session.tokens.id_token}:
            self._refused = token

    def renewal_due_at(self, bearer: Bearer) -> datetime | None:
        """Return from when on `token` refreshes, by this machine's clock; None when nothing can be refreshed."""
        try:
            session = self.current()
        except MicromegasError:
            return None
        due_at = session.due_at(bearer)
        if session.tokens.refresh_token is None or due_at is None:
            return None
        renewable_from = session.renewable_from(bearer)
        latest = due_at if renewable_from is None else max(due_at, renewable_from)
        return latest - timedelta(seconds=self.connection.clock_offset_seconds)

    def save(self, *, check: Callable[[], None] = lambda: None) -> None:
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

    def end(self) -> tuple[Session | None, int]:
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
        self.scope = login.key.scope or self.scope
        self._state = _State(session=session, mark=mark)
        return session, mark

    def _is_refused(self, session: Session, bearer: Bearer) -> bool:
        held = session.tokens.access_token if bearer is Bearer.ACCESS_TOKEN else session.tokens.id_token
        return self._refused is not None and held == self._refused

    def _may_force(self) -> bool:
        return self._forced_at is None or self._clock.monotonic() - self._forced_at >= FORCED_PAUSE_SECONDS

    def _can_refresh(self, session: Session, bearer: Bearer) -> bool:
        if session.tokens.refresh_token is None:
            return False
        renewable_from = session.renewable_from(bearer)
        return renewable_from is None or self.connection.now() >= renewable_from

    def _refreshed(self, session: Session, bearer: Bearer, *, is_valid: bool, is_optional: bool) -> Session:
        if not self._can_refresh(session, bearer):
            if is_valid:
                return session
            raise _ended(session)
        try:
            refreshed = self._refresh_lock.run(
                lambda: self._refresh_alone(bearer, is_optional=is_optional), is_optional=is_optional
            )
        except MicromegasError as error:
            # A valid token serves on, unless the sign-in itself was found to be gone.
            if not is_valid or self._state.session is None:
                raise
            _log.warning("A token could not be refreshed; the old one stays in use.", extra={"code": error.code})
            return session
        return session if refreshed is None else refreshed

    def _refresh_alone(self, bearer: Bearer, *, is_optional: bool) -> Session:
        return _with_leases(lambda: self._refresh_with_lease(bearer, is_optional=is_optional))

    def _refresh_with_lease(self, bearer: Bearer, *, is_optional: bool) -> Session:
        with ExitStack() as held:
            if self.store is not None:
                try:
                    held.enter_context(self.store.locked(wait_seconds=0 if is_optional else LOCK_WAIT_SECONDS))
                except Unavailable:
                    if is_optional:
                        return self.current()  # another process refreshes; the present token serves until then
                    raise
            session = self.current(reads_store=True)
            was_refused = self._is_refused(session, bearer) and self._may_force()
            if session.freshness(bearer, self.connection.now()) is Freshness.FRESH and not was_refused:
                return session  # another thread or process was faster
            if not self._can_refresh(session, bearer) or session.tokens.refresh_token is None:
                raise _ended(session)
            try:
                refreshed = self._refresh(session, session.tokens.refresh_token)
            except Unavailable:
                if self.store is not None:
                    self.store.check_lock()  # if this process was suspended, its successor may have new tokens
                raise
            finally:
                if was_refused:  # not earlier: whoever was refused, too, waits for this
                    self._forced_at = self._clock.monotonic()
            if refreshed.freshness(bearer, self.connection.now()) is Freshness.ENDED:
                raise _ended(refreshed)
            return refreshed

    def _refresh(self, session: Session, refresh_token: Secret) -> Session:
        # Keys first: once the refresh token is spent, its successor must not be lost for want of a key.
        self.connection.keys()
        if self.store is not None:
            self.store.note_spending()
        try:
            answer = self.connection.refresh(
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
            claims = self.connection.verify(answer, nonce=None)
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
        return StoredLogin(key=replace(self._key, scope=self.scope), tokens=session.tokens)


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


# A machine that slept, and a person who signs in or out elsewhere, are noticed within this time.
MAX_WAIT_SECONDS = 60.0
FIRST_PAUSE_SECONDS = 5.0
# How long stopping waits for a renewal that has begun: a program that ends before the provider's answer is stored
# loses the sign-in where refresh tokens are used once.
MAX_VAIN_ATTEMPTS = 2
STOP_WAIT_SECONDS = 3.0


class RenewableProvider(Protocol):
    """What can be kept fresh."""

    def get_token(self) -> str:
        """Return a token that is valid now, renewing it when that is due."""

    def renewal_due_at(self) -> datetime | None:
        """Return from when on `get_token` renews; None when there is nothing to renew."""


class BackgroundRenewal:
    """One thread that keeps one provider's token fresh, from `start` to `stop`.

    It keeps neither the provider nor itself alive: when either is forgotten, the thread ends. After a failure it waits
    five seconds, then twice as long each time, up to a minute. In the thread, `on_change` gets an error when renewing
    begins to fail, and None for each new token and when it works again. `wait` waits until the renewal is stopped, and
    says whether it is.
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
        # When the provider is forgotten, the thread wakes up and ends.
        known_due_at = provider.renewal_due_at()
        loop = _RenewalLoop(weakref.ref(provider, lambda _reference: stopped.set()), clock, on_change, known_due_at)
        self._thread = threading.Thread(
            target=loop.run, args=(stopped, wait or stopped.wait), name="micromegas-background-renewal", daemon=True
        )
        # Also called at the end of the program, while threads still run.
        self._finish = weakref.finalize(self, _finish, stopped, self._thread)

    def start(self) -> None:
        """Begin; only once."""
        self._thread.start()

    def stop(self) -> None:
        """End: at once while nothing is being renewed, else after the renewal or a few seconds."""
        self._finish()


@dataclass
class _RenewalLoop:
    """What the thread does. It holds a weak reference to the provider, and none to its owner."""

    provider: Callable[[], RenewableProvider | None]
    clock: Clock
    on_change: Callable[[MicromegasError | None], None]
    known_due_at: datetime | None
    vain_attempts: int = 0
    notified: type[MicromegasError] | None = None
    pause_seconds: float = FIRST_PAUSE_SECONDS

    def run(self, stopped: threading.Event, wait: Callable[[float], bool]) -> None:
        while not stopped.is_set():
            pause_seconds = self._step()
            if pause_seconds is None or wait(pause_seconds):
                return

    def _step(self) -> float | None:
        """Renew if that is due, and return the seconds until the next look; None when there is no provider."""
        provider = self.provider()
        if provider is None:
            return None
        try:
            due_at = provider.renewal_due_at()
            if due_at is None or due_at <= self.clock.now():
                provider.get_token()  # without anything to renew it says whether there is a sign-in at all
                due_at = provider.renewal_due_at()
            left_seconds = MAX_WAIT_SECONDS if due_at is None else (due_at - self.clock.now()).total_seconds()
            if left_seconds > 0:
                self.pause_seconds, self.vain_attempts = FIRST_PAUSE_SECONDS, 0
                self._notify(None, is_news=due_at != self.known_due_at)
                self.known_due_at = due_at
                return min(MAX_WAIT_SECONDS, left_seconds)
            # The old token serves on. After one attempt it may only be that another program is refreshing it.
            self.vain_attempts += 1
            if self.vain_attempts >= MAX_VAIN_ATTEMPTS:
                self._notify(ProviderUnavailable("the identity provider gave no new token."))
        except MicromegasError as error:
            self._notify(error.with_traceback(None))  # whoever keeps it must not keep the provider with it
        except Exception as error:  # noqa: BLE001 - the thread continues whatever happens
            _log.error("A token could not be renewed in the background.", extra={"kind": type(error).__name__})
            self._notify(InternalError("The token could not be renewed.", remedy="The log has more."))
        pause_seconds = self.pause_seconds
        self.pause_seconds = min(MAX_WAIT_SECONDS, 2 * pause_seconds)
        return pause_seconds

    def _notify(self, error: MicromegasError | None, *, is_news: bool = False) -> None:
        kind = None if error is None else type(error)
        if kind is self.notified and not is_news:
            return
        self.notified = kind
        try:
            self.on_change(error)
        except Exception as failure:  # noqa: BLE001 - a failing listener must not end the thread
            _log.error("The listener of a background renewal failed.", extra={"kind": type(failure).__name__})


def _finish(stopped: threading.Event, thread: threading.Thread) -> None:
    stopped.set()
    if thread.is_alive() and thread is not threading.current_thread():
        thread.join(STOP_WAIT_SECONDS)


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
