"""A failed call becomes one of this package's errors, with the same class that the server raised where it says so.

In order: the details in the trailer, the code in the status text, the library's exception type. The text of the
library's own context never reaches a person. Why no connection came about, or broke, is read from gRPC's own words
for it: no server chose these, so they tell a dead server from one that wants the connection made otherwise.
"""

import re
from typing import Final, NamedTuple

import pyarrow as pa
from pyarrow import flight

from micromegas_jupyter.client.calls import Call
from micromegas_jupyter.client.credentials import describe_token, has_ended
from micromegas_jupyter.errors import (
    AuthenticationError,
    DeadlineExceeded,
    InternalError,
    InvalidStatement,
    MicromegasError,
    PermissionDenied,
    QueryCancelled,
    Rejected,
    ResourcesExhausted,
    ServerUnavailable,
    Unavailable,
    UnsupportedStatement,
)
from micromegas_jupyter.flightsql.error_details import decode_error, parse_status_text, printable_text

_UNREACHABLE: Final = re.compile(
    r"failed to connect to all addresses|errors resolving|DNS resolution failed|Socket closed|Connection reset|"
    r"Endpoint closing|keepalive watchdog timeout|Broken pipe|Stream removed|GOAWAY|Transport closed|"
    r"connection attempt timed out|recvmsg|sendmsg|Connection refused|handshake|empty address list",
    re.IGNORECASE,
)
_PASSING: Final = "If it is only starting or stopping, try again."


class _Cause(NamedTuple):
    """Why a connection could not be made; `words` are gRPC's for it, and `{server}` in `what` is the server."""

    words: re.Pattern[str]
    what: str
    remedy: str


# In the order in which they are looked for, before what the words say less clearly. The library has two builds, over
# OpenSSL and over BoringSSL.
_CAUSES: Final = (
    _Cause(
        re.compile(r"wrong.version.number|http.request", re.IGNORECASE),
        "{server} does not speak TLS, which the URI asks for.",
        "Check host and port. If the server is meant to speak plain text, write grpc:// in place of grpc+tls://.",
    ),
    _Cause(
        re.compile(r"certificate has expired|CERTIFICATE_EXPIRED", re.IGNORECASE),
        "The certificate of {server} has ended.",
        "Its administrator has to renew it; check the clock here.",
    ),
    _Cause(
        re.compile(r"certificate.verify.failed", re.IGNORECASE),
        "The certificate of {server} is of no authority that is trusted here.",
        "Name the PEM file of its authority: MICROMEGAS_CA_BUNDLE, or ca_bundle in the profile.",
    ),
    _Cause(
        re.compile(r"is not in peer certificate|hostname verification", re.IGNORECASE),
        "The certificate of {server} is for another name.",
        "Write the name in the URI that the certificate is for.",
    ),
    _Cause(
        re.compile(r"Failed parsing HTTP/2|selected ALPN", re.IGNORECASE),
        "What answers at {server} is no Flight SQL server.",
        "Check the port: health and metrics over HTTP have one of their own.",
    ),
)
_HUNG_UP: Final = re.compile(r"Socket closed|Connection reset|Broken pipe|recvmsg|sendmsg", re.IGNORECASE)
_TLS_TROUBLE: Final = re.compile(r"handshake|certificate|ssl|SETTINGS frame", re.IGNORECASE)


def is_unreachable(text: str) -> bool:
    """Whether the words are gRPC's for a connection that could not be made, or broke."""
    return _UNREACHABLE.search(text) is not None


def explain_unreachable(text: str, call: Call) -> ServerUnavailable:
    """Return what became of the connection."""
    if "failed to connect" in text:
        return _explain_failed(text, call)
    if "resol" in text:
        return ServerUnavailable(f"{call.server} does not answer.")
    return ServerUnavailable(f"The connection to {call.server} was lost.", remedy="Run the query again.")


def _explain_failed(text: str, call: Call) -> ServerUnavailable:
    for cause in _CAUSES:
        if cause.words.search(text):
            return _lasting(ServerUnavailable(cause.what.format(server=call.server), remedy=cause.remedy))
    if _HUNG_UP.search(text):
        return _explain_hang_up(call)
    if _TLS_TROUBLE.search(text):
        return _lasting(
            ServerUnavailable(
                f"No secure connection to {call.server} could be made.",
                remedy="Check that the server speaks TLS exactly when the URI says grpc+tls://, and that ca_bundle "
                "names the authority of its certificate.",
            )
        )
    return ServerUnavailable(f"{call.server} does not answer.")


def _lasting(error: ServerUnavailable) -> ServerUnavailable:
    """Mark an error that another attempt would meet again."""
    error.retryable = False
    return error


def _explain_hang_up(call: Call) -> ServerUnavailable:
    """Something listens there and ended the connection before a word of gRPC was said."""
    server = call.server
    if not call.is_encrypted:
        return ServerUnavailable(
            f"{server} ended the connection at once; it probably speaks TLS, which the URI does not ask for.",
            remedy=f"Write grpc+tls:// in place of grpc://. {_PASSING}",
        )
    if call.shows_certificate:
        return ServerUnavailable(
            f"{server} ended the TLS handshake; it probably does not accept the certificate that was shown.",
            remedy="Show one that has not ended, of an authority that the server's --tls-client-ca names: "
            f"MICROMEGAS_CLIENT_CERTIFICATE_FILE and MICROMEGAS_CLIENT_KEY_FILE. {_PASSING}",
        )
    return ServerUnavailable(
        f"{server} ended the TLS handshake; it probably asks for a client's certificate, and none was shown.",
        remedy=f"Set MICROMEGAS_CLIENT_CERTIFICATE_FILE and MICROMEGAS_CLIENT_KEY_FILE. {_PASSING}",
    )


