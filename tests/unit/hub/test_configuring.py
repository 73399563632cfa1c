from __future__ import annotations

from typing import Any

import pytest
from jupyterhub.spawner import LocalProcessSpawner, SimpleLocalProcessSpawner
from oauthenticator.generic import GenericOAuthenticator
from traitlets.config import Config

from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.hub import configure
from micromegas_jupyter.hub.refreshing import SignInRefresher

ISSUER = "https://id.example.com"
SECRET = "the secret of the application"


class OurSpawner(SimpleLocalProcessSpawner):
    """A Hub's own, of a kind that shares one system user."""


@pytest.fixture(autouse=True)
def _crypt_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTERHUB_CRYPT_KEY", "00" * 32)


def hub_config(**sections: dict[str, Any]) -> Config:
    config = Config()
    config.JupyterHub.authenticator_class = "generic-oauth"
    config.GenericOAuthenticator.client_id = "hub"
    config.GenericOAuthenticator.client_secret = SECRET
    for name, values in sections.items():
        config[name].update(values)
    return config


def configured(config: Config, **wishes: Any) -> dict[str, Any]:
    configure(config, issuer=ISSUER, **wishes)
    found: dict[str, Any] = next(entry for entry in config.JupyterHub.services if entry["name"] == "micromegas")
    return found


def refusal(config: Config, **wishes: Any) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        configure(config, issuer=wishes.pop("issuer", ISSUER), **wishes)
    return caught.value


def test_the_service_is_added_beside_others_and_knows_provider_and_application() -> None:
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


def test_the_role_of_the_service_holds_two_rights_and_people_may_open_it() -> None:
    config = hub_config()

    configured(config)

    assert config.JupyterHub.load_roles == [
        {"name": "user", "scopes": ["self", "access:services!service=micromegas"]},
        {
            "name": "micromegas-sign-in",
            "description": "Gives each person's kernels that person's own token",
            "scopes": ["admin:auth_state", "read:users:name"],
            "services": ["micromegas"],
        },
    ]


def test_what_the_hub_gives_its_people_stays() -> None:
    role = {"name": "user", "scopes": ["self", "access:services!service=docs"]}
    config = hub_config(JupyterHub={"load_roles": [role]})

    configured(config)

    assert config.JupyterHub.load_roles[0]["scopes"] == [*role["scopes"], "access:services!service=micromegas"]
    assert role["scopes"] == ["self", "access:services!service=docs"]


def test_lists_and_variables_that_were_only_added_to_are_kept() -> None:
    config = hub_config()
    config.JupyterHub.services.append({"name": "culler"})
    config.JupyterHub.load_roles.append({"name": "culler", "scopes": ["servers"], "services": ["culler"]})
    config.Spawner.environment.update({"TEAM": "blue"})

    configured(config, kernel_url="http://hub:8190/services/micromegas")

    assert [entry["name"] for entry in config.JupyterHub.services] == ["culler", "micromegas"]
    assert [role["name"] for role in config.JupyterHub.load_roles] == ["culler", "user", "micromegas-sign-in"]
    assert config.Spawner.environment == {
        "TEAM": "blue",
        "KERNEL_MICROMEGAS_HUB": "http://hub:8190/services/micromegas/",
    }


def test_where_each_server_has_a_host_name_of_its_own_kernels_call_the_service_itself() -> None:
    config = hub_config(JupyterHub={"subdomain_host": "https://hub.example.com", "base_url": "/jupyter/"})

    configured(config, service_url="http://127.0.0.1:8191")

    url = config.Spawner.environment["KERNEL_MICROMEGAS_HUB"]
    assert url == "http://127.0.0.1:8191/jupyter/services/micromegas/"


def test_kernels_are_told_in_the_section_of_the_spawner_that_hides_the_common_one() -> None:
    config = hub_config(KubeSpawner={"environment": {"TEAM": "blue"}})

    configured(config)

    assert config.KubeSpawner.environment["KERNEL_MICROMEGAS_HUB"] == "http://127.0.0.1:8000/services/micromegas/"
    assert config.Spawner.environment["KERNEL_MICROMEGAS_HUB"] == "http://127.0.0.1:8000/services/micromegas/"


@pytest.mark.parametrize(
    ("section", "url"),
    [
        ({}, "http://127.0.0.1:8000/"),
        ({"bind_url": "http://:8000"}, "http://127.0.0.1:8000/"),
        ({"bind_url": "http://0.0.0.0:9000/team"}, "http://127.0.0.1:9000/team/"),
        ({"bind_url": "http://10.1.2.3:9000/"}, "http://10.1.2.3:9000/"),
        ({"bind_url": "http://[fd00::1]:9000/"}, "http://[fd00::1]:9000/"),
        ({"port": 9000, "base_url": "/team/"}, "http://127.0.0.1:9000/team/"),
    ],
)
def test_the_address_for_kernels_follows_the_hubs_own(section: dict[str, Any], url: str) -> None:
    config = hub_config(JupyterHub=section)

    configured(config)

    assert config.Spawner.environment["KERNEL_MICROMEGAS_HUB"] == f"{url}services/micromegas/"


