"""`micromegas login`, `logout`, `whoami`, `doctor`, and `explain`; token claims are shown but never trusted."""

import argparse
import contextlib
import getpass
import os
import re
import select
import shlex
import shutil
import sys
import textwrap
import threading
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final, TextIO

from micromegas_jupyter.cli.main import SIGN_IN_VARIABLES, add_profile_argument, load_pyarrow, show_note
from micromegas_jupyter.core.system import SYSTEM_CLOCK, duration_text, process_variables, start_thread
from micromegas_jupyter.core.text import host_text
from micromegas_jupyter.errors import LoginFailed, LoginRequired, LoginTimedOut, UnsupportedRequest

if TYPE_CHECKING:
    from micromegas_jupyter.auth import OidcAuthProvider, PendingLogin
    from micromegas_jupyter.auth.flows.hub import HubTokenProvider
    from micromegas_jupyter.auth.tokens.source import Identity
    from micromegas_jupyter.config.client import ClientSettings
    from micromegas_jupyter.core.protocols import AuthProvider


# The first available claim is used; an email address is the clearest. `azp` and `client_id` identify the application.
_NAME_CLAIMS: Final = ("email", "client_id", "azp", "appid", "sub")
_MAX_CHARACTERS: Final = 200
_FLOW_CHOICES: Final = ("auto", "browser", "device", "paste", "hub")
_FLOW_HELP: Final = "sign-in flow, saved for the profile; auto clears it"
NO_ROLE: Final = "You have no role on this server, so you can read no table. Ask its administrator for one."


def add_login_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    add_profile_argument(parser)
    parser.add_argument("--flow", choices=_FLOW_CHOICES, help=_FLOW_HELP)
    parser.add_argument("--issuer", metavar="URL", help="identity provider; default: the configured one")
    parser.add_argument("--client-id", metavar="ID", help="client ID of the application; default: the configured one")
    parser.add_argument("--scope", help="scopes to request, in quotes; default: the configured ones")
    parser.add_argument("--audience", help="audience to request; default: the configured one")


def run_login(arguments: argparse.Namespace) -> int:
    """Sign in, wait for the user, and print the identity in the tokens."""
    from micromegas_jupyter.wiring import client_side

    options = {name: getattr(arguments, option, None) for option, name in SIGN_IN_VARIABLES.items()}
    given: dict[str, str] = {name: value for name, value in options.items() if value}
    settings = client_side.load_client_settings(profile=arguments.profile, options=given)
    provider = sign_in(settings, flow=arguments.flow)
    print(signed_in_line(provider, now=_provider_now(provider)))
    if given:
        variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in given.items())
        print(f"Other commands use this sign-in if you set: {variables}", file=sys.stderr)
    return 0


def add_logout_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    chosen = parser.add_mutually_exclusive_group()
    add_profile_argument(chosen)
    chosen.add_argument("--all", action="store_true", help="sign out of all profiles")
    parser.add_argument(
        "--end-session",
        action="store_true",
        help="also end your session with the identity provider in the browser",
    )


def run_logout(arguments: argparse.Namespace) -> int:
    """Remove and revoke the stored sign-in, and report the result, even if no user was signed in."""
    from micromegas_jupyter.wiring import client_side

    if arguments.all:
        chosen = client_side.load_settings_of_all_profiles()
    else:
        chosen = [client_side.load_client_settings(profile=arguments.profile)]
    for settings in chosen:
        report = client_side.logout(settings, end_session=arguments.end_session)
        print(f"{settings.profile or 'no profile'}: {report}" if len(chosen) > 1 else report)
        if client_side.uses_hub(settings):
            print("Programs on this server stay signed in through JupyterHub until you log out of the Hub.")
    return 0


def add_whoami_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    add_profile_argument(parser)


def run_whoami(arguments: argparse.Namespace) -> int:
    """Print the local identity, then the server's response."""
    from micromegas_jupyter.wiring import client_side

    server = "the wrapper's server"
    if client_side.is_wrapped() and not arguments.profile:
        client = client_side.connect()
    else:
        environ = client_side.without_wrapper()
        settings = client_side.load_client_settings(profile=arguments.profile, environ=environ)
        provider = client_side.stored_provider(settings, environ)
        if provider is not None:
            print(local_line(settings, provider))
        load_pyarrow()
        client = client_side.open_client(settings, provider, environ=environ)
        server = host_text(settings.uri)
    with client:
        client.on_notice(show_note)
        started = SYSTEM_CLOCK.monotonic()
        try:
            identity = client.whoami()
        except UnsupportedRequest:
            print(f"server {server} answers, but cannot say who you are", file=sys.stderr)
            return 0
    milliseconds = (SYSTEM_CLOCK.monotonic() - started) * 1000
    who = f"{identity.email or identity.subject}{' (admin)' if identity.is_admin else ''}"
    print(f"server {server} knows you as {who} · {milliseconds:.0f} ms")
    if identity.reads_nothing:
        print(NO_ROLE)
    return 0


