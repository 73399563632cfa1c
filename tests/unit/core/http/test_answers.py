from __future__ import annotations

from datetime import UTC, datetime

import pytest

from micromegas_jupyter.core.http import Callee, HttpAnswer, RawAnswer, check_answer, read_answer
from micromegas_jupyter.errors import ProviderMisbehaved, ProviderUnavailable


def read(
    status: int = 200, body: bytes = b'{"a": 1}', *, max_bytes: int = 100, needs_body: bool = True, **headers: str
) -> HttpAnswer:
    sent = {"content-type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    raw = RawAnswer(status=status, headers=sent, body=body)
    callee = Callee(name="The identity provider id.example.com", group="identity providers")
    check_answer(raw, callee, max_bytes=max_bytes, needs_body=needs_body)
    return read_answer(raw, callee, needs_body=needs_body)


def test_a_json_document_is_decoded() -> None:
    answer = read(date="Tue, 24 Nov 2026 12:00:00 GMT")

    assert answer == HttpAnswer(status=200, body={"a": 1}, date=datetime(2026, 11, 24, 12, 0, tzinfo=UTC))
    assert answer.is_success


@pytest.mark.parametrize(
    "media_type", ["application/json;charset=utf-8", "application/jwk-set+json", "Application/JSON"]
)
def test_every_spelling_of_json_is_accepted(media_type: str) -> None:
    assert read(content_type=media_type).body == {"a": 1}


@pytest.mark.parametrize("media_type", ["text/html", "text/json", "image/svg+json", ""])
def test_anything_that_does_not_call_itself_json_is_refused(media_type: str) -> None:
    with pytest.raises(ProviderMisbehaved):
        read(content_type=media_type)


@pytest.mark.parametrize("body", [b"{", b'{"a": 1, "a": 2}', b'{"a": NaN}', b"\xff\xfe", b"[" * 60 + b"]" * 60])
def test_json_that_means_nothing_or_two_things_is_refused(body: bytes) -> None:
    with pytest.raises(ProviderMisbehaved):
        read(body=body, max_bytes=1000)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
def test_a_provider_in_trouble_is_unavailable(status: int) -> None:
    with pytest.raises(ProviderUnavailable) as caught:
        read(status, b"<html>")

    assert str(status) in caught.value.what


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 304, 101])
def test_a_redirect_is_refused(status: int) -> None:
    with pytest.raises(ProviderMisbehaved):
        read(status)


def test_an_error_in_json_is_returned_for_the_caller_to_read() -> None:
    answer = read(400, b'{"error": "invalid_grant"}')

    assert (answer.status, answer.body, answer.is_success) == (400, {"error": "invalid_grant"}, False)


def test_an_error_that_is_not_json_is_refused() -> None:
    with pytest.raises(ProviderMisbehaved):
        read(404, b"<html>", content_type="text/html")


def test_a_body_over_the_cap_is_refused() -> None:
    assert read(body=b'"' + b"x" * 98 + b'"').body == "x" * 98

    with pytest.raises(ProviderMisbehaved):
        read(body=b'"' + b"x" * 99 + b'"')


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip"])
def test_a_compressed_body_is_refused(encoding: str) -> None:
    with pytest.raises(ProviderMisbehaved):
        read(content_encoding=encoding)


def test_an_empty_body_is_none_whatever_its_type() -> None:
    assert read(body=b"", content_type="text/html").body is None


def test_a_body_that_is_not_needed_is_not_looked_at() -> None:
    assert read(body=b"done", content_type="text/plain", needs_body=False).body is None


@pytest.mark.parametrize(("age", "is_taken"), [("0", True), (" 0 ", True), ("1", False), ("8640", False), ("?", False)])
def test_the_date_of_an_answer_that_a_cache_kept_is_not_the_provider_s_time(age: str, is_taken: bool) -> None:
    answer = read(date="Tue, 24 Nov 2026 12:00:00 GMT", age=age)

    assert (answer.date is not None) is is_taken


@pytest.mark.parametrize("date", ["yesterday", "", "Tue, 24 Nov 2026 12:00:00 -0000", "Tue, 99 Nov 2026 12:00:00 GMT"])
def test_a_date_that_cannot_be_read_is_left_out(date: str) -> None:
    assert read(date=date).date is None


def test_a_body_does_not_show_in_the_repr() -> None:
    assert "sesame" not in repr(read(body=b'{"token": "sesame"}'))
