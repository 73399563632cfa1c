"""The configuration of the tests' Hub: what the administrators' guide says, and what only the tests need.

JupyterHub runs it; `TEST_HUB` names the Hub's own values in a JSON file.
"""

import json
import os
from pathlib import Path

from traitlets.config import Config

values = json.loads(Path(os.environ["TEST_HUB"]).read_text(encoding="utf-8"))
c = get_config()  # noqa: F821 - JupyterHub defines it

c.JupyterHub.bind_url = values["url"]
c.JupyterHub.hub_port = values["hub_port"]
c.JupyterHub.db_url = f"sqlite:///{values['folder']}/hub.sqlite"
c.JupyterHub.cookie_secret_file = f"{values['folder']}/cookie_secret"
c.JupyterHub.allow_named_servers = True
c.JupyterHub.cleanup_servers = values["is_bare"]
c.ConfigurableHTTPProxy.command = values["proxy_command"]
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{values['proxy_port']}"
c.ConfigurableHTTPProxy.pid_file = f"{values['folder']}/proxy.pid"
c.Spawner.cmd = [values["python"], "-m", "jupyterhub.singleuser"]
c.Spawner.http_timeout = 120
c.Spawner.start_timeout = 120

# Who starts servers and runs code in kernels for the tests, and knows what must not be found anywhere.
c.JupyterHub.services = [{"name": "witness", "api_token": values["witness_token"], "admin": True}]
c.JupyterHub.load_roles = [
    {
        "name": "witness",
        "scopes": ["admin:auth_state", "admin:users", "admin:servers", "access:servers", "tokens"],
        "services": ["witness"],
    }
]


def run_guide(config, text):
    """Run a configuration of the guide, as the chart does with `hub.config` before it runs `hub.extraConfig`."""
    for section, settings in values["sections"].items():
        config[section].update(settings)
    exec(compile(text, "the guide", "exec"), {"c": config})


c.Spawner.environment = {}
if values["is_bare"]:
    # Without this project's service: people sign in by a password that the Hub knows.
    c.JupyterHub.authenticator_class = "dummy"
    c.DummyAuthenticator.password = values["witness_token"]
    c.Authenticator.allow_all = True
else:
    run_guide(c, values["guide"])

    # The same service once more, which exchanges tokens: a Hub has one, so here it has another name.
    exchanging = Config()
    run_guide(exchanging, values["exchanging_guide"])
    own_role = next(role for role in exchanging.JupyterHub.load_roles if role.get("services"))
    c.JupyterHub.services.append({**exchanging.JupyterHub.services[-1], "name": "exchanging"})
    c.JupyterHub.load_roles.append({**own_role, "name": "exchanging", "services": ["exchanging"]})

    c.GenericOAuthenticator.username_claim = lambda person: values["names"][person["sub"]]
    c.GenericOAuthenticator.extra_authorize_params = {"prompt": "consent"}
    c.GenericOAuthenticator.auto_login = True
c.Spawner.environment = {**c.Spawner.environment, **values["environment"]}
