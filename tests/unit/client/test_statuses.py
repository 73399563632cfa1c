"""What the Flight library raises becomes the class that the server meant."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from pyarrow import flight

from micromegas_jupyter.client.transport import Call, CallRecord, Credential, translate_failure
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import (
    InvalidStatement,
    Rejected,
    ServerUnavailable,
    StatementRefused,
)
from micromegas_jupyter.flightsql.commands import encode_error

# What the library adds after the server's own words (pyarrow 23).
_CONTEXT = (
    ". gRPC client debug context: UNKNOWN:Error received from peer ipv4:127.0.0.1:42869 "
    '{grpc_message:"T", grpc_status:3}. Client context: IOError: Server never sent a data message. Detail: Internal'
)


def _call(*, details: bytes | None = None, token: str | None = None, timeout_seconds: float | None = None) -> Call:
    record = CallRecord()
    record.error_details = details
    headers = () if token is None else ((b"authorization", b"Bearer " + token.encode()),)
    return Call(
        server="lake.example.com:50051",
        credential=Credential(headers=headers, token=None if token is None else Secret(token)),
        timeout_seconds=timeout_seconds,
        started_at=datetime(2026, 11, 24, 12, 0, tzinfo=UTC),
        record=record,
    )


def test_the_details_in_the_trailer_win() -> None:
    details = encode_error(StatementRefused("Not here.", line=2, column=3, query_id="q1"))

    error = translate_failure(
        pa.ArrowInvalid("Flight returned invalid argument error, with message: x"), _call(details=details)
    )

    assert type(error) is StatementRefused
    assert (error.what, error.line, error.column, error.query_id) == ("Not here.", 2, 3, "q1")


@pytest.mark.parametrize(
    "text",
    [
        'my words. Detail: Python exception: Traceback (most recent call last):\n  File "/srv/x.py", line 1\n. '
        + _CONTEXT,
        'my words\nTraceback (most recent call last):\n  File "/srv/x.py"' + _CONTEXT,
    ],
)
def test_a_traceback_of_another_server_never_reaches_a_person(text: str) -> None:
    error = translate_failure(pa.ArrowInvalid(text), _call())

    assert type(error) is InvalidStatement
    assert error.what == "my words"


def test_upstreams_query_id_and_place_are_found_in_the_text() -> None:
    text = (
        "Flight returned invalid argument error, with message: No x at Line: 3, Column: 14 (query_id=ab-1)" + _CONTEXT
    )

    error = translate_failure(pa.ArrowInvalid(text), _call())

    assert isinstance(error, InvalidStatement)
    assert (error.what, error.line, error.column, error.query_id) == ("No x at Line: 3, Column: 14", 3, 14, "ab-1")


def test_a_long_or_hostile_text_is_bounded_and_harmless() -> None:
    text = "Flight returned invalid argument error, with message: \x1b[31m" + "x" * 100_000

    error = translate_failure(pa.ArrowInvalid(text), _call())

    assert len(error.what) == 1000
    assert "\x1b" not in error.what


FAILED = "failed to connect to all addresses; last error: UNKNOWN: "


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (f"{FAILED}ipv4:1.2.3.4:1: Connection refused", "does not answer"),
        ("errors resolving nosuch.example:1: [field:hostname]", "does not answer"),
        (f"{FAILED}Ssl handshake failed: CERTIFICATE_VERIFY_FAILED", "was not issued by an authority"),
        (f"{FAILED}Ssl handshake failed: certificate verify failed: certificate has expired", "has expired"),
        (f"{FAILED}ipv4:1.2.3.4:1: Peer name vm is not in peer certificate", "is for another name"),
        (f"{FAILED}Ssl handshake failed: NO_SHARED_CIPHER", "No secure"),
        (f"{FAILED}ipv4:1.2.3.4:1: Failed parsing HTTP/2", "is not a Flight SQL server"),
        (f"{FAILED}timed out before receiving SETTINGS frame", "No secure"),
        ("Socket closed", "was lost"),
        ("keepalive watchdog timeout", "was lost"),
    ],
)
def test_a_server_that_cannot_be_reached_is_told_from_one_that_cannot_answer(text: str, what: str) -> None:
    raised = flight.FlightUnavailableError(f"Flight returned unavailable error, with message: {text}{_CONTEXT}")

    error = translate_failure(raised, _call())

    assert type(error) is ServerUnavailable
    assert what in error.what


def test_without_a_credential_a_refusal_says_how_to_sign_in() -> None:
    error = translate_failure(flight.FlightUnauthenticatedError("x"), _call())

    assert type(error) is Rejected
    assert error.what == "You are not signed in to lake.example.com:50051."


def test_with_a_token_a_refusal_says_what_the_token_is_for() -> None:
    payload = base64.urlsafe_b64encode(json.dumps({"aud": "other", "iss": "https://id.example"}).encode()).decode()
    details = encode_error(Rejected("The server does not accept this credential."))

    error = translate_failure(
        flight.FlightUnauthenticatedError("x"), _call(details=details, token=f"eyJhbGciOiJSUzI1NiJ9.{payload}.c2ln")
    )

    assert type(error) is Rejected
    assert str(error).startswith(
        'The server does not accept this credential. The token is for audience "other", from https://id.example.'
    )


def test_a_refused_token_that_is_no_jwt_may_be_an_api_key() -> None:
    error = translate_failure(flight.FlightUnauthenticatedError("no"), _call(token="mmk_0123"))

    assert "api_key_file" in error.remedy
