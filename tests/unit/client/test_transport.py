"""Calls: addresses, headers, credentials, what a token and a server say, and the class of what the library raises."""

import base64
import json
import threading
import uuid
from datetime import UTC, datetime
from types import SimpleNamespace

import pyarrow as pa
import pytest
from pyarrow import flight

from micromegas_jupyter import errors
from micromegas_jupyter.client import token_claims, transport
from micromegas_jupyter.client.commands import parse_server_identity
from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.client.transport import (
    CallRecord,
    CallRecorder,
    Credential,
    CredentialSource,
    translate_failure,
)
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.flightsql.commands import encode_error
from tests.fakes.tracebacks import verbose_traceback


@pytest.mark.parametrize(
    ("uri", "location", "is_encrypted", "is_loopback"),
    [
        ("grpc://localhost:50051", "grpc://localhost:50051", False, True),
        (" grpc://localhost:50051\n", "grpc://localhost:50051", False, True),
        ("grpc://[::1]:50051", "grpc://[::1]:50051", False, True),
        ("http://127.8.9.10:80", "grpc://127.8.9.10:80", False, True),
        ("HTTP://lake.example.com:8080/", "grpc://lake.example.com:8080", False, False),
        ("grpc+tls://lake.example.com:50051", "grpc+tls://lake.example.com:50051", True, False),
        ("https://Lake.Example.com", "grpc+tls://lake.example.com:443", True, False),
        # These only look local.
        *((uri, uri, False, False) for uri in (
            "grpc://localhost.example.com:1", "grpc://127.0.0.1.example.com:1", "grpc://0.0.0.0:1")),
    ],
)  # fmt: skip
def test_an_address_is_read(uri, location, is_encrypted, is_loopback):
    address = transport.parse_address(uri)

    assert (address.location, address.is_encrypted, address.is_loopback) == (location, is_encrypted, is_loopback)


