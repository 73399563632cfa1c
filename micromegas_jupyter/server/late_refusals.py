"""Lets a client finish sending before it is told that its call is refused.

A client whose call ends while it still sends often sees only that: Arrow's Go driver reports `EOF` and not the status.
Which calls are refused, and in which words, is the methods' own business.
"""

from collections.abc import Awaitable, Callable

from micromegas_jupyter.errors import DeadlineExceeded
from micromegas_jupyter.server.calls import Call


def refusing_late(method: Callable[[Call], Awaitable[None]]) -> Callable[[Call], Awaitable[None]]:
    """Return the method with its errors held back until the client has sent everything, or for as long as is bearable.

    What comes meanwhile is thrown away as it comes: at most 16 MiB, for at most 5 seconds. Nothing is waited for from a
    client that is silent, or when the refusals of others are held back already.
    """

    async def answer(call: Call) -> None:
        try:
            await method(call)
        except DeadlineExceeded:
            raise
        except Exception:
            await call.pass_over_the_rest()
            raise

    return answer
