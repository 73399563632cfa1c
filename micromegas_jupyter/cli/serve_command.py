"""`micromegas serve` (and `flight-sql-srv`): run a Flight SQL server until it is stopped."""

import argparse
import gc
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import TYPE_CHECKING, Final

from micromegas_jupyter import __version__
from micromegas_jupyter.cli.main import CommandParser, FactsFormatter, log_to_terminal, options_named
from micromegas_jupyter.config.access import AccessSettings
from micromegas_jupyter.config.server import (
    SETTINGS,
    LogFormat,
    ServerSettings,
    Setting,
    parse_server_settings,
)
from micromegas_jupyter.config.variables import find_unknown_variables
from micromegas_jupyter.core.cgroup import memory_limit_bytes
from micromegas_jupyter.core.files import FileProblem, read_shared_file
from micromegas_jupyter.core.log_writer import LogWriter, LogWriterHandler, LogWriterStream, StreamDestination
from micromegas_jupyter.core.system import SYSTEM_CLOCK, keep_pandas_out, process_variables
from micromegas_jupyter.errors import ConfigurationError, MicromegasError

if TYPE_CHECKING:
    from micromegas_jupyter.wiring.server import ServerStack

_MAX_CONFIG_BYTES: Final = 256 * 1024
_MAX_SHOWN_ISSUERS: Final = 5
_POLL_SECONDS: Final = 1.0
_MIB: Final = 1024 * 1024
_ROOT: Final = 0
_MAX_NUMBERS: Final = 256
_STOP_SLACK_SECONDS: Final = 4.5  # beyond the drain timeout: the process exits within five seconds
_MIN_FLUSH_SECONDS: Final = 1.0
_LOG: Final = logging.getLogger(__name__)


def add_serve_arguments(parser: CommandParser) -> None:
    """Add an option for each setting; `--help` shows the common ones, `--help-all` all of them."""
    parser.add_argument(
        "--config", metavar="FILE", help="TOML file with settings; keys are option names without dashes"
    )
    parser.add_argument("--check-config", action="store_true", help="run all startup checks, then exit")
    parser.add_argument("--help-all", action="help", help="show all options and exit")
    added = [(setting, add_setting_argument(parser, setting)) for setting in SETTINGS]
    parser.rare_help = {action: action.help for setting, action in added if not setting.is_common}
    for action in parser.rare_help:
        action.help = argparse.SUPPRESS


def add_setting_argument(
    parser: argparse.ArgumentParser, setting: Setting, *, default: str | None = None
) -> argparse.Action:
    """Add a setting's option; its value stays a string, which `parse_server_settings` parses."""
    names = [setting.option]
    if setting.name == "disable_auth":
        names.append("--disable_auth")  # upstream's spelling
    shown = describe_setting(setting, default=default)
    if setting.kind is bool:
        return parser.add_argument(*names, dest=setting.name, action="store_true", default=None, help=shown)
    action = "append" if isinstance(setting.default, tuple) else "store"
    metavar = "PATH" if setting.kind is Path else "N" if setting.limits else setting.name.split("_")[-1].upper()
    return parser.add_argument(
        *names, dest=setting.name, action=action, default=default, metavar=metavar, help=shown.replace("%", "%%")
    )


def describe_setting(setting: Setting, *, default: str | None = None) -> str:
    """Return a setting's meaning, range, default, and variable for `--help`."""
    text = setting.meaning
    if setting.limits is not None:
        text += f"; {setting.limits[0]} to {setting.limits[1]}"
    elif setting.values_text.startswith("one of"):
        text += f"; {setting.values_text}"
    value = setting.default if default is None else default
    if setting.kind is not bool and value not in {None, (), ""}:
        text += f"; default: {value:g}" if isinstance(value, float) else f"; default: {value}"
    return text + (f" ({setting.variable})" if setting.variable else "")


def load_settings(arguments: argparse.Namespace) -> ServerSettings:
    """Combine options, variables, and the file that `--config` specifies."""
    config_text = None
    if arguments.config is not None:
        try:
            config_text = read_shared_file(Path(arguments.config), max_bytes=_MAX_CONFIG_BYTES)[0].decode("utf-8")
        except (FileProblem, UnicodeDecodeError) as error:
            why = "is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error
            raise ConfigurationError(f"{arguments.config} {why}.", key="--config") from None
    options = {setting.name: getattr(arguments, setting.name) for setting in SETTINGS}
    return parse_server_settings(
        process_variables(), options=options, config_text=config_text, config_name=arguments.config or "--config"
    )


