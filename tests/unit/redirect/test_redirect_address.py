import pytest

from micromegas_jupyter.auth.flows.messages import callback_address, is_callback_address, is_web_address, public_base


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("https://lab.example.com", "https://lab.example.com/"),
        ("https://lab.example.com/user/alice/", "https://lab.example.com/user/alice/"),
        ("http://127.0.0.1:8888/x", "http://127.0.0.1:8888/x/"),
        ("http://[::1]:8888/", "http://[::1]:8888/"),
    ],
)
def test_an_address_of_a_server_gets_its_slash(url: str, base: str) -> None:
    assert public_base(url) == base


@pytest.mark.parametrize(
    "url",
    [
        "",
        "lab.example.com",
        "//lab.example.com/",
        "ftp://lab.example.com/",
        "javascript:alert(1)",
        "https://",
        "https:///x/",
        "https://alice@lab.example.com/",
        "https://lab.example.com\\@evil.example/",
        "https://lab.example.com/?next=/",
        "https://lab.example.com/#x",
        "https://lab.example.com/ x",
        "https://lab.example.com\r\nX: y/",
        "https://läb.example.com/",
        "https://lab.example.com:port/",
        "https://[::1",
        "https://lab.example.com, evil.example/",
        "https://" + "a" * 3000,
    ],
)
def test_what_no_server_can_be_reached_at_is_none(url: str) -> None:
    assert public_base(url) is None


def test_the_callback_lies_below_the_base() -> None:
    address = callback_address("https://lab.example.com/x/")

    assert address == "https://lab.example.com/x/micromegas/callback"
    assert is_callback_address(address)


@pytest.mark.parametrize(
    "url",
    [
        "https://lab.example.com/callback",
        "https://lab.example.com/xmicromegas/callback",
        "https://lab.example.com/micromegas/callback?x=1",
        "https://a@lab.example.com/micromegas/callback",
        "javascript:/micromegas/callback",
    ],
)
def test_other_addresses_are_no_callback(url: str) -> None:
    assert not is_callback_address(url)


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "//id.example.com",
        "https://",
        "https://id.example.com\\x",
        "data:text/html,x",
        "https://id .example",
    ],
)
def test_a_browser_is_sent_to_web_addresses_only(url: str) -> None:
    assert is_web_address("https://id.example.com/authorize?a=b")
    assert not is_web_address(url)
