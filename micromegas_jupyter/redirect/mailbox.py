"""Names of the files by which a server and a kernel without a control channel for extensions talk on one machine.

Reading and writing them is `relay`'s and `notebook`'s. A kernel's folder lies in Jupyter's runtime folder, and its
name stands in the place of the kernel's id: a server that sees it looks for the folder in place of a kernel.
"""

import re

FOLDER = "micromegas"
MAX_MESSAGE_BYTES = 64 * 1024
REQUEST_SUFFIX = ".request"
REPLY_SUFFIX = ".reply"

_PREFIX = "file-"
_KEY = re.compile(r"file-[A-Za-z0-9_-]{1,48}", re.ASCII)
_REQUEST = re.compile(r"[0-9a-f]{32}\.request", re.ASCII)


def mailbox_key(random: str) -> str:
    """Return the name of a kernel's folder, which stands for the kernel's id."""
    return f"{_PREFIX}{random}"


def is_mailbox_key(kernel_id: str) -> bool:
    """Whether a kernel's id is the name of such a folder."""
    return _KEY.fullmatch(kernel_id) is not None


def is_request_file(name: str) -> bool:
    """Whether a file of the folder is a request."""
    return _REQUEST.fullmatch(name) is not None


def request_file(message_id: str) -> str:
    """Return the name of a request's file; `message_id` is 32 hexadecimal digits."""
    return f"{message_id}{REQUEST_SUFFIX}"


def reply_file(message_id: str) -> str:
    """Return the name of the file of the reply to it."""
    return f"{message_id}{REPLY_SUFFIX}"
