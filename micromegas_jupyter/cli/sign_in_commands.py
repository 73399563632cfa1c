"""`micromegas login`, `logout`, `whoami` and `doctor`: who is signed in here, and who the server says that is.

What a token says is shown to the person who looks; nothing here is verified or decided on.
"""

import argparse
import shlex
import sys
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from micromegas_jupyter.config.decoding import host_text
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import LoginRequired, UnsupportedRequest

if TYPE_CHECKING:
    from micromegas_jupyter.auth import Identity
    from micromegas_jupyter.client.calls import ServerIdentity
    from micromegas_jupyter.config.client import ClientSettings
    from micromegas_jupyter.core.protocols import AuthProvider

# The first that is there: an address says most to a person. `azp` and `client_id` name the application.
_NAME_CLAIMS: Final = ("email", "client_id", "azp", "appid", "sub")
_MAX_CHARACTERS: Final = 200
_MAX_MINUTES: Final = 120
_OPTION_VARIABLES: Final = {
    "issuer": "MICROMEGAS_OIDC_ISSUER",
    "client_id": "MICROMEGAS_OIDC_CLIENT_ID",
    "scope": "MICROMEGAS_OIDC_SCOPE",
    "audience": "MICROMEGAS_OIDC_AUDIENCE",
}
NO_ROLE: Final = "You have no role on this server, so you can read no table. Ask its administrator for one."


@runtime_checkable
class PersonalProvider(Protocol):
    """A provider that a person signed in for; service accounts and key files know of none."""

    def identity(self) -> "Identity":
        """Return who is signed in."""
        ...


def add_login_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    from micromegas_jupyter.cli.sign_in_terminal import FLOW_CHOICES, FLOW_HELP

    parser.add_argument("--profile", help="a profile of config.json")
    parser.add_argument("--flow", choices=FLOW_CHOICES, help=FLOW_HELP)
    parser.add_argument("--issuer", help="the identity provider, instead of the configured one")
    parser.add_argument("--client-id", help="the application, instead of the configured one")
    parser.add_argument("--scope", help="the scope to request, instead of the configured one")
    parser.add_argument("--audience", help="the audience to request, instead of the configured one")


def run_login(arguments: argparse.Namespace) -> int:
    """Sign in, wait for the person, print who it was as far as the tokens say it."""
    from micromegas_jupyter import wiring
    from micromegas_jupyter.cli.sign_in_terminal import sign_in

    given = {name: getattr(arguments, option) for option, name in _OPTION_VARIABLES.items()}
    given = {name: value for name, value in given.items() if value}
    settings = wiring.load_client_settings(profile=arguments.profile, options=given)
    provider = sign_in(settings, flow=arguments.flow)
    print(signed_in_line(provider, now=_provider_now(provider)))
    if given:
        variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in given.items())
        print(f"Other commands use this sign-in if you set: {variables}", file=sys.stderr)
    return 0


def add_logout_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("--profile", help="a profile of config.json")
    parser.add_argument(
        "--end-session",
        action="store_true",
        help="also end your session at the identity provider: opens its page in your browser",
    )


def run_logout(arguments: argparse.Namespace) -> int:
    """Remove what is stored, have it revoked, and say what was done; also when nobody was signed in."""
    from micromegas_jupyter import wiring

    settings = wiring.load_client_settings(profile=arguments.profile)
    print(wiring.logout(settings, end_session=arguments.end_session))
    if wiring.uses_hub(settings):
        print("Programs on this server stay signed in through JupyterHub until you log out of the Hub.")
    return 0


def add_whoami_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("--profile", help="a profile of config.json")


def run_whoami(arguments: argparse.Namespace) -> int:
    """Print the local identity, then the server's answer."""
    from micromegas_jupyter import wiring
    from micromegas_jupyter.cli.query_command import show_notice

    server = "the wrapper's server"
    if wiring.is_wrapped() and not arguments.profile:
        client = wiring.connect()
    else:
        environ = wiring.without_wrapper()
        settings = wiring.load_client_settings(profile=arguments.profile, environ=environ)
        provider = wiring.stored_provider(settings, environ)
        if provider is not None:
            print(local_line(settings, provider))
        client = wiring.open_client(settings, provider, environ=environ)
        server = host_text(settings.uri)
    with client:
        client.on_notice(show_notice)
        started = SYSTEM_CLOCK.monotonic()
        try:
            identity = client.whoami()
        except UnsupportedRequest:
            print(f"server {server} answers, but cannot say who you are", file=sys.stderr)
            return 0
    print(server_line(server, identity, (SYSTEM_CLOCK.monotonic() - started) * 1000))
    if identity.reads_nothing:
        print(NO_ROLE)
    return 0


