"""Asks whichever kernel a sign-in belongs to, in the way that reaches it, within a deadline and a count.

Jupyter's own gateway client does not reach the control channel, so a kernel behind a gateway is asked through the
websocket of its channels. What is asked and answered is `redirect.messages`'s.
"""

from __future__ import annotations

import asyncio
import enum
import json
import logging
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from micromegas_jupyter.redirect.messages import REPLY_TYPE, REQUEST_TYPE, Reply, Request, parse_reply, request_content

if TYPE_CHECKING:
    from jupyter_client.manager import KernelManager
    from jupyter_server.services.kernels.kernelmanager import MappingKernelManager

PROBE_TYPE = "kernel_info_request"
GRACE_SECONDS = 1.0
"""How long a kernel that has answered the probe may still be writing the reply to what was asked before it."""

_PROTOCOL_VERSION = "5.4"  # Jupyter's messaging protocol
_MAX_MESSAGE_BYTES = 64 * 1024 * 1024  # what a running cell shows comes along and is thrown away
ASK_TIMEOUT_SECONDS = 10.0
MAX_CALLS = 32
_log = logging.getLogger(__name__)


class Silence(enum.Enum):
    """What stands in place of a kernel's reply; each value says what happened."""

    NO_KERNEL = "The notebook's kernel is not running any more."
    NOT_LISTENING = "The notebook's kernel does not know this sign-in: it was restarted, or a newer one took its place."
    NO_REPLY = "The notebook's kernel did not answer in time."
    BUSY = "Too many sign-ins go on at this server at once."

    @property
    def remedy(self) -> str:
        """What to do about it."""
        if self is Silence.BUSY:
            return "Wait a moment and reload this page."
        return "Go back to the notebook and run %micromegas_login again."


async def ask_by_control_channel(manager: KernelManager, content: dict[str, object]) -> dict[str, Any] | Silence:
    """Send a request and return the content of its reply; the caller sets the deadline.

    A kernel that does not know the request says nothing, so it is asked something that every kernel knows next.
    """
    import zmq.asyncio
    from jupyter_client.connect import ConnectionFileMixin

    session = manager.session.clone()
    session.session = uuid4().hex  # a socket of the manager's own has its identity already
    # By the base class's method: the server's own managers wrap the socket in a stream of an older kind.
    connected = ConnectionFileMixin.connect_control(manager, identity=session.bsession)
    # A manager that is not asynchronous gives a socket that would block.
    socket = connected if isinstance(connected, zmq.asyncio.Socket) else zmq.asyncio.Socket.from_socket(connected)
    try:
        asked = session.send(socket, REQUEST_TYPE, content)["header"]["msg_id"]
        probed = session.send(socket, PROBE_TYPE, {})["header"]["msg_id"]
        grace = None
        while True:
            receiving = socket.recv_multipart()
            frames = await (receiving if grace is None else asyncio.wait_for(receiving, grace))
            message = session.deserialize(session.feed_identities(frames)[1])
            parent = message["parent_header"].get("msg_id")
            if parent == asked and message["msg_type"] == REPLY_TYPE:
                return dict(message["content"])
            if parent == probed:
                grace = GRACE_SECONDS
    except TimeoutError:
        return Silence.NOT_LISTENING if grace is not None else Silence.NO_REPLY
    finally:
        socket.close(linger=0)
        connected.close(linger=0)


async def ask_by_gateway(kernel_id: str, content: dict[str, object]) -> dict[str, Any] | Silence:
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
        return Silence.NO_KERNEL
    try:
        asked, probed = uuid4().hex, uuid4().hex
        session = uuid4().hex
        await connection.write_message(_message(asked, session, REQUEST_TYPE, content))
        await connection.write_message(_message(probed, session, PROBE_TYPE, {}))
        grace = None
        while True:
            receiving = connection.read_message()
            text = await (receiving if grace is None else asyncio.wait_for(receiving, grace))
            if text is None:
                return Silence.NO_KERNEL
            parent, kind, found = _read(text)
            if parent == asked and kind == REPLY_TYPE:
                return found
            if parent == probed and kind == "kernel_info_reply":
                grace = GRACE_SECONDS
    except WebSocketClosedError:
        return Silence.NO_KERNEL
    except TimeoutError:
        return Silence.NOT_LISTENING if grace is not None else Silence.NO_REPLY
    finally:
        connection.close()


def _message(message_id: str, session: str, kind: str, content: dict[str, object]) -> str:
    header = {
        "msg_id": message_id,
        "msg_type": kind,
        "username": "",
        "session": session,
        "version": _PROTOCOL_VERSION,
        "date": "",
    }
    return json.dumps(
        {
            "header": header,
            "parent_header": {},
            "metadata": {},
            "content": content,
            "channel": "control",
            "buffers": [],
        }
    )


def _read(text: str | bytes) -> tuple[object, object, dict[str, Any]]:
    """Return a message's parent, kind and content; empty ones for what is no message of the control channel."""
    if isinstance(text, bytes):
        return None, None, {}  # a message with buffers
    try:
        message = json.loads(text)
        if message["channel"] != "control":
            return None, None, {}
        return message["parent_header"].get("msg_id"), message["header"]["msg_type"], dict(message["content"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None, None, {}


class KernelCalls:
    """Asks kernels; holds nothing but how many are being asked."""

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
