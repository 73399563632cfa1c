"""A server that a client has reached before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from micromegas_jupyter.client.transport import CallRecord


@dataclass
class KnownServer:
    """Stands in for a `Transport` to `Attempts`; counts its connections."""

    has_answered: bool = True
    connections: int = 1

    def reconnect(self, _failed: CallRecord) -> None:
        self.connections += 1
