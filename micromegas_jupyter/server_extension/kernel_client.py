"""Sends a request to the kernel that a sign-in belongs to, and waits for the reply within a deadline.

A kernel is reached on its control channel, also while a cell runs. Jupyter's gateway client does not reach that
channel, so a kernel behind a gateway is reached through the websocket of its channels.
"""

from __future__ import annotations

import asyncio
import enum
import json
import logging
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from micromegas_jupyter.auth.flows.messages import REPLY_TYPE, REQUEST_TYPE, Reply, Request, build_message, parse_reply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jupyter_client.manager import KernelManager
    from jupyter_server.services.kernels.kernelmanager import MappingKernelManager

PROBE_TYPE = "kernel_info_request"
GRACE_SECONDS = 1.0
"""How long a kernel that has answered the probe may still be writing the reply to the request before it."""

REQUEST_TIMEOUT_SECONDS = 10.0
MAX_REQUESTS = 32

_PROTOCOL_VERSION = "5.4"  # Jupyter's messaging protocol
_MAX_MESSAGE_BYTES = 64 * 1024 * 1024  # the output of a running cell comes along and is thrown away
_log = logging.getLogger(__name__)

_Message = tuple[object, object, dict[str, Any]]
"""A message's parent id, type and content."""


class NoReply(enum.Enum):
    """Why a kernel did not reply; each value says what happened."""

    NO_KERNEL = "The notebook's kernel is not running any more."
    NOT_LISTENING = "The notebook's kernel does not know this sign-in: it was restarted or replaced."
    TIMEOUT = "The notebook's kernel did not answer in time."
    BUSY = "Too many sign-ins are running at this server."

    @property
    def remedy(self) -> str:
        """What to do about it."""
        if self is NoReply.BUSY:
            return "Wait a moment and reload this page."
        return "Go back to the notebook and run %micromegas_login again."


class KernelClient:
    """Sends requests to kernels; holds only the number of requests under way."""

    def __init__(self, kernels: MappingKernelManager) -> None:
        self._kernels = kernels
        self._running = 0

    async def request(self, kernel_id: str, request: Request) -> Reply | NoReply:
        """Return a kernel's reply, or why there is none."""
        if self._running >= MAX_REQUESTS:
            return NoReply.BUSY
        self._running += 1
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_SECONDS):
                content = await self._send(kernel_id, build_message(request))
        except TimeoutError:
            return NoReply.TIMEOUT
        except Exception as error:  # noqa: BLE001 - a kernel manager of any make may be in use
            # Its text may hold what was sent.
            _log.warning("A kernel could not be reached for a sign-in: %s.", type(error).__name__)
            return NoReply.TIMEOUT
        finally:
            self._running -= 1
        return content if isinstance(content, NoReply) else parse_reply(content) or NoReply.TIMEOUT

    async def _send(self, kernel_id: str, content: dict[str, object]) -> dict[str, Any] | NoReply:
        if kernel_id not in self._kernels:
            return NoReply.NO_KERNEL
        from jupyter_server.gateway.managers import GatewayKernelManager

        manager = self._kernels.get_kernel(kernel_id)
        if isinstance(manager, GatewayKernelManager):
            return await request_by_gateway(kernel_id, content)
        return await request_by_control_channel(manager, content)


async def request_by_control_channel(manager: KernelManager, content: dict[str, object]) -> dict[str, Any] | NoReply:
    """Send a request and return the content of its reply; the caller sets the deadline."""
    import zmq.asyncio
    from jupyter_client.connect import ConnectionFileMixin

    session = manager.session.clone()
    session.session = uuid4().hex  # a socket of the manager's own has its identity already
    # By the base class's method: the server's own managers wrap the socket in a stream of an older kind.
    connected = ConnectionFileMixin.connect_control(manager, identity=session.bsession)
    # A manager that is not asynchronous gives a socket that would block.
    socket = connected if isinstance(connected, zmq.asyncio.Socket) else zmq.asyncio.Socket.from_socket(connected)

    async def receive() -> _Message:
        message = session.deserialize(session.feed_identities(await socket.recv_multipart())[1])
        return message["parent_header"].get("msg_id"), message["msg_type"], dict(message["content"])

    try:
        sent = session.send(socket, REQUEST_TYPE, content)["header"]["msg_id"]
        probe = session.send(socket, PROBE_TYPE, {})["header"]["msg_id"]
        return await _await_reply(receive, sent, probe)
    finally:
        socket.close(linger=0)
        connected.close(linger=0)


async def request_by_gateway(kernel_id: str, content: dict[str, object]) -> dict[str, Any] | NoReply:
    """Send a request and return the content of its reply; the caller sets the deadline."""
    from jupyter_server.gateway.gateway_client import GatewayClient
    from jupyter_server.utils import url_path_join
    from tornado.escape import url_escape
    from tornado.httpclient import HTTPClientError, HTTPRequest
    from tornado.websocket import WebSocketClosedError, websocket_connect

    gateway = GatewayClient.instance()
    url = url_path_join(gateway.ws_url or "", gateway.kernels_endpoint, url_escape(kernel_id), "channels")
    options = gateway.load_connection_args()  # type: ignore[no-untyped-call]  # Jupyter server
    try:
        connection = await websocket_connect(HTTPRequest(url, **options), max_message_size=_MAX_MESSAGE_BYTES)
    except (HTTPClientError, OSError):
        return NoReply.NO_KERNEL

    async def receive() -> _Message:
        text = await connection.read_message()
        if text is None:
            raise WebSocketClosedError
        return _parse_message(text)

    try:
        sent, probe, session = uuid4().hex, uuid4().hex, uuid4().hex
        await connection.write_message(_build_message(sent, session, REQUEST_TYPE, content))
        await connection.write_message(_build_message(probe, session, PROBE_TYPE, {}))
        return await _await_reply(receive, sent, probe)
    except WebSocketClosedError:
        return NoReply.NO_KERNEL
    finally:
        connection.close()


async def _await_reply(receive: Callable[[], Awaitable[_Message]], sent: str, probe: str) -> dict[str, Any] | NoReply:
    """Wait for the reply to `sent`.

    A kernel that does not know the request says nothing, so a probe that every kernel answers is sent after it.
    """
    grace = None
    try:
        while True:
            async with asyncio.timeout(grace):
                parent, kind, content = await receive()
            if parent == sent and kind == REPLY_TYPE:
                return content
            if parent == probe and kind == "kernel_info_reply":
                grace = GRACE_SECONDS
    except TimeoutError:
        return NoReply.TIMEOUT if grace is None else NoReply.NOT_LISTENING


def _build_message(message_id: str, session: str, kind: str, content: dict[str, object]) -> str:
    header = {
        "msg_id": message_id,
        "msg_type": kind,
        "username": "",
        "session": session,
        "version": _PROTOCOL_VERSION,
        "date": "",
    }
    message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "buffers": []}
    return json.dumps({**message, "channel": "control"})


def _parse_message(text: str | bytes) -> _Message:
    """Return a message's parts; empty ones for anything that is not a message of the control channel."""
    if isinstance(text, bytes):
        return None, None, {}  # a message with buffers
    try:
        message = json.loads(text)
        if message["channel"] != "control":
            return None, None, {}
        return message["parent_header"].get("msg_id"), message["header"]["msg_type"], dict(message["content"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None, None, {}
