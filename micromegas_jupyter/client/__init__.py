"""The client of a Flight SQL server: queries, parameters, cancellation, errors with a remedy.

How a token is obtained is the `auth` room's job, how rows are shown the notebook's and the command line's.
"""

from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.client.parameters import BoundStatement, bind_named, parameter_names
from micromegas_jupyter.client.prepared import PreparedStatement
from micromegas_jupyter.client.query_reader import QueryReader
from micromegas_jupyter.client.server_identity import ServerIdentity

__all__ = [
    "BoundStatement",
    "FlightSQLClient",
    "PreparedStatement",
    "QueryReader",
    "ServerIdentity",
    "bind_named",
    "parameter_names",
]
