"""Asks several validators in turn.

Which ones, and in which order, is the caller's choice.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias, cast, runtime_checkable

from micromegas_jupyter.access.credential import plausible_digest
from micromegas_jupyter.access.deciding import DecidingValidator, decide_safely
from micromegas_jupyter.access.decision import NOTHING_CLAIMED, Accepted, Decision, Refused, Undecided
from micromegas_jupyter.core.protocols import AuthContext, TokenValidator

# Given the credential's digest when the flag says so, else the credential.
_LookUp: TypeAlias = tuple[bool, Callable[[bytes | str], AuthContext | None]]

_DOTS_OF_A_TOKEN = 2


class Closeable(Protocol):
    """Anything that holds what must be released."""

    def close(self) -> None:
        """Release it; safe to call twice."""
        ...


@runtime_checkable
class KnowsDigests(Protocol):
    """A validator that remembers credentials by the SHA-256 digests that `credential.token_digest` makes."""

    def cached_by_digest(self, digest: bytes) -> AuthContext | None:
        """Return what `cached_context` returns for the credential with this digest; never raises."""
        ...


class MultiValidator(DecidingValidator):
    """The first validator that accepts decides.

    When none accepts, a validator that could not decide outweighs those that refused: the credential may be one
    that only it knows.

    Args:
        validators: Asked in this order; `close` closes them.
        also_close: What they use, closed after them.
    """

    def __init__(self, validators: Sequence[TokenValidator], *, also_close: Sequence[Closeable] = ()) -> None:
        self._validators = tuple(validators)
        self._also_close = tuple(also_close)
        self._look_ups = tuple(_look_up_of(validator) for validator in self._validators)

    def decide(self, token: str) -> Decision:
        """Ask each validator until one accepts."""
        refused: Decision = Refused(reason="no_validator")
        undecided: Undecided | None = None
        for position, validator in enumerate(self._validators):
            decision = decide_safely(validator, token)
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
        for takes_digest, look_up in self._look_ups:
            context = look_up(digest if takes_digest else token)
            if context is not None:
                return context
        return None

    def close(self) -> None:
        """Close all validators and what they use."""
        for part in (*self._validators, *self._also_close):
            part.close()


def _says_more(decision: Decision, refused: Decision, token: str) -> bool:
    """Whether `decision` says more about the credential than `refused`: it could read it, or was asked for its like."""
    if decision.claimed != NOTHING_CLAIMED:
        return True
    return refused.claimed == NOTHING_CLAIMED and refused.reason == "unknown_api_key" and _is_meant_as_token(token)


def _is_meant_as_token(token: str) -> bool:
    # A compact JWS has three segments, and the first begins so when it is a JSON object in base64url.
    return token.count(".") == _DOTS_OF_A_TOKEN or token.startswith("eyJ")


def _look_up_of(validator: TokenValidator) -> _LookUp:
    takes_digest = isinstance(validator, KnowsDigests)
    look_up = validator.cached_by_digest if isinstance(validator, KnowsDigests) else validator.cached_context
    return takes_digest, cast("Callable[[bytes | str], AuthContext | None]", look_up)