def test_the_hub_renews_before_the_margin_is_reached() -> None:
    config = hub_config(GenericOAuthenticator={"auth_refresh_age": 900})

    configured(config, margin_seconds=60)

    assert isinstance(config.OAuthenticator.refresh_user_hook, SignInRefresher)
    assert (config.Authenticator.auth_refresh_age, config.GenericOAuthenticator.auth_refresh_age) == (5, 5)
    assert config.Authenticator.enable_auth_state is True


def test_the_secret_goes_to_the_service_only_for_an_exchange() -> None:
    plain = configured(hub_config())
    exchanging = configured(hub_config(), exchange_audience="lake")

    assert SECRET not in str(plain)
    assert exchanging["environment"]["MICROMEGAS_HUB_CLIENT_SECRET"] == SECRET
    assert exchanging["environment"]["MICROMEGAS_HUB_EXCHANGE_AUDIENCE"] == "lake"


@pytest.mark.parametrize("authenticator", [None, "pam", "dummy", "no.such.Authenticator", "generic"])
def test_a_hub_without_oauthenticator_is_refused(authenticator: str | None) -> None:
    config = hub_config()
    del config.JupyterHub["authenticator_class"]
    if authenticator:
        config.JupyterHub.authenticator_class = authenticator

    refused = refusal(config)

    assert refused.key == "JupyterHub.authenticator_class"
    assert "device code" in refused.remedy


def test_an_authenticator_may_be_given_as_a_class() -> None:
    config = hub_config(JupyterHub={"authenticator_class": GenericOAuthenticator})

    assert configured(config)["environment"]["MICROMEGAS_HUB_CLIENT_ID"] == "hub"


def test_without_auth_state_nothing_can_be_given() -> None:
    refused = refusal(hub_config(GenericOAuthenticator={"enable_auth_state": False}))

    assert refused.key == "GenericOAuthenticator.enable_auth_state"


def test_a_second_place_that_renews_is_refused() -> None:
    refused = refusal(hub_config(GenericOAuthenticator={"refresh_user_hook": print}))

    assert "use up each other's refresh tokens" in refused.what


def test_without_a_key_to_encrypt_with_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUPYTERHUB_CRYPT_KEY")

    assert refusal(hub_config()).key == "JUPYTERHUB_CRYPT_KEY"
    assert configured(hub_config(CryptKeeper={"keys": ["00" * 32]}))


@pytest.mark.parametrize(
    "spawner", ["simple", "jupyterhub.spawner.SimpleLocalProcessSpawner", SimpleLocalProcessSpawner, OurSpawner]
)
def test_a_spawner_that_shares_one_system_user_is_refused_unless_that_is_said(spawner: object) -> None:
    config = hub_config(JupyterHub={"spawner_class": spawner})

    refused = refusal(config)

    assert refused.key == "JupyterHub.spawner_class"
    assert "every person could take every other's tokens" in refused.what
    assert configured(config, allow_shared_system_user=True)


@pytest.mark.parametrize("spawner", [LocalProcessSpawner, "localprocess", "kubespawner.KubeSpawner", "docker"])
def test_spawners_that_keep_people_apart_are_taken(spawner: object) -> None:
    assert configured(hub_config(JupyterHub={"spawner_class": spawner}))


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
def test_a_role_that_lets_people_read_kept_sign_ins_is_refused(role: dict[str, Any], scope: str) -> None:
    refused = refusal(hub_config(JupyterHub={"load_roles": [{**role, "scopes": ["self", scope]}]}))

    assert refused.key == "JupyterHub.load_roles"
    assert scope in refused.what
    assert "can read refresh tokens" in refused.what


def test_a_spawner_that_gives_servers_such_a_scope_is_refused() -> None:
    refused = refusal(hub_config(Spawner={"server_token_scopes": ["admin:auth_state!user"]}))

    assert refused.key == "Spawner.server_token_scopes"


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ({"JupyterHub": {"load_roles": [{"name": "server", "scopes": ["inherit"]}]}}, "JupyterHub.load_roles"),
        ({"Spawner": {"server_token_scopes": ["inherit"]}}, "Spawner.server_token_scopes"),
        ({"KubeSpawner": {"server_token_scopes": ["all"]}}, "KubeSpawner.server_token_scopes"),
        ({"Spawner": {"oauth_client_allowed_scopes": ["inherit"]}}, "Spawner.oauth_client_allowed_scopes"),
    ],
    ids=["role", "server", "kube", "visitors"],
)
def test_servers_that_may_all_that_their_person_may_are_refused(section: dict[str, dict[str, Any]], key: str) -> None:
    refused = refusal(hub_config(**section))

    assert refused.key == key
    assert "in an administrator's kernel can read refresh tokens" in refused.what


