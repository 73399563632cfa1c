"""The Flight SQL server: who may call, what is answered, within which limits.

Validator, executors and lake are passed in; `wiring` joins them. Each name loads its parts when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from micromegas_jupyter.server.deny_list import DenyList
    from micromegas_jupyter.server.flight_server import FlightServer, ServerThread
    from micromegas_jupyter.server.flight_settings import FlightServerSettings
    from micromegas_jupyter.server.http_endpoint import HttpEndpoint
    from micromegas_jupyter.server.metrics import ServerMetrics
    from micromegas_jupyter.server.readiness import NotReady
    from micromegas_jupyter.server.recorder import Recorder

_HOME = {
    "DenyList": "deny_list",
    "FlightServer": "flight_server",
    "FlightServerSettings": "flight_settings",
    "HttpEndpoint": "http_endpoint",
    "NotReady": "readiness",
    "Recorder": "recorder",
    "ServerMetrics": "metrics",
    "ServerThread": "flight_server",
}

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


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
