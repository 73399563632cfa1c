"""The configuration of the tests' Hub; JupyterHub runs it, with `TEST_HUB` naming its own values in a JSON file."""

import json
import os
from pathlib import Path

from micromegas_jupyter.hub import configure

values = json.loads(Path(os.environ["TEST_HUB"]).read_text(encoding="utf-8"))
c = get_config()  # type: ignore[name-defined]  # noqa: F821 - JupyterHub defines it

c.JupyterHub.bind_url = values["url"]
c.JupyterHub.hub_port = values["hub_port"]
c.JupyterHub.db_url = f"sqlite:///{values['folder']}/hub.sqlite"
c.JupyterHub.cookie_secret_file = f"{values['folder']}/cookie_secret"
c.JupyterHub.allow_named_servers = True
c.JupyterHub.log_level = "INFO"
c.ConfigurableHTTPProxy.command = values["proxy_command"]
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{values['proxy_port']}"
c.ConfigurableHTTPProxy.pid_file = f"{values['folder']}/proxy.pid"

c.JupyterHub.authenticator_class = "generic-oauth"
c.GenericOAuthenticator.client_id = values["client_id"]
c.GenericOAuthenticator.client_secret = values["client_secret"]
c.GenericOAuthenticator.oauth_callback_url = f"{values['url']}hub/oauth_callback"
c.GenericOAuthenticator.authorize_url = f"{values['issuer']}/auth"
c.GenericOAuthenticator.token_url = f"{values['issuer']}/token"
c.GenericOAuthenticator.userdata_url = f"{values['issuer']}/me"
c.GenericOAuthenticator.scope = ["openid", "email", "profile", "offline_access"]
c.GenericOAuthenticator.extra_authorize_params = {"prompt": "consent"}
c.GenericOAuthenticator.username_claim = lambda person: values["names"][person["sub"]]
c.GenericOAuthenticator.allow_all = True
c.GenericOAuthenticator.auto_login = True

c.Spawner.cmd = [values["python"], "-m", "jupyterhub.singleuser"]
c.Spawner.environment = values["environment"]
c.Spawner.http_timeout = 120
c.Spawner.start_timeout = 120

# Who starts servers and runs code in kernels for the tests, and knows what must not be found anywhere.
c.JupyterHub.services = [{"name": "witness", "api_token": values["witness_token"]}]
c.JupyterHub.load_roles = [
    {
        "name": "witness",
        "scopes": ["admin:auth_state", "admin:users", "admin:servers", "access:servers", "tokens"],
        "services": ["witness"],
    }
]

configure(
    c,
    issuer=values["issuer"],
    public_url=values["url"],
    service_url=f"http://127.0.0.1:{values['service_port']}",
    redirect_client_id=values["redirect_client_id"],
    margin_seconds=values["margin_seconds"],
)
