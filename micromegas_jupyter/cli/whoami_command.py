"""`micromegas whoami`: who is signed in here, and whom the server takes them for.

The server is asked over plain gRPC: loading the Flight library takes longer than all the rest, and so does protobuf.
This works when all is well; whatever goes wrong is `FlightSQLClient`'s to tell, with its errors and its second try.
"""

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from micromegas_jupyter.cli.identity_lines import (
    identity_line,
    provider_now,
    server_line,
    service_line,
    show_notice,
    through_text,
)
from micromegas_jupyter.client.calls import (
    WHO_AM_I_ACTION,
    CredentialSource,
    Header,
    Notices,
    ServerAddress,
    ServerIdentity,
    build_tag_headers,
    parse_address,
    parse_server_identity,
)
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.core.urls import host_text
from micromegas_jupyter.errors import LoginRequired, MicromegasError, UnsupportedRequest

if TYPE_CHECKING:
    from micromegas_jupyter.auth import Identity
    from micromegas_jupyter.config.client import ClientSettings
    from micromegas_jupyter.core.protocols import AuthProvider


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
    notices = Notices(tell_notice)
    try:
        address = parse_address(uri)
        source = CredentialSource(provider)
        source.check_plaintext(address)
        tags = build_tag_headers(os.environ if environ is None else environ)
        headers = (*tags, *source.fetch().headers)
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


@runtime_checkable
class PersonalProvider(Protocol):
    """A provider that a person signed in for; service accounts and key files do not know of one."""

    def identity(self) -> "Identity":
        """Return who is signed in."""
        ...


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("--profile", help="a profile of config.json")


def run(arguments: argparse.Namespace) -> int:
    """Print the local identity, then the server's answer."""
    from micromegas_jupyter import wiring

    settings = wiring.load_client_settings(profile=arguments.profile)
    environ = wiring.without_wrapper() if arguments.profile else None
    provider = wiring.stored_provider(settings, environ)
    if provider is not None:
        print(local_line(settings, provider))
    started = SYSTEM_CLOCK.monotonic()
    identity = _quick_answer(settings, provider, environ)
    if identity is None:
        with wiring.open_client(settings, provider, environ=environ) as client:
            client.on_notice(show_notice)
            started = SYSTEM_CLOCK.monotonic()
            try:
                identity = client.whoami()
            except UnsupportedRequest:
                print(f"server {host_text(settings.uri)} answers, but cannot say who you are", file=sys.stderr)
                return 0
    print(server_line(settings.uri, identity, (SYSTEM_CLOCK.monotonic() - started) * 1000))
    return 0


def _quick_answer(
    settings: "ClientSettings", provider: "AuthProvider | None", environ: Mapping[str, str] | None
) -> "ServerIdentity | None":
    from micromegas_jupyter import wiring
    from micromegas_jupyter.wiring.provider_calls import ca_bundle_file

    if wiring.is_wrapped(environ) or settings.client_certificate_file is not None:
        return None  # only the whole client can ask
    return ask_identity(settings.uri, provider, tell_notice=show_notice, extra_ca_bundle=ca_bundle_file(settings))


def personal_line(provider: PersonalProvider, *, issuer: str) -> str:
    """Return who is signed in, or where when the tokens, which are there, name nobody."""
    try:
        line = identity_line(provider.identity(), now=provider_now(provider))
    except LoginRequired:
        return f"signed in at {host_text(issuer)}; the sign-in does not say who you are"
    through = through_text(provider)
    return f"{line} ·{through}" if through else line


def local_line(settings: "ClientSettings", provider: "AuthProvider") -> str:
    """Return who calls, as far as it is known on this side; gets a token that is valid now."""
    token = provider.get_token()
    if isinstance(provider, PersonalProvider):
        return personal_line(provider, issuer=settings.issuer or "")
    if settings.api_key_file is not None:
        return f"API key from {settings.api_key_file.name}"
    from micromegas_jupyter.cli.identity_lines import service_facts

    facts = service_facts(token)
    return service_line(
        facts.name or settings.client_id or "a program",
        issuer=facts.issuer or settings.issuer or "",
        expires_at=facts.expires_at,
        now=provider_now(provider),
    )