def add_explain_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument(
        "code",
        metavar="CODE",
        nargs="?",
        help="error code, such as SQL001; default: list all codes",
    )


def run_explain(arguments: argparse.Namespace) -> int:
    """Print an error code's meaning and remedy, wrapped to the terminal."""
    from micromegas_jupyter.core.error_page import explain_error

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 100
    for line in explain_error(arguments.code, how_to_list="micromegas explain").split("\n"):
        print(textwrap.fill(line, width))
    return 0


def add_doctor_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    add_profile_argument(parser)
    parser.add_argument("--json", action="store_true", help="print a JSON object")


def run_doctor(arguments: argparse.Namespace) -> int:
    """Print the findings; the exit code is that of the first failed check."""
    from micromegas_jupyter.doctor import examination as doctor

    findings = doctor.examine(profile=arguments.profile)
    if arguments.json:
        print(doctor.findings_as_json(findings))
    else:
        print("\n".join(doctor.findings_as_lines(findings)))
    return doctor.exit_code_of(findings)


def local_line(settings: "ClientSettings", provider: "AuthProvider") -> str:
    """Return the caller according to the client, and get a currently valid token."""
    token = provider.get_token()
    now = _provider_now(provider)
    identity = getattr(provider, "identity", None)  # service accounts and key files have no identity
    if identity is None:
        if settings.api_key_file is not None:
            return f"API key from {settings.api_key_file.name}"
        return service_line(token, settings, now=now)
    del token  # would appear among the variables in the error's traceback
    try:
        line = identity_line(identity(), now=now)
    except LoginRequired:
        return f"signed in at {host_text(settings.issuer or '')}; the sign-in does not say who you are"
    through = _through_text(provider)
    return f"{line} ·{through}" if through else line


def identity_line(identity: "Identity", *, now: datetime) -> str:
    """Return a user's name, email address, provider, and sign-in expiration on one line."""
    who = identity.name or identity.email or identity.subject
    address = f" <{identity.email}>" if identity.email and identity.email != who else ""
    renews = ", renews by itself" if identity.renews else ""
    return f"{who}{address} · {host_text(identity.issuer)} · {time_left(identity.expires_at, now)}{renews}"


def signed_in_line(provider: "OidcAuthProvider | HubTokenProvider", *, now: datetime) -> str:
    """Return the user who has just signed in; tokens without an identity aren't a failure."""
    through = _through_text(provider)
    try:
        return f"Signed in{through} as {identity_line(provider.identity(), now=now)}"
    except LoginRequired:
        return f"Signed in{through}."


def service_line(token: str, settings: "ClientSettings", *, now: datetime) -> str:
    """Return a program's name, provider, and token expiration from the token, or from the settings."""
    from micromegas_jupyter.client.token_claims import claimed_end, read_claims

    claims = read_claims(token) or {}
    texts = {name: _printable(claims.get(name)) for name in (*_NAME_CLAIMS, "iss")}
    who = next((found for found in map(texts.get, _NAME_CLAIMS) if found), settings.client_id or "a program")
    expires_at = claimed_end(claims)
    ends = "" if expires_at is None else f" · {time_left(expires_at, now)}, renews by itself"
    return f"{who} (service account) · {host_text(texts['iss'] or settings.issuer or '')}{ends}"


def time_left(expires_at: datetime, now: datetime) -> str:
    """Return how long a token is still valid, in words."""
    return "token expired" if expires_at <= now else f"token valid {duration_text(expires_at - now)}"


def _provider_now(provider: object) -> datetime:
    """Return the time on the token issuer's clock, if the provider object has it."""
    return SYSTEM_CLOCK.now() + timedelta(seconds=getattr(provider, "clock_offset_seconds", 0.0))


