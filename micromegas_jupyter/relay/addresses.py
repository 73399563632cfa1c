"""Which handler answers at which address of the server, below its base URL."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from micromegas_jupyter.redirect.routing import CALLBACK_PATH, DONE_PATH, START_PATH
from micromegas_jupyter.relay.base_handler import RelayHandler
from micromegas_jupyter.relay.callback_handler import CallbackHandler
from micromegas_jupyter.relay.done_handler import DoneHandler
from micromegas_jupyter.relay.start_handler import StartHandler

if TYPE_CHECKING:
    from micromegas_jupyter.relay.kernel_calls import KernelCalls
    from micromegas_jupyter.relay.settings import MicromegasRelay

Rule = tuple[str, type[RelayHandler], dict[str, object]]


def relay_rules(base_url: str, *, relay: MicromegasRelay, calls: KernelCalls) -> list[Rule]:
    """Return the address patterns and their handlers, the most special first.

    Args:
        base_url: The server's base URL; ends with a slash.
        relay: What the administrator set.
        calls: Asks kernels.
    """
    base = re.escape(base_url)
    parts: dict[str, object] = {"relay": relay, "calls": calls}
    return [
        (rf"{base}{START_PATH}([A-Za-z0-9_.-]{{1,200}})", StartHandler, parts),
        (rf"{base}{CALLBACK_PATH}", CallbackHandler, parts),
        (rf"{base}{DONE_PATH}", DoneHandler, parts),
        # Whatever else is asked for below the prefix gets a page that repeats nothing of the address.
        (rf"{base}micromegas(?:/.*)?", RelayHandler, parts),
    ]
