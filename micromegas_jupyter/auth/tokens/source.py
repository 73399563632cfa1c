"""Bearer tokens that stay valid: one refresher for people, JupyterHub, service accounts, and workloads."""

import logging
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from micromegas_jupyter.config.client import Bearer
from micromegas_jupyter.core.system import Clock, Secret
from micromegas_jupyter.errors import (
    InternalError,
    LoginFailed,
    LoginRequired,
    MicromegasError,
    ProviderMisbehaved,
    ProviderUnavailable,
    Unavailable,
)
from micromegas_jupyter.oidc.authorization import usable_token
from micromegas_jupyter.oidc.jwt import TokenProblem, expiry_of, parse_token

# A token is renewed in the last five minutes or the last quarter of its life, whichever is shorter, so that tokens
# that live for a few minutes are usable, too.
MAX_MARGIN = timedelta(minutes=5)
MARGIN_SHARE = 4
# A server that rejects every token must not make a program renew again and again.
FORCED_PAUSE_SECONDS = 10.0
RENEWAL_WAIT_SECONDS = 60.0
# In an outage: twice a second while a token is needed, twice a minute while the old one is still valid.
NEEDED_PAUSE_SECONDS = 0.5
OPTIONAL_PAUSE_SECONDS = 30.0
# The life of a token without a known end: RFC 6749 section 5.1 leaves it open.
UNKNOWN_LIFETIME = timedelta(minutes=5)
MAX_CACHED = timedelta(hours=24)

_log = logging.getLogger(__name__)


def due_at(begins_at: datetime | None, ends_at: datetime) -> datetime:
    """Return when a token should be renewed."""
    margin = MAX_MARGIN if begins_at is None else min(MAX_MARGIN, (ends_at - begins_at) / MARGIN_SHARE)
    return ends_at - margin


@dataclass(frozen=True, slots=True, kw_only=True)
class BearerToken:
    """A token with its times by this machine's clock (aware UTC); unknown times are None.

    Attributes:
        text: The token.
        due_at: When it should be renewed.
        expires_at: When it expires.
        is_renewable: Whether it can be renewed at all.
    """

    text: Secret
    due_at: datetime | None
    expires_at: datetime | None
    is_renewable: bool = True

    def is_valid(self, now: datetime) -> bool:
        """Whether it has not expired."""
        return self.expires_at is None or now < self.expires_at

    def is_due(self, now: datetime) -> bool:
        """Whether it should be renewed."""
        return self.due_at is not None and now >= self.due_at


class TokenSource:
    """An `AuthProvider` that renews its token in time; a subclass holds the token and obtains the next one.

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
        """Return the token that is held, without calling anyone."""
        raise NotImplementedError

    def _obtain(self, bearer: Bearer | None, *, is_optional: bool) -> BearerToken:
        """Obtain and hold the next token, unless `_needs_renewal` finds that the one that is held will do."""
        raise NotImplementedError

    def _check_renewable(self, bearer: Bearer | None) -> None:
        """Raise `LoginRequired` if no next token can be obtained now."""

    def _is_held(self, token: Secret) -> bool:
        held = self._held(None)
        return held is not None and held.text == token

    def get_token(self) -> str:
        """Return a token that is valid now, renewing it if needed.

        Raises:
            LoginRequired: JupyterHub requires that its user sign in again.
            LoginFailed: The platform or the provider rejects the program.
            ProviderUnavailable: A token is needed, and the platform or the provider does not respond.
            ProviderMisbehaved: A response breaks the protocol.
            ConfigurationError: The program does not run on its platform, or is set up incorrectly.
        """
        return self._valid_token(None).reveal()

    def renew(self) -> None:
        """Renew the token now, at most every ten seconds; on failure the present one stays in use."""
        self._renew(None)

    def invalidate(self, token: str) -> None:
        """Have the next `get_token` renew because a server rejected `token`; other tokens change nothing."""
        refused = Secret(token)
        with suppress(MicromegasError):  # the next `get_token` reports that nothing can be read
            if self._is_held(refused):
                self._refused = refused

    def renewal_due_at(self) -> datetime | None:
        """Return when `get_token` will renew the token (aware UTC); None if there is nothing to renew."""
        with suppress(MicromegasError):
            held = self._held(None)
            return held.due_at if held is not None and held.is_renewable else None
        return None

    def _valid_token(self, bearer: Bearer | None) -> Secret:
        may_force = self._may_force()  # before the token is read, or one from before a renewal could pass as rejected
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
            held = self._held(bearer)  # raises if the sign-in is gone
            _log.warning("A token could not be renewed; the old one stays in use.", extra={"code": error.code})
            renewed = None
        if renewed is None and held is None:
            raise Unavailable("No token could be obtained.")
        return (renewed or held).text  # type: ignore[union-attr]  # one of them is there

    def _renew(self, bearer: Bearer | None) -> None:
        held = self._held(bearer)
        try:
            self._check_renewable(bearer)
        except LoginRequired:
            self._valid_token(bearer)  # raises if the present token has expired, too
            return
        refused, self._refused = self._refused, None if held is None else held.text
        try:
            self._renew_once(bearer, is_optional=False, is_forced=self._may_force())
        except MicromegasError:
            self._refused = refused  # or each later call would try again
            raise

    def _needs_renewal(self, held: BearerToken | None) -> bool:
        if held is None or (self._may_force() and held.text == self._refused):
            return True
        now = self._clock.now()
        return held.is_due(now) or not held.is_valid(now)

    def _may_force(self) -> bool:
        return self._forced_at is None or self._clock.monotonic() - self._forced_at >= FORCED_PAUSE_SECONDS

    def _renew_once(self, bearer: Bearer | None, *, is_optional: bool, is_forced: bool) -> BearerToken | None:
        """Obtain a token, one thread after another: late callers get the failure that they waited for.

        `is_optional` means that the caller has a valid token: it neither waits for another thread nor tries again soon
        after a failure. Returns None only for such a call, if nothing was obtained.
        """
        failures_seen = self._failure_count
        if is_optional and self._pause_left(OPTIONAL_PAUSE_SECONDS) > 0:
            return None
        if not self._renewing.acquire(timeout=0 if is_optional else RENEWAL_WAIT_SECONDS):
            if is_optional:
                return None
            raise Unavailable("The token is being renewed, and that does not finish.")
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
            if is_forced:  # not earlier: other callers whose token was rejected wait for this
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
    """A bearer token of a program; its times are this machine's (aware UTC), an unknown end is None."""

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
                remedy="Check the clock of this machine, and how long the provider lets such tokens live.",
            )
        self._cached = cached
        return cached


