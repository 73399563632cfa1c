"""Errors survive the wire, and nothing else gets in that way."""

from __future__ import annotations

import json

import pytest

from micromegas_jupyter.errors import (
    InvalidStatement,
    Rejected,
    ResourcesExhausted,
    Unavailable,
)
from micromegas_jupyter.flightsql.commands import (
    MAX_DETAILS_BYTES,
    decode_error,
    encode_error,
    parse_status_text,
    status_text,
)

_ERROR = InvalidStatement('No column "no_such".', line=1, column=14, query_id="7f3a91c2")


def _details(**changes: object) -> bytes:
    fields = {"code": "SQL001", "what": "No table.", "remedy": "Correct it.", **changes}
    return json.dumps({name: value for name, value in fields.items() if value is not ...}).encode()


def test_an_error_is_written_as_compact_json() -> None:
    assert encode_error(_ERROR) == (
        b'{"code":"SQL001","what":"No column \\"no_such\\".","remedy":"Correct the statement.",'
        b'"query_id":"7f3a91c2","line":1,"column":14}'
    )


def test_position_query_id_and_delay_survive_the_wire() -> None:
    found = decode_error(encode_error(_ERROR))
    delayed = decode_error(encode_error(ResourcesExhausted("Too often.", retry_after_seconds=1.25)))

    assert isinstance(found, InvalidStatement)
    assert (found.line, found.column, found.query_id) == (1, 14, "7f3a91c2")
    assert isinstance(delayed, ResourcesExhausted)
    assert delayed.retry_after_seconds == 1.25


@pytest.mark.parametrize("seconds", [None, 0.0, 86_401.0, float("nan")])
def test_a_delay_that_is_none_is_not_sent(seconds: float | None) -> None:
    assert b"retry" not in encode_error(ResourcesExhausted("Too often.", retry_after_seconds=seconds))


def test_the_audit_reason_of_a_refusal_stays_on_the_server() -> None:
    written = encode_error(Rejected(reason="expired"))

    assert b"expired" not in written


@pytest.mark.parametrize("character", ["x", "é"])
def test_a_long_sentence_is_cut_to_the_bound_and_says_so(character: str) -> None:
    written = encode_error(InvalidStatement(character * 9000, line=3, query_id="q"))

    found = decode_error(written)
    assert MAX_DETAILS_BYTES - 8 < len(written) <= MAX_DETAILS_BYTES
    assert isinstance(found, InvalidStatement)
    assert found.what.endswith(character + " …")
    assert found.line == 3


def test_a_long_remedy_is_cut() -> None:
    found = decode_error(encode_error(Unavailable("Down.", remedy="wait " * 1000)))

    assert found is not None
    assert len(found.remedy) == 512


@pytest.mark.parametrize(
    ("sent", "shown"),
    [("a\x1b[31mb", "a\ufffd[31mb"), ("a\rb", "a\ufffdb"), ("a\u202eb", "a\ufffdb"), ("a\nb", "a\nb")],
)
def test_what_could_steer_a_terminal_is_replaced_on_both_sides(sent: str, shown: str) -> None:
    from_our_server = decode_error(encode_error(InvalidStatement(sent)))
    from_any_server = decode_error(_details(what=sent))

    assert from_our_server is not None
    assert from_any_server is not None
    assert from_our_server.what == shown
    assert from_any_server.what == shown


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xfe",
        b"[]",
        _details(code="SQL999"),
        _details(what=None),
        _details(remedy=["a"]),
        _details(query_id="a b"),
        _details(line=0),
        _details(line=True),
        _details(column=2**31),
        _details(code="SQL004", retry_after_seconds=True),
        _details(code="SQL004", retry_after_seconds=86_401),
        _details(nested=[[[1]]]),
        b'{"code":"SQL001","code":"SQL002","what":"","remedy":""}',
        _details(what="x" * MAX_DETAILS_BYTES),
    ],
)
def test_anything_else_is_no_error(data: bytes) -> None:
    assert decode_error(data) is None


def test_a_status_text_holds_sentence_remedy_code_place_and_id() -> None:
    text = status_text(_ERROR)

    assert text == 'No column "no_such". Correct the statement. [SQL001] (line 1, column 14) (query_id=7f3a91c2)'
    assert status_text(InvalidStatement("No.", remedy="", line=4)) == "No. [SQL001] (line 4)"


def test_what_a_library_appends_to_a_status_text_is_dropped() -> None:
    found = parse_status_text("Too much. Use LIMIT. [SQL004] (query_id=ab-1); ExecuteQuery {grpc_status:8}")

    assert isinstance(found, ResourcesExhausted)
    assert str(found) == "Too much. Use LIMIT."
    assert isinstance(parse_status_text('No column "[AUTH001]". [SQL001]'), InvalidStatement)  # of the caller's SQL
    assert found.query_id == "ab-1"


@pytest.mark.parametrize("text", ["Table not found", "No [SQL999]", "[sql001]"])
def test_a_text_without_a_known_code_is_no_error(text: str) -> None:
    assert parse_status_text(text) is None
