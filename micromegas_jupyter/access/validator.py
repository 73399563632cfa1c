"""Maps a credential to its bearer, or to one of exactly two errors, with one audit event per decision.

Also the shared parts of all validators: readable tables and rows by role, and rate limits for callers.
"""

import abc
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from hashlib import sha256
from typing import ClassVar, TypeAlias, TypeGuard

import msgspec

from micromegas_jupyter.access.audit import (
    NOTHING_CLAIMED,
    AccessAudit,
    AccessEvent,
    AccessMetrics,
    Claimed,
    TokenBuckets,
    network_of,
    record_event,
)
from micromegas_jupyter.access.jwks import Fetch, KeysPending
from micromegas_jupyter.config.access import EVERY_TABLE, RateLimits, RoleSetting
from micromegas_jupyter.core.protocols import AuthContext, TableAccess, TokenValidator, WriteAccess
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.errors import Rejected, ResourcesExhausted, Unavailable
from micromegas_jupyter.oidc.jwt import MAX_TOKEN_BYTES

# One wait for missing keys, one for newer keys, and one for settings that change in between.
_MAX_KEY_WAITS = 3
# A fetch consists of two calls, each with a total deadline of ten seconds.
_KEY_WAIT_SECONDS = 30.0
_DOTS_OF_A_TOKEN = 2
# A credential that couldn't be checked counts as a quarter of a rejection. This way, retries during an outage still get
# a response, but a flood of forged tokens for a provider that is down is limited.
_UNDECIDED_SHARE = 0.75
# Callers have only a few different sets of roles, so the result for each set is computed once.
_MAX_ROLE_SETS = 1024


def _is_plausible(token: object) -> TypeGuard[str]:
    return isinstance(token, str) and len(token) <= MAX_TOKEN_BYTES


def token_digest(token: object) -> bytes | None:
    """Return a credential's SHA-256 digest, used as the key in every cache, or None if it cannot be a credential."""
    if not _is_plausible(token):
        return None
    # A str may contain lone surrogates; "surrogatepass" keeps different strings distinct.
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


def token_name(token: object) -> str:
    """Return the name used for a credential in logs, even if it is invalid: 8 hexadecimal digits of its digest."""
    digest = token_digest(token)
    return "implausible" if digest is None else digest_name(digest)


def digest_name(digest: bytes) -> str:
    """Return the name used in logs for the credential with this digest."""
    return digest.hex()[:8]


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """The credential is valid; `context` describes its bearer."""

    outcome: ClassVar[str] = "accepted"
    reason: ClassVar[None] = None

    context: AuthContext
    claimed: Claimed = NOTHING_CLAIMED


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The credential was checked and is invalid; `reason` is a constant."""

    outcome: ClassVar[str] = "refused"

    reason: str
    claimed: Claimed = NOTHING_CLAIMED


@dataclass(frozen=True, slots=True, kw_only=True)
class Undecided:
    """A service that is required to check the credential is unavailable; `reason` is a constant.

    `pending` is set if no caller has waited yet: after that fetch, the result may differ.
    """

    outcome: ClassVar[str] = "undecided"

    reason: str
    claimed: Claimed = NOTHING_CLAIMED
    pending: Fetch | None = field(default=None, repr=False, compare=False)


Decision: TypeAlias = Accepted | Refused | Undecided


class BaseValidator(abc.ABC):
    """A `TokenValidator` whose subclasses return a `Decision`.

    Validators inside another validator don't count calls or write events; the outermost one does both, once.
    """

    metrics: AccessMetrics | None = None

    @cached_property
    def audit(self) -> AccessAudit:
        """The audit log for decisions, with a separate rate limit for this validator."""
        return AccessAudit()

    @abc.abstractmethod
    def decide(self, token: str) -> Decision:
        """Check `token`, a string of at most `MAX_TOKEN_BYTES` characters, without waiting or logging."""

    def cached_by_digest(self, digest: bytes) -> AuthContext | None:  # noqa: ARG002 - for subclasses with a cache
        """Return the result of `cached_context` for the credential with this `token_digest`; never raises."""
        return None

    def cached_context(self, token: str) -> AuthContext | None:
        """Return the context if it can be found without I/O or signature checks, or None; never raises."""
        digest = token_digest(token)
        return None if digest is None else self.cached_by_digest(digest)

    def close(self) -> None:  # noqa: B027 - most validators don't need to close anything
        """Release the validator's resources."""

    def validate_token(self, token: str) -> AuthContext:
        """Return the bearer of `token`. Writes one audit event and counts once. Waits while keys are being fetched.

        Raises:
            Rejected: The token is not acceptable, or handling it failed.
            Unavailable: The token could not be checked now; it may be accepted later.
        """
        started = SYSTEM_CLOCK.monotonic()
        return self._conclude(decide_safely(self, token), token, started)

    def try_token(self, token: str, *, is_last: bool = False) -> AuthContext:
        """Return the bearer without waiting for keys; `is_last` makes the token undecided if they are being fetched."""
        started = SYSTEM_CLOCK.monotonic()
        decision = _decide_once(self, token)
        if isinstance(decision, Undecided) and decision.pending is not None and not is_last:
            raise KeysPending(decision.pending)
        return self._conclude(decision, token, started)

    def _conclude(self, decision: Decision, token: str, started: float) -> AuthContext:
        if self.metrics is not None:
            seconds = SYSTEM_CLOCK.monotonic() - started
            self.metrics.count_decision(decision.outcome, decision.reason or "", seconds)
        if self.audit.has_listener(decision.outcome):
            self.audit.record(event_of(decision, token))
        if isinstance(decision, Accepted):
            return decision.context
        if isinstance(decision, Refused):
            raise Rejected(reason=decision.reason)
        raise Unavailable(
            "The server cannot check credentials right now.",
            remedy="Your sign-in isn't the cause. Try again in a moment.",
        )


