"""`configure`: what it adds to a Hub's configuration, and what it refuses."""

import asyncio

import pytest
from jupyterhub import version_info
from jupyterhub.spawner import SimpleLocalProcessSpawner
from oauthenticator.generic import GenericOAuthenticator
from oauthenticator.google import GoogleOAuthenticator
from traitlets.config import Config

from micromegas_jupyter.errors import ConfigurationError, ProviderMisbehaved, ProviderUnavailable
from micromegas_jupyter.hub import configure
from micromegas_jupyter.hub.configuration import kernel_address
from tests.fakes.loopback_http import Reply
from tests.fakes.tls_provider import TlsProvider

ISSUER = "https://id.example.com"
GOOGLE = "https://accounts.google.com"
SECRET = "the secret of the application"
ENDPOINTS = ("authorize_url", "token_url", "userdata_url")
SERVICE_URL = "http://127.0.0.1:8190"


def hub_config(**sections):
    config = Config()
    config.JupyterHub.authenticator_class = "generic-oauth"
    config.GenericOAuthenticator.client_id = "hub"
    config.GenericOAuthenticator.client_secret = SECRET
    config.GenericOAuthenticator.scope = ["openid", "offline_access"]
    for name in ENDPOINTS:
        config.GenericOAuthenticator[name] = f"{ISSUER}/{name}"
    for name, values in sections.items():
        config[name].update(values)
    return config


def configured(config, **arguments):
    configure(config, issuer=ISSUER, **arguments)
    return next(entry for entry in config.JupyterHub.services if entry["name"] == "micromegas")


def refusal(config, **arguments):
    with pytest.raises(ConfigurationError) as caught:
        configure(config, issuer=arguments.pop("issuer", ISSUER), **arguments)
    return caught.value


@pytest.fixture(autouse=True)
def _crypt_key(monkeypatch):
    monkeypatch.setenv("JUPYTERHUB_CRYPT_KEY", "00" * 32)


def test_the_service_is_added_beside_others_and_knows_provider_and_application():
    config = hub_config(JupyterHub={"services": [{"name": "culler"}]})

    service = configured(config, public_url="https://hub.example.com")

    assert [entry["name"] for entry in config.JupyterHub.services] == ["culler", "micromegas"]
    assert service["command"][1:] == ["-m", "micromegas_jupyter.hub"]
    assert service["oauth_no_confirm"] is True
    assert service["environment"] == {
        "MICROMEGAS_HUB_ISSUER": ISSUER,
        "MICROMEGAS_HUB_CLIENT_ID": "hub",
        "MICROMEGAS_HUB_BEARER": "id_token",
        "MICROMEGAS_HUB_PUBLIC_URL": "https://hub.example.com/",
    }


class TlsIssuer(TlsProvider):
    """A provider's discovery document under a private authority; `names` is how it calls itself."""

    def __init__(self, folder):
        super().__init__(folder)
        self.issuer = self.names = self.url.removesuffix("/document")
        self.paths = {"jwks_uri": "keys", "authorization_endpoint": "in", "token_endpoint": "t"}

    def handle(self, seen):
        if "/realms/" in seen.path:
            return Reply(status=404, body="no such page")
        paths = self.paths
        return Reply(body={"issuer": self.names, **{name: f"{self.issuer}/{path}" for name, path in paths.items()}})


def test_addresses_that_are_not_set_come_from_discovery_through_a_private_authority_that_the_hub_trusts_too(tmp_path):
    def without_addresses(*names):
        config = hub_config()
        for name in names:
            del config.GenericOAuthenticator[name]
        return config

    with TlsIssuer(tmp_path) as provider:
        bare = without_addresses("userdata_url")
        configure(bare, issuer=provider.issuer, ca_bundle=str(provider.ca_file))
        provider.paths["userinfo_endpoint"] = "me"
        given = {"issuer": provider.issuer, "ca_bundle": str(provider.ca_file)}
        chosen = without_addresses("userdata_url")
        chosen.GenericOAuthenticator.userdata_from_id_token = True
        configure(chosen, **given)
        config = without_addresses("authorize_url", "userdata_url")
        configure(config, **given)
        hub = GenericOAuthenticator(config=config)
        answer = asyncio.run(hub.httpfetch(hub.userdata_url))
        with pytest.raises(ProviderUnavailable):
            configure(without_addresses("token_url"), issuer=provider.issuer)
        with pytest.raises(ProviderUnavailable) as unknown:
            configure(without_addresses("token_url"), **{**given, "issuer": f"{provider.issuer}/realms/none"})
        provider.names = "https://another.example"
        with pytest.raises(ProviderMisbehaved):
            configure(without_addresses("token_url"), **given)

    assert "status 404" in unknown.value.what
    # What such a provider says of people is in the ID token.
    for without in (bare, chosen):
        assert GenericOAuthenticator(config=without).userdata_from_id_token
    addresses = [f"{provider.issuer}/in", f"{ISSUER}/token_url", f"{provider.issuer}/me"]
    assert [getattr(hub, name) for name in ENDPOINTS] == addresses
    assert answer["issuer"] == provider.issuer
    assert config.JupyterHub.services[0]["environment"]["MICROMEGAS_HUB_CA_BUNDLE"] == given["ca_bundle"]


