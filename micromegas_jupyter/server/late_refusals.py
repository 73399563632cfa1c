"""Lets a client finish sending before it is told that its call is refused.

A client whose call ends while it still sends often sees only that: Arrow's Go driver reports `EOF` and not the status.
Which calls are refused, and in which words, is the methods' own business.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

from micromegas_jupyter.server.calls import Call

_PATIENCE_SECONDS: Final = 5.0
_MAX_PASSED_OVER_BYTES: Final = 16 * 1024 * 1024


def refusing_late(method: Callable[[Call], Awaitable[None]]) -> Callable[[Call], Awaitable[None]]:
    """Return the method with its errors held back until the client has sent everything, or for as long as is bearable.

    What comes meanwhile is thrown away as it comes: at most 16 MiB, for at most 5 seconds.
    """

    async def answer(call: Call) -> None:
        try:
            await method(call)
        except Exception:
            await _pass_over_the_rest(call)
            raise

    return answer


async def _pass_over_the_rest(call: Call) -> None:
    size = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while size <= _MAX_PASSED_OVER_BYTES and (message := await call.read()) is not None:
                size += len(message)