def event_of(decision: Decision, token: object) -> AccessEvent:
    """Return the audit log entry for a decision."""
    who, code = decision.claimed, None
    if isinstance(decision, Accepted):
        context = decision.context
        who = Claimed(issuer=context.issuer, subject=context.subject, key_id=decision.claimed.key_id)
    else:
        code = Rejected.code if isinstance(decision, Refused) else Unavailable.code
    return AccessEvent(
        outcome=decision.outcome, reason=decision.reason, code=code, who=who, credential=token_name(token)
    )


def decide_safely(validator: TokenValidator, token: str) -> Decision:
    """Return a validator's decision, waiting a limited time for keys; internal errors count as a rejection."""
    decision = _decide_once(validator, token)
    for _ in range(_MAX_KEY_WAITS):
        if not isinstance(decision, Undecided) or decision.pending is None:
            break
        with suppress(TimeoutError):
            decision.pending.result(timeout=_KEY_WAIT_SECONDS)
        decision = _decide_once(validator, token)
    return decision


def _decide_once(validator: TokenValidator, token: str) -> Decision:
    if not _is_plausible(token):
        return Refused(reason="token_implausible")
    try:
        if isinstance(validator, BaseValidator):
            return validator.decide(token)
        return Accepted(context=validator.validate_token(token))
    except Rejected as error:
        return Refused(reason=error.reason)
    except Unavailable:
        return Undecided(reason="unavailable")
    except Exception as error:  # noqa: BLE001 - fail closed: a defect must not let anybody in
        record_event(logging.ERROR, "A validator failed.", kind=type(error).__name__)
        return Refused(reason="internal_error")


class MultiValidator(BaseValidator):
    """Returns the decision of the first validator that accepts the credential.

    If no validator accepts it, an undecided validator outweighs rejections, because the credential may be known only to
    that validator.

    Args:
        validators: Tried in this order; `close` closes them.
    """

    def __init__(self, validators: Sequence[TokenValidator]) -> None:
        self._validators = tuple(validators)

    def decide(self, token: str) -> Decision:
        """Try each validator until one accepts."""
        refused: Decision = Refused(reason="no_validator")
        undecided: Undecided | None = None
        for position, validator in enumerate(self._validators):
            decision = _decide_once(validator, token)
            if isinstance(decision, Accepted):
                return decision
            if isinstance(decision, Undecided):
                undecided = undecided or decision
            elif position == 0 or _says_more(decision, refused, token):
                refused = decision
        return undecided or refused

    def cached_by_digest(self, digest: bytes) -> AuthContext | None:
        """Return the first context that any of these validators finds without I/O, or None."""
        for validator in self._validators:
            context = validator.cached_by_digest(digest) if isinstance(validator, BaseValidator) else None
            if context is not None:
                return context
        return None

    def close(self) -> None:
        """Close all validators."""
        for validator in self._validators:
            validator.close()


def _says_more(decision: Decision, refused: Decision, token: str) -> bool:
    """Whether `decision` is more specific: its validator could read the credential or expects its kind."""
    if decision.claimed != NOTHING_CLAIMED:
        return True
    # A compact JWS has three segments; the first begins with these letters if it is a JSON object in base64url.
    is_token = token.count(".") == _DOTS_OF_A_TOKEN or token.startswith("eyJ")
    return refused.claimed == NOTHING_CLAIMED and refused.reason == "unknown_api_key" and is_token


