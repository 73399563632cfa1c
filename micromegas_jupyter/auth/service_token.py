"""The token of a program: kept while it is fresh, fetched anew by one thread, served on while a fetch fails.

Where it comes from is left to the providers that use this.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from micromegas_jupyter.auth.renewal_turn import RenewalTurn
from micromegas_jupyter.auth.session import LONGEST_MARGIN, MARGIN_SHARE, Freshness, freshness_of
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.errors import LoginFailed, MicromegasError, ProviderMisbehaved, Unavailable
from micromegas_jupyter.oidc.claims import expiry_of
from micromegas_jupyter.oidc.jws import TokenProblem, parse_token
from micromegas_jupyter.oidc.tokens import usable_token

# What a token's life counts as when nobody says: RFC 6749 section 5.1 leaves it open.
UNKNOWN_LIFETIME = timedelta(minutes=5)
LONGEST_KEPT = timedelta(hours=24)
FORCED_PAUSE_SECONDS = 10.0
# A smaller difference is the network's, not the clock's; a larger one is for the person to mend.
_SMALLEST_OFFSET = timedelta(seconds=2)
_LARGEST_OFFSET = timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceToken:
    """A bearer token of a program.

    Attributes:
        text: The token.
        obtained_at: When it came (aware UTC, this machine's clock).
        expires_at: When it ends, by the same clock; None when unknown.
    """

    text: Secret
    obtained_at: datetime
    expires_at: datetime | None = None

    @property
    def renewal_due_at(self) -> datetime:
        """From when on the next one should be fetched: as `freshness_of` judges, without anybody's delay."""
        ends_at = self._kept_until
        return ends_at - min(LONGEST_MARGIN, (ends_at - self.obtained_at) / MARGIN_SHARE)

    def freshness(self, now: datetime) -> Freshness:
        """Return how much life is left; one of unknown life lives for `UNKNOWN_LIFETIME`."""
        return freshness_of(self.obtained_at, self._kept_until, now)

    @property
    def _kept_until(self) -> datetime:
        ends_at = self.expires_at or self.obtained_at + UNKNOWN_LIFETIME
        return min(ends_at, self.obtained_at + LONGEST_KEPT)


class KeptServiceToken:
    """Keeps a program's token; safe to use from several threads.

    Args:
        fetch: Gets the next one; raises a `MicromegasError` when it cannot.
        clock: Tells the time.
    """

    def __init__(self, fetch: Callable[[], ServiceToken], *, clock: Clock) -> None:
        self._fetch = fetch
        self._clock = clock
        self._turn: RenewalTurn[ServiceToken] = RenewalTurn(clock)
        self._kept: ServiceToken | None = None
        self._invalidated_at: float | None = None

    def get_token(self) -> str:
        """Return a token that is valid now.

        Raises:
            MicromegasError: A token is needed and cannot be fetched.
        """
        kept = self._kept
        freshness = self._freshness(kept)
        if kept is not None and freshness is Freshness.FRESH:
            return kept.text.reveal()
        is_valid = freshness is Freshness.ENDING
        try:
            fetched = self._turn.run(self._fetch_unless_fresh, is_optional=is_valid)
        except MicromegasError:
            if not is_valid:
                raise
            fetched = None
        token = fetched or kept
        if token is None:  # only an optional fetch is left out, and then a token is kept
            raise Unavailable("No token could be fetched.")
        return token.text.reveal()

    def invalidate(self, token: str) -> None:
        """Forget `token` if it is the one that is kept, because the server refused it.

        Not more often than every ten seconds: a server that refuses every token must not cost the provider one a call.
        """
        kept, now = self._kept, self._clock.monotonic()
        if kept is None or kept.text != Secret(token):
            return
        if self._invalidated_at is None or now - self._invalidated_at >= FORCED_PAUSE_SECONDS:
            self._invalidated_at = now
            self._kept = None

    def renew(self) -> None:
        """Fetch the next token now, though the kept one may be fresh; that one serves on when it fails.

        Raises:
            MicromegasError: It cannot be fetched.
        """
        self._turn.run(self._fetch_and_keep, is_optional=False)

    def renewal_due_at(self) -> datetime | None:
        """Return from when on `get_token` fetches the next token; None when none is kept."""
        kept = self._kept
        return None if kept is None else kept.renewal_due_at

    def _fetch_unless_fresh(self) -> ServiceToken:
        kept = self._kept
        if kept is not None and self._freshness(kept) is Freshness.FRESH:
            return kept
        return self._fetch_and_keep()

    def _fetch_and_keep(self) -> ServiceToken:
        fetched = self._fetch()
        if self._freshness(fetched) is Freshness.ENDED:
            raise LoginFailed(
                "The token that was just fetched has ended.",
                remedy="Check the clock of this machine, and how long the provider lets such tokens live.",
            )
        self._kept = fetched
        return fetched

    def _freshness(self, token: ServiceToken | None) -> Freshness:
        return Freshness.ENDED if token is None else token.freshness(self._clock.now())

    def __reduce__(self) -> str:
        raise TypeError("a token cannot be pickled")


def checked_token(value: object, *, giver: str) -> Secret:
    """Return a token that `giver` gave as a secret.

    Raises:
        ProviderMisbehaved: It is missing, too large, or holds anything but printable ASCII without spaces.
    """
    token = usable_token(value) if value else None
    del value  # a verbose traceback shows variables
    if token is None or " " in token.reveal():
        raise ProviderMisbehaved(f"{giver} gave no usable token.", remedy="Tell whoever runs the platform.")
    return token


def clock_offset(date: datetime | None, now: datetime) -> timedelta:
    """Return how far the other side's clock (its Date header) is ahead of this machine's, within reason."""
    offset = timedelta() if date is None else date - now
    return offset if _SMALLEST_OFFSET < abs(offset) <= _LARGEST_OFFSET else timedelta()


def jwt_service_token(
    token: Secret, *, audience: str | None, now: datetime, giver: str, date: datetime | None = None
) -> ServiceToken:
    """Make a service token of a JWT, whose end is its own `exp`; nothing else in it is believed, or used.

    Args:
        token: The JWT.
        audience: What was asked for; the JWT has to be for it. None when nothing was.
        now: When it came.
        giver: Whose it is, for the error.
        date: The giver's own clock at that moment.

    Raises:
        ProviderMisbehaved: It is no JWT, never ends, or is for somebody else.
    """
    try:
        claims = parse_token(token.reveal()).claims
        expires_at = expiry_of(claims)
    except TokenProblem as problem:
        raise ProviderMisbehaved(f"{giver} gave a token that is not a usable JWT ({problem.reason}).") from None
    if audience is not None and audience not in _audiences(claims.get("aud")):
        raise ProviderMisbehaved(f"{giver} gave a token for another audience than the one that was asked for.")
    return ServiceToken(text=token, obtained_at=now, expires_at=expires_at - clock_offset(date, now))


def opaque_service_token(token: Secret, *, now: datetime, expires_at: datetime | None) -> ServiceToken:
    """Make a service token of text that is for its receiver only; without `expires_at`, a JWT's own `exp` says it."""
    if expires_at is None:
        try:
            expires_at = expiry_of(parse_token(token.reveal()).claims)
        except TokenProblem:
            expires_at = None
    return ServiceToken(text=token, obtained_at=now, expires_at=expires_at)


def _audiences(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]
