"""Which redirect URIs, scopes and secrets the two applications have, and what the scopes open."""

import pytest

from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.demo.provider.pages import normalize_user_code
from micromegas_jupyter.demo.provider.state import PEOPLE, Client, build_clients


def _build(jupyter_base_url: str | None = None) -> tuple[Client, Client]:
    clients = build_clients("person", "service", secret=Secret("s"), jupyter_base_url=jupyter_base_url)
    return clients["person"], clients["service"]


PERSON, SERVICE = _build()
BEHIND, _ = _build("/user/a.b/")


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:1/callback",
        "http://127.0.0.1/callback",
        "http://localhost:65535/callback",
        "http://[::1]:8000/callback",
    ],
)
def test_the_callback_on_this_machine_is_accepted(uri: str) -> None:
    assert PERSON.is_redirect_uri(uri)


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
        "",
    ],
)
def test_everything_else_is_not(uri: str) -> None:
    assert not PERSON.is_redirect_uri(uri)
    assert not BEHIND.is_redirect_uri(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "https://hub.example.org/user/a.b/micromegas/callback",
        "http://127.0.0.1:8888/user/a.b/micromegas/callback",
        "http://[::1]:8888/user/a.b/micromegas/callback",
    ],
)
def test_the_callback_of_the_jupyter_server_in_front_is_one_at_any_host(uri: str) -> None:
    assert BEHIND.is_redirect_uri(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "https://hub.example.org/user/b/micromegas/callback",
        "https://hub.example.org/user/aXb/micromegas/callback",
        "https://hub.example.org/user/a.b/micromegas/callback?x=1",
        "https://hub.example.org/user/a.b/micromegas/callback/",
        "https://hub.example.org/other/user/a.b/micromegas/callback",
        "https://person@hub.example.org/user/a.b/micromegas/callback",
        "https://hub.example.org/user/a.b/micromegas/callback\n",
        "javascript://hub.example.org/user/a.b/micromegas/callback",
        "//hub.example.org/user/a.b/micromegas/callback",
    ],
)
def test_nothing_else_of_another_host_is(uri: str) -> None:
    assert not BEHIND.is_redirect_uri(uri)


def test_the_service_account_has_no_redirect_uri() -> None:
    assert not SERVICE.is_redirect_uri("http://127.0.0.1:1/callback")


def test_only_the_service_account_has_a_secret() -> None:
    assert SERVICE.is_secret("s")
    assert not SERVICE.is_secret("")
    assert not SERVICE.is_secret(None)
    assert PERSON.is_secret(None)
    assert not PERSON.is_secret("")


def test_each_scope_opens_its_claims_and_no_more() -> None:
    bob = PEOPLE["bob"]

    assert bob.build_claims("openid") == {}
    assert bob.build_claims("email") == {"email": "bob@example.com", "email_verified": True}
    assert bob.build_claims("profile") == {
        "name": "Bob Singh",
        "given_name": "Bob",
        "family_name": "Singh",
        "preferred_username": "bob",
        "groups": ["analysts"],
    }


@pytest.mark.parametrize("typed", ["WDJB-MJHT", "wdjbmjht", " wdjb mjht ", "w.d.j.b.m.j.h.t"])
def test_case_and_marks_of_a_typed_code_do_not_matter(typed: str) -> None:
    assert normalize_user_code(typed) == "WDJB-MJHT"
