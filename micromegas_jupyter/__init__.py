"""Sign in from a notebook with OpenID Connect and query an observability lakehouse over Arrow Flight SQL.

Importing this package loads no heavy library; each name below loads its package when it is first used.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# PEP 249: this package is a DB-API module.
apilevel = "2.0"
threadsafety = 2  # threads may share a connection
paramstyle = "qmark"
Warning = Warning  # noqa: A001, PLW0127 - PEP 249's name

_ERRORS = (
    "Error", "InterfaceError", "DatabaseError", "DataError", "OperationalError", "IntegrityError", "InternalError",
    "ProgrammingError", "NotSupportedError",
)  # fmt: skip
_TYPES = (
    "Binary", "Date", "DateFromTicks", "Time", "TimeFromTicks", "Timestamp", "TimestampFromTicks",
    "BINARY", "DATETIME", "NUMBER", "ROWID", "STRING",
)  # fmt: skip
_LAZY = {
    **dict.fromkeys(_ERRORS, "micromegas_jupyter.errors"),
    **dict.fromkeys(_TYPES, "micromegas_jupyter.client.dbapi.types"),
    "FlightSQLClient": "micromegas_jupyter.client.flight_client",
    "ResultGrid": "micromegas_jupyter.notebook.results.grid",
    "connect": "micromegas_jupyter.wiring.client_side",
    "load_ipython_extension": "micromegas_jupyter.notebook.extension",
    "quote_identifier": "micromegas_jupyter.flightsql.parameters",
    "sign_in_card": "micromegas_jupyter.notebook.login.display",
    "unload_ipython_extension": "micromegas_jupyter.notebook.extension",
}

_PUBLIC_PACKAGES = {"access", "auth", "errors"}

__all__ = ["FlightSQLClient", "ResultGrid", "__version__", "connect", "quote_identifier", "sign_in_card"]


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    """Tell Jupyter servers which module is their extension; each imports the package to ask that."""
    return [{"module": "micromegas_jupyter.server_extension.handlers"}]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    if name in _PUBLIC_PACKAGES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
