"""Where this kernel takes its Jupyter server's requests about sign-ins: found out, opened once, kept for the kernel.

What is asked and answered is `auth.redirect_desk`'s; the two ways in which requests come are `control_channel` and
`file_mailbox`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from micromegas_jupyter.redirect.redirect_address import public_base
from micromegas_jupyter.redirect.routing import is_kernel_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from micromegas_jupyter.auth.redirect_desk import RedirectDesk
    from micromegas_jupyter.seams import Randomness

_CONNECTION_FILE = re.compile(r"kernel-(.+)\.json")
_KERNEL_ID_VARIABLE = "KERNEL_ID"  # set by gateways that start kernels on other machines
_LOCAL_BASE = re.compile(r"/(?:[\x21-\x7e]*/)?", re.ASCII)
_MAILBOX_RANDOM_BYTES = 16


class Intake(Protocol):
    """One way in which a server's requests reach this kernel."""

    desk: RedirectDesk

    def listen(self, seconds: float) -> None:
        """Take requests for that long at least; returns at once."""
        ...


class RedirectDesks:
    """The kernel's one desk, made when it is first needed; used by cells only, which run one after the other.

    Args:
        environ: The kernel's variables.
        randomness: Draws names.
    """

    def __init__(self, environ: Mapping[str, str], *, randomness: Randomness) -> None:
        self._environ = environ
        self._randomness = randomness
        self._intake: Intake | None = None

    def open(self, kernel: object, variable: str, *, seconds: float) -> RedirectDesk | None:
        """Return the desk, which takes requests from now on; None where no server speaks to this kernel.

        Args:
            kernel: The kernel, as the shell knows it.
            variable: Where the server says what its pages lie below.
            seconds: For how long requests are taken at least.
        """
        if self._intake is None:
            self._intake = self._make(kernel, base_address(self._environ.get(variable, "")))
        if self._intake is None:
            return None
        self._intake.listen(seconds)
        return self._intake.desk

    def _make(self, kernel: object, base: str | None) -> Intake | None:
        from micromegas_jupyter.auth.redirect_desk import RedirectDesk

        if kernel is None or base is None:
            return None
        kernel_id = kernel_id_of(kernel, self._environ)
        handlers = getattr(kernel, "control_handlers", None)
        if kernel_id is not None and isinstance(handlers, dict):
            from micromegas_jupyter.notebook.control_channel import ControlChannel

            return ControlChannel(kernel, RedirectDesk(kernel_id=kernel_id, base_address=base))
        from micromegas_jupyter.notebook.file_mailbox import FileMailbox
        from micromegas_jupyter.redirect.mailbox import mailbox_key

        key = mailbox_key(self._randomness.token_urlsafe(_MAILBOX_RANDOM_BYTES))
        return FileMailbox(RedirectDesk(kernel_id=key, base_address=base))


def base_address(value: str) -> str | None:
    """Return what a server's pages lie below: a path when it does not know its own address; None if neither."""
    if _LOCAL_BASE.fullmatch(value) and not value.startswith("//"):
        return value
    return public_base(value)


def kernel_id_of(kernel: object, environ: Mapping[str, str]) -> str | None:
    """Return the id by which a Jupyter server knows this kernel; None when it cannot be told."""
    # Jupyter's servers and gateways name the connection file after it.
    connection_file = getattr(getattr(kernel, "parent", None), "connection_file", None)
    found = _CONNECTION_FILE.fullmatch(Path(str(connection_file)).name)
    kernel_id = found.group(1) if found else environ.get(_KERNEL_ID_VARIABLE, "")
    return kernel_id if is_kernel_id(kernel_id) else None
