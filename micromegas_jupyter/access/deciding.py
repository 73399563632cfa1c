"""The part that all validators share: from a finding to a context or one of exactly two errors, with one audit event.

How the finding is reached is left to each validator.
"""

import abc
import logging
from functools import cached_property
from typing import assert_never

from micromegas_jupyter.access.audit import AccessAudit, record_event
from micromegas_jupyter.access.credential import is_plausible
from micromegas_jupyter.access.decision import Accepted, Decision, Refused, Undecided
from micromegas_jupyter.access.key_waits import KeysOnTheWay
from micromegas_jupyter.access.metrics import AccessMetrics
from micromegas_jupyter.core.protocols import AuthContext, TokenValidator
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.errors import Rejected, Unavailable


class DecidingValidator(abc.ABC):
    """A `TokenValidator` whose subclasses answer with a `Decision`.

    A validator that others ask is not counted and writes no event by itself; the outermost does both, once.

    Attributes:
        metrics: Counts findings when set.
        stopwatch: Measures how long a finding took.
    """

    metrics: AccessMetrics | None = None
    stopwatch: Clock = SYSTEM_CLOCK

    @cached_property
    def audit(self) -> AccessAudit:
        """Where findings are written; its limit on floods is this validator's own."""
        return AccessAudit()

    @abc.abstractmethod
    def decide(self, token: str) -> Decision:
        """Find who bears `token`, a text of at most `MAX_TOKEN_BYTES` characters; logs nothing about the finding."""

    @abc.abstractmethod
    def cached_context(self, token: str) -> AuthContext | None:
        """Return the context when it is known without any I/O or signature work, else None; never raises."""

    def close(self) -> None:  # noqa: B027 - most validators hold nothing that needs closing
        """Release what the validator holds."""

    def validate_token(self, token: str) -> AuthContext:
        """Return who bears `token`; leaves one audit event and is counted once, whatever the finding.

        Raises:
            Rejected: The token is not acceptable, or its handling failed.
            Unavailable: It could not be decided now; the same token may be accepted later.
            KeysOnTheWay: Keys are being fetched, and the caller waits outside. That is no finding: nothing is counted.
        """
        started = self.stopwatch.monotonic()
        decision = decide_safely(self, token)
        if isinstance(decision, Undecided) and decision.awaited_fetch is not None:
            raise KeysOnTheWay(decision.awaited_fetch)
        if self.metrics is not None:
            seconds = self.stopwatch.monotonic() - started
            self.metrics.count_decision(decision.outcome, decision.reason or "", seconds)
        self.audit.record_decision(decision, token)
        match decision:
            case Accepted():
                return decision.context
            case Refused():
                raise Rejected(reason=decision.reason)
            case Undecided():
                raise Unavailable(
                    "The server cannot check credentials at the moment.",
                    remedy="Your sign-in is not at fault. Try again in a moment.",
                )
            case _:
                assert_never(decision)


def decide_safely(validator: TokenValidator, token: str) -> Decision:
    """Ask any validator for its finding; whatever goes wrong inside it is a refusal."""
    if not is_plausible(token):
        return Refused(reason="token_implausible")
    try:
        if isinstance(validator, DecidingValidator):
            return validator.decide(token)
        return Accepted(context=validator.validate_token(token))
    except Rejected as error:
        return Refused(reason=error.reason)
    except Unavailable:
        return Undecided(reason="unavailable")
    except Exception as error:  # noqa: BLE001 - fail closed: a defect must not let anybody in
        record_event(logging.ERROR, "A validator failed.", kind=type(error).__name__)
        return Refused(reason="internal_error")
