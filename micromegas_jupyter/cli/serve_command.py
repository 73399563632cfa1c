"""`micromegas serve` (and `flight-sql-srv`): run a Flight SQL server until told to stop."""

import argparse
import json
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from micromegas_jupyter import __version__
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.seams import SYSTEM_CLOCK
from micromegas_jupyter.settings import AccessSettings, parse_access_settings

_HIGHEST_PORT = 65535


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    add_listening_arguments(parser, port=50051)
    parser.add_argument("--lake", default=os.environ.get("MICROMEGAS_LAKE") or "lake", help="folder of the tables")
    parser.add_argument(
        "--disable-auth", "--disable_auth", action="store_true", help="everyone is administrator; for one machine only"
    )
    parser.add_argument("--insecure", action="store_true", help="allow plain text, or no login, beyond this machine")
    parser.add_argument("--tls-certificate", type=Path, help="PEM file of the certificate chain")
    parser.add_argument("--tls-key", type=Path, help="PEM file of the private key")
    parser.add_argument("--memory-mib", type=int, default=2048, help="memory for queries, in MiB")
    parser.add_argument("--no-telemetry", action="store_true", help="do not record the server's own logs and load")


def add_listening_arguments(parser: argparse.ArgumentParser, *, port: int) -> None:
    """Add the arguments that `serve` and `demo` share."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=port, help="port to listen on, 0 for any free one")
    parser.add_argument("--ready-json", action="store_true", help="print one line of JSON once everything answers")


def check_listening_arguments(arguments: argparse.Namespace) -> None:
    """Check what `serve` and `demo` share.

    Raises:
        UsageError: The port is not a port.
    """
    if not 0 <= arguments.port <= _HIGHEST_PORT:
        raise UsageError("--port is a number from 0 to 65535.")


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM."""
    check_listening_arguments(arguments)
    if arguments.memory_mib < 64:  # noqa: PLR2004 - the engine needs some
        raise UsageError("--memory-mib is at least 64.")
    settings = AccessSettings() if arguments.disable_auth else parse_access_settings(os.environ)
    started = SYSTEM_CLOCK.monotonic()
    from micromegas_jupyter.assembly import ServeOptions, ServerStack

    stack = ServerStack(
        ServeOptions(
            lake=Path(arguments.lake),
            host=arguments.host,
            port=arguments.port,
            disable_auth=arguments.disable_auth,
            insecure=arguments.insecure,
            certificate_file=arguments.tls_certificate,
            key_file=arguments.tls_key,
            memory_mib=arguments.memory_mib,
            record=not arguments.no_telemetry,
        )
    )
    stop = stop_event()
    with stack:
        _print_start(stack.uri, settings, arguments, SYSTEM_CLOCK.monotonic() - started)
        if arguments.ready_json:
            issuer = settings.oidc.issuers[0].issuer if settings.oidc else None
            print_ready(uri=stack.uri, issuer=issuer, client_id=None)
        stop.wait()
        print("stopping: running queries may finish", file=sys.stderr)
    return 0


def print_ready(*, uri: str, issuer: str | None, client_id: str | None) -> None:
    """Print the one line that says where everything answers; a value that does not apply is null."""
    print(json.dumps({"uri": uri, "issuer": issuer, "client_id": client_id, "http": None}), flush=True)


def stop_event() -> threading.Event:
    """Return an event that SIGINT and SIGTERM set."""
    event = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        event.set()

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    return event


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _print_start(uri: str, settings: AccessSettings, arguments: argparse.Namespace, seconds: float) -> None:
    issuers = settings.oidc.issuers if settings.oidc else ()
    names = f" ({', '.join(issuer.issuer for issuer in issuers)})" if issuers else ""
    tokens = f"{_counted(len(issuers), 'issuer')}{names}, {_counted(len(settings.api_keys), 'API key')}"
    if arguments.disable_auth:
        tokens = "not asked for: everyone is administrator (--disable-auth)"
    lines = (
        f"micromegas_jupyter {__version__} · Flight SQL on {uri} · {arguments.memory_mib} MiB memory for queries",
        f"tokens: {tokens}",
        f"admins: {len(settings.admins)} · lake: {arguments.lake}",
        f"ready in {seconds:.1f} s · Ctrl-C to stop",
    )
    print("\n".join(lines), file=sys.stderr)
