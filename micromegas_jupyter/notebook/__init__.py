"""The IPython extension: magics, the identity widget, results and completion. Nothing heavy loads before it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["load_ipython_extension", "unload_ipython_extension"]


def load_ipython_extension(ip: InteractiveShell) -> None:
    """Register the magics; IPython calls this for `%load_ext micromegas_jupyter`."""
    from micromegas_jupyter.notebook.extension import register
    from micromegas_jupyter.notebook.login.connections import Dependencies

    register(ip, Dependencies())


def unload_ipython_extension(ip: InteractiveShell) -> None:
    """Remove the magics and close their resources; IPython calls this for `%unload_ext`."""
    from micromegas_jupyter.notebook.extension import unregister

    unregister(ip)