class Roles:
    """The configured roles. Thread-safe."""

    def __init__(self, roles: Mapping[str, RoleSetting] | None = None, default_roles: Iterable[str] = ()) -> None:
        self._roles = roles
        self._default_roles = tuple(default_roles)
        self._cached_access = lru_cache(maxsize=_MAX_ROLE_SETS)(self._access_of)
        self._cached_write_access = lru_cache(maxsize=_MAX_ROLE_SETS)(self._write_access_of)

    def grant(self, names: Iterable[str], *, is_admin: bool = False) -> tuple[tuple[str, ...], TableAccess | None]:
        """Return the caller's roles among `names` and their read access; None allows everything.

        Adds the default roles and ignores names that are not configured. A row is visible if any of the roles allows
        it. Administrators read everything. If roles are configured, a caller without a role sees no tables.
        """
        if self._roles is None:
            return (), None
        roles = tuple(dict.fromkeys(name for name in (*names, *self._default_roles) if name in self._roles))
        return roles, None if is_admin else self._cached_access(roles)

    def scan_limit(self, roles: tuple[str, ...]) -> int | None:
        """Return how many bytes a statement with these roles may read, which is the largest of the roles' limits."""
        granted = [self._roles[name] for name in roles] if self._roles else []
        limits = [role.max_scan_bytes for role in granted if role.tables]
        return None if None in limits else max(filter(None, limits), default=None)

    def write_access(self, roles: tuple[str, ...]) -> WriteAccess:
        """Return the write access of these roles, as returned by `grant`."""
        return self._cached_write_access(roles)

    def _write_access_of(self, names: tuple[str, ...]) -> WriteAccess:
        granted = [self._roles[name] for name in names if name in self._roles] if self._roles else []
        return WriteAccess(
            ingest=frozenset().union(*(role.ingest for role in granted)),
            owns=frozenset().union(*(role.owns for role in granted)),
        )

    def _access_of(self, roles: tuple[str, ...]) -> TableAccess:
        granted = [self._roles[name].tables for name in roles] if self._roles else []
        filters: dict[str, tuple[str, ...]] = {}
        for table in sorted({table for tables in granted for table in tables}):
            # A role that does not list the table may grant access to it with `*`.
            shown_by = [tables for tables in granted if table in tables or EVERY_TABLE in tables]
            conditions = [tables[table] if table in tables else tables[EVERY_TABLE] for tables in shown_by]
            limited = tuple(dict.fromkeys(condition for condition in conditions if condition is not None))
            filters[table] = () if None in conditions else limited
        return TableAccess(filters=filters)


class CallLimits:
    """Limits on calls per identity and on rejections per address."""

    def __init__(
        self, limits: RateLimits | Callable[[], RateLimits], *, clock: Clock, metrics: AccessMetrics | None = None
    ) -> None:
        self._metrics = metrics
        self._clock = clock
        self._read_limits = limits if callable(limits) else lambda: limits
        self._limits: RateLimits | None = None
        self._follow_changes()

    def _follow_changes(self) -> None:
        limits = self._read_limits()
        if limits is self._limits or limits == self._limits:
            return
        self._limits, clock, tracked = limits, self._clock, limits.max_tracked
        self._calls: TokenBuckets[tuple[str, str]] = TokenBuckets(
            per_second=limits.calls_per_second, burst=limits.burst_calls, max_tracked=tracked, clock=clock
        )
        self._refusals: TokenBuckets[str | bytes] = TokenBuckets(
            per_second=limits.refusals_per_second, burst=limits.burst_refusals, max_tracked=tracked, clock=clock
        )

    def count_call(self, issuer: str, subject: str) -> None:
        """Count a call by an identity."""
        self._follow_changes()
        wait_seconds = self._calls.take((issuer, subject))
        if wait_seconds:
            raise self._too_often("You are making too many calls to this server.", wait_seconds, by="identity")

    def count_refusal(self, client_address: str) -> None:
        """Count a credential as rejected before checking it, because many can arrive before the first is rejected."""
        self._follow_changes()
        wait_seconds = self._refusals.take(network_of(client_address))
        if wait_seconds:
            raise self._too_often("Too many credentials from your address were rejected.", wait_seconds, by="address")

    def forgive_refusal(self, client_address: str, *, is_accepted: bool = True) -> None:
        """Undo the count of an accepted credential; undo most of it if the credential could not be checked."""
        share = 1.0 if is_accepted else _UNDECIDED_SHARE
        self._refusals.release(network_of(client_address), share=share)

    def _too_often(self, what: str, wait_seconds: float, *, by: str) -> ResourcesExhausted:
        if self._metrics is not None:
            self._metrics.count_rate_limited(by)
        # Rounded up so that a client that waits this long doesn't retry too early.
        retry_after_seconds = math.ceil(wait_seconds * 1000) / 1000
        return ResourcesExhausted(
            what,
            remedy=f"Try again in {retry_after_seconds:g} seconds.",
            retry_after_seconds=retry_after_seconds,
            limit="call_rate",
        )
