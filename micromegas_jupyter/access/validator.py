"""From a credential to who bears it, or to one of exactly two errors, with one audit event for each decision."""

import abc
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import ClassVar, TypeAlias, TypeGuard, assert_never

import msgspec

from micromegas_jupyter.access.audit import NOTHING_CLAIMED, AccessAudit, AccessEvent, Claimed, record_event
from micromegas_jupyter.access.jwks import Fetch, KeysPending
from micromegas_jupyter.access.metrics import AccessMetrics
from micromegas_jupyter.core.protocols import AuthContext, TokenValidator
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.errors import Rejected, Unavailable
from micromegas_jupyter.oidc.jws import MAX_TOKEN_BYTES

# One wait for the keys that there should be, one for newer ones, one for a change of settings meanwhile.
MAX_KEY_WAITS = 3
# A fetch is two calls, each with a total deadline of ten seconds.
_KEY_WAIT_SECONDS = 30.0
_DOTS_OF_A_TOKEN = 2


def is_plausible(token: object) -> TypeGuard[str]:
    """Whether the credential is a text short enough to be looked at."""
    return isinstance(token, str) and len(token) <= MAX_TOKEN_BYTES


def token_digest(token: str) -> bytes:
    """Return the SHA-256 digest of a credential, the key of every cache."""
    try:
        return sha256(token.encode()).digest()
    except UnicodeEncodeError:
        # A credential may hold anything that a str can; "surrogatepass" keeps different texts different.
        return sha256(token.encode("utf-8", "surrogatepass")).digest()


def plausible_digest(token: object) -> bytes | None:
    """Return the digest of a credential that is plausible, else None; the first step of every cached look-up."""
    # The two functions above in one: as calls they would cost a fifth of a look-up.
    if not isinstance(token, str) or len(token) > MAX_TOKEN_BYTES:
        return None
    try:
        return sha256(token.encode()).digest()
    except UnicodeEncodeError:
        return token_digest(token)


def digest_name(digest: bytes) -> str:
    """Return how logs and lists name a credential: 8 hexadecimal digits of its digest."""
    return digest.hex()[:8]


def token_name(token: object) -> str:
    """Return how logs name a credential, whatever it is."""
    return digest_name(token_digest(token)) if is_plausible(token) else "implausible"


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """The credential is good; `context` is its bearer."""

    outcome: ClassVar[str] = "accepted"
    reason: ClassVar[None] = None

    context: AuthContext
    claimed: Claimed = NOTHING_CLAIMED


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The credential was looked at and is bad; `reason` is a fixed word."""

    outcome: ClassVar[str] = "refused"

    reason: str
    claimed: Claimed = NOTHING_CLAIMED


@dataclass(frozen=True, slots=True, kw_only=True)
class Undecided:
    """Something that is needed to judge the credential does not answer; `reason` is a fixed word.

    `pending` is set when nobody has waited yet: the same question may have another answer after that fetch.
    """

    outcome: ClassVar[str] = "undecided"

    reason: str
    claimed: Claimed = NOTHING_CLAIMED
    pending: Fetch | None = field(default=None, repr=False, compare=False)


Decision: TypeAlias = Accepted | Refused | Undecided


class BaseValidator(abc.ABC):
    """A `TokenValidator` whose subclasses answer with a `Decision`.

    A validator that others ask is not counted and writes no event by itself; the outermost does both, once.

    Attributes:
        metrics: Counts decisions when set.
        stopwatch: Measures how long a decision took.
    """

    metrics: AccessMetrics | None = None
    stopwatch: Clock = SYSTEM_CLOCK

    @cached_property
    def audit(self) -> AccessAudit:
        """Where decisions are written; its limit on floods is this validator's own."""
        return AccessAudit()

    @abc.abstractmethod
    def decide(self, token: str) -> Decision:
        """Judge `token`, a text of at most `MAX_TOKEN_BYTES` characters, without waiting and without logging."""

    def cached_context(self, token: str) -> AuthContext | None:  # noqa: ARG002 - for subclasses with a cache
        """Return the context when it is known without any I/O or signature work, else None; never raises."""
        return None

    def close(self) -> None:  # noqa: B027 - most validators hold nothing that needs closing
        """Release what the validator holds."""

    def validate_token(self, token: str) -> AuthContext:
        """Return who bears `token`; leaves one audit event and is counted once. Waits while keys are being fetched.

        Raises:
            Rejected: The token is not acceptable, or handling it failed.
            Unavailable: It could not be decided now; the same token may be accepted later.
        """
        started = self.stopwatch.monotonic()
        return self._conclude(decide_safely(self, token), token, started)

    def try_token(self, token: str, *, is_last: bool = False) -> AuthContext:
        """Return the same without waiting.

        Args:
            token: The credential.
            is_last: Whether keys that are still being fetched make it undecided.

        Raises:
            KeysPending: Keys are being fetched; try again after that. Nothing is counted or logged.
        """
        started = self.stopwatch.monotonic()
        decision = decide_safely(self, token, waits=False)
        if isinstance(decision, Undecided) and decision.pending is not None and not is_last:
            raise KeysPending(decision.pending)
        return self._conclude(decision, token, started)

    def _conclude(self, decision: Decision, token: str, started: float) -> AuthContext:
        if self.metrics is not None:
            seconds = self.stopwatch.monotonic() - started
            self.metrics.count_decision(decision.outcome, decision.reason or "", seconds)
        if self.audit.is_heard(decision.outcome):
            self.audit.record(event_of(decision, token))
        if isinstance(decision, Accepted):
            return decision.context
        match decision:
            case Refused():
                raise Rejected(reason=decision.reason)
            case Undecided():
                raise Unavailable(
                    "The server cannot check credentials at the moment.",
                    remedy="Your sign-in is not at fault. Try again in a moment.",
                )
            case _:
                assert_never(decision)


