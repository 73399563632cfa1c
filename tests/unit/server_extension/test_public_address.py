import pytest

from micromegas_jupyter.server_extension.settings import base_of_request, configured_base


def test_what_was_configured_goes_before_what_the_hub_says() -> None:
    environ = {"JUPYTERHUB_PUBLIC_URL": "https://hub.example.com/user/alice"}

    assert configured_base("https://lab.example.com/", environ) == "https://lab.example.com/"
    assert configured_base("", environ) == "https://hub.example.com/user/alice/"
    assert configured_base("", {}) == ""


@pytest.mark.parametrize("value", ["", "hub.example.com", "javascript:alert(1)"])
def test_what_the_hub_does_not_say_usably_is_left_out(value: str) -> None:
    assert configured_base("", {"JUPYTERHUB_PUBLIC_URL": value}) == ""


def test_a_request_says_what_it_was_sent_to() -> None:
    base = base_of_request(protocol="http", host="127.0.0.1:8888", base_url="/x/")

    assert base == "http://127.0.0.1:8888/x/"


@pytest.mark.parametrize("host", ["", "a b", "evil.example/path", "a@b", "a,b", "a\\b", "läb", "a:1:2", "a?b"])
def test_a_malformed_host_is_nothing(host: str) -> None:
    assert base_of_request(protocol="http", host=host, base_url="/") is None
