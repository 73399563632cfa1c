"""What a server that shares its port has in common with the other processes on it, and how it reaches them."""

from collections.abc import Callable
from dataclasses import dataclass, field

from micromegas_jupyter.server.restrained_callers import RestrainedCallers
from micromegas_jupyter.server.running_queries import CancelElsewhere


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """The other processes of one server.

    Attributes:
        ticket_key: Marks the tickets of all of them, at least 32 bytes.
        cancel: Cancels a query in the others, by its key.
        reload: Has the others reload their access configuration; may block.
        restrained: The callers who may not query now, in any of them.
    """

    ticket_key: bytes = field(repr=False)
    cancel: CancelElsewhere = field(repr=False)
    reload: Callable[[], None] = field(repr=False)
    restrained: RestrainedCallers = field(default_factory=RestrainedCallers)
