"""The part that all validators share: from a finding to a context or one of exactly two errors, with one audit event.

How the finding is reached is left to each validator.
"""

import abc
import logging
from typing import assert_never

from micromegas_jupyter.access.audit import record_decision, record_event
from micromegas_jupyter.access.credential import is_plausible
from micromegas_jupyter.access.decision import Accepted, Decision, Refused, Undecided
from micromegas_jupyter.contracts import AuthContext, TokenValidator
from micromegas_jupyter.errors import Rejected, Unavailable


class DecidingValidator(abc.ABC):
    """A `TokenValidator` whose subclasses answer with a `Decision`."""

    @abc.abstractmethod
    def decide(self, token: str) -> Decision:
        """Find who bears `token`, a text of at most `MAX_TOKEN_BYTES` characters; logs nothing about the finding."""

    @abc.abstractmethod
    def cached_context(self, token: str) -> AuthContext | None:
        """Return the context when it is known without any I/O or signature work, else None; never raises."""

    def close(self) -> None:  # noqa: B027 - most validators hold nothing that needs closing
        """Release what the validator holds."""

    def validate_token(self, token: str) -> AuthContext:
        """Return who bears `token`; leaves one audit event, whatever the finding.

        Raises:
            Rejected: The token is not acceptable, or its handling failed.
            Unavailable: It could not be decided now; the same token may be accepted later.
        """
        decision = decide_safely(self, token)
        record_decision(decision, token)
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