@pytest.mark.parametrize(
    "uri",
    [
        "localhost:50051", "ftp://localhost:1", "grpc://", "grpc://localhost", "grpc://localhost:99999", "grpc://a b:1",
        "grpc://bücher.example:1", "grpc://localhost:1/path", "grpc://localhost:1?x=y", None,
        "grpc://alice:hunter2@localhost:50051",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_and_no_password_repeated(uri):
    with pytest.raises(errors.UsageError) as caught:
        transport.parse_address(uri)

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("limit", [-1, True, 2**63])
def test_a_limit_that_is_no_number_of_rows_is_refused(limit):
    assert transport.build_option_headers(limit=0) == ((b"limit", b"0"),)
    with pytest.raises(errors.UsageError):
        transport.build_option_headers(limit=limit)


@pytest.mark.parametrize("key", ["", "a b", "ä", ":path", "grpc-timeout", "x" * 129, b"\xff", 7])
def test_a_key_that_cannot_be_sent_is_refused(key):
    with pytest.raises(errors.UsageError):
        transport.build_header(key, "value")


@pytest.mark.parametrize("value", ["hunter2\r\nx: y", "hunter2é", "hunter2\x7f", "hunter2" * 4000, b"\x80", 7])
def test_a_value_that_cannot_be_sent_is_refused_and_not_repeated(value):
    with pytest.raises(errors.UsageError) as caught:
        transport.build_header("authorization", value)

    assert "hunter2" not in str(caught.value)


def find_attribution(environ, *, entrypoint=None):
    """Return agent, entry point and session."""
    headers = dict(transport.build_tag_headers(environ, entrypoint=entrypoint))
    return [headers[f"x-client-{name}".encode()].decode() for name in ("agent", "entrypoint", "session")]


def test_agent_entry_point_and_session_come_from_the_environment():
    plain, other = find_attribution({}), find_attribution({})
    named = find_attribution({"MICROMEGAS_CLIENT_AGENT": "ci", "MICROMEGAS_CLIENT_ENTRYPOINT": "nightly"})
    known = find_attribution({"CLAUDECODE": "1", "CLAUDE_CODE_SESSION_ID": "s-1"})

    assert (plain[0], uuid.UUID(plain[2]).version) == ("none", 4)
    assert plain[2] != other[2]
    assert (named[:2], known[0], known[2]) == (["ci", "nightly"], "claude-code", "s-1")


@pytest.mark.parametrize("bad", ["a\nb", "é", "x" * 65])
def test_a_name_that_cannot_be_sent_is_refused_from_the_caller_and_passed_over_from_the_environment(bad):
    agent, found, _ = find_attribution({"MICROMEGAS_CLIENT_AGENT": bad, "MICROMEGAS_CLIENT_ENTRYPOINT": bad})

    assert agent == "none"
    assert found in {"script", "repl", "jupyter"}
    with pytest.raises(errors.UsageError):
        find_attribution({}, entrypoint=bad)


@pytest.mark.parametrize("key", [b"authorization", b"x-api-key", b"cookie"])
def test_static_headers_are_a_credential_when_they_hold_one(key):
    address = transport.parse_address("grpc://lake.example.com:50051")

    CredentialSource(None, ((b"x-other", b"v"),)).check_plaintext(address)
    with pytest.raises(errors.UsageError):
        CredentialSource(None, ((key, b"k"),)).check_plaintext(address)


@pytest.mark.parametrize("token", ["", "a b", "a\n", "é", "x" * 16_384, None, b"abc"])
def test_what_is_no_token_is_refused_and_not_repeated(token):
    with pytest.raises(errors.UsageError) as caught:
        CredentialSource(SimpleNamespace(get_token=lambda: token)).fetch()

    assert "xxx" not in str(caught.value)


@pytest.mark.parametrize(
    "call",
    [
        lambda token: CredentialSource(SimpleNamespace(get_token=lambda: token)).fetch(),
        lambda token: FlightSQLClient("grpc://localhost:1", headers={"authorization": f"Bearer {token}"}),
        lambda token: FlightSQLClient("grpc://localhost:1", headers=[("authorization", token.encode())]),
        lambda token: FlightSQLClient("grpc://localhost:1", headers=[token]),
        lambda token: FlightSQLClient("grpc://localhost:1", headers={"a": token}, auth_provider=SimpleNamespace()),
    ],
    ids=["a provider's token", "a static header", "a static header in bytes", "not a pair", "two credentials"],
)
@pytest.mark.filterwarnings("ignore:headers is deprecated")
def test_no_verbose_traceback_shows_a_token_that_cannot_be_sent(call):
    assert "sesame" not in verbose_traceback(lambda: call("sesame" + "\n"))


_NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def _token(claims):
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return Secret(f"eyJhbGciOiJSUzI1NiJ9.{payload}.c2ln")


_NOON = 1_795_521_600


def _clock(distance):
    return f"This machine's clock is {distance} the identity provider's. "


@pytest.mark.parametrize(
    ("claims", "offset_seconds", "times", "is_clock_wrong", "has_expired"),
    [
        ({"exp": _NOON}, 0.0, "It expired at 2026-11-24 12:00 UTC; here it is 2026-11-24 12:00 UTC.", False, True),
        ({"exp": _NOON + 1}, 0.0, "", False, False),
        ({"iat": _NOON + 30, "nbf": _NOON + 20, "exp": _NOON + 600}, 0.0, "", False, False),
        ({"iat": _NOON + 300, "exp": _NOON + 900}, 0.0, _clock("5 min behind").strip(), True, False),
        ({"iat": _NOON + 300, "nbf": _NOON + 300}, 0.0,
         f"{_clock('5 min behind')}The token is valid from 2026-11-24 12:05 UTC; here it is 2026-11-24 12:00 UTC.",
         True, False),
        ({"iat": _NOON - 1, "nbf": _NOON + 60.5}, 0.0,
         "The token is valid from 2026-11-24 12:01 UTC; here it is 2026-11-24 12:00 UTC.", True, False),
        ({"iat": _NOON - 1}, 90.0, _clock("1 min behind").strip(), True, False),
        ({"iat": _NOON - 7800, "exp": _NOON - 7200}, -7500.0,
         f"{_clock('2 h 5 min ahead of')}It expired at 2026-11-24 10:00 UTC; here it is 2026-11-24 12:00 UTC.",
         True, True),
        ({}, 7200.0, _clock("2 h 0 min behind").strip(), True, False),
        *((claims, 0.0, "", False, False) for claims in (
            [], {"exp": "x", "iat": True, "nbf": "x"}, {"exp": 10**30, "iat": 10**400},
            {"iat": float("1e308"), "nbf": -1e308})),
    ],
)  # fmt: skip
def test_the_times_in_a_token_and_a_measured_clock_are_compared_with_this_machines(
    claims, offset_seconds, times, is_clock_wrong, has_expired
):
    found = token_claims.describe_token(_token(claims), now=_NOW, clock_offset_seconds=offset_seconds)

    assert (found.times, found.is_clock_wrong, found.has_expired) == (times, is_clock_wrong, has_expired)


@pytest.mark.parametrize(
    ("audience", "origin"),
    [
        ("other-app", 'The token is for audience "other-app", from https://id.example.'),
        (["a", "b"], 'The token is for audience "a, b", from https://id.example.'), (1, ""),
    ],
)  # fmt: skip
def test_audience_and_issuer_of_a_token_are_told(audience, origin):
    claims = {"aud": audience, "iss": "https://id.example", "email": "a@b"}

    assert token_claims.describe_token(_token(claims), now=_NOW).origin == origin


@pytest.mark.parametrize("token", ["mmk_opaque", "a.b.c", "x" * 1000])
def test_of_an_opaque_token_nothing_is_told(token):
    assert token_claims.describe_token(Secret(token), now=_NOW) == token_claims.TokenDescription()


def test_what_a_token_says_cannot_steer_a_terminal():
    text = token_claims.describe_token(_token({"aud": "a\x1b[31m", "iss": "x" * 9999}), now=_NOW).origin

    assert "\x1b" not in text
    assert len(text) < 300


def _told(*texts):
    told = list[str]()
    recorder = CallRecorder()
    recorder.on_notice = told.append
    for text in texts:
        recorder.note({"x-micromegas-notice": [text]})
    return told


def test_a_notice_is_short_printable_and_not_one_of_very_many():
    (text,) = _told("", " ", b"bytes", "a\x1b[31m\n\u202eb " + "x" * 1000)

    assert text.isprintable()
    assert "\u202e" not in text
    assert len(text) <= 256
    assert len(_told(*(f"Notice {number}." for number in range(1000)))) == 4


def test_a_call_writes_to_the_record_of_the_thread_that_makes_it():
    recorder, mine, other = CallRecorder(), CallRecord(), CallRecord()

    def call_elsewhere():
        with recorder.recording(other):
            recorder.start_call(None).received_headers({"x-micromegas-query-id": ["theirs"]})

    with recorder.recording(mine):
        thread = threading.Thread(target=call_elsewhere)
        thread.start()
        thread.join(60)
        started = recorder.start_call(None)
    started.received_headers({"x-micromegas-query-id": ["mine"]})
    started.received_headers({"x-micromegas-query-id": ["a b"], "micromegas-error-bin": [b"x" * 4097]})
    recorder.start_call(None).received_headers({"x-micromegas-query-id": ["nobody's"]})

    assert (mine.query_id, mine.error_details, other.query_id) == ("mine", None, "theirs")


_ANSWER = {
    "subject": "u-1", "name": "Alice Martin", "email": "alice@example.com", "issuer": "https://id.example",
    "auth_type": "oidc", "is_admin": True, "expires_at": "2026-11-24T13:00:00+00:00",
}  # fmt: skip


def test_an_identity_is_printable_and_its_groups_are_counted_by_the_server():
    changes = {"name": "a\x1b[2J", "email": "ann@x\nSession expired. Run: this", "groups": ["analysts", "a\x1b[2J"]}

    identity = parse_server_identity(json.dumps({**_ANSWER, **changes, "group_count": 250}).encode())

    assert (identity.name, identity.email) == ("a\ufffd[2J", "ann@x Session expired. Run: this")
    assert (identity.groups, identity.group_count) == (("analysts", "a\ufffd[2J"), 250)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xff", b'{"subject":"a"}', json.dumps({**_ANSWER, "subject": 1}).encode(),
        json.dumps({**_ANSWER, "expires_at": "2026-11-24T13:00:00"}).encode(),
        json.dumps({**_ANSWER, "groups": {}}).encode(), json.dumps({**_ANSWER, "name": "x" * 20_000}).encode(),
    ],
    ids=range(7),
)  # fmt: skip
def test_another_answer_cannot_be_read(data):
    with pytest.raises(errors.InternalError):
        parse_server_identity(data)