def checked_token(value: object, *, source: str) -> Secret:
    """Return a token from `source` as a secret."""
    token = usable_token(value) if value else None
    del value  # a verbose traceback shows variables
    if token is None or " " in token.reveal():
        raise ProviderMisbehaved(f"{source} gave no usable token.", remedy="Tell the platform's administrator.")
    return token


# A smaller difference is the network's, not the clock's; a larger one is for a person to correct.
_MIN_OFFSET = timedelta(seconds=2)
_MAX_OFFSET = timedelta(hours=24)


def clock_offset(date: datetime | None, now: datetime) -> timedelta:
    """Return how far the other side's clock (its Date header) is ahead of this machine's, within reason."""
    offset = timedelta() if date is None else date - now
    return offset if _MIN_OFFSET < abs(offset) <= _MAX_OFFSET else timedelta()


def jwt_service_token(
    token: Secret, *, audience: str | None, now: datetime, source: str, date: datetime | None = None
) -> ServiceToken:
    """Make a service token of a JWT, whose end is its own `exp`; nothing else in it is trusted or used.

    A requested `audience` has to be in it. `date` is the source's own clock when the token came.
    """
    try:
        claims = parse_token(token.reveal()).claims
        expires_at = expiry_of(claims)
    except TokenProblem as problem:
        raise ProviderMisbehaved(f"{source} gave a token that is not a usable JWT ({problem.reason}).") from None
    found = claims.get("aud")
    if audience is not None and audience not in (found if isinstance(found, list) else [found]):
        raise ProviderMisbehaved(f"{source} gave a token for a different audience than the one that was requested.")
    return ServiceToken(text=token, obtained_at=now, expires_at=expires_at - clock_offset(date, now))


def opaque_service_token(token: Secret, *, now: datetime, expires_at: datetime | None) -> ServiceToken:
    """Make a service token of text that only its receiver understands; without `expires_at`, a JWT's `exp` counts."""
    if expires_at is None:
        with suppress(TokenProblem):
            expires_at = expiry_of(parse_token(token.reveal()).claims)
    return ServiceToken(text=token, obtained_at=now, expires_at=expires_at)


# A machine that slept, and a user who signs in or out elsewhere, are noticed within this time.
MAX_WAIT_SECONDS = 60.0
FIRST_PAUSE_SECONDS = 5.0
# After one attempt without a new token, another program may be refreshing it.
MAX_VAIN_ATTEMPTS = 2
# A program that exits before the provider's response is stored loses the sign-in if refresh tokens are used once.
STOP_WAIT_SECONDS = 3.0


class RenewableProvider(Protocol):
    """What can be kept fresh."""

    def get_token(self) -> str:
        """Return a token that is valid now, renewing it when that is due."""

    def renewal_due_at(self) -> datetime | None:
        """Return from when on `get_token` renews; None when there is nothing to renew."""


class BackgroundRenewal:
    """One thread that keeps one provider's token fresh, from `start` to `stop`.

    It keeps neither the provider nor itself alive: the thread ends when either is garbage. After a failure it waits
    five seconds, then twice as long each time, up to a minute. In the thread, `on_change` gets an error when renewing
    begins to fail, and None for each new token and when it works again. `wait` waits until the renewal is stopped and
    returns whether it is.
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
        # Also called when the program exits, while threads still run.
        self._finish = weakref.finalize(self, _finish, stopped, self._thread)

    def start(self) -> None:
        """Begin; only once."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, after a renewal that has begun or a few seconds."""
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
                provider.get_token()  # with nothing to renew, it reports whether there is a sign-in at all
                due_at = provider.renewal_due_at()
            left_seconds = MAX_WAIT_SECONDS if due_at is None else (due_at - clock.now()).total_seconds()
            if left_seconds > 0:
                known_due_at, is_news = due_at, due_at != known_due_at
                pause_seconds, vain_attempts = FIRST_PAUSE_SECONDS, 0
            else:
                vain_attempts += 1
                if vain_attempts >= MAX_VAIN_ATTEMPTS:
                    error = ProviderUnavailable("the identity provider returned no new token.")
        except MicromegasError as failure:
            error = failure.with_traceback(None)  # its frames hold the provider
        except Exception as failure:  # noqa: BLE001 - the thread continues whatever happens
            _log.error("A token could not be renewed in the background.", extra={"kind": type(failure).__name__})
            error = InternalError("The token could not be renewed.", remedy="The log has more.")
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
