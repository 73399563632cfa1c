"""The only place where real parts are joined: settings in, working sessions, clients and servers out.

Each name loads its parts when it is first used, so that a terminal command pays only for what it needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from micromegas_jupyter.assembly.client_side import (
        begin_login,
        connect,
        login,
        open_client,
        service_account_provider,
        sign_in_configured,
        stored_provider,
    )
    from micromegas_jupyter.assembly.environment import config_folder, load_client_settings, token_file
    from micromegas_jupyter.assembly.server_side import ServeOptions, ServerStack

_HOME = {
    "ServeOptions": "server_side",
    "ServerStack": "server_side",
    "begin_login": "client_side",
    "config_folder": "environment",
    "connect": "client_side",
    "load_client_settings": "environment",
    "login": "client_side",
    "open_client": "client_side",
    "service_account_provider": "client_side",
    "sign_in_configured": "client_side",
    "stored_provider": "client_side",
    "token_file": "environment",
}

__all__ = [
    "ServeOptions",
    "ServerStack",
    "begin_login",
    "config_folder",
    "connect",
    "load_client_settings",
    "login",
    "open_client",
    "service_account_provider",
    "sign_in_configured",
    "stored_provider",
    "token_file",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
