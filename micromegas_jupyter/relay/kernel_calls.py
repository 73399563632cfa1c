"""Asks whichever kernel a sign-in belongs to, in the way that reaches it, within a deadline and a count.

What is asked and answered is `redirect.messages`'s, what a person sees of it the handlers'.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from micromegas_jupyter.redirect.messages import Reply, Request, parse_reply, request_content
from micromegas_jupyter.relay.control_call import ask_by_control_channel
from micromegas_jupyter.relay.gateway_call import ask_by_gateway
from micromegas_jupyter.relay.silence import Silence

if TYPE_CHECKING:
    from jupyter_server.services.kernels.kernelmanager import MappingKernelManager

ASK_TIMEOUT_SECONDS = 10.0
MAX_CALLS = 32

_log = logging.getLogger(__name__)


class KernelCalls:
    """Asks kernels; holds nothing but how many are being asked.

    Args:
        kernels: The server's kernels.
    """

    def __init__(self, kernels: MappingKernelManager) -> None:
        self._kernels = kernels
        self._calls = 0

    async def ask(self, kernel_id: str, request: Request) -> Reply | Silence:
        """Return a kernel's reply, or why there is none.

        Args:
            kernel_id: The part before the dot of a sign-in's name.
            request: What is asked.
        """
        if self._calls >= MAX_CALLS:
            return Silence.BUSY
        self._calls += 1
        try:
            async with asyncio.timeout(ASK_TIMEOUT_SECONDS):
                content = await self._content(kernel_id, request_content(request))
        except TimeoutError:
            return Silence.NO_REPLY
        except Exception as error:  # noqa: BLE001 - a kernel manager of any make may be in use
            # Its text may hold what was sent.
            _log.warning("A kernel could not be asked about a sign-in: %s.", type(error).__name__)
            return Silence.NO_REPLY
        finally:
            self._calls -= 1
        if isinstance(content, Silence):
            return content
        return parse_reply(content) or Silence.NO_REPLY

    async def _content(self, kernel_id: str, content: dict[str, object]) -> dict[str, Any] | Silence:
        if kernel_id not in self._kernels:
            return Silence.NO_KERNEL
        from jupyter_server.gateway.managers import GatewayKernelManager

        manager = self._kernels.get_kernel(kernel_id)
        if isinstance(manager, GatewayKernelManager):
            return await ask_by_gateway(kernel_id, content)
        return await ask_by_control_channel(manager, content)
