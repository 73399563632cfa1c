from __future__ import annotations

import pytest

from micromegas_jupyter.auth.flows.loopback import LoopbackAddress, parse_loopback_address
from micromegas_jupyter.errors import UsageError


def test_without_a_redirect_uri_any_free_port_of_the_literal_address_is_used() -> None:
    assert parse_loopback_address(None) == LoopbackAddress(host="127.0.0.1", port=0, path="/callback")


@pytest.mark.parametrize(
    ("uri", "address", "bind_host", "authority"),
    [
        (
            "http://localhost:48080/callback",
            LoopbackAddress(host="localhost", port=48080, path="/callback"),
            "127.0.0.1",
            "localhost:48080",
        ),
        ("http://127.0.0.1:8765", LoopbackAddress(port=8765, path="/"), "127.0.0.1", "127.0.0.1:8765"),
        ("http://[::1]:8765/cb", LoopbackAddress(host="::1", port=8765, path="/cb"), "::1", "[::1]:8765"),
    ],
)
def test_a_fixed_uri_on_loopback_is_taken_as_registered(
    uri: str, address: LoopbackAddress, bind_host: str, authority: str
) -> None:
    found = parse_loopback_address(uri)

    assert found == address
    assert found.bind_host == bind_host
    assert found.authority(found.port) == authority


@pytest.mark.parametrize(
    "uri",
    [
        "http://example.com:48080/callback",
        "http://0.0.0.0:48080/callback",
        "http://127.0.0.2:48080/callback",
        "http://127.0.0.1.example.com:1/callback",
        "http://localhost.example.com:1/callback",
        "https://127.0.0.1:48080/callback",
        "http://127.0.0.1@example.com:1/",
        "http://alice@127.0.0.1:1/callback",
        "http://127.0.0.1:1/callback?a=1",
        "http://127.0.0.1:1/callback#a",
        "http://127.0.0.1:99999/callback",
        "http://127.0.0.1:1/done",
        "http://127.0.0.1:1/start/x",
        "http://[::1",
        "urn:ietf:wg:oauth:2.0:oob",
        "",
    ],
)
def test_every_other_redirect_uri_is_a_usage_error(uri: str) -> None:
    with pytest.raises(UsageError):
        parse_loopback_address(uri)
