from __future__ import annotations

import pytest

from micromegas_jupyter.hub.refresh import AuthStateRefresher
from tests.unit.hub.hub_configs import ISSUER, SECRET, configured, hub_config, refusal


@pytest.fixture(autouse=True)
def _crypt_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTERHUB_CRYPT_KEY", "00" * 32)


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


def test_a_role_of_people_without_scopes_keeps_what_the_hub_gives_it() -> None:
    config = hub_config(JupyterHub={"load_roles": [{"name": "user", "description": "Everybody"}]})

    configured(config)

    assert config.JupyterHub.load_roles[0]["scopes"] == ["self", "access:services!service=micromegas"]


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


def test_the_address_for_kernels_follows_the_hubs_own() -> None:
    config = hub_config(JupyterHub={"bind_url": "http://0.0.0.0:9000/team"})

    configured(config)

    url = config.Spawner.environment["KERNEL_MICROMEGAS_HUB"]
    assert url == "http://127.0.0.1:9000/team/services/micromegas/"


def test_the_hub_renews_before_the_margin_is_reached() -> None:
    config = hub_config(GenericOAuthenticator={"auth_refresh_age": 900})

    configured(config, margin_seconds=60)

    assert isinstance(config.OAuthenticator.refresh_user_hook, AuthStateRefresher)
    assert (config.Authenticator.auth_refresh_age, config.GenericOAuthenticator.auth_refresh_age) == (5, 5)
    assert config.Authenticator.enable_auth_state is True


def test_the_secret_goes_to_the_service_only_for_an_exchange() -> None:
    plain = configured(hub_config())
    exchanging = configured(hub_config(), exchange_audience="lake")

    assert SECRET not in str(plain)
    assert exchanging["environment"]["MICROMEGAS_HUB_CLIENT_SECRET"] == SECRET
    assert exchanging["environment"]["MICROMEGAS_HUB_EXCHANGE_AUDIENCE"] == "lake"


@pytest.mark.parametrize("chosen", [None, False, True])
def test_what_becomes_of_servers_after_a_sign_out_is_said_until_it_is_chosen(
    caplog: pytest.LogCaptureFixture, chosen: bool | None
) -> None:
    configured(hub_config(JupyterHub={} if chosen is None else {"shutdown_on_logout": chosen}))

    said = [record.getMessage() for record in caplog.records if record.name == "micromegas_jupyter.hub"]
    assert ["shutdown_on_logout" in message for message in said] == ([True] if chosen is None else [])


def test_it_is_called_once() -> None:
    config = hub_config(JupyterHub={"services": [{"name": "micromegas"}]})

    assert refusal(config).key == "JupyterHub.services"


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
def test_an_invalid_argument_is_refused_by_its_name(key: str, values: list[object]) -> None:
    for value in values:
        assert refusal(hub_config(), **{key: value}).key == key


def test_an_authenticator_without_an_application_is_refused() -> None:
    config = hub_config()
    del config.GenericOAuthenticator["client_id"]

    assert refusal(config).key == "OAuthenticator.client_id"


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
