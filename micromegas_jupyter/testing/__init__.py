"""Test your own notebooks and scripts: a server on this machine, with people who are signed in, and no account.

With pytest, the fixtures of `micromegas_jupyter.testing.plugin` do it.
"""

from micromegas_jupyter.testing.server import LocalServer, local_server

__all__ = ["LocalServer", "local_server"]
