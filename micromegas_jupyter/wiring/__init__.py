"""The only place where real parts are joined: settings in, working sessions, clients and servers out."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "token_store":  # its documented place; loaded when it is used
        from micromegas_jupyter.wiring.client_side import token_store

        return token_store
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
