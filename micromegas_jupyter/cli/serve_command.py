"""`micromegas serve` (and `flight-sql-srv`): run a Flight SQL server until told to stop.

Each of the options that set limits stands for a variable; limits that few people need have a variable only.
"""

import argparse
import ipaddress
import json
import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import TYPE_CHECKING, Final

from micromegas_jupyter import __version__
from micromegas_jupyter.cli.access_command import access_environment
from micromegas_jupyter.cli.server_log import add_log_arguments, log_as_arguments_say, tell
from micromegas_jupyter.config.access import AccessSettings, ApiKeySetting, LegacyApiKeys
from micromegas_jupyter.config.server_limits import (
    COUNTED_LIMITS,
    SPILL_DIRECTORY_VARIABLE,
    ServerLimits,
    parse_server_limits,
)
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import MicromegasError, UsageError

if TYPE_CHECKING:
    from micromegas_jupyter.wiring import ServerStack


_SPILL_DIRECTORY = "spill_directory"


#: Options of versions before, with what to do instead.
REMOVED_OPTIONS: Final = {
    "--workers": "Each statement runs in a process of its own; --max-queries says how many run at once.",
    "--spare-workers": "Idle executors are kept ready by themselves.",
    "--max-heavy-queries": "Long queries take turns by themselves.",
    "--max-stuck-queries": "Set MICROMEGAS_SERVER_MAX_ENDED_PER_CALLER.",
    "--queue-seconds": "Use --queue-timeout.",
    "--silent-client-seconds": "Use --read-timeout.",
    "--stalled-client-seconds": "Use --write-timeout.",
    "--query-timeout-seconds": "Use --query-timeout.",
    **{
        "--" + limit.name.replace("_", "-"): f"Set {limit.variable}."
        for limit in COUNTED_LIMITS
        if limit.option_name is None
    },
}


def add_limit_arguments(parser: argparse.ArgumentParser) -> None:
    """Add an option for each limit that has one, and refuse those of versions before."""
    group = parser.add_argument_group("limits")
    for limit in COUNTED_LIMITS:
        if limit.option_name is not None:
            told = f"{limit.meaning}; {limit.least} to {limit.most}, default {limit.default} ({limit.variable})"
            group.add_argument(_option(limit.option_name), dest=limit.name, metavar="N", help=told)
    group.add_argument(
        _option(_SPILL_DIRECTORY),
        metavar="DIR",
        help="existing folder for what does not fit into memory, default the system's for temporary files "
        f"({SPILL_DIRECTORY_VARIABLE})",
    )
    for option, remedy in REMOVED_OPTIONS.items():
        parser.add_argument(option, nargs="?", action=_Removed, help=argparse.SUPPRESS, metavar=remedy)


class _Removed(argparse.Action):
    """An option that is gone; its `metavar` says what replaced it."""

    def __call__(
        self,
        _parser: argparse.ArgumentParser,
        _namespace: argparse.Namespace,
        _values: object,
        option_string: str | None = None,
    ) -> None:
        raise UsageError(f"{option_string} is no longer an option.", remedy=str(self.metavar))


def limit_environment(
    arguments: argparse.Namespace, environ: Mapping[str, str]
) -> tuple[Mapping[str, str], ServerLimits]:
    """Return the variables, with those that the options stand for, and the limits that they set."""
    options = {limit.name: limit.option_name for limit in COUNTED_LIMITS if limit.option_name is not None}
    options[_SPILL_DIRECTORY] = _SPILL_DIRECTORY
    variables = {limit.name: limit.variable for limit in COUNTED_LIMITS} | {_SPILL_DIRECTORY: SPILL_DIRECTORY_VARIABLE}
    given = {name: text for name in options if (text := getattr(arguments, name)) is not None}
    merged = {**environ, **{variables[name]: text for name, text in given.items()}}
    return merged, parse_server_limits(merged, names={variables[name]: _option(options[name]) for name in given})


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