def test_lists_and_variables_that_were_only_added_to_are_kept():
    config = hub_config()
    config.JupyterHub.services.append({"name": "culler"})
    config.JupyterHub.load_roles.append({"name": "culler", "scopes": ["servers"], "services": ["culler"]})
    config.Spawner.environment.update({"TEAM": "blue"})

    configured(config, kernel_url="http://hub:8190/services/micromegas")

    assert [entry["name"] for entry in config.JupyterHub.services] == ["culler", "micromegas"]
    assert config.JupyterHub.load_roles[1:] == [
        {"name": "user", "scopes": ["self", "access:services!service=micromegas"]},
        {
            "name": "micromegas-sign-in",
            "description": "Gives each user's kernels that user's token",
            "scopes": ["admin:auth_state", "read:users:name"],
            "services": ["micromegas"],
        },
    ]
    assert config.Spawner.environment == {
        "TEAM": "blue",
        "KERNEL_MICROMEGAS_HUB": "http://hub:8190/services/micromegas/",
    }


def test_where_each_server_has_a_host_name_of_its_own_kernels_call_the_service_itself():
    config = hub_config(JupyterHub={"subdomain_host": "https://hub.example.com", "base_url": "/jupyter/"})

    configured(config, service_url="http://127.0.0.1:8191")

    url = config.Spawner.environment["KERNEL_MICROMEGAS_HUB"]
    assert url == "http://127.0.0.1:8191/jupyter/services/micromegas/"


def test_the_secret_goes_to_the_service_only_for_an_exchange():
    plain = configured(hub_config())
    exchanging = configured(hub_config(), exchange_audience="lake")

    assert SECRET not in str(plain)
    assert exchanging["environment"]["MICROMEGAS_HUB_CLIENT_SECRET"] == SECRET
    assert exchanging["environment"]["MICROMEGAS_HUB_EXCHANGE_AUDIENCE"] == "lake"


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("issuer", ["http://id.example.com", None, 1, " ", "https://id.example.com\n"]),
        ("service_url", ["https://hub:8190", "http://hub", "http://hub:8190/services", 8190]),
        ("bearer", [None, "", "ID_TOKEN", "refresh_token", 1, ["id_token"]]),
        ("public_url", ["hub.example.com", "http://hub:99999", "http://hub:0", 8190]),
        ("kernel_url", ["", "hub", "ftp://hub", "http://hub:99999", "http://hub:0", b"http://hub", 8190]),
        ("margin_seconds", [None, "60", True, 60.0, 1, 3601, float("nan")]),
        ("redirect_client_id", [["notebooks"], True, "lake\n"]),
        ("exchange_audience", [1, True, ["lake"], b"lake", " ", "lake\n", "la\x00ke"]),
        ("exchange_resource", [1, "lake", "/lake", "https://lake.example.com#rows", "https:", "http://[lake"]),
        ("exchange_scope", [True, " "]),
        ("allow_shared_system_user", ["false", "no", "", None, 0, 1]),
    ],
)
def test_an_invalid_argument_is_refused_by_its_name(key, values):
    for value in values:
        assert refusal(hub_config(), **{key: value}).key == key


def test_a_misspelt_argument_is_named_with_the_nearest_one():
    misspelt = refusal(hub_config(), redirect_clientid="notebooks")
    unlike = refusal(hub_config(), colour="blue")

    assert (misspelt.key, misspelt.remedy) == ("redirect_clientid", "Did you mean redirect_client_id?")
    assert "ca_bundle" in unlike.remedy


def test_a_file_of_authorities_that_is_not_there_is_refused_without_its_path(tmp_path):
    refused = refusal(hub_config(), ca_bundle=str(tmp_path / "ca.pem"))

    assert refused.key == "ca_bundle"
    assert str(tmp_path) not in str(refused)


def hub_of(authenticator, **values):
    config = hub_config()
    del config["GenericOAuthenticator"]
    config.JupyterHub.authenticator_class = authenticator
    config.OAuthenticator.update({"client_id": "hub", **values})
    return config


