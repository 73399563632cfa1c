"""Responses, addresses, certificates and proxies, without a network; calls are in `tests/integration/http`."""

import sys
from pathlib import Path

import certifi
import pytest

from micromegas_jupyter.core.http import (
    MAX_BUNDLE_BYTES,
    Callee,
    RawAnswer,
    check_answer,
    check_platform_url,
    is_private_address,
    proxy_for,
    read_answer,
    read_certificates,
)
from micromegas_jupyter.errors import ConfigurationError, ProviderMisbehaved, ProviderUnavailable


def read(status=200, body=b'{"a": 1}', *, max_bytes=100, needs_body=True, **headers):
    sent = {"content-type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    raw = RawAnswer(status=status, headers=sent, body=body)
    callee = Callee(name="The identity provider id.example.com")
    check_answer(raw, callee, max_bytes=max_bytes, needs_body=needs_body)
    return read_answer(raw, callee, needs_body=needs_body)


def test_json_by_any_name_and_the_errors_of_oauth_are_read():
    assert read(content_type="application/jwk-set+json", body=b'"' + b"x" * 98 + b'"').body == "x" * 98
    assert read(400, b'{"error": "invalid_grant"}').body == {"error": "invalid_grant"}
    assert read(body=b"done", content_type="text/plain", needs_body=False).body is None


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        *(({"content_type": media_type}, ProviderMisbehaved) for media_type in ("text/html", "image/svg+json", "")),
        *(({"body": body}, ProviderMisbehaved) for body in (
            b"{", b'{"a": 1, "a": 2}', b'{"a": NaN}', b"\xff\xfe", b"[" * 40 + b"]" * 40, b'"' + b"x" * 99 + b'"')),
        *(({"status": status}, ProviderUnavailable) for status in (500, 503, 429)),
        *(({"status": status}, ProviderMisbehaved) for status in (301, 307, 304, 101)),
        *(({"content_encoding": encoding}, ProviderMisbehaved) for encoding in ("gzip", "identity, gzip")),
    ],
)  # fmt: skip
def test_what_a_provider_may_not_answer_is_refused(changes, error):
    with pytest.raises(error):
        read(**changes)


@pytest.mark.parametrize(("age", "is_taken"), [("0", True), (" 0 ", True), ("1", False), ("8640", False), ("?", False)])
def test_the_date_of_an_answer_that_a_cache_kept_is_not_the_provider_s_time(age, is_taken):
    answer = read(date="Tue, 24 Nov 2026 12:00:00 GMT", age=age)

    assert (answer.date is not None) is is_taken


# Addresses inside a network


PRIVATE = [
    "127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
    "169.254.169.254", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12:3456:789a::1", "fec0::1", "100.64.0.1",
    "100.127.255.255", "198.18.0.1", "192.0.2.1", "2001:db8::1", "240.0.0.1", "255.255.255.255", "224.0.0.1",
    "ff02::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "::ffff:100.64.0.1", "::ffff:169.254.169.254",
    "64:ff9b::10.0.0.1", "64:ff9b:1::1", "2002:a00:1::1", "", "localhost", "not an address",
]  # fmt: skip
PUBLIC = [
    "8.8.8.8", "172.15.255.255", "172.32.0.1", "100.63.255.255", "100.128.0.1", "169.253.0.1", "2606:4700::1111",
    "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1",
]  # fmt: skip


@pytest.mark.parametrize("address", [*PRIVATE, *PUBLIC])
def test_an_address_inside_a_network_or_no_address_is_private(address):
    assert is_private_address(address) is (address in PRIVATE)


# Certificates


BEGIN = "-----BEGIN CERTIFICATE-----"


@pytest.fixture(scope="module")
def certificate():
    text = Path(certifi.where()).read_text(encoding="utf-8")
    start = text.index(BEGIN)
    return text[start : text.index(BEGIN, start + 1)].partition("\n\n")[0]


def write(folder, content):
    path = folder / "ca.pem"
    path.write_bytes(content)
    return path


