"""Where secrets may be sent: endpoints, issuers, documents."""

import pytest

from micromegas_jupyter.core.text import as_fetch_url, as_issuer, check_endpoint_url, is_loopback_url
from micromegas_jupyter.errors import ConfigurationError, ProviderMisbehaved


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
def test_https_and_http_on_loopback_may_be_called(url, host):
    assert check_endpoint_url(url) == host


@pytest.mark.parametrize(
    "url",
    [
        "http://id.example.com/token", "http://127.0.0.1.example.com/", "ftp://id.example.com/", "file:///etc/passwd",
        "//id.example.com/", "https://", "https:///token", "https://alice@id.example.com/",
        "https://id.example.com\\@evil.example/", "https://id.example.com/#fragment", "https://id.example.com/a b",
        "https://id.example.com/\n", "https://idé.example.com/", "https://id.example.com:99999/",
        "https://id.example.com:0/", "https://[::1/", "https://id.example.com/" + "a" * 2048,
    ],
)  # fmt: skip
def test_every_other_address_is_refused(url):
    with pytest.raises(ProviderMisbehaved):
        check_endpoint_url(url)


@pytest.mark.parametrize(
    ("read", "url"),
    [
        *((as_issuer, url) for url in (
            "https://id.example.com", "https://id.example.com/", "https://id.example.com:8443/realms/lake",
            "https://login.microsoftonline.com/0b1c/v2.0", "http://127.0.0.1:8080", "http://localhost",
            "http://[::1]:9000/dex")),
        *((as_fetch_url, url) for url in (
            "https://id.example.com/keys", "https://id.example.com:8443/keys?tenant=a&mail=b@example.com",
            "http://127.0.0.1:8080/jwks", "http://[::1]/jwks", "http://localhost")),
    ],
)  # fmt: skip
def test_an_issuer_or_document_over_tls_or_on_this_machine_is_accepted(read, url):
    assert read(url, "KEY") == url


@pytest.mark.parametrize(
    ("read", "url"),
    [
        *((as_issuer, url) for url in (
            "", "id.example.com", "ftp://id.example.com", "file:///etc/passwd", "https://", "https:///realm",
            "https://[::1", "https://id.example.com:port", "https://id.example.com:0", "https://id.example.com:99999",
            " https://id.example.com", "https://id.example.com ", "https://id.example.com/a b", "https://id.exämple.com",
            "https://id.example.com\\evil", "https://id.example.com\n", "http://id.example.com",
            "http://localhost.example.com", "http://127.0.0.1.example.com", "http://127.1", "http://localhost.",
            "http://0.0.0.0", "https://id.example.com?", "https://id.example.com?tenant=a", "https://id.example.com#",
            "https://id.example.com#a", "https://@id.example.com", "https://user:hunter2@id.example.com",
            "http://localhost@id.example.com")),
        *((as_fetch_url, url) for url in (
            "", "/keys", "file:///etc/passwd", "ftp://id.example.com/keys", "https:///keys", "https://[::1",
            "https://id.example.com:0/keys", "https://id.example.com/keys#hunter2",
            "https://user:hunter2@id.example.com/keys", "https://id.example.com/a\\b", "https://id.example.com/ä",
            "http://id.example.com/keys?secret=hunter2", "http://localhost.example.com/keys", "http://10.0.0.1/keys")),
    ],
)  # fmt: skip
def test_any_other_address_is_an_error_that_names_the_key_and_never_shows_it(read, url):
    with pytest.raises(ConfigurationError) as caught:
        read(url, "KEY")

    assert caught.value.key == "KEY"
    assert "hunter2" not in str(caught.value)


LOOPBACK = ["http://127.0.0.1:5", "grpc://localhost:50051", "http://[::1]/x", "HTTP://LOCALHOST"]
ELSEWHERE = ["http://127.0.0.2", "http://localhost.evil", "http://[::1", "localhost", "", "http://"]


@pytest.mark.parametrize("url", [*LOOPBACK, *ELSEWHERE])
def test_this_machine_is_recognised_and_no_other_passes_for_it(url):
    assert is_loopback_url(url) is (url in LOOPBACK)
