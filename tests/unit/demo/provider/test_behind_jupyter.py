import pytest

from micromegas_jupyter.demo.provider.behind_jupyter import BehindJupyter

BEHIND = BehindJupyter(base_url="/user/a.b/")


@pytest.mark.parametrize(
    "redirect_uri",
    [
        "https://hub.example.org/user/a.b/micromegas/callback",
        "http://127.0.0.1:8888/user/a.b/micromegas/callback",
        "http://[::1]:8888/user/a.b/micromegas/callback",
    ],
)
def test_the_servers_callback_is_one_at_any_host(redirect_uri: str) -> None:
    assert BEHIND.is_callback(redirect_uri)


@pytest.mark.parametrize(
    "redirect_uri",
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
def test_nothing_else_is(redirect_uri: str) -> None:
    assert not BEHIND.is_callback(redirect_uri)


def test_cookies_hold_for_the_pages_only() -> None:
    assert BEHIND.cookie_path == "/user/a.b/micromegas-demo/"
