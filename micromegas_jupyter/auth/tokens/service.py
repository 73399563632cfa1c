"""The token of a program: cached while it is fresh, fetched by one thread, still used while a fetch fails."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from micromegas_jupyter.auth.tokens.manager import FORCED_PAUSE_SECONDS, Freshness, RefreshLock, due_at, freshness_of
from micromegas_jupyter.core.system import Clock, Secret
from micromegas_jupyter.errors import LoginFailed, MicromegasError, ProviderMisbehaved, Unavailable
from micromegas_jupyter.oidc.authorization import usable_token
from micromegas_jupyter.oidc.jwt import TokenProblem, expiry_of, parse_token

# A token's life when nobody says: RFC 6749 section 5.1 leaves it open.
UNKNOWN_LIFETIME = timedelta(minutes=5)
MAX_CACHED = timedelta(hours=24)
# A smaller difference is the network's, not the clock's; a larger one is for a person to mend.
_MIN_OFFSET = timedelta(seconds=2)
_MAX_OFFSET = timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceToken:
    """A bearer token of a program; its times are this machine's (aware UTC), an unknown end is None."""

    text: Secret
    obtained_at: datetime
    expires_at: datetime | None = None

    @property
    def cached_until(self) -> datetime:
        """When it is no longer used."""
        ends_at = self.expires_at or self.obtained_at + UNKNOWN_LIFETIME
        return min(ends_at, self.obtained_at + MAX_CACHED)


class ServiceTokenProvider:
    """An `AuthProvider` that caches a program's token; a subclass gets it. Safe to use from several threads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._refresh_lock: RefreshLock[ServiceToken] = RefreshLock(clock)
        self._cached: ServiceToken | None = None
        self._invalidated_at: float | None = None

    def _fetch(self) -> ServiceToken:
        """Get the next token."""
        raise NotImplementedError

    def get_token(self) -> str:
        """Return a token that is valid now.

        Raises:
            LoginFailed: The platform or the provider does not accept the program.
            ProviderUnavailable: A token is needed, and the platform or the provider does not answer.
            ProviderMisbehaved: An answer breaks the protocol.
            ConfigurationError: The program does not run on its platform, or not as it was set up.
        """
        cached = self._cached
        freshness = self._freshness(cached)
        if cached is not None and freshness is Freshness.FRESH:
            return cached.text.reveal()
        is_valid = freshness is Freshness.ENDING
        try:
            cached = self._refresh_lock.run(self._fetch_unless_fresh, is_optional=is_valid) or cached
        except MicromegasError:
            if not is_valid:
                raise
        if cached is None:  # only an optional fetch is left out, and then a token is cached
            raise Unavailable("No token could be fetched.")
        return cached.text.reveal()

    def invalidate(self, token: str) -> None:
        """Forget `token` if it is the cached one, because the server refused it.

        Not more often than every ten seconds: a server that refuses every token must not cost the provider one a call.
        """
        cached, now = self._cached, self._clock.monotonic()
        if cached is None or cached.text != Secret(token):
            return
        if self._invalidated_at is None or now - self._invalidated_at >= FORCED_PAUSE_SECONDS:
            self._invalidated_at = now
            self._cached = None

    def renew(self) -> None:
        """Fetch the next token now, however fresh the cached one is, which stays in use when that fails."""
        self._refresh_lock.run(self._fetch_and_cache, is_optional=False)

    def renewal_due_at(self) -> datetime | None:
        """Return from when on `get_token` fetches the next token (aware UTC); None when none is cached."""
        cached = self._cached
        return None if cached is None else due_at(cached.obtained_at, cached.cached_until)

    def _fetch_unless_fresh(self) -> ServiceToken:
        cached = self._cached
        is_fresh = cached is not None and self._freshness(cached) is Freshness.FRESH
        return cached if cached is not None and is_fresh else self._fetch_and_cache()

    def _fetch_and_cache(self) -> ServiceToken:
        fetched = self._fetch()
        if self._freshness(fetched) is Freshness.ENDED:
            raise LoginFailed(
                "The token that was just fetched has already expired.",
                remedy="Check the clock of this machine, and how long the provider lets such tokens live.",
            )
        self._cached = fetched
        return fetched

    def _freshness(self, token: ServiceToken | None) -> Freshness:
        if token is None:
            return Freshness.ENDED
        return freshness_of(token.obtained_at, token.cached_until, self._clock.now())

    def __reduce__(self) -> str:
        raise TypeError("a sign-in cannot be pickled")


def checked_token(value: object, *, source: str) -> Secret:
    """Return a token from `source` as a secret."""
    token = usable_token(value) if value else None
    del value  # a verbose traceback shows variables
    if token is None or " " in token.reveal():
        raise ProviderMisbehaved(f"{source} gave no usable token.", remedy="Tell the platform's administrator.")
    return token


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