def add_doctor_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("--profile", help="a profile of config.json")
    parser.add_argument("--json", action="store_true", help="print one JSON object, for programs")


def run_doctor(arguments: argparse.Namespace) -> int:
    """Print what was found; the exit code is that of the first check that failed."""
    from micromegas_jupyter import doctor

    findings = doctor.examine(profile=arguments.profile)
    if arguments.json:
        print(doctor.findings_as_json(findings))
    else:
        print("\n".join(doctor.findings_as_lines(findings)))
    return doctor.exit_code_of(findings)


def local_line(settings: "ClientSettings", provider: "AuthProvider") -> str:
    """Return who calls, as far as it is known on this side; gets a token that is valid now."""
    token = provider.get_token()
    now = _provider_now(provider)
    if isinstance(provider, PersonalProvider):
        return _personal_line(provider, issuer=settings.issuer or "", now=now)
    if settings.api_key_file is not None:
        return f"API key from {settings.api_key_file.name}"
    return service_line(token, settings, now=now)


def _personal_line(provider: PersonalProvider, *, issuer: str, now: datetime) -> str:
    # Not where the token is: it would be among the variables that a traceback of the error shows.
    try:
        line = identity_line(provider.identity(), now=now)
    except LoginRequired:
        return f"signed in at {host_text(issuer)}; the sign-in does not say who you are"
    through = _through_text(provider)
    return f"{line} ·{through}" if through else line


def identity_line(identity: "Identity", *, now: datetime) -> str:
    """Return name, address, provider and end of a person's sign-in in one line."""
    who = identity.name or identity.email or identity.subject
    address = f" <{identity.email}>" if identity.email and identity.email != who else ""
    renews = ", renews by itself" if identity.renews else ""
    return f"{who}{address} · {host_text(identity.issuer)} · {time_left(identity.expires_at, now)}{renews}"


def signed_in_line(provider: PersonalProvider, *, now: datetime) -> str:
    """Return who has just signed in; tokens that name nobody do not make it a failure."""
    through = _through_text(provider)
    try:
        return f"Signed in{through} as {identity_line(provider.identity(), now=now)}"
    except LoginRequired:
        return f"Signed in{through}."


def service_line(token: str, settings: "ClientSettings", *, now: datetime) -> str:
    """Return a program's name, provider and end of its token, as the token and then the settings say."""
    from micromegas_jupyter.client.calls import claimed_end, read_claims

    claims = read_claims(token) or {}
    texts = {name: _printable(claims.get(name)) for name in (*_NAME_CLAIMS, "iss")}
    who = next((found for found in map(texts.get, _NAME_CLAIMS) if found), settings.client_id or "a program")
    expires_at = claimed_end(claims)
    ends = "" if expires_at is None else f" · {time_left(expires_at, now)}, renews by itself"
    return f"{who} (service account) · {host_text(texts['iss'] or settings.issuer or '')}{ends}"


def server_line(server: str, identity: "ServerIdentity", milliseconds: float) -> str:
    """Return who the server says the caller is, in one line."""
    who = identity.email or identity.subject
    admin = " (admin)" if identity.is_admin else ""
    return f"server {server} knows you as {who}{admin} · {milliseconds:.0f} ms"


def time_left(expires_at: datetime, now: datetime) -> str:
    """Return how long a token is still valid, in words."""
    seconds = int((expires_at - now).total_seconds())
    if seconds <= 0:
        return "token expired"
    minutes = seconds // 60
    if minutes == 0:
        return f"token valid {seconds} s"
    return (
        f"token valid {minutes} min" if minutes < _MAX_MINUTES else f"token valid {minutes // 60} h {minutes % 60} min"
    )


def _provider_now(provider: object) -> datetime:
    """Return the time by the clock that made the tokens, as far as the provider object knows it."""
    return SYSTEM_CLOCK.now() + timedelta(seconds=getattr(provider, "clock_offset_seconds", 0.0))


def _through_text(provider: object) -> str:
    """Return ` through JupyterHub` where that signed the person in; empty where they did it themselves."""
    through = getattr(provider, "through", "")
    return f" through {through}" if through else ""


def _printable(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    return "".join(character for character in value if character.isprintable())[:_MAX_CHARACTERS]
