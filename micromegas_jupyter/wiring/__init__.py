"""The only place where components are connected; turns settings into working sessions, clients, and servers."""

from micromegas_jupyter.wiring.client_side import token_store as token_store
