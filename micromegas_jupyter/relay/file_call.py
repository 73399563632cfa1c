"""Asks a kernel of this machine through files, for kernels whose control channel takes no messages of extensions.

The kernel made a folder for that, closed to others, and looks into it from time to time.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from uuid import uuid4

from micromegas_jupyter.private_files import (
    FileProblem,
    NoSuchFile,
    read_private_file,
    remove_file,
    write_private_file,
)
from micromegas_jupyter.redirect.mailbox import FOLDER, MAX_MESSAGE_BYTES, reply_file, request_file
from micromegas_jupyter.relay.silence import Silence

_POLL_SECONDS = 0.02


async def ask_by_files(key: str, content: dict[str, object]) -> dict[str, Any] | Silence:
    """Write a request and return the content of its reply; the caller sets the deadline.

    Args:
        key: The name of the kernel's folder.
        content: The request.
    """
    from jupyter_core.paths import jupyter_runtime_dir

    folder = Path(jupyter_runtime_dir()) / FOLDER / key
    if folder.is_symlink() or not folder.is_dir():
        return Silence.NO_KERNEL
    message_id = uuid4().hex
    request, reply = folder / request_file(message_id), folder / reply_file(message_id)
    try:
        await asyncio.to_thread(write_private_file, request, json.dumps(content).encode())
        while True:
            try:
                text, _ = await asyncio.to_thread(read_private_file, reply, max_bytes=MAX_MESSAGE_BYTES)
            except NoSuchFile:
                await asyncio.sleep(_POLL_SECONDS)
            else:
                found = json.loads(text)
                return found if isinstance(found, dict) else Silence.NO_REPLY
    except (FileProblem, ValueError):
        return Silence.NO_REPLY
    finally:
        # A code must not lie there, whatever became of the kernel.
        for path in (request, reply):
            _remove(path)


def _remove(path: Path) -> None:
    try:
        remove_file(path)
    except FileProblem:
        return
