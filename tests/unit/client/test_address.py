"""What counts as the address of a Flight SQL server."""

from __future__ import annotations

import pytest

from micromegas_jupyter.client.calls import parse_address
from micromegas_jupyter.errors import UsageError


@pytest.mark.parametrize(
    ("uri", "location", "is_encrypted", "is_loopback"),
    [
        ("grpc://localhost:50051", "grpc://localhost:50051", False, True),
        ("grpc+tcp://127.0.0.1:1", "grpc://127.0.0.1:1", False, True),
        ("http://127.8.9.10:80", "grpc://127.8.9.10:80", False, True),
        ("HTTP://lake.example.com:8080/", "grpc://lake.example.com:8080", False, False),
        ("grpc+tls://lake.example.com:50051", "grpc+tls://lake.example.com:50051", True, False),
        ("https://Lake.Example.com", "grpc+tls://lake.example.com:443", True, False),
        ("grpc://[::1]:50051", "grpc://[::1]:50051", False, True),
        ("grpc://[2001:db8::1]:50051", "grpc://[2001:db8::1]:50051", False, False),
        (" grpc://localhost:50051\n", "grpc://localhost:50051", False, True),
    ],
)
def test_an_address_is_read(uri: str, location: str, is_encrypted: bool, is_loopback: bool) -> None:
    address = parse_address(uri)

    assert address.location == location
    assert address.is_encrypted is is_encrypted
    assert address.is_loopback is is_loopback


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "localhost:50051",
        "ftp://localhost:1",
        "grpc://",
        "grpc://:50051",
        "grpc://localhost",
        "grpc://localhost:0x1",
        "grpc://localhost:99999",
        "grpc://[::1:1",
        "grpc://a b:1",
        "grpc://a%2fb:1",
        "grpc://bücher.example:1",
        "grpc://localhost:1/path",
        "grpc://localhost:1?x=y",
        "grpc://localhost:1#x",
        None,
        7,
    ],
)
def test_what_is_no_address_is_refused(uri: str) -> None:
    with pytest.raises(UsageError):
        parse_address(uri)


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        parse_address("grpc://alice:hunter2@localhost:50051")

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("host", ["localhost.example.com", "127.0.0.1.example.com", "10.0.0.1", "0.0.0.0"])
def test_a_host_that_only_looks_local_is_not(host: str) -> None:
    assert not parse_address(f"grpc://{host}:1").is_loopback
