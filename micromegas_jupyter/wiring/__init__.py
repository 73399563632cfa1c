"""The only place where real parts are joined: settings in, working sessions, clients and servers out.

Each name loads its module when it is first used, so that a terminal command pays only for what it needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from micromegas_jupyter.wiring.client_side import config_folder as config_folder
    from micromegas_jupyter.wiring.client_side import connect as connect
    from micromegas_jupyter.wiring.client_side import is_wrapped as is_wrapped
    from micromegas_jupyter.wiring.client_side import load_client_settings as load_client_settings
    from micromegas_jupyter.wiring.client_side import logout as logout
    from micromegas_jupyter.wiring.client_side import open_client as open_client
    from micromegas_jupyter.wiring.client_side import remember_flow as remember_flow
    from micromegas_jupyter.wiring.client_side import remembered_flow as remembered_flow
    from micromegas_jupyter.wiring.client_side import service_account_provider as service_account_provider
    from micromegas_jupyter.wiring.client_side import sign_in_configured as sign_in_configured
    from micromegas_jupyter.wiring.client_side import stored_logins as stored_logins
    from micromegas_jupyter.wiring.client_side import stored_provider as stored_provider
    from micromegas_jupyter.wiring.client_side import token_file as token_file
    from micromegas_jupyter.wiring.client_side import token_store as token_store
    from micromegas_jupyter.wiring.client_side import uses_hub as uses_hub
    from micromegas_jupyter.wiring.client_side import without_wrapper as without_wrapper
    from micromegas_jupyter.wiring.credentials import client_proof as client_proof
    from micromegas_jupyter.wiring.credentials import provider_http as provider_http
    from micromegas_jupyter.wiring.credentials import service_provider as service_provider
    from micromegas_jupyter.wiring.server import ServerStack as ServerStack
    from micromegas_jupyter.wiring.sign_in import begin_login as begin_login
    from micromegas_jupyter.wiring.sign_in import choose_flow as choose_flow
    from micromegas_jupyter.wiring.sign_in import login as login
    from micromegas_jupyter.wiring.sign_in import require_flow as require_flow
    from micromegas_jupyter.wiring.sign_in import sentence_of as sentence_of

_MODULES = {
    "credentials": ("client_proof", "provider_http", "service_provider"),
    "server": ("ServerStack",),
    "sign_in": ("begin_login", "choose_flow", "login", "require_flow", "sentence_of"),
}


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = next((module for module, names in _MODULES.items() if name in names), "client_side")
    return getattr(import_module(f"{__name__}.{home}"), name)
