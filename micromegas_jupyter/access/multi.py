"""Asks several validators in turn.

Which ones, and in which order, is the caller's choice.
"""

from collections.abc import Sequence
from typing import Protocol

from micromegas_jupyter.access.deciding import DecidingValidator, decide_safely
from micromegas_jupyter.access.decision import NOTHING_CLAIMED, Accepted, Decision, Refused, Undecided
from micromegas_jupyter.contracts import AuthContext, TokenValidator


class Closeable(Protocol):
    """Anything that holds what must be released."""

    def close(self) -> None:
        """Release it; safe to call twice."""
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
            # Of several refusals, one that could read the credential says more than one that could not.
            elif position == 0 or decision.claimed != NOTHING_CLAIMED:
                refused = decision
        return undecided or refused

    def cached_context(self, token: str) -> AuthContext | None:
        """Return the first context that a validator knows without I/O, else None."""
        for validator in self._validators:
            context = validator.cached_context(token)
            if context is not None:
                return context
        return None

    def close(self) -> None:
        """Close all validators and what they use."""
        for part in (*self._validators, *self._also_close):
            part.close()