def test_the_certificates_of_a_bundle_are_read_and_nothing_else(tmp_path, certificate):
    key = "-----BEGIN PRIVATE KEY-----\nc2VzYW1l\n-----END PRIVATE KEY-----\n"
    path = write(tmp_path, f"# Räuber\n{certificate}\n{key}{certificate}\n".encode("latin-1"))

    text = read_certificates(path)

    assert text.count(BEGIN) == 2
    assert "PRIVATE" not in text
    assert text.isascii()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"no certificate", b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nc2VzYW1l\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\n\xff\xfe\n-----END CERTIFICATE-----\n", b"\x00" * 10,
        b" " * (MAX_BUNDLE_BYTES + 1),
    ],
)  # fmt: skip
def test_a_file_without_a_usable_certificate_is_refused(tmp_path, content):
    with pytest.raises(ConfigurationError) as caught:
        read_certificates(write(tmp_path, content))

    assert caught.value.key == "ca_bundle"
    assert str(tmp_path) not in str(caught.value)


# Platforms


PLATFORM = Callee(name="The platform", setting="PLATFORM_URL", remedy="Run this on the platform.")


@pytest.mark.parametrize(
    ("url", "is_plain"),
    [
        *((url, False) for url in (
            "https://run.actions.example.com/idtoken?x=1", "https://10.0.0.1/", "https://192.0.2.1:8443/a")),
        *((url, True) for url in (
            "http://127.0.0.1:1234/x", "http://127.8.8.8/", "http://localhost:42356/msi/token", "http://[::1]:1/",
            "http://169.254.169.254/metadata", "http://169.254.130.2:8081/msi/token", "http://[fe80::1]/",
            "http://metadata.google.internal/computeMetadata", "HTTP://LOCALHOST/")),
    ],
)  # fmt: skip
def test_https_may_go_anywhere_and_plain_http_to_this_machine_and_its_metadata_services(url, is_plain):
    assert check_platform_url(url, PLATFORM) is is_plain


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/", "http://10.0.0.1/", "http://192.168.1.1/", "http://[fd00:ec2::254]/",
        "http://metadata.google.internal.example.com/", "http://169.254.169.254.example.com/", "http://2852039166/",
        "http://0.0.0.0/", "ftp://127.0.0.1/", "127.0.0.1/token", "",
        # What can be misread.
        "http://127.0.0.1@evil.example.com/", "https://user:s3same@example.com/", "https://example.com/#s3same",
        "http://127.0.0.1:99999/", "http://127.0.0.1:0/", "http://[::1/", "https://example.com/a b?s3same",
        "https://example.com\\@127.0.0.1/?s3same", "https://exämple.com/?s3same", "https://example.com/\n?s3same",
        "https://example.com/?s3same=" + "x" * 9000,
    ],
)  # fmt: skip
def test_other_addresses_are_refused_without_showing_them(url):
    with pytest.raises(ConfigurationError) as caught:
        check_platform_url(url, PLATFORM)

    assert (caught.value.key, caught.value.remedy) == ("PLATFORM_URL", "Run this on the platform.")
    assert "s3same" not in str(caught.value)


# Proxies


URL = "https://id.example.com/token"


@pytest.fixture
def _no_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.usefixtures("_no_proxies")
@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("https_proxy", "http://alice:sesame@proxy.example"), ("HTTPS_PROXY", "proxy.example:3128"),
        ("all_proxy", "http://[2001:db8::1]:3128"),
    ],
)  # fmt: skip
def test_the_proxy_of_the_environment_is_a_secret(monkeypatch, name, address):
    monkeypatch.setenv(name, address)

    proxy = proxy_for(URL)

    assert proxy.reveal() == address
    assert "sesame" not in repr(proxy)


@pytest.mark.usefixtures("_no_proxies")
@pytest.mark.parametrize(
    "address", ["http://", "http://alice:sesame@", "proxy.example:port", "http://proxy.example:0", "http://[proxy"]
)
def test_a_malformed_proxy_is_refused_without_showing_it(monkeypatch, address):
    monkeypatch.setenv("https_proxy", address)

    with pytest.raises(ConfigurationError) as caught:
        proxy_for(URL)

    assert caught.value.key == "https_proxy"
    assert "sesame" not in str(caught.value)


@pytest.mark.usefixtures("_no_proxies")
def test_a_socks_proxy_without_the_package_for_it_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "socks", None)
    monkeypatch.setenv("https_proxy", "SOCKS5://alice:sesame@proxy.example")

    with pytest.raises(ConfigurationError, match="PySocks") as caught:
        proxy_for(URL)

    assert "sesame" not in str(caught.value)