_HIGHEST_PORT = 65535
_SHOWN_ISSUERS = 5
_LONGEST_DRAIN_SECONDS = 3600
_LOOK_SECONDS = 1.0
_LOG = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    add_listening_arguments(parser, port=50051)
    parser.add_argument(
        "--lake",
        metavar="DIR",
        default=os.environ.get("MICROMEGAS_LAKE") or "lake",
        help="folder of the tables, default lake (MICROMEGAS_LAKE)",
    )
    parser.add_argument(
        "--access-config", metavar="FILE", help="file of issuers, keys and roles (MICROMEGAS_ACCESS_CONFIG)"
    )
    parser.add_argument("--api-key-file", metavar="FILE", help="file of API keys (MICROMEGAS_API_KEY_FILE)")
    parser.add_argument(
        "--enable-legacy-api-keys", action="store_true", help="accept API keys in plain text without a warning"
    )
    parser.add_argument(
        "--disable-auth", "--disable_auth", action="store_true", help="everyone is administrator; for one machine only"
    )
    parser.add_argument("--insecure", action="store_true", help="allow plain text, or no login, beyond this machine")
    parser.add_argument(
        "--tls-certificate", type=Path, metavar="FILE", help="PEM file of the certificate chain; without it, plain text"
    )
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="PEM file of the private key")
    parser.add_argument(
        "--tls-client-ca",
        type=Path,
        metavar="FILE",
        help="PEM file of the authorities of clients' certificates; without it, clients need none",
    )
    parser.add_argument(
        "--http-host",
        metavar="ADDRESS",
        default="127.0.0.1",
        help="address for health and metrics over HTTP, default %(default)s",
    )
    parser.add_argument(
        "--http-port",
        type=int,
        metavar="N",
        default=0,
        help="port for health and metrics over HTTP; 0 to 65535, default 0 for any free one",
    )
    parser.add_argument("--no-http", action="store_true", help="do not answer health and metrics over HTTP")
    parser.add_argument(
        "--trusted-proxy",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="proxy that names the real client; may stand several times",
    )
    add_log_arguments(parser)
    parser.add_argument(
        "--drain-seconds",
        type=float,
        metavar="S",
        default=25.0,
        help="how long running calls may go on when the server stops, in seconds; "
        f"0 to {_LONGEST_DRAIN_SECONDS}, default %(default)g",
    )
    parser.add_argument(
        "--take-over",
        action="store_true",
        help="take the ports of the running server over, which then lets its calls end and stops (Linux)",
    )
    parser.add_argument("--no-telemetry", action="store_true", help="do not record the server's own logs and load")
    add_limit_arguments(parser)


def add_listening_arguments(parser: argparse.ArgumentParser, *, port: int) -> None:
    """Add the arguments that `serve` and `demo` share."""
    parser.add_argument(
        "--host", metavar="ADDRESS", default="127.0.0.1", help="address to listen on, default %(default)s"
    )
    parser.add_argument(
        "--port",
        type=int,
        metavar="N",
        default=port,
        help="port to listen on; 0 to 65535, default %(default)s; 0 for any free one",
    )
    parser.add_argument("--ready-json", action="store_true", help="print one line of JSON once everything answers")


