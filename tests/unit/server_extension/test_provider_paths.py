import pytest
from traitlets import TraitError

from micromegas_jupyter.server_extension.settings import MicromegasRelay, address_for_browsers

PATHS = {"http://127.0.0.1:9300": "demo/provider"}


def test_a_page_of_such_a_provider_is_below_the_servers_base_url_at_the_browsers_own_host() -> None:
    url = "http://127.0.0.1:9300/authorize?state=a.b&x=%2F"

    address = address_for_browsers(url, paths=PATHS, base_url="/user/alice/")

    assert address == "/user/alice/demo/provider/authorize?state=a.b&x=%2F"


@pytest.mark.parametrize(
    "url",
    [
        "https://id.example.com/authorize?state=a",
        "http://127.0.0.1:9301/authorize?state=a",
        "http://127.0.0.1:9300@evil.example/authorize?state=a",
        "https://127.0.0.1:9300/authorize?state=a",
        "http://127.0.0.1:93001/authorize?state=a",
    ],
)
def test_every_other_page_is_where_it_is(url: str) -> None:
    assert address_for_browsers(url, paths=PATHS, base_url="/") == url


def accepts(paths: dict[str, str]) -> bool:
    try:
        MicromegasRelay(provider_paths=paths)
    except TraitError:
        return False
    return True


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("http://127.0.0.1:9300", True),
        ("http://localhost:80", True),
        ("http://[::1]:9300", True),
        ("http://127.0.0.1:9300/", False),
        ("http://127.0.0.1", False),
        ("https://127.0.0.1:9300", False),
        ("http://id.example.com:9300", False),
        ("http://127.0.0.1:9300\n", False),
        ("http://127.0.0.1.example.com:9300", False),
    ],
)
def test_only_loopback_counts(text: str, is_one: bool) -> None:
    assert accepts({text: "provider"}) is is_one


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("provider", True),
        ("a/b-c_d", True),
        ("", False),
        ("/a", False),
        ("a/", False),
        ("..", False),
        ("a//b", False),
        ("a?b", False),
    ],
)
def test_a_path_leads_nowhere_else(text: str, is_one: bool) -> None:
    assert accepts({"http://127.0.0.1:9300": text}) is is_one