# What the library adds after the server's own words (pyarrow 23).
_CONTEXT = (
    ". gRPC client debug context: UNKNOWN:Error received from peer ipv4:127.0.0.1:42869 "
    '{grpc_message:"T", grpc_status:3}. Client context: IOError: Server never sent a data message. Detail: Internal'
)


def _call(*, details=None, token=None):
    record = CallRecord()
    record.error_details = details
    headers = () if token is None else ((b"authorization", b"Bearer " + token.encode()),)
    return transport.Call(
        server="lake.example.com:50051",
        credential=Credential(headers=headers, token=None if token is None else Secret(token)),
        started_at=datetime(2026, 11, 24, 12, 0, tzinfo=UTC),
        record=record,
    )


@pytest.mark.parametrize(
    "text",
    [
        'my words. Detail: Python exception: Traceback (most recent call last):\n  File "/srv/x.py", line 1\n. ',
        'my words\nTraceback (most recent call last):\n  File "/srv/x.py"',
    ],
)
def test_a_traceback_of_another_server_never_reaches_a_person(text):
    error = translate_failure(pa.ArrowInvalid(text + _CONTEXT), _call())

    assert (type(error), error.what) == (errors.InvalidStatement, "my words")


def test_a_text_of_upstream_has_query_id_and_place_and_a_hostile_one_is_bounded_and_harmless():
    prefix = "Flight returned invalid argument error, with message: "
    placed = f"{prefix}No x at Line: 3, Column: 14 (query_id=ab-1){_CONTEXT}"

    error = translate_failure(pa.ArrowInvalid(placed), _call())
    hostile = translate_failure(pa.ArrowInvalid(f"{prefix}\x1b[31m{'x' * 100_000}"), _call())

    assert (error.what, error.line, error.column, error.query_id) == ("No x at Line: 3, Column: 14", 3, 14, "ab-1")
    assert len(hostile.what) == 1000
    assert "\x1b" not in hostile.what


