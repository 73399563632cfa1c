"""The Flight SQL server: who may call, what is answered, within which limits.

Engine, validator and lake are passed in; joining them to a running system is assembly's job.
"""

from micromegas_jupyter.server.deny_list import DenyList
from micromegas_jupyter.server.flight_server import FlightServer
from micromegas_jupyter.server.flight_settings import FlightServerSettings
from micromegas_jupyter.server.http_endpoint import HttpEndpoint
from micromegas_jupyter.server.metrics import ServerMetrics
from micromegas_jupyter.server.readiness import NotReady
from micromegas_jupyter.server.recorder import Recorder
from micromegas_jupyter.server.server_thread import ServerThread

__all__ = [
    "DenyList",
    "FlightServer",
    "FlightServerSettings",
    "HttpEndpoint",
    "NotReady",
    "Recorder",
    "ServerMetrics",
    "ServerThread",
]
