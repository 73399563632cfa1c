from __future__ import annotations

from typing import Any

import pytest
from jupyterhub.spawner import LocalProcessSpawner, SimpleLocalProcessSpawner
from oauthenticator.generic import GenericOAuthenticator

from tests.unit.hub.hub_configs import configured, hub_config, refusal


class OurSpawner(SimpleLocalProcessSpawner):
    """A Hub's own, of a kind that shares one system user."""


@pytest.fixture(autouse=True)
def _crypt_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTERHUB_CRYPT_KEY", "00" * 32)


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


@pytest.mark.parametrize(("name", "value"), [("enable_auth_state", False), ("refresh_user_hook", print)])
def test_a_class_of_the_hubs_own_is_looked_at_whatever_its_name(name: str, value: object) -> None:
    config = hub_config(OurSignIn={name: value})
    config.JupyterHub.authenticator_class = type("OurSignIn", (GenericOAuthenticator,), {})

    assert refusal(config).key == f"OurSignIn.{name}"


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


@pytest.mark.parametrize("role", ["user", {"name": "user", "scopes": "self"}, {"name": "user", "scopes": None}])
def test_what_is_no_role_is_refused(role: object) -> None:
    assert refusal(hub_config(JupyterHub={"load_roles": [role]})).key == "JupyterHub.load_roles"


@pytest.mark.parametrize(("name", "value"), [("environment", ["TEAM"]), ("server_token_scopes", "inherit")])
def test_settings_of_servers_that_cannot_be_are_refused(name: str, value: object) -> None:
    assert refusal(hub_config(KubeSpawner={name: value})).key == f"KubeSpawner.{name}"
