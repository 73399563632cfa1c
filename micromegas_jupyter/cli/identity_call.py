"""Asks a server who its caller is over plain gRPC, for a command that needs nothing else of Arrow Flight.

Loading the Flight library takes longer than all the rest of `micromegas whoami`. This asks in the way that works
when all is well; whatever goes wrong is `FlightSQLClient`'s to tell, with its errors and its second try.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from micromegas_jupyter.client.address import ServerAddress, parse_address
from micromegas_jupyter.client.attribution import find_attribution
from micromegas_jupyter.client.credentials import CredentialSource, check_plaintext
from micromegas_jupyter.client.headers import CallTags, Header, build_tag_headers
from micromegas_jupyter.client.notices import Notices
from micromegas_jupyter.client.server_identity import WHO_AM_I_ACTION, ServerIdentity, parse_server_identity
from micromegas_jupyter.errors import MicromegasError

if TYPE_CHECKING:
    from micromegas_jupyter.contracts import AuthProvider

TIMEOUT_SECONDS = 5.0

_DO_ACTION = "/arrow.flight.protocol.FlightService/DoAction"
_MAX_ANSWER_BYTES = 64 * 1024
# Protocol Buffers: the one field that `Action` (its type) and `Result` (its body) have here, as bytes.
_FIELD_ONE = 0x0A
_VARINT_BITS = 7
_VARINT_MORE = 0x80
_MAX_VARINT_BYTES = 3


def ask_identity(
    uri: str,
    provider: "AuthProvider | None",
    *,
    tell_notice: Callable[[str], None],
    extra_ca_bundle: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> ServerIdentity | None:
    """Return whom the server takes the caller for; None when the whole client has to ask, or to say what is wrong.

    Args:
        uri: The server.
        provider: Gives the token.
        tell_notice: Told what the server says about the credential.
        extra_ca_bundle: A PEM file of authorities to trust besides the usual ones.
        environ: Stands in for the process environment.
    """
    notices = Notices()
    notices.tell_to(tell_notice)
    try:
        address = parse_address(uri)
        source = CredentialSource(provider)
        check_plaintext(address, source, allow_plaintext=False)
        tags = CallTags(attribution=find_attribution(os.environ if environ is None else environ))
        headers = (*build_tag_headers(tags), *source.fetch().headers)
        answer = _ask(address, headers, extra_ca_bundle=extra_ca_bundle, notices=notices)
        return None if answer is None else parse_server_identity(answer)
    except (MicromegasError, OSError):
        return None


def _ask(
    address: ServerAddress, headers: tuple[Header, ...], *, extra_ca_bundle: Path | None, notices: Notices
) -> bytes | None:
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # or the library writes a log of its own to standard error
    import grpc

    action = WHO_AM_I_ACTION.encode("ascii")
    metadata = [(key.decode("ascii"), value.decode("ascii")) for key, value in headers]
    with closing(_channel(grpc, address, extra_ca_bundle)) as channel:
        call = channel.unary_stream(_DO_ACTION)(
            bytes((_FIELD_ONE, len(action))) + action, metadata=metadata, timeout=TIMEOUT_SECONDS
        )
        try:
            results = list(islice(call, 2))
            call.cancel()  # one result is the answer; what comes after two is not waited for
            for told in (call.initial_metadata(), call.trailing_metadata()):
                notices.note({key: [value] for key, value in told})
        except grpc.RpcError:
            return None
    return _body_of(results[0]) if len(results) == 1 else None


def _channel(grpc: Any, address: ServerAddress, extra_ca_bundle: Path | None) -> Any:
    # A proxy would read what is not encrypted, token included, and cannot reach this machine's own loopback.
    may_use_proxy = address.is_encrypted and not address.is_loopback
    options = [
        ("grpc.max_receive_message_length", _MAX_ANSWER_BYTES),
        ("grpc.enable_retries", 0),
        ("grpc.enable_http_proxy", int(may_use_proxy)),
    ]
    if not address.is_encrypted:
        return grpc.insecure_channel(address.name, options=options)
    import certifi

    bundles = [Path(certifi.where()), *([] if extra_ca_bundle is None else [extra_ca_bundle])]
    roots = b"\n".join(bundle.read_bytes() for bundle in bundles)
    return grpc.secure_channel(address.name, grpc.ssl_channel_credentials(roots), options=options)


def _body_of(result: bytes) -> bytes | None:
    if not result or result[0] != _FIELD_ONE:
        return None
    length = 0
    for position, byte in enumerate(result[1 : 1 + _MAX_VARINT_BYTES]):
        length |= (byte & ~_VARINT_MORE) << (_VARINT_BITS * position)
        if not byte & _VARINT_MORE:
            body = result[2 + position :]
            return body if len(body) == length else None
    return None
