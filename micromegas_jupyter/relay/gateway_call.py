"""Asks a kernel behind a Jupyter gateway, through the websocket that the gateway offers for its channels.

Jupyter's own gateway client does not reach the control channel. What is asked is the caller's business.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import uuid4

from micromegas_jupyter.redirect.messages import REPLY_TYPE, REQUEST_TYPE
from micromegas_jupyter.relay.control_call import GRACE_SECONDS, PROBE_TYPE
from micromegas_jupyter.relay.silence import Silence

_PROTOCOL_VERSION = "5.4"  # Jupyter's messaging protocol
_MAX_MESSAGE_BYTES = 64 * 1024 * 1024  # what a running cell shows comes along and is thrown away


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
