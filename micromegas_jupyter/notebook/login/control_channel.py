"""Handles a Jupyter server's requests about sign-ins on the kernel's control channel, also while a cell runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from micromegas_jupyter.auth.flows.jupyter import REPLY_TYPE, REQUEST_TYPE, is_kernel_id, public_base
from micromegas_jupyter.errors import LoginFailed

if TYPE_CHECKING:
    import logging
    from collections.abc import Mapping

    from micromegas_jupyter.auth.flows.jupyter import RedirectLogins

_CONNECTION_FILE = re.compile(r"kernel-(.+)\.json")
_KERNEL_ID_VARIABLE = "KERNEL_ID"  # set by gateways that start kernels on other machines
_LOCAL_BASE = re.compile(r"/(?:[\x21-\x7e]*/)?", re.ASCII)


def open_redirects(kernel: object, environ: Mapping[str, str]) -> RedirectLogins | None:
    """Return the handler of redirect sign-ins of this kernel; None where no server sends it requests."""
    from micromegas_jupyter.auth.flows.jupyter import RedirectLogins
    from micromegas_jupyter.auth.flows.select import REDIRECT_VARIABLE

    base = base_address(environ.get(REDIRECT_VARIABLE, ""))
    if kernel is None or base is None:
        return None
    kernel_id = kernel_id_of(kernel, environ)
    if kernel_id is None or not isinstance(getattr(kernel, "control_handlers", None), dict):
        raise LoginFailed(
            "This kernel accepts no messages from the Jupyter server.",
            remedy="Run %micromegas_login --flow device.",
        )
    return RedirectLogins(kernel_id=kernel_id, base_address=base)


def listen(kernel: Any, redirects: RedirectLogins) -> None:
    """Let `redirects` answer the requests to an IPython kernel from now on, in place of an earlier one."""

    def handle(stream: object, ident: object, parent: dict[str, Any]) -> None:
        # On the kernel's control thread, so nothing blocks. The kernel stores the message as the last of its channel.
        content, parent["content"] = parent.get("content"), {}
        kernel.session.send(stream, REPLY_TYPE, redirects.reply_to(content), parent, ident)

    kernel.control_handlers[REQUEST_TYPE] = handle
    add_filter = getattr(getattr(kernel, "log", None), "addFilter", None)
    if callable(add_filter):
        add_filter(hides_requests)


def hides_requests(record: logging.LogRecord) -> bool:
    """Whether a log line may be written: a kernel that logs what it receives would log a code."""
    arguments = record.args if isinstance(record.args, tuple) else (record.args,)
    return not any(_is_request(argument) for argument in arguments)


def _is_request(argument: Mapping[str, object] | object) -> bool:
    header = argument.get("header") if isinstance(argument, dict) else None
    return isinstance(header, dict) and header.get("msg_type") == REQUEST_TYPE


def base_address(value: str) -> str | None:
    """Return the base of a server's pages: a path when it does not know its own address; None if neither."""
    if _LOCAL_BASE.fullmatch(value) and not value.startswith("//"):
        return value
    return public_base(value)


def kernel_id_of(kernel: object, environ: Mapping[str, str]) -> str | None:
    """Return the id by which a Jupyter server knows this kernel; None when it is not known."""
    # Jupyter's servers and gateways name the connection file after it.
    connection_file = getattr(getattr(kernel, "parent", None), "connection_file", None)
    found = _CONNECTION_FILE.fullmatch(Path(str(connection_file)).name)
    kernel_id = found.group(1) if found else environ.get(_KERNEL_ID_VARIABLE, "")
    return kernel_id if is_kernel_id(kernel_id) else None
