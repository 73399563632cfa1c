"""The client of a Flight SQL server: queries, parameters, cancellation, errors with a remedy.

How a token is obtained is the `auth` room's job, how rows are shown the notebook's and the command line's.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from micromegas_jupyter.client.flight_client import FlightSQLClient
    from micromegas_jupyter.client.parameters import BoundStatement, bind_named, parameter_names
    from micromegas_jupyter.client.prepared import PreparedStatement
    from micromegas_jupyter.client.query_reader import QueryReader
    from micromegas_jupyter.client.server_identity import ServerIdentity
    from micromegas_jupyter.client.sql_text import quote_identifier

_HOME = {
    "BoundStatement": "client.parameters",
    "FlightSQLClient": "client.flight_client",
    "PreparedStatement": "client.prepared",
    "QueryReader": "client.query_reader",
    "ServerIdentity": "client.server_identity",
    "bind_named": "client.parameters",
    "parameter_names": "client.parameters",
    "quote_identifier": "client.sql_text",
}

__all__ = [
    "BoundStatement",
    "FlightSQLClient",
    "PreparedStatement",
    "QueryReader",
    "ServerIdentity",
    "bind_named",
    "parameter_names",
    "quote_identifier",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"micromegas_jupyter.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
