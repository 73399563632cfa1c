"""The only place where real parts are joined: settings in, working sessions, clients and servers out.

Each name loads its parts when it is first used, so that a terminal command pays only for what it needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from micromegas_jupyter.wiring.client_side import (
        config_folder,
        connect,
        is_wrapped,
        load_client_settings,
        logout,
        open_client,
        remember_flow,
        remembered_flow,
        service_account_provider,
        sign_in_configured,
        stored_logins,
        stored_provider,
        token_file,
        token_store,
        uses_hub,
        without_wrapper,
    )
    from micromegas_jupyter.wiring.credentials import client_proof, provider_http, service_provider
    from micromegas_jupyter.wiring.server import ServerStack
    from micromegas_jupyter.wiring.sign_in import (
        begin_login,
        choose_flow,
        login,
        require_flow,
        sentence_of,
    )

_HOME = {
    "ServerStack": "server",
    "begin_login": "sign_in",
    "choose_flow": "sign_in",
    "client_proof": "credentials",
    "config_folder": "client_side",
    "connect": "client_side",
    "is_wrapped": "client_side",
    "load_client_settings": "client_side",
    "login": "sign_in",
    "logout": "client_side",
    "open_client": "client_side",
    "require_flow": "sign_in",
    "sentence_of": "sign_in",
    "provider_http": "credentials",
    "remember_flow": "client_side",
    "remembered_flow": "client_side",
    "service_account_provider": "client_side",
    "service_provider": "credentials",
    "sign_in_configured": "client_side",
    "token_store": "client_side",
    "stored_provider": "client_side",
    "uses_hub": "client_side",
    "without_wrapper": "client_side",
    "stored_logins": "client_side",
    "token_file": "client_side",
}

__all__ = [
    "ServerStack",
    "begin_login",
    "choose_flow",
    "client_proof",
    "config_folder",
    "connect",
    "is_wrapped",
    "load_client_settings",
    "login",
    "logout",
    "open_client",
    "provider_http",
    "remember_flow",
    "remembered_flow",
    "require_flow",
    "sentence_of",
    "service_account_provider",
    "service_provider",
    "sign_in_configured",
    "stored_logins",
    "stored_provider",
    "token_file",
    "token_store",
    "uses_hub",
    "without_wrapper",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