def check_listening_arguments(arguments: argparse.Namespace) -> None:
    """Check what `serve` and `demo` share."""
    if not 0 <= arguments.port <= _HIGHEST_PORT:
        raise UsageError("--port is a number from 0 to 65535.")


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM; SIGHUP reads the access configuration again."""
    log_as_arguments_say(arguments)
    check_listening_arguments(arguments)
    if not 0 <= arguments.http_port <= _HIGHEST_PORT:
        raise UsageError("--http-port is a number from 0 to 65535.")
    if not 0 <= arguments.drain_seconds <= _LONGEST_DRAIN_SECONDS:
        raise UsageError(f"--drain-seconds is a number from 0 to {_LONGEST_DRAIN_SECONDS}.")
    proxies = frozenset(_address(text) for text in arguments.trusted_proxy)
    environ, limits = limit_environment(arguments, access_environment(arguments))
    started = SYSTEM_CLOCK.monotonic()
    from micromegas_jupyter.executors.settings import hide_memory
    from micromegas_jupyter.wiring import ServeOptions, ServerStack

    hide_memory()
    stack = ServerStack(
        ServeOptions(
            lake=Path(arguments.lake),
            host=arguments.host,
            port=arguments.port,
            http_host=arguments.http_host,
            http_port=None if arguments.no_http else arguments.http_port,
            disable_auth=arguments.disable_auth,
            legacy_api_keys=LegacyApiKeys.ON if arguments.enable_legacy_api_keys else None,
            trusted_proxies=proxies,
            insecure=arguments.insecure,
            certificate_file=arguments.tls_certificate,
            key_file=arguments.tls_key,
            client_ca_file=arguments.tls_client_ca,
            memory_mib=limits.memory_mib,
            record=not arguments.no_telemetry,
            drain_seconds=arguments.drain_seconds,
            take_over=arguments.take_over,
            hands_over=True,
        ),
        environ=environ,
    )
    stop = StopSignal(again=lambda: os._exit(1))  # executors end with this process
    stack.on_taken = stop.set
    with stack:
        _reload_on_hangup(stack)
        _print_start(stack, SYSTEM_CLOCK.monotonic() - started)
        if arguments.ready_json:
            settings = AccessSettings() if stack.validator is None else stack.validator.settings
            issuer = settings.oidc.issuers[0].issuer if settings.oidc else None
            print_ready(uri=stack.uri, issuer=issuer, client_id=None, http=stack.http_url)
        stop.wait()
        tell("stopping: running queries may finish")
    return 0


def print_ready(*, uri: str, issuer: str | None, client_id: str | None, http: str | None = None) -> None:
    """Print the one line that says where everything answers; a value that does not apply is null."""
    print(json.dumps({"uri": uri, "issuer": issuer, "client_id": client_id, "http": http}), flush=True)


class StopSignal:
    """Set by SIGINT, SIGTERM or `set`.

    No `threading.Event`: that takes a lock, which the main thread may hold when a handler interrupts it.

    Args:
        again: Called when a signal comes once more.
    """

    def __init__(self, *, again: Callable[[], None] | None = None) -> None:
        self._again = again
        self._wakes: SimpleQueue[None] = SimpleQueue()
        self._is_set = False
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGTERM, self._on_signal)

    def set(self) -> None:
        """End `wait`; for any thread."""
        self._is_set = True
        self._wakes.put(None)

    def wait(self) -> None:
        """Return when it is set."""
        while not self._is_set:
            # A signal that comes a moment before the wait is noticed after it only.
            with suppress(Empty):
                self._wakes.get(timeout=_LOOK_SECONDS)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._is_set and self._again is not None:
            self._again()
        self.set()


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise UsageError("--trusted-proxy is an IP address.") from None


def _reload_on_hangup(stack: "ServerStack") -> None:
    """Let SIGHUP read the access configuration again, where there is such a signal."""
    if stack.validator is None or not hasattr(signal, "SIGHUP"):
        return

    def reload() -> None:
        try:
            stack.reload()
        except MicromegasError as error:
            _LOG.debug("the reload was refused: %s", error.code)  # the validator has told the log why

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        # A handler interrupts the main thread anywhere, so the work is done on another one.
        threading.Thread(target=reload, name="access-reload", daemon=True).start()

    signal.signal(signal.SIGHUP, on_signal)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _print_start(stack: "ServerStack", seconds: float) -> None:
    settings = AccessSettings() if stack.validator is None else stack.validator.settings
    http = "" if stack.http_url is None else f" · health {stack.http_url}/health · metrics {stack.http_url}/metrics"
    lines = (
        (
            f"micromegas_jupyter {__version__} · Flight SQL on {stack.uri}"
            f" · {_counted(stack.executor_count, 'executor')} · {stack.options.memory_mib} MiB memory for queries"
        ),
        f"tokens: {_accepted(settings)}"
        if stack.validator is not None
        else "tokens: not asked for: everyone is administrator (--disable-auth)",
        f"admins: {_administrators(settings)} · roles: {len(settings.roles or {})}",
        stack.described_tables(),
        f"ready in {seconds:.1f} s{http} · Ctrl-C to stop",
    )
    for line in lines:
        tell(line)


def _administrators(settings: AccessSettings) -> str:
    groups = sum(len(issuer.admin_groups) for issuer in (settings.oidc.issuers if settings.oidc else ()))
    return str(len(settings.admins)) + (f" and {_counted(groups, 'group')}" if groups else "")


def _accepted(settings: AccessSettings) -> str:
    issuers = settings.oidc.issuers if settings.oidc else ()
    shown = [issuer.issuer for issuer in issuers[:_SHOWN_ISSUERS]]
    if len(issuers) > len(shown):
        shown.append(f"and {len(issuers) - len(shown)} more")
    now = SYSTEM_CLOCK.now()
    usable = [key for key in settings.api_keys if key.revoked_at is None and not _is_over(key, now)]
    notes = [f"{sum(key.key is not None for key in usable)} in plain text: see docs/access.md"]
    notes = notes if any(key.key is not None for key in usable) else []
    if len(usable) < len(settings.api_keys):
        notes.append(f"{len(settings.api_keys) - len(usable)} more revoked or expired")
    names = f" ({', '.join(shown)})" if shown else ""
    said = f" ({', '.join(notes)})" if notes else ""
    return f"{_counted(len(issuers), 'issuer')}{names}, {_counted(len(usable), 'API key')}{said}"


def _is_over(key: ApiKeySetting, now: datetime) -> bool:
    return key.expires_at is not None and key.expires_at <= now
