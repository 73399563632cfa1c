"""Call metadata is checked before the Flight library, which ends the process over bad ones, sees it."""

from __future__ import annotations

import pytest

from micromegas_jupyter.client.calls import (
    build_header,
    build_option_headers,
    build_tag_headers,
    parse_static_headers,
)
from micromegas_jupyter.errors import UsageError

_ENVIRON = {"MICROMEGAS_CLIENT_ENTRYPOINT": "script", "CLAUDE_CODE_SESSION_ID": "s-1"}


def test_a_query_carries_its_range_its_limit_and_who_sends_it() -> None:
    options = build_option_headers(
        begin="2026-11-24T00:00:00+00:00", end="2026-11-25T00:00:00+00:00", limit=10, preserve_dictionary=True
    )

    headers = (*build_tag_headers(_ENVIRON), *options)

    assert dict(headers) == {
        b"x-client-type": b"python",
        b"x-client-agent": b"none",
        b"x-client-entrypoint": b"script",
        b"x-client-session": b"s-1",
        b"query_range_begin": b"2026-11-24T00:00:00+00:00",
        b"query_range_end": b"2026-11-25T00:00:00+00:00",
        b"limit": b"10",
        b"preserve_dictionary": b"true",
    }


def test_what_is_not_asked_for_is_not_sent() -> None:
    headers = dict(build_option_headers())

    assert not {b"query_range_begin", b"query_range_end", b"limit", b"preserve_dictionary"} & headers.keys()


def test_a_limit_of_no_rows_is_sent() -> None:
    assert (b"limit", b"0") in build_option_headers(limit=0)


@pytest.mark.parametrize("limit", [-1, 1.0, True, "10", 2**63])
def test_a_limit_that_is_no_number_of_rows_is_refused(limit: int) -> None:
    with pytest.raises(UsageError):
        build_option_headers(limit=limit)


def test_a_key_in_upper_case_is_lowered() -> None:
    assert build_header("Authorization", b"Bearer x") == (b"authorization", b"Bearer x")


@pytest.mark.parametrize("key", ["", "a b", "ä", "a\n", ":path", "grpc-timeout", "x" * 129, b"\xff", 7])
def test_a_key_that_cannot_be_sent_is_refused(key: str) -> None:
    with pytest.raises(UsageError):
        build_header(key, "value")


@pytest.mark.parametrize(
    "value", ["hunter2\n", "hunter2\r\nx: y", "hunter2é", "hunter2\x7f", "hunter2" * 4000, b"\x80", 7]
)
def test_a_value_that_cannot_be_sent_is_refused_and_not_repeated(value: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_header("authorization", value)

    assert "hunter2" not in str(caught.value)


def test_static_headers_are_a_mapping_or_pairs() -> None:
    as_mapping = parse_static_headers({"authorization": "Bearer k"})
    as_pairs = parse_static_headers([(b"authorization", b"Bearer k")])

    assert as_mapping == as_pairs == ((b"authorization", b"Bearer k"),)


@pytest.mark.parametrize("headers", [7, ["authorization"], [("a", "b", "c")], [7]])
def test_other_static_headers_are_refused(headers: list[tuple[str, str]]) -> None:
    with pytest.raises(UsageError):
        parse_static_headers(headers)