_MAX_TEXT_CHARACTERS: Final = 1000
_MAX_RAW_CHARACTERS: Final = 64 * 1024

# The library's words for a status: "Flight returned not found error, with message: …", "Flight cancelled call, …".
_PREFIX: Final = re.compile(
    r"\A(?:\w+: )?(?P<status>(?:Flight|gRPC) (?:returned [a-z -]{1,40} error|cancelled call|RPC failed)),?"
    r" with message: "
)
# What the library, or a server built on it, appends to the server's own words.
_SUFFIX: Final = re.compile(
    r"[.:]? ?(?:gRPC client debug context: |Client context: |Traceback \(most recent call last\)|"
    r"Detail: (?:Python exception|Internal|Unauthenticated|Unauthorized|Unavailable|TimedOut|Cancelled|Failed))"
)
_QUERY_ID: Final = re.compile(r"\s*\(query_id=([A-Za-z0-9._-]{1,64})\)")
_PLACE: Final = re.compile(r"\bline:? (\d{1,9}),? column:? (\d{1,9})", re.IGNORECASE)

_DOTS_OF_A_JWT: Final = 2
_KEY_REMEDY: Final = (
    "If it is an API key, check the file that api_key_file names or ask the server's administrator; else sign in again."
)
_AUDIENCE_REMEDY: Final = (
    "If the server expects another audience, ask for a token with --audience NAME; its administrator knows the name. "
    "Else sign in again."
)


class _Words(NamedTuple):
    """What the library said, taken apart: the server's own words, the library's for the status, and who spoke."""

    text: str
    status: str
    are_from_server: bool


def translate_failure(error: BaseException, call: Call) -> MicromegasError:
    """Return what a person should learn about a failed call."""
    if isinstance(error, MicromegasError):
        return error
    raw = str(error.args[0] if isinstance(error, KeyError) and error.args else error)[:_MAX_RAW_CHARACTERS]
    words = _server_words(raw)
    told = decode_error(call.record.error_details) if call.record.error_details is not None else None
    told = told or parse_status_text(words.text)
    if told is not None:
        told.query_id = told.query_id or call.record.query_id
        return _explain_refusal(told, call) if isinstance(told, AuthenticationError) else told
    query_id = call.record.query_id
    text = words.text
    if found := _QUERY_ID.search(text):
        query_id, text = found[1], text[: found.start()] + text[found.end() :]
    text = printable_text(text)[:_MAX_TEXT_CHARACTERS].strip()
    translated = _by_type(error, words._replace(text=text), call)
    translated.query_id = query_id
    return translated


def _by_type(  # noqa: PLR0911 - one line for each type
    error: BaseException, words: _Words, call: Call
) -> MicromegasError:
    match error:
        case flight.FlightUnauthenticatedError():
            return _refusal(call)
        case flight.FlightUnauthorizedError():
            return PermissionDenied(words.text or "The server does not allow this.")
        case flight.FlightUnavailableError():
            return _unavailable(words.text, call)
        case flight.FlightTimedOutError():
            return _timed_out(call)
        case flight.FlightCancelledError() | pa.ArrowCancelled():
            return QueryCancelled("The query was cancelled.")
        case pa.ArrowNotImplementedError():
            return UnsupportedStatement(
                words.text or "The server does not offer this.", remedy="This server cannot do it; ask another way."
            )
        case flight.FlightError() if words.text:
            return InternalError(words.text)
        case pa.ArrowException() if words.are_from_server:
            return _by_status(words)
        case _:
            return InternalError(f"The answer of {call.server} cannot be used: {words.text or type(error).__name__}")


def _by_status(words: _Words) -> MicromegasError:
    """Tell apart the codes that the library raises as one type."""
    text = words.text or "The server refused the statement."
    if "resource exhausted" in words.status:
        return ResourcesExhausted(text)
    place = _PLACE.search(text)
    line, column = (int(place[1]), int(place[2])) if place else (None, None)
    return InvalidStatement(text, line=line, column=column)


def _unavailable(text: str, call: Call) -> MicromegasError:
    if is_unreachable(text):
        return explain_unreachable(text, call)
    return Unavailable(f"{call.server} cannot answer now: {text}" if text else f"{call.server} cannot answer now.")


def _timed_out(call: Call) -> MicromegasError:
    limit = "" if call.timeout_seconds is None else f" within {call.timeout_seconds:g} s"
    return DeadlineExceeded(f"{call.server} did not finish{limit}.")


def _refusal(call: Call) -> MicromegasError:
    if not call.credential.is_given:
        return Rejected(
            f"You are not signed in to {call.server}.",
            reason="missing",
            remedy="Run %micromegas_login, or set MICROMEGAS_OIDC_CLIENT_SECRET for a service account.",
        )
    return _explain_refusal(Rejected(f"{call.server} does not accept this credential."), call)


def _explain_refusal(error: MicromegasError, call: Call) -> MicromegasError:
    """Add what the token says about itself; the server's answer stays generic on purpose."""
    if call.credential.token is not None and call.credential.token.reveal().count(".") != _DOTS_OF_A_JWT:
        error.remedy = _KEY_REMEDY
    if call.credential.token is not None and (facts := describe_token(call.credential.token, now=call.started_at)):
        error.what = f"{error.what} {facts}"
        if not has_ended(call.credential.token, now=call.started_at):
            error.remedy = _AUDIENCE_REMEDY
    return error


def _server_words(raw: str) -> _Words:
    prefix = _PREFIX.match(raw)
    text = raw[prefix.end() :] if prefix else raw
    suffix = _SUFFIX.search(text)
    return _Words(
        text=(text[: suffix.start()] if suffix else text).strip(),
        status=prefix["status"] if prefix else "",
        are_from_server=prefix is not None or suffix is not None,
    )
