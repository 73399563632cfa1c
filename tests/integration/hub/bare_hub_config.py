"""The configuration of a Hub without this project's service, whose people sign in by a password that the Hub knows.

JupyterHub runs it, with `TEST_HUB` naming its own values in a JSON file.
"""

import json
import os
from pathlib import Path

values = json.loads(Path(os.environ["TEST_HUB"]).read_text(encoding="utf-8"))
c = get_config()  # noqa: F821 - JupyterHub defines it

c.JupyterHub.bind_url = values["url"]
c.JupyterHub.hub_port = values["hub_port"]
c.JupyterHub.db_url = f"sqlite:///{values['folder']}/hub.sqlite"
c.JupyterHub.cookie_secret_file = f"{values['folder']}/cookie_secret"
c.JupyterHub.log_level = "INFO"
c.ConfigurableHTTPProxy.command = values["proxy_command"]
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{values['proxy_port']}"
c.ConfigurableHTTPProxy.pid_file = f"{values['folder']}/proxy.pid"

c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = values["witness_token"]
c.Authenticator.allow_all = True

c.Spawner.cmd = [values["python"], "-m", "jupyterhub.singleuser"]
c.Spawner.environment = values["environment"]
c.Spawner.http_timeout = 120
c.Spawner.start_timeout = 120

# Who starts servers and runs code in kernels for the tests.
c.JupyterHub.services = [{"name": "witness", "api_token": values["witness_token"]}]
c.JupyterHub.load_roles = [
    {"name": "witness", "scopes": ["admin:users", "admin:servers", "access:servers"], "services": ["witness"]}
]