def event_of(decision: Decision, token: object) -> AccessEvent:
    """Return what the audit log says of a decision."""
    who, code = decision.claimed, None
    if isinstance(decision, Accepted):
        context = decision.context
        who = Claimed(issuer=context.issuer, subject=context.subject, key_id=decision.claimed.key_id)
    else:
        code = Rejected.code if isinstance(decision, Refused) else Unavailable.code
    return AccessEvent(
        outcome=decision.outcome, reason=decision.reason, code=code, who=who, credential=token_name(token)
    )


def decide_safely(validator: TokenValidator, token: str, *, waits: bool = True) -> Decision:
    """Ask any validator for its decision; whatever goes wrong inside it is a refusal.

    Args:
        validator: The validator.
        token: The credential.
        waits: Whether to wait, a bounded time, for keys that are being fetched.
    """
    decision = _decide_once(validator, token)
    if waits and isinstance(decision, Undecided):
        for _ in range(MAX_KEY_WAITS):
            if not isinstance(decision, Undecided) or decision.pending is None:
                break
            with suppress(TimeoutError):
                decision.pending.result(timeout=_KEY_WAIT_SECONDS)
            decision = _decide_once(validator, token)
    return decision


def _decide_once(validator: TokenValidator, token: str) -> Decision:
    if not is_plausible(token):
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


class CachingValidator(BaseValidator):
    """A validator that knows credentials by the digests that `token_digest` makes."""

    @abc.abstractmethod
    def cached_by_digest(self, digest: bytes) -> AuthContext | None:
        """Return what `cached_context` returns for the credential with this digest; never raises."""

    def cached_context(self, token: str) -> AuthContext | None:
        """Return the context when it is known without any I/O or signature work, else None; never raises."""
        digest = plausible_digest(token)
        return None if digest is None else self.cached_by_digest(digest)


class MultiValidator(BaseValidator):
    """The first validator that accepts decides.

    When none accepts, a validator that could not decide outweighs those that refused: the credential may be one
    that only it knows.

    Args:
        validators: Asked in this order; `close` closes them.
    """

    def __init__(self, validators: Sequence[TokenValidator]) -> None:
        self._validators = tuple(validators)

    def decide(self, token: str) -> Decision:
        """Ask each validator until one accepts."""
        refused: Decision = Refused(reason="no_validator")
        undecided: Undecided | None = None
        for position, validator in enumerate(self._validators):
            decision = decide_safely(validator, token, waits=False)
            if isinstance(decision, Accepted):
                return decision
            if isinstance(decision, Undecided):
                undecided = undecided or decision
            elif position == 0 or _says_more(decision, refused, token):
                refused = decision
        return undecided or refused

    def cached_context(self, token: str) -> AuthContext | None:
        """Return the first context that a validator knows without I/O, else None; makes the digest once."""
        digest = plausible_digest(token)
        if digest is None:
            return None
        for validator in self._validators:
            if isinstance(validator, CachingValidator):
                context = validator.cached_by_digest(digest)
            else:
                context = validator.cached_context(token)
            if context is not None:
                return context
        return None

    def close(self) -> None:
        """Close all validators."""
        for validator in self._validators:
            validator.close()


def _says_more(decision: Decision, refused: Decision, token: str) -> bool:
    """Whether `decision` says more about the credential than `refused`: it could read it, or was asked for its like."""
    if decision.claimed != NOTHING_CLAIMED:
        return True
    # A compact JWS has three segments, and the first begins so when it is a JSON object in base64url.
    is_token = token.count(".") == _DOTS_OF_A_TOKEN or token.startswith("eyJ")
    return refused.claimed == NOTHING_CLAIMED and refused.reason == "unknown_api_key" and is_token
