"""Joins a server's list of denied queries to its lake and its recorder."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.server import DenyList, Recorder
from micromegas_jupyter.telemetry import MeasureRow, nanoseconds_since_epoch

DENIALS_VARIABLE: Final = "MICROMEGAS_QUERY_DENIALS_FILE"
DENIALS_FILE: Final = "query_denials.json"
DENIED_MEASURE: Final = "query_denied"
_TARGET: Final = "micromegas_jupyter.server.deny_list"


def find_denials_file(environ: Mapping[str, str], *, lake: Path | None) -> Path | None:
    """Return the configured file of denied queries, else the one in the lake's folder; None where there is neither.

    Raises:
        ConfigurationError: The configured name is not an absolute path.
    """
    configured = environ.get(DENIALS_VARIABLE)
    if configured and not Path(configured).is_absolute():
        raise ConfigurationError(f"{DENIALS_VARIABLE} is not an absolute path.", key=DENIALS_VARIABLE)
    if configured:
        return Path(configured)
    return None if lake is None else lake.absolute() / DENIALS_FILE


def open_deny_list(path: Path | None, *, recorder: Callable[[], Recorder | None]) -> DenyList | None:
    """Return the list in a file; each denial becomes a measure in the lake when there is a recorder.

    Raises:
        ConfigurationError: The file is there and cannot be used.
    """
    if path is None:
        return None

    def record(rule_id: str) -> None:
        if (found := recorder()) is None:
            return
        row = MeasureRow(
            time_ns=nanoseconds_since_epoch(SYSTEM_CLOCK.now().timestamp()),
            target=_TARGET,
            name=DENIED_MEASURE,
            unit="count",
            value=1.0,
            properties={"rule_id": rule_id},
        )
        found.add_measures([row])

    return DenyList(path, on_denied=record)
