"""Asks a kernel of this machine over its control channel, which is answered while a cell runs.

What is asked is the caller's business; kernels behind a gateway are `gateway_call`'s.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from micromegas_jupyter.redirect.messages import REPLY_TYPE, REQUEST_TYPE
from micromegas_jupyter.relay.silence import Silence

if TYPE_CHECKING:
    from jupyter_client.manager import KernelManager

PROBE_TYPE = "kernel_info_request"
GRACE_SECONDS = 1.0
"""How long a kernel that has answered the probe may still be writing the reply to what was asked before it."""


async def ask_by_control_channel(manager: KernelManager, content: dict[str, object]) -> dict[str, Any] | Silence:
    """Send a request and return the content of its reply; the caller sets the deadline.

    A kernel that does not know the request says nothing, so it is asked something that every kernel knows next.

    Args:
        manager: The kernel.
        content: The request.
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