def run_serve(arguments: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM; SIGHUP reloads the access configuration."""
    settings = load_settings(arguments)
    given = {one.variable: one.option for one in SETTINGS if one.variable and getattr(arguments, one.name) is not None}
    with options_named(given):
        return _check_config(settings) if arguments.check_config else _serve(settings)


def _serve(settings: ServerSettings) -> int:
    drain_seconds = settings.drain_timeout_seconds
    stop = StopSignal(
        again=lambda: os._exit(1),  # executors exit with this process
        limit_seconds=drain_seconds + _STOP_SLACK_SECONDS,
    )
    keep_pandas_out()
    with server_log(
        settings, flush_seconds=lambda: max(_MIN_FLUSH_SECONDS, drain_seconds - stop.elapsed_seconds)
    ) as log_writers:
        _run_server(settings, stop, log_writers)
    return 0


def _run_server(settings: ServerSettings, stop: "StopSignal", log_writers: Sequence[LogWriter]) -> None:
    _warn_of_likely_mistakes(settings)
    # A kernel's own server runs as the kernel's account.
    if hasattr(os, "geteuid") and os.geteuid() == _ROOT and not settings.exit_with_parent:
        _LOG.warning("The server runs as root, which it doesn't need. Run it as an account without privileges.")
    started = SYSTEM_CLOCK.monotonic()
    from micromegas_jupyter.executors.settings import hide_memory, keep_freed_memory
    from micromegas_jupyter.wiring.server import ServerStack

    hide_memory()
    keep_freed_memory()
    if settings.exit_with_parent:
        stop.watch_parent()
    stack = ServerStack(
        settings,
        environ=process_variables(),
        is_replaceable=not settings.exit_with_parent,
        log_writers=log_writers,
    )
    stack.on_taken = stop.set
    with stack:
        # A full collection blocks any thread for 70 ms, mostly for modules, which are never collected anyway.
        gc.collect()
        gc.freeze()
        _reload_on_hangup(stack)
        access = AccessSettings() if stack.validator is None else stack.validator.settings
        for line in _describe_start(stack, access, SYSTEM_CLOCK.monotonic() - started):
            notify(settings, line)
        if settings.ready_json:
            issuer = access.oidc.issuers[0].issuer if access.oidc else None
            print_ready(uri=stack.uri, issuer=issuer, client_id=None, http=stack.http_url)
        stop.wait()
        notify(settings, "stopping: running queries may finish")


def _warn_of_likely_mistakes(settings: ServerSettings) -> None:
    for variable, remedy in find_unknown_variables(process_variables()).items():
        _LOG.warning("A variable has no effect on the server.", extra={"variable": variable, "remedy": remedy})
    limit = memory_limit_bytes()
    if limit is not None and limit < settings.memory_mib * _MIB:
        _LOG.warning(
            "The memory limit of the container or service is below --memory-mib, so the kernel may kill the server. "
            "Raise the limit or lower --memory-mib.",
            extra={"limit_mib": limit // _MIB, "memory_mib": settings.memory_mib},
        )


def _check_config(settings: ServerSettings) -> int:
    log_to_terminal(logging.WARNING, FactsFormatter())
    _warn_of_likely_mistakes(settings)
    from micromegas_jupyter.wiring.server import ServerStack

    # Another server may already be listening on the ports.
    stack = ServerStack(replace(settings, port=0, http_port=0, take_over=False), environ=process_variables())
    try:
        stack.check()
        access = AccessSettings() if stack.validator is None else stack.validator.settings
        for problem in [] if stack.validator is None else stack.validator.issuer_problems():
            print(f"warning: {problem} Tokens of this issuer are refused until that is mended.", file=sys.stderr)
        print("The configuration is valid.", *_describe_access(stack, access), stack.describe_tables(), sep="\n")
    finally:
        stack.stop()
    return 0


def print_ready(*, uri: str, issuer: str | None, client_id: str | None, http: str | None = None) -> None:
    """Print one line with the addresses of all endpoints; inapplicable values are null."""
    print(json.dumps({"uri": uri, "issuer": issuer, "client_id": client_id, "http": http}), flush=True)


class StopSignal:
    """Set by SIGINT, SIGTERM (call `again` for a repeated signal), or `set`.

    With `limit_seconds`, the process and its children are killed if the process has not exited after that time.
    """

    def __init__(self, *, again: Callable[[], None] | None = None, limit_seconds: float | None = None) -> None:
        self._again = again
        self._set_at: float | None = None
        # Not a `threading.Event`, because its lock may be held by the main thread when a handler interrupts it.
        self._wakes: SimpleQueue[None] = SimpleQueue()
        self._is_set = False
        self._parent: int | None = None
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGTERM, self._on_signal)
        self._numbers: socket.socket | None = None
        if limit_seconds is not None:
            # Handlers run on the main thread, which may be blocked in a library call, but the signal numbers arrive
            # anyway.
            received, self._numbers = socket.socketpair()
            self._numbers.setblocking(False)
            signal.set_wakeup_fd(self._numbers.fileno(), warn_on_full_buffer=False)
            # Start the thread here, because a signal handler must not start threads.
            threading.Thread(
                target=self._enforce, args=(limit_seconds, received), name="stop-limit", daemon=True
            ).start()

    @property
    def elapsed_seconds(self) -> float:
        """The number of seconds since the signal was set, or 0."""
        return 0.0 if self._set_at is None else SYSTEM_CLOCK.monotonic() - self._set_at

    def watch_parent(self) -> None:
        """Set the signal when standard input closes, or when the parent exits but others hold standard input open."""
        self._parent = os.getppid()

        def read_to_end() -> None:
            with suppress(OSError, ValueError):
                while sys.stdin.buffer.read(4096):
                    pass
            self.set()

        threading.Thread(target=read_to_end, name="parent-watch", daemon=True).start()

    def set(self) -> None:
        """Make `wait` return; thread-safe."""
        self._is_set = True
        if self._set_at is None:
            self._set_at = SYSTEM_CLOCK.monotonic()
        self._wakes.put(None)
        if self._numbers is not None:
            with suppress(OSError):  # enough signal numbers are already pending
                self._numbers.send(bytes([signal.SIGTERM]))

    def wait(self) -> None:
        """Return when the signal is set."""
        while not self._is_set and self._parent in {None, os.getppid()}:
            # A signal that arrives just before the wait is noticed only after it.
            with suppress(Empty):
                self._wakes.get(timeout=_POLL_SECONDS)
        self.set()

    def _enforce(self, limit_seconds: float, numbers: socket.socket) -> None:
        while not {signal.SIGINT, signal.SIGTERM} & {*numbers.recv(_MAX_NUMBERS)}:
            pass
        threading.Event().wait(limit_seconds)
        try:
            import psutil

            for child in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    child.kill()
        finally:
            os._exit(1)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._is_set and self._again is not None:
            self._again()
        self.set()


def _reload_on_hangup(stack: "ServerStack") -> None:
    """Make SIGHUP reload the access configuration, on systems with that signal."""
    if not hasattr(signal, "SIGHUP"):
        return

    def reload() -> None:
        try:
            stack.reload()
        except MicromegasError as error:
            _LOG.debug("the reload was refused: %s", error.code)  # the validator has logged why

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        # A handler can interrupt the main thread at any point, so another thread does the work.
        threading.Thread(target=reload, name="access-reload", daemon=True).start()

    signal.signal(signal.SIGHUP, on_signal)


def _describe_start(stack: "ServerStack", access: AccessSettings, seconds: float) -> tuple[str, ...]:
    http = "" if stack.http_url is None else f" · health {stack.http_url}/health · metrics {stack.http_url}/metrics"
    executors = count_of(stack.executor_count, "executor")
    memory = f"{stack.settings.memory_mib} MiB memory for queries"
    return (
        f"micromegas_jupyter {__version__} · Flight SQL on {stack.uri} · {executors} · {memory}",
        *_describe_access(stack, access),
        stack.describe_tables(),
        f"ready in {seconds:.1f} s{http} · Ctrl-C to stop",
    )


def _describe_access(stack: "ServerStack", access: AccessSettings) -> tuple[str, ...]:
    groups = sum(len(issuer.admin_groups) for issuer in (access.oidc.issuers if access.oidc else ()))
    admins = str(len(access.admins)) + (f" and {count_of(groups, 'group')}" if groups else "")
    return (
        "tokens: none needed: everyone is an administrator (--disable-auth)"
        if stack.validator is None
        else f"tokens: {_describe_accepted(access)}",
        f"admins: {admins} · roles: {len(access.roles or {})}",
    )


def _describe_accepted(access: AccessSettings) -> str:
    issuers = access.oidc.issuers if access.oidc else ()
    names = [issuer.issuer for issuer in issuers[:_MAX_SHOWN_ISSUERS]]
    if len(issuers) > len(names):
        names.append(f"and {len(issuers) - len(names)} more")
    now = SYSTEM_CLOCK.now()
    keys = [key for key in access.api_keys if not key.revoked_at and not (key.expires_at and key.expires_at <= now)]
    notes = []
    if plain := sum(key.key is not None for key in keys):
        notes.append(f"{plain} in plain text: see docs/api-keys.md")
    if len(keys) < len(access.api_keys):
        notes.append(f"{len(access.api_keys) - len(keys)} more revoked or expired")
    issuer_text = count_of(len(issuers), "issuer") + (f" ({', '.join(names)})" if names else "")
    return f"{issuer_text}, {count_of(len(keys), 'API key')}" + (f" ({', '.join(notes)})" if notes else "")


def count_of(count: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless the number is one."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


class ServerFormatter(FactsFormatter):
    """Prepends the time and masks secrets; leaves audit lines unchanged."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line."""
        from micromegas_jupyter.access.audit import utc_text
        from micromegas_jupyter.server.recorder.log_records import is_audit
        from micromegas_jupyter.telemetry.text import redact_secrets

        time = utc_text(datetime.fromtimestamp(record.created, UTC))
        if is_audit(record):
            return f"{time} {logging.Formatter.format(self, record)}"
        return redact_secrets(f"{time} {super().format(record)}")


@contextmanager
def server_log(settings: ServerSettings, *, flush_seconds: Callable[[], float]) -> Iterator[tuple[LogWriter, ...]]:
    """Write records to standard error, and audit lines to their destination, on other threads during the block.

    Yields the writers, the audit log's last. `flush_seconds` returns how long writing the last lines may take.
    """
    from micromegas_jupyter.server.recorder.log_records import AUDIT_LOGGER, JsonFormatter, is_audit, quiet_libraries

    quiet_libraries()
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    formatter = JsonFormatter() if settings.log_format is LogFormat.JSON else ServerFormatter()
    package, root, audit = (logging.getLogger(name) for name in ("micromegas_jupyter", None, AUDIT_LOGGER))
    with ExitStack() as undo:
        undo.callback(package.setLevel, package.level)
        writers: list[LogWriter] = []
        if settings.audit_log is not None:
            from micromegas_jupyter.access.audit import AuditFileHandler

            audit_handler = AuditFileHandler(settings.audit_log.expanduser())
            undo.callback(lambda: audit_handler.writer.close(flush_seconds()))
            undo.callback(audit.removeHandler, audit_handler)
            audit.addHandler(audit_handler)
            writers.append(audit_handler.writer)
        # The root logger's default would hide INFO records. Library records below WARNING remain hidden.
        package.setLevel(min(level, logging.INFO))
        if sys.stderr is not None:  # None if standard error is closed
            stream = sys.stderr
            writer = LogWriter(StreamDestination(stream, lost_line=partial(_describe_lost_lines, formatter)))
            undo.callback(lambda: writer.close(flush_seconds()))
            terminal = LogWriterHandler(writer, level=level)
            terminal.setFormatter(formatter)
            if settings.audit_log is not None:
                terminal.addFilter(lambda record: not is_audit(record))
            undo.callback(root.removeHandler, terminal)
            root.addHandler(terminal)
            # Python's own output (warnings, exceptions in threads) must not wait for a reader either.
            undo.enter_context(redirect_stderr(LogWriterStream(writer)))
            writers.insert(0, writer)
        yield tuple(writers)


def _describe_lost_lines(formatter: logging.Formatter, count: int) -> str:
    record = logging.makeLogRecord(
        {
            "name": "micromegas_jupyter.server",
            "levelno": logging.WARNING,
            "levelname": "WARNING",
            "msg": "Log lines were dropped because nothing read the log.",
            "lines": count,
        }
    )
    return formatter.format(record)


def notify(settings: ServerSettings, line: str) -> None:
    """Report the server's state as a line with a timestamp, or as a log record if the log is JSON."""
    if settings.log_format is LogFormat.JSON:
        logging.getLogger("micromegas_jupyter.server").info(line)
    else:
        from micromegas_jupyter.access.audit import utc_text

        print(utc_text(SYSTEM_CLOCK.now()), line, file=sys.stderr)
