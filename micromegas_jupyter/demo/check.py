"""The main job from sign-in to rows, with nobody at the keyboard and no browser: `micromegas demo --check`."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from micromegas_jupyter.assembly import load_client_settings, login, open_client
from micromegas_jupyter.demo.provider.scripted_person import ScriptedPerson
from micromegas_jupyter.errors import ServerUnavailable
from micromegas_jupyter.seams import SYSTEM_CLOCK

if TYPE_CHECKING:
    from micromegas_jupyter.client import FlightSQLClient, QueryReader
    from micromegas_jupyter.demo.stack import DemoStack

_FIRST_ROWS_TIMEOUT_SECONDS = 30.0
_POLL_SECONDS = 0.2

QUERIES = (
    (
        "The newest log lines",
        "SELECT time, level, target, msg FROM log_entries ORDER BY time DESC LIMIT 5",
    ),
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


def run_check(stack: "DemoStack", *, say: Callable[[str], None], show: Callable[["QueryReader"], int]) -> None:
    """Sign in as Alice over the provider's pages and run three queries on the stack's own telemetry.

    Args:
        stack: The running demo.
        say: Told each step.
        show: Shows a result and returns how many rows it had.

    Raises:
        MicromegasError: A step failed.
    """
    environ = stack.process_environment()
    settings = load_client_settings(environ=environ)
    with ScriptedPerson(person="alice") as browser:
        provider = login(settings, browser=browser, environ=environ)
    identity = provider.identity()
    say(f"signed in as {identity.name} <{identity.email}> at {identity.issuer}")
    with open_client(settings, provider) as client:
        server = client.whoami()
        say(f"the server knows {server.email}{' as administrator' if server.is_admin else ''}")
        wait_for_rows(client)
        for title, sql in QUERIES:
            say(f"{title}: {sql}")
            with client.open_query(sql) as reader:
                if show(reader) == 0:
                    raise ServerUnavailable(f"The query gave no rows: {title}.")


def wait_for_rows(client: "FlightSQLClient") -> None:
    """Wait until the stack has recorded its first log lines and measurements.

    Raises:
        ServerUnavailable: There is nothing after half a minute.
    """
    deadline = SYSTEM_CLOCK.monotonic() + _FIRST_ROWS_TIMEOUT_SECONDS
    pause = threading.Event()
    sql = "SELECT (SELECT count(*) FROM log_entries) > 0 AND (SELECT count(*) FROM measures) > 0 AS ready"
    while not client.query_arrow(sql)["ready"][0].as_py():
        if SYSTEM_CLOCK.monotonic() > deadline:
            raise ServerUnavailable("The stack recorded nothing in half a minute.")
        pause.wait(_POLL_SECONDS)
