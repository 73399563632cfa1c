"""Test your notebooks and scripts: a server on this machine with signed-in users, without accounts.

With pytest, use the fixtures in `micromegas_jupyter.testing.plugin`.
"""

from micromegas_jupyter.testing.server import LocalServer, local_server

__all__ = ["LocalServer", "local_server"]
