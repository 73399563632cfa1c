"""What needs no network; calls are tried in `tests/integration/http/test_platform_http.py`."""

from __future__ import annotations

import pytest

from micromegas_jupyter.core.http import Platform, RawAnswer, check_platform_url
from micromegas_jupyter.errors import ConfigurationError

PLATFORM = Platform(name="The platform", setting="PLATFORM_URL", remedy="Run this on the platform.")


def answer(body: bytes, status: int = 200) -> RawAnswer:
    return RawAnswer(status=status, headers={}, body=body)


@pytest.mark.parametrize(
    "url", ["https://run.actions.example.com/idtoken?x=1", "https://10.0.0.1/", "https://192.0.2.1:8443/a"]
)
def test_https_may_go_anywhere(url: str) -> None:
    assert check_platform_url(url, PLATFORM) is False


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1234/x",
        "http://127.8.8.8/",
        "http://localhost:42356/msi/token",
        "http://[::1]:1/",
        "http://169.254.169.254/metadata",
        "http://169.254.130.2:8081/msi/token",
        "http://[fe80::1]/",
        "http://metadata.google.internal/computeMetadata",
        "HTTP://LOCALHOST/",
    ],
)
def test_plain_http_goes_to_this_machine_and_its_metadata_services(url: str) -> None:
    assert check_platform_url(url, PLATFORM) is True


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "http://10.0.0.1/",
        "http://192.168.1.1/",
        "http://[fd00:ec2::254]/",
        "http://metadata.google.internal.example.com/",
        "http://169.254.169.254.example.com/",
        "http://2852039166/",
        "http://0.0.0.0/",
        "ftp://127.0.0.1/",
        "127.0.0.1/token",
        "",
    ],
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_platform_url(url, PLATFORM)

    assert (caught.value.key, caught.value.remedy) == ("PLATFORM_URL", "Run this on the platform.")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1@evil.example.com/",
        "https://user:s3same@example.com/",
        "https://example.com/#s3same",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:0/",
        "http://[::1/",
        "https://example.com/a b?s3same",
        "https://example.com\\@127.0.0.1/?s3same",
        "https://exämple.com/?s3same",
        "https://example.com/\n?s3same",
        "https://example.com/?s3same=" + "x" * 9000,
    ],
)
def test_an_address_that_can_be_misread_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_platform_url(url, PLATFORM)

    assert "s3same" not in str(caught.value)


def test_an_answer_is_read_as_an_object() -> None:
    assert answer(b'{"value": "a"}').json_object() == {"value": "a"}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b'{"a": 1, "a": 2}'])
def test_an_answer_that_is_no_object_is_an_empty_one(body: bytes) -> None:
    assert answer(body).json_object() == {}


@pytest.mark.parametrize(("body", "expected"), [(b"a.b.c", "a.b.c"), (b"", ""), (b"\xff", "")])
def test_an_answer_is_read_as_text(body: bytes, expected: str) -> None:
    assert answer(body).text() == expected


@pytest.mark.parametrize(("status", "expected"), [(200, True), (204, True), (400, False), (404, False)])
def test_success_is_told_by_the_status(status: int, expected: bool) -> None:
    assert answer(b"", status).is_success is expected


def test_an_answer_does_not_show_what_it_holds() -> None:
    assert "s3same" not in repr(RawAnswer(status=200, headers={"x": "s3same"}, body=b"s3same"))
