"""Which redirect URIs, scopes and secrets the two applications have."""

import pytest

from micromegas_jupyter.contracts import Secret
from micromegas_jupyter.demo.provider.clients import DemoClient, build_clients

EXTRA = "https://hub.example/user/x/callback"


@pytest.fixture
def clients() -> dict[str, DemoClient]:
    return build_clients(service_secret=Secret("s"), extra_redirect_uris=(EXTRA,))


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:1/callback",
        "http://127.0.0.1/callback",
        "http://localhost:65535/callback",
        "http://[::1]:8000/callback",
        EXTRA,
    ],
)
def test_the_callback_on_this_machine_and_the_extra_uris_are_accepted(clients: dict[str, DemoClient], uri: str) -> None:
    assert clients["micromegas-demo"].check_redirect_uri(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "https://127.0.0.1:1/callback",
        "http://127.0.0.1:1/callback/",
        "http://127.0.0.1:1/callback?a=b",
        "http://127.0.0.1:1/callback#f",
        "http://127.0.0.1:1/../callback",
        "http://127.0.0.1.evil.example/callback",
        "http://127.0.0.1:1@evil.example/callback",
        "http://evil.example/callback",
        "http://127.0.0.1:/callback",
        "http://127.0.0.1:0/callback",
        "http://127.0.0.1:123456/callback",
        "http://127.0.0.1:١/callback",
        "http://127.1/callback",
        "http://0.0.0.0:1/callback",
        "http://LOCALHOST:1/callback",
        "\nhttp://127.0.0.1:1/callback",
        "http://127.0.0.1:1/callback\n",
        f"{EXTRA}/",
        f"{EXTRA}?a=b",
        "",
    ],
)
def test_everything_else_is_not(clients: dict[str, DemoClient], uri: str) -> None:
    assert not clients["micromegas-demo"].check_redirect_uri(uri)


def test_the_service_account_has_no_redirect_uri(clients: dict[str, DemoClient]) -> None:
    assert not clients["micromegas-demo-service"].check_redirect_uri("http://127.0.0.1:1/callback")
    assert not clients["micromegas-demo-service"].check_response_type("code")


def test_unknown_and_repeated_scopes_are_left_out(clients: dict[str, DemoClient]) -> None:
    client = clients["micromegas-demo"]

    assert client.get_allowed_scope("email openid admin email") == "email openid"
    assert client.get_allowed_scope(None) == ""


def test_only_the_service_account_has_a_secret(clients: dict[str, DemoClient]) -> None:
    assert clients["micromegas-demo-service"].check_client_secret("s")
    assert not clients["micromegas-demo-service"].check_client_secret("")
    assert not clients["micromegas-demo"].check_client_secret("")
