"""What is known of the call that carries a credential, for the audit event of the decision.

Whoever receives calls sets the facts around the check; the validators themselves know only the credential.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFacts:
    """One call.

    Attributes:
        method: What was called, such as `DoGet`.
        client_address: The client's IP address.
        call_id: The id under which other logs know the call.
    """

    method: str | None = None
    client_address: str | None = None
    call_id: str | None = None


NO_CALL = CallFacts()
_current: ContextVar[CallFacts] = ContextVar("micromegas_call_facts", default=NO_CALL)


def current_call() -> CallFacts:
    """Return the facts of the call that is being checked, or `NO_CALL`."""
    return _current.get()


@contextmanager
def checking_for(facts: CallFacts) -> Iterator[None]:
    """Let audit events that are recorded inside carry these facts."""
    token = _current.set(facts)
    try:
        yield
    finally:
        _current.reset(token)