@pytest.mark.parametrize(
    ("authenticator", "scope", "complete"),
    [
        ("generic-oauth", None, "['openid', 'offline_access']"),
        ("generic-oauth", ["email"], "['openid', 'email', 'offline_access']"),
        ("auth0", ["offline_access"], "['openid', 'offline_access']"),
    ],
)
def test_a_scope_that_brings_no_id_token_is_refused_with_what_to_ask_for(authenticator, scope, complete):
    given = {} if scope is None else {"scope": scope}
    refused = refusal(hub_of(authenticator, **given))

    assert refused.key.endswith("OAuthenticator.scope")
    assert f"{refused.key} = {complete}" in refused.remedy
    assert configured(hub_of("auth0", scope=["email"]), bearer="access_token")
    # Google refuses a scope that it does not know.
    assert "['openid', 'email']" in refusal(hub_of("generic-oauth", scope=["email"]), issuer=GOOGLE).remedy


def test_a_scope_that_was_only_added_to_completes_the_classs_own():
    config = hub_of("google")
    config.GoogleOAuthenticator.scope.append("profile")

    configure(config, issuer=GOOGLE)

    assert GoogleOAuthenticator(config=config).scope == ["openid", "email", "profile"]


CONSENT = {"access_type": "offline", "prompt": "consent"}


@pytest.mark.parametrize(
    ("authenticator", "issuer", "values", "wanted"),
    [
        ("auth0", ISSUER, {"scope": ["openid"]}, "scope = ['openid', 'offline_access']"),
        ("auth0", ISSUER, {"scope": ["openid", "offline_access"]}, None),
        ("auth0", ISSUER, {"scope": ["openid offline_access"]}, None),
        ("azuread", ISSUER, {}, "scope = ['offline_access']"),  # its older endpoints issue ID tokens to all
        ("cilogon", ISSUER, {"scope": ["offline_access"]}, None),  # the class adds the other one
        ("google", GOOGLE, {}, f"extra_authorize_params = {CONSENT}"),
        ("google", GOOGLE, {"extra_authorize_params": CONSENT}, None),
        ("auth0", "https://cognito-idp.eu-1.amazonaws.com/x", {"scope": ["openid"]}, None),
    ],
)
def test_a_hub_that_asks_for_no_refresh_token_is_told_how_its_provider_is_asked(
    authenticator, issuer, values, wanted, caplog
):
    config = hub_of(authenticator, **values)
    config.JupyterHub.shutdown_on_logout = False

    configure(config, issuer=issuer)

    assert [record.args[1] for record in caplog.records] == ([] if wanted is None else [wanted])


def test_an_application_and_a_key_to_encrypt_with_are_needed(monkeypatch):
    config = hub_config()
    del config.GenericOAuthenticator["client_id"]
    assert refusal(config).key == "OAuthenticator.client_id"

    monkeypatch.delenv("JUPYTERHUB_CRYPT_KEY")
    assert refusal(hub_config()).key == "JUPYTERHUB_CRYPT_KEY"
    assert configured(hub_config(CryptKeeper={"keys": ["00" * 32]}))


def test_a_redirect_of_the_whole_hub_needs_its_address():
    refused = refusal(hub_config(), redirect_client_id="notebooks")

    assert refused.key == "public_url"
    for known in ({"public_url": "https://hub.example.com"}, {"subdomain_host": "https://hub.example.com"}):
        service = configured(hub_config(JupyterHub=known), redirect_client_id="notebooks")
        assert service["environment"]["MICROMEGAS_HUB_REDIRECT_CLIENT_ID"] == "notebooks"


class OurSpawner(SimpleLocalProcessSpawner):
    """A Hub's own, of a kind that shares one system user."""


@pytest.mark.parametrize("authenticator", [None, "pam", "dummy", "no.such.Authenticator", "generic"])
def test_a_hub_without_oauthenticator_is_refused(authenticator):
    config = hub_config()
    del config.JupyterHub["authenticator_class"]
    if authenticator:
        config.JupyterHub.authenticator_class = authenticator

    refused = refusal(config)

    assert refused.key == "JupyterHub.authenticator_class"
    assert "device code" in refused.remedy


@pytest.mark.parametrize(("name", "value"), [("enable_auth_state", False), ("refresh_user_hook", print)])
def test_a_class_of_the_hubs_own_is_looked_at_whatever_its_name(name, value):
    config = hub_config(OurSignIn={name: value})
    config.JupyterHub.authenticator_class = type("OurSignIn", (GenericOAuthenticator,), {})

    assert refusal(config).key == f"OurSignIn.{name}"


