"""The only place where real parts are joined: settings in, working sessions, clients and servers out."""

from micromegas_jupyter.wiring.client_side import token_store as token_store