def _through_text(provider: object) -> str:
    """Return ` through JupyterHub` if the Hub signed the user in, or an empty string."""
    through = getattr(provider, "through", "")
    return f" through {through}" if through else ""


def _printable(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    return "".join(character for character in value if character.isprintable())[:_MAX_CHARACTERS]


MAX_LINE_BYTES = 16 * 1024

_READ_BYTES = 1024
_MAX_WAIT_SECONDS = 0.25
_LINE_END = re.compile(rb"[\r\n]+")
_END_OF_INPUT = b"\x04"  # Ctrl-D, as passed on by a terminal that is read byte by byte


class HiddenInput:
    """Reads lines from a terminal byte by byte; line mode is limited to 4,096 characters, too few for some URLs."""

    def __init__(self, source: TextIO, output: TextIO) -> None:
        self._source = source
        self._output = output
        self._buffer = b""
        self._hiding = contextlib.ExitStack()

    def hide(self) -> None:
        """Hide all input from now on, including between prompts, until `close`."""
        if sys.platform != "win32":
            with contextlib.suppress(OSError, ValueError):  # a replaced terminal may have no descriptor
                self._hiding.enter_context(_byte_by_byte(self._source.fileno()))

    def close(self) -> None:
        """Restore the terminal; safe to call twice."""
        self._hiding.close()

    def prompt(self, prompt: str, *, timeout_seconds: float) -> str:
        """Prompt for a line and wait for it."""
        if sys.platform == "win32" and self._source.isatty():
            return getpass.getpass(prompt, self._output)
        try:
            with _byte_by_byte(self._source.fileno()):
                # Don't prompt earlier, because input pasted before this point would be echoed.
                self._output.write(prompt)
                self._output.flush()
                return self._next_line(SYSTEM_CLOCK.monotonic() + timeout_seconds)
        finally:
            self._output.write("\n")
            self._output.flush()

    def _next_line(self, deadline: float) -> str:
        while True:
            line, *rest = _LINE_END.split(self._buffer, maxsplit=1)
            if len(line) > MAX_LINE_BYTES:
                raise LoginFailed("The pasted text is too long for a URL.")
            chunk = b"" if rest else self._read_chunk(deadline)
            if chunk:
                self._buffer += chunk
                continue
            self._buffer = rest[0] if rest else b""
            if text := line.decode("utf-8", errors="replace").strip():
                return text
            if not rest:
                raise LoginFailed("The sign-in was canceled: the input ended.")

    def _read_chunk(self, deadline: float) -> bytes:
        """Wait for input and return it; empty at end of input."""
        while True:
            # A Ctrl-C just before a wait is noticed only after it, so waits are short.
            left_seconds = max(deadline - SYSTEM_CLOCK.monotonic(), 0.0)
            if select.select([self._source], [], [], min(left_seconds, _MAX_WAIT_SECONDS))[0]:
                chunk = os.read(self._source.fileno(), _READ_BYTES)
                return b"" if chunk == _END_OF_INPUT else chunk
            if not left_seconds:
                raise LoginTimedOut("No URL was pasted in time.")


@contextlib.contextmanager
def _byte_by_byte(descriptor: int) -> Iterator[None]:
    if not os.isatty(descriptor):
        yield
        return
    import termios

    before = termios.tcgetattr(descriptor)
    changed = termios.tcgetattr(descriptor)
    changed[3] &= ~(termios.ICANON | termios.ECHO)  # ISIG stays set, so Ctrl-C keeps working
    termios.tcsetattr(descriptor, termios.TCSADRAIN, changed)
    try:
        yield
    finally:
        # Discards any remaining pasted input, which the shell would otherwise read.
        termios.tcsetattr(descriptor, termios.TCSAFLUSH, before)


def _waiting_line(expires_at: datetime) -> str:
    seconds = max(int((expires_at - SYSTEM_CLOCK.now()).total_seconds()), 0)
    return f"Waiting for you to sign in; {seconds // 60}:{seconds % 60:02d} left."


AUTOMATIC = "auto"
_MAX_ANSWER_SECONDS = 600.0
_TICK_SECONDS = 1.0
_CLEAR_LINE = "\r\x1b[K"


def sign_in(
    settings: "ClientSettings", *, flow: str | None = None, store: bool = True, environ: Mapping[str, str] | None = None
) -> "OidcAuthProvider | HubTokenProvider":
    """Sign in with `flow`, or as determined by the settings and runtime environment; `store` keeps the sign-in."""
    from micromegas_jupyter.auth.flows.base import HUB_TOKEN_VARIABLE, GraphicalBrowser
    from micromegas_jupyter.config.client import SECRET_VARIABLES, Flow
    from micromegas_jupyter.wiring import client_side
    from micromegas_jupyter.wiring import sign_in as signing_in

    environ = process_variables(environ)
    for name in (*SECRET_VARIABLES, HUB_TOKEN_VARIABLE):
        os.environ.pop(name, None)  # already in the settings, and a browser would inherit it
    wanted = None if flow in {None, AUTOMATIC} else Flow(flow)
    choice = signing_in.choose_flow(settings, wanted=wanted, is_automatic=flow == AUTOMATIC, environ=environ)
    chosen = signing_in.require_flow(settings, choice)
    terminal = SignInTerminal(sys.stderr, environ=environ)
    if chosen is not Flow.BROWSER or choice.skipped:
        skipped = "".join(f" Not {found.flow.value}: {found.reason}." for found in choice.skipped)
        terminal.announce(f"Sign-in by {choice.flow}. {choice.reason}{skipped}")
    try:
        provider = signing_in.login(
            settings,
            flow=chosen,
            fallbacks=choice.fallbacks,
            browser=GraphicalBrowser(environ),
            announce=terminal.announce,
            show=terminal.show,
            store=store,
            environ=environ,
            prompt=terminal.prompt,
        )
    finally:
        terminal.close()
    if store and wanted is not None:
        client_side.remember_flow(settings, wanted, environ)
        if settings.origin_of("flow") is not None:
            terminal.announce(f"Without --flow, {settings.origin_of('flow')} goes first.")
    elif store and flow == AUTOMATIC:
        client_side.remember_flow(settings, None, environ)
    return provider


class SignInTerminal:
    """Shows a sign-in on a terminal, or as plain lines if there is no terminal."""

    def __init__(self, stream: TextIO, *, source: TextIO | None = None, environ: Mapping[str, str]) -> None:
        self._stream = stream
        self._environ = environ
        self._input = HiddenInput(sys.stdin if source is None else source, stream)

    def announce(self, sentence: str) -> None:
        """Print a sentence."""
        print(sentence, file=self._stream, flush=True)

    def show(self, pending: "PendingLogin") -> None:
        """Print the instructions, with a QR code and the time left where they help."""
        from micromegas_jupyter.config.client import Flow
        from micromegas_jupyter.wiring.sign_in import sentence_of

        if pending.flow is Flow.PASTE:
            self._input.hide()
        self.announce(sentence_of(pending))
        if pending.flow is Flow.PASTE:
            return
        if pending.flow is Flow.DEVICE:
            self._show_picture(pending.verification_uri_complete)
        can_rewrite_lines = self._stream.isatty() and self._environ.get("TERM", "") not in {"", "dumb"}
        if can_rewrite_lines:
            done = threading.Event()
            countdown = start_thread(partial(self._count_down, pending.expires_at, done), name="micromegas-countdown")

            def stop(_pending: object) -> None:
                done.set()
                countdown.join(_TICK_SECONDS)

            pending.on_done(stop)
        elif pending.flow is Flow.DEVICE:
            self.announce(_waiting_line(pending.expires_at))

    def _count_down(self, expires_at: datetime, done: threading.Event) -> None:
        """Show the time left until the sign-in is done, and then remove the line."""
        with contextlib.suppress(OSError, ValueError):  # the terminal is closed, so there is no reader
            is_done = False
            while not is_done:
                self._stream.write(f"{_CLEAR_LINE}{_waiting_line(expires_at)}")
                self._stream.flush()
                is_done = done.wait(_TICK_SECONDS)
            self._stream.write(_CLEAR_LINE)
            self._stream.flush()

    def prompt(self, question: str) -> str:
        """Prompt for the URL that the user pastes, without echoing it."""
        return self._input.prompt(question, timeout_seconds=_MAX_ANSWER_SECONDS)

    def close(self) -> None:
        """Restore the terminal; safe to call twice."""
        self._input.close()

    def _show_picture(self, address: str | None) -> None:
        # Shown but never opened: users who typed nothing have not checked what they agree to (RFC 8628 section 5.4).
        from micromegas_jupyter.auth.flows.base import qr_lines

        for line in qr_lines(address or "", stream=self._stream, environ=self._environ):
            self.announce(line)
