"""One JSON line for each thing that the service gave or refused, on the logger `micromegas_jupyter.audit.hub`.

No line holds a token, a code or a state. Where the lines go is `service`'s to say.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.access.audit_lines import encode_line, presentable, utc_text
from micromegas_jupyter.seams import SYSTEM_CLOCK

if TYPE_CHECKING:
    from micromegas_jupyter.seams import Clock

AUDIT_LOGGER: Final = "micromegas_jupyter.audit.hub"
_AUDIT: Final = logging.getLogger(AUDIT_LOGGER)
_AUDIT.setLevel(logging.INFO)


class HubAudit:
    """Writes the lines.

    Args:
        clock: Tells the time.
    """

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock

    def write(self, event: str, **facts: str | int | None) -> None:
        """Write a line; facts that are None are left out.

        Args:
            event: A fixed word.
            facts: What is known; nothing secret.
        """
        known = {name: presentable(fact) if isinstance(fact, str) else fact for name, fact in facts.items()}
        record = {"event": event, **known, "time": utc_text(self._clock.now())}
        _AUDIT.info("%s", encode_line({name: fact for name, fact in record.items() if fact is not None}))
