"""The Jupyter server's part in a sign-in by redirect: sends browsers off, hands the kernel what they bring.

It keeps nothing: verifier, state, nonce and tokens are the kernel's (`auth.redirect_login`), and what both sides say
to each other is `redirect`'s. Loading this module loads no handler before a server asks for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp

__all__: list[str] = []


def _load_jupyter_server_extension(serverapp: ServerApp) -> None:
    """Add the sign-in addresses to a server and tell its kernels; Jupyter calls this when it starts."""
    from micromegas_jupyter.server_extension.extension import load

    load(serverapp)
