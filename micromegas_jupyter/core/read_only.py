"""Read-only calls: the flag that marks them, and the check that all state changes must pass.

A call is read-only because its client requested it (`x-micromegas-read-only`) or because an agent makes it. This is a
property of the call, not of the caller: an administrator's agent must not have the administrator's functions.
"""

from typing import Final, Protocol

from micromegas_jupyter.errors import ReadOnlyCall

READ_ONLY_HEADER: Final = "x-micromegas-read-only"


class CallContext(Protocol):
    """Anything that knows whether its call is read-only."""

    @property
    def is_read_only(self) -> bool:
        """Whether the call must not change anything."""


def check_may_change_state(call: CallContext, change: str) -> None:
    """Raise `ReadOnlyCall` if a call is read-only; `change` completes "A read-only call can't …"."""
    if call.is_read_only:
        raise ReadOnlyCall(f"A read-only call can't {change}.", reason="read_only")
