"""`micromegas demo`: runs the whole system on one machine, to try it out or to check an installation."""

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from micromegas_jupyter.cli.query_commands import write_rows
from micromegas_jupyter.cli.serve_command import StopSignal, add_setting_argument, print_ready
from micromegas_jupyter.config.server import SETTINGS, parse_server_settings
from micromegas_jupyter.core.system import keep_pandas_out
from micromegas_jupyter.core.text import is_loopback
from micromegas_jupyter.demo.folder import DEFAULT_FOLDER, DemoFolder
from micromegas_jupyter.errors import (
    ConfigurationError,
    InternalError,
    ProviderUnavailable,
    ServerUnavailable,
    UsageError,
)

if TYPE_CHECKING:
    from micromegas_jupyter.demo.lab import LabProcess
    from micromegas_jupyter.demo.stack import DemoStack

#: Options that `serve` also has, with their defaults here.
_SHARED_DEFAULTS = {"host": "127.0.0.1", "port": "0", "ready_json": None}
_CHECK_QUERIES = (
    ("The newest log lines", "SELECT time, level, target, msg FROM log_entries ORDER BY time DESC LIMIT 5"),
    (
        "Measurements of this machine in the last minute",
        """SELECT name, unit, round(avg(value), 2) AS mean FROM measures
           WHERE time > now() - interval '1 minute' GROUP BY name, unit ORDER BY name LIMIT 8""",
    ),
    (
        "The processes that record here",
        "SELECT exe, computer, start_time, last_update_time FROM processes ORDER BY start_time",
    ),
)


def add_demo_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    for setting in SETTINGS:
        if setting.name in _SHARED_DEFAULTS:
            add_setting_argument(parser, setting, default=_SHARED_DEFAULTS[setting.name])
    parser.add_argument(
        "--notebooks",
        metavar="DIR",
        help=f"directory for the notebooks and the lake; default: {DEFAULT_FOLDER}",
    )
    parser.add_argument("--fresh", action="store_true", help="start with an empty lake, but keep the notebooks")
    parser.add_argument("--check", action="store_true", help="sign in without a browser, run three queries, and exit")
    parser.add_argument("--no-lab", action="store_true", help="don't start JupyterLab")
    parser.add_argument("--no-browser", action="store_true", help="don't open a browser")


def run_demo(arguments: argparse.Namespace) -> int:
    """Run the demo until it is stopped, or run its check."""
    options = {name: getattr(arguments, name) for name in _SHARED_DEFAULTS}
    settings = parse_server_settings({}, options=options)
    if not is_loopback(settings.host):
        raise UsageError("The demo is local: --host must be a loopback address.")
    keep_pandas_out()
    from micromegas_jupyter.demo.stack import DemoStack

    stop = StopSignal()
    with ExitStack() as opened:
        folder = _open_folder(arguments)
        if folder is not None:
            opened.enter_context(folder)
        try:
            stack = opened.enter_context(DemoStack(demo_folder=folder, host=settings.host, port=settings.port))
        except ConfigurationError as error:
            if folder is None or error.key != "--lake":
                raise
            remedy = "Add --fresh to start with an empty lake in this folder. Notebooks are kept."
            raise ConfigurationError(error.what, key="--fresh", remedy=remedy) from None
        _say("identity provider", f"{stack.provider.issuer}   alice (admin), bob; password: demo")
        _say("telemetry", "recording this machine's own logs and load")
        _say("server", f"{stack.server.uri}   accepts tokens of the provider above")
        _say("agents", f"{stack.server.http_url}/mcp   sign in with the provider above")
        _say("OpenTelemetry", f"{stack.server.http_url}   JupyterLab's kernels have the variables that send to it")
        if folder is None:
            return _check(stack)
        _say("lake", f"{folder.lake}   kept; --fresh removes it")
        if not arguments.no_lab:
            lab = _start_lab(stack, folder, open_browser=not arguments.no_browser)
            opened.callback(lab.stop)
            _say("JupyterLab", lab.wait_until_ready())
        _print_environment(stack)
        if settings.ready_json:
            print_ready(
                uri=stack.server.uri,
                issuer=stack.provider.issuer,
                client_id=stack.provider.client_id,
                http=stack.server.http_url,
            )
        stop.wait()
    return 0


def _open_folder(arguments: argparse.Namespace) -> DemoFolder | None:
    """Return the demo's directory, with the notebooks for JupyterLab, or None for a check."""
    if arguments.check:
        if arguments.notebooks or arguments.fresh:
            raise UsageError("--check stores nothing, so it can't be combined with --notebooks or --fresh.")
        return None
    folder = DemoFolder(Path(arguments.notebooks or DEFAULT_FOLDER), is_fresh=arguments.fresh)
    if not arguments.no_lab:
        is_older = folder.add_notebooks() > 0
        as_left = "   kept as you left them; delete one to get it as shipped" if is_older else ""
        _say("notebooks", f"{folder.notebooks}{as_left}")
    return folder


def _start_lab(stack: "DemoStack", folder: DemoFolder, *, open_browser: bool) -> "LabProcess":
    from micromegas_jupyter.demo.lab import LabProcess

    return LabProcess(
        stack.folder,
        stack.process_environment(),
        notebooks=folder.notebooks,
        settings=folder.jupyter_settings,
        job_environment=stack.job_environment(),
        open_browser=open_browser,
    )


def _check(stack: "DemoStack") -> int:
    """Sign in as Alice on the provider's pages, without a browser, and query the stack's own telemetry."""
    from micromegas_jupyter.demo.stack import BUSY_REMEDY

    try:
        return _sign_in_and_query(stack)
    except (ServerUnavailable, ProviderUnavailable) as error:
        error.remedy = BUSY_REMEDY  # server and provider run in this process, so the address can't be wrong
        raise


def _sign_in_and_query(stack: "DemoStack") -> int:
    from micromegas_jupyter.demo.provider.scripted_person import ScriptedPerson
    from micromegas_jupyter.demo.stack import BUSY_REMEDY, wait_for_rows
    from micromegas_jupyter.wiring.client_side import load_client_settings, open_client
    from micromegas_jupyter.wiring.sign_in import login

    environ = stack.process_environment()
    settings = load_client_settings(environ=environ)
    with ScriptedPerson(person="alice") as browser:
        provider = login(settings, browser=browser, environ=environ)
    identity = provider.identity()
    _done(f"signed in as {identity.name} <{identity.email}> at {identity.issuer}")
    with open_client(settings, provider) as client:
        server = client.whoami()
        _done(f"the server knows {server.email}{' as administrator' if server.is_admin else ''}")
        wait_for_rows(client)
        for title, sql in _CHECK_QUERIES:
            _done(f"{title}: {sql}")
            with client.open_query(sql) as reader:
                count = write_rows(reader.schema, reader, sys.stdout)
            print(flush=True)
            if count == 0:
                raise InternalError(f"The query returned no rows: {title}.", remedy=BUSY_REMEDY)
    _done("everything works")
    return 0


def _done(step: str) -> None:
    print(f"✓ {step}", file=sys.stderr, flush=True)


def _say(part: str, text: str) -> None:
    print(f"▸ {part:<18} {text}", file=sys.stderr, flush=True)


def _print_environment(stack: "DemoStack") -> None:
    print("In another terminal, `micromegas query` works with these variables:", file=sys.stderr)
    for name, value in stack.client_environment().items():
        print(f"  export {name}={value}", file=sys.stderr)
    print("Everything stays on this machine. Press Ctrl-C to stop.", file=sys.stderr, flush=True)