@pytest.mark.parametrize(
    "spawner", ["simple", "jupyterhub.spawner.SimpleLocalProcessSpawner", SimpleLocalProcessSpawner, OurSpawner]
)
def test_a_spawner_that_shares_one_system_user_is_refused_unless_that_is_said(spawner):
    config = hub_config(JupyterHub={"spawner_class": spawner})

    refused = refusal(config)

    assert refused.key == "JupyterHub.spawner_class"
    assert "any user could take other users' tokens" in refused.what
    assert configured(config, allow_shared_system_user=True)


@pytest.mark.parametrize("scope", ["admin:auth_state", "admin:auth_state!user", "admin:users", "admin:users!group=a"])
@pytest.mark.parametrize(
    "role",
    [
        {"name": "user"},
        {"name": "server"},
        {"name": "token"},
        {"name": "x", "users": ["a"]},
        {"name": "x", "groups": ["a"]},
    ],
    ids=["user", "server", "token", "some people", "a group"],
)
def test_a_role_that_lets_people_read_kept_sign_ins_is_refused(role, scope):
    refused = refusal(hub_config(JupyterHub={"load_roles": [{**role, "scopes": ["self", scope]}]}))

    assert refused.key == "JupyterHub.load_roles"
    assert scope in refused.what
    assert "read refresh tokens" in refused.what


@pytest.mark.parametrize(
    ("section", "setting", "given"),
    [
        ("Spawner", "server_token_scopes", "admin:auth_state!user"),
        ("Spawner", "server_token_scopes", "inherit"),
        ("KubeSpawner", "server_token_scopes", "all"),
        ("Spawner", "oauth_client_allowed_scopes", "inherit"),
        # With these a server's owner could use its visitors' own servers.
        *(
            ("Spawner", "oauth_client_allowed_scopes", scope)
            for scope in ("self", "tokens", "access:servers", "access:servers!user")
        ),
        ("JupyterHub", "load_roles", {"name": "server", "scopes": ["inherit"]}),
    ],
)
def test_what_gives_servers_too_much_is_refused(section, setting, given):
    assert refusal(hub_config(**{section: {setting: [given]}})).key == f"{section}.{setting}"


@pytest.mark.parametrize("role", [{"name": "admin", "users": ["root"]}, {"name": "x", "services": ["x"]}])
def test_rights_of_administrators_and_of_other_services_are_their_own_affair(role):
    assert configured(hub_config(JupyterHub={"load_roles": [{**role, "scopes": ["admin:users"]}]}))


def address(**section):
    config = Config()
    config.JupyterHub.update(section)
    return kernel_address(config, service_url=SERVICE_URL, path="service/")


@pytest.mark.parametrize(
    ("section", "url"),
    [
        ({}, "http://127.0.0.1:8000/service/"),
        ({"ip": "fd00::1", "port": 80}, "http://[fd00::1]:80/service/"),
        ({"port": 443}, "http://127.0.0.1:443/service/"),
        ({"ip": "10.1.2.3", "bind_url": "http://:9000"}, "http://10.1.2.3:8000/service/"),
        ({"bind_url": "http://hub:9000/jh"}, "http://hub:9000/jh/service/"),
        ({"bind_url": "https://hub", "ssl_cert": "hub.pem"}, "https://hub:443/service/"),
        ({"bind_url": "http://hub:9000", "ssl_cert": "hub.pem"}, "https://hub:9000/service/"),
        # The proxy's certificate is for no address that kernels could use.
        ({"port": 443, "ssl_cert": "hub.pem"}, f"{SERVICE_URL}/service/"),
        ({"bind_url": "https://10.1.2.3/", "ssl_cert": "hub.pem"}, f"{SERVICE_URL}/service/"),
        ({"ip": "localhost", "ssl_cert": "hub.pem"}, f"{SERVICE_URL}/service/"),
    ],
)
def test_kernels_call_where_the_hubs_proxy_listens_or_else_the_service_itself(section, url):
    assert address(**section, spawner_class="dockerspawner.DockerSpawner") == url


# Earlier Hubs have no such addresses.
UNIX_SOCKETS = ["http+unix://%2Frun%2Fhub"] if version_info[0] >= 6 else []


@pytest.mark.parametrize("bind_url", [*UNIX_SOCKETS, "hub:8000", "", "http://hub:99999", "http://[hub", 8000])
def test_an_address_of_the_hub_that_no_kernel_can_call_is_refused_by_its_name(bind_url):
    with pytest.raises(ConfigurationError) as refused:
        address(bind_url=bind_url)

    assert refused.value.key == "JupyterHub.bind_url"
    assert "kernel_url" in refused.value.remedy
