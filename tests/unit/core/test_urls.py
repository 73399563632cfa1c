from __future__ import annotations

import pytest

from micromegas_jupyter.core.http import check_endpoint_url
from micromegas_jupyter.errors import ProviderMisbehaved


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://id.example.com/token", "id.example.com"),
        ("https://id.example.com:8443/token?tenant=1", "id.example.com"),
        ("http://127.0.0.1:8080/token", "127.0.0.1"),
        ("http://localhost/token", "localhost"),
        ("http://[::1]:8080/token", "::1"),
    ],
)
def test_https_and_http_on_loopback_may_be_called(url: str, host: str) -> None:
    assert check_endpoint_url(url) == host


@pytest.mark.parametrize(
    "url",
    [
        "http://id.example.com/token",
        "http://127.0.0.1.example.com/",
        "ftp://id.example.com/",
        "file:///etc/passwd",
        "//id.example.com/",
        "https://",
        "https:///token",
        "https://alice@id.example.com/",
        "https://id.example.com\\@evil.example/",
        "https://id.example.com/#fragment",
        "https://id.example.com/a b",
        "https://id.example.com/\n",
        "https://idé.example.com/",
        "https://id.example.com:99999/",
        "https://id.example.com:0/",
        "https://[::1/",
        "https://id.example.com/" + "a" * 2048,
    ],
)
def test_every_other_address_is_refused(url: str) -> None:
    with pytest.raises(ProviderMisbehaved):
        check_endpoint_url(url)
