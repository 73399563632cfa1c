"""Why no connection to a server came about, or broke, and what to do: read from gRPC's own words for it.

No server chose these words, so they tell a dead server from one that wants the connection made otherwise.
"""

import re
from dataclasses import dataclass
from typing import Final

from micromegas_jupyter.client.calls import Call
from micromegas_jupyter.errors import ServerUnavailable

_UNREACHABLE: Final = re.compile(
    r"failed to connect to all addresses|errors resolving|DNS resolution failed|Socket closed|Connection reset|"
    r"Endpoint closing|keepalive watchdog timeout|Broken pipe|Stream removed|GOAWAY|Transport closed|"
    r"connection attempt timed out|recvmsg|sendmsg|Connection refused|handshake|empty address list",
    re.IGNORECASE,
)
_PASSING: Final = "If it is only starting or stopping, try again."


@dataclass(frozen=True, slots=True)
class _Cause:
    """Why a connection could not be made.

    Attributes:
        words: What gRPC says then, as the library's two builds, over OpenSSL and over BoringSSL, have it.
        what: What happened; `{server}` stands for the server.
        remedy: What to do.
    """

    words: re.Pattern[str]
    what: str
    remedy: str


# In the order in which they are looked for, before what the words say less clearly.
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
    """Return what became of the connection.

    Args:
        text: gRPC's words.
        call: The call that was to be made.
    """
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