FAILED = "failed to connect to all addresses; last error: UNKNOWN: "


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (f"{FAILED}ipv4:1.2.3.4:1: Connection refused", "does not respond"),
        ("errors resolving nosuch.example:1: [field:hostname]", "does not respond"),
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
def test_a_server_that_cannot_be_reached_is_told_from_one_that_cannot_answer(text, what):
    raised = flight.FlightUnavailableError(f"Flight returned unavailable error, with message: {text}{_CONTEXT}")

    error = translate_failure(raised, _call())

    assert type(error) is errors.ServerUnavailable
    assert what in error.what


def test_a_refusal_says_how_to_sign_in_or_what_the_token_is_for_or_may_be():
    token = _token({"aud": "other", "iss": "https://id.example"}).reveal()
    details = encode_error(errors.Rejected("The server does not accept this credential.", query_id="q-1"))

    opaque = translate_failure(flight.FlightUnauthenticatedError("no"), _call(token="mmk_0123"))
    signed_out = translate_failure(flight.FlightUnauthenticatedError("x"), _call())
    refused = translate_failure(flight.FlightUnauthenticatedError("x"), _call(details=details, token=token))
    early = _token({"aud": "other", "iss": "https://id.example", "iat": _NOON + 3600}).reveal()
    with_wrong_clock = translate_failure(flight.FlightUnauthenticatedError("x"), _call(details=details, token=early))

    assert (type(signed_out), type(refused)) == (errors.Rejected, errors.Rejected)
    assert signed_out.what == "You are not signed in to lake.example.com:50051."
    assert "api_key_file" in opaque.remedy
    assert str(refused).startswith(
        'The server does not accept this credential. The token is for audience "other", from https://id.example.'
    )
    assert refused.query_id == "q-1"
    assert "audience" not in refused.remedy
    assert "give its administrator the query ID" in refused.remedy
    assert "clock is 1 h 0 min behind" in with_wrong_clock.what
    assert with_wrong_clock.remedy == "Set this machine's clock (NTP), then sign in again."
