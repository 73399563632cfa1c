"""`micromegas whoami`: who is signed in here, and whom the server takes them for."""

import argparse
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from micromegas_jupyter.cli.identity_lines import (
    identity_line,
    provider_now,
    server_line,
    service_line,
    through_text,
)
from micromegas_jupyter.cli.notice import show_notice
from micromegas_jupyter.errors import LoginRequired, UnsupportedRequest
from micromegas_jupyter.seams import SYSTEM_CLOCK
from micromegas_jupyter.settings.urls import host_text

if TYPE_CHECKING:
    from micromegas_jupyter.auth import AuthProvider, Identity
    from micromegas_jupyter.client import ServerIdentity
    from micromegas_jupyter.settings import ClientSettings


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
    from micromegas_jupyter import assembly

    settings = assembly.load_client_settings(profile=arguments.profile)
    environ = assembly.without_wrapper() if arguments.profile else None
    provider = assembly.stored_provider(settings, environ)
    if provider is not None:
        print(local_line(settings, provider))
    started = SYSTEM_CLOCK.monotonic()
    identity = _quick_answer(settings, provider, environ)
    if identity is None:
        with assembly.open_client(settings, provider, environ=environ) as client:
            client.tell_notices(show_notice)
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
    from micromegas_jupyter import assembly
    from micromegas_jupyter.assembly.provider_calls import ca_bundle_file
    from micromegas_jupyter.cli.identity_call import ask_identity

    if assembly.is_wrapped(environ) or settings.client_certificate_file is not None:
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
    """Return who calls, as far as it is known on this side; gets a token that is valid now.

    Raises:
        MicromegasError: No valid token can be had.
    """
    token = provider.get_token()
    if isinstance(provider, PersonalProvider):
        return personal_line(provider, issuer=settings.issuer or "")
    if settings.api_key_file is not None:
        return f"API key from {settings.api_key_file.name}"
    from micromegas_jupyter.cli.service_facts import service_facts

    facts = service_facts(token)
    return service_line(
        facts.name or settings.client_id or "a program",
        issuer=facts.issuer or settings.issuer or "",
        expires_at=facts.expires_at,
        now=provider_now(provider),
    )