@pytest.mark.parametrize("scope", ["self", "tokens", "access:servers", "access:servers!user"])
def test_servers_that_could_use_the_servers_of_their_visitors_are_refused(scope: str) -> None:
    refused = refusal(hub_config(Spawner={"oauth_client_allowed_scopes": [scope]}))

    assert refused.key == "Spawner.oauth_client_allowed_scopes"
    assert "get the visitor's token" in refused.what


def test_servers_may_let_visitors_in_and_tell_who_they_are() -> None:
    scopes = ["access:servers!server", "read:users:name!user", "shares!server"]

    assert configured(hub_config(Spawner={"oauth_client_allowed_scopes": scopes}))


@pytest.mark.parametrize("role", [{"name": "admin", "users": ["root"]}, {"name": "x", "services": ["x"]}])
def test_rights_of_administrators_and_of_other_services_are_their_own_affair(role: dict[str, Any]) -> None:
    assert configured(hub_config(JupyterHub={"load_roles": [{**role, "scopes": ["admin:users"]}]}))


@pytest.mark.parametrize("chosen", [None, False, True])
def test_what_becomes_of_servers_after_a_sign_out_is_said_until_it_is_chosen(
    caplog: pytest.LogCaptureFixture, chosen: bool | None
) -> None:
    configured(hub_config(JupyterHub={} if chosen is None else {"shutdown_on_logout": chosen}))

    assert ["shutdown_on_logout" in message for message in caplog.messages] == ([True] if chosen is None else [])


def test_it_is_called_once() -> None:
    config = hub_config(JupyterHub={"services": [{"name": "micromegas"}]})

    assert refusal(config).key == "JupyterHub.services"


@pytest.mark.parametrize(
    ("wish", "key"),
    [
        ({"issuer": "http://id.example.com"}, "issuer"),
        ({"issuer": None}, "issuer"),
        ({"service_url": "https://hub:8190"}, "service_url"),
        ({"service_url": "http://hub"}, "service_url"),
        ({"service_url": "http://hub:8190/services"}, "service_url"),
        ({"bearer": "refresh_token"}, "bearer"),
        ({"public_url": "hub.example.com"}, "public_url"),
        ({"kernel_url": "ftp://hub"}, "kernel_url"),
        ({"margin_seconds": 1}, "margin_seconds"),
        ({"margin_seconds": 3601}, "margin_seconds"),
        ({"margin_seconds": 60.5}, "margin_seconds"),
    ],
)
def test_a_wish_that_cannot_be_is_refused_by_its_name(wish: dict[str, Any], key: str) -> None:
    assert refusal(hub_config(), **wish).key == key


def test_an_authenticator_without_an_application_is_refused() -> None:
    config = hub_config()
    del config.GenericOAuthenticator["client_id"]

    assert refusal(config).key == "OAuthenticator.client_id"


@pytest.mark.parametrize("resource", ["lake", "/lake", "https://lake.example.com#rows", "https:", "http://[lake"])
def test_a_resource_that_is_no_absolute_address_is_refused(resource: str) -> None:
    refused = refusal(hub_config(), exchange_resource=resource)

    assert refused.key == "exchange_resource"


@pytest.mark.parametrize("resource", ["https://lake.example.com", "api://lake", "urn:example:lake"])
def test_a_resource_may_be_any_absolute_address(resource: str) -> None:
    service = configured(hub_config(), exchange_resource=resource)

    assert service["environment"]["MICROMEGAS_HUB_EXCHANGE_RESOURCE"] == resource


def test_a_redirect_of_the_whole_hub_needs_its_address() -> None:
    refused = refusal(hub_config(), redirect_client_id="notebooks")

    assert refused.key == "public_url"
    for known in ({"public_url": "https://hub.example.com"}, {"subdomain_host": "https://hub.example.com"}):
        service = configured(hub_config(JupyterHub=known), redirect_client_id="notebooks")
        assert service["environment"]["MICROMEGAS_HUB_REDIRECT_CLIENT_ID"] == "notebooks"


@pytest.mark.parametrize("name", ["load_roles", "services"])
def test_a_list_that_is_none_is_refused(name: str) -> None:
    refused = refusal(hub_config(JupyterHub={name: "text"}))

    assert refused.key == f"JupyterHub.{name}"
