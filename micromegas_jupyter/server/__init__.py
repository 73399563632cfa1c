"""The Flight SQL server: who may call, what is answered, within which limits.

Validator, executors and lake are passed in; `wiring` joins them. Each name loads its module when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from micromegas_jupyter.server.flight_server import ServerThread
    from micromegas_jupyter.server.http_endpoint import HttpEndpoint, NotReady
    from micromegas_jupyter.server.monitoring import ServerMetrics
    from micromegas_jupyter.server.queries import DenyList
    from micromegas_jupyter.server.recorder.recorder import Recorder
    from micromegas_jupyter.server.settings import FlightServerSettings

__all__ = [
    "DenyList",
    "FlightServerSettings",
    "HttpEndpoint",
    "NotReady",
    "Recorder",
    "ServerMetrics",
    "ServerThread",
]

_MODULES = {
    "DenyList": "queries",
    "FlightServerSettings": "settings",
    "HttpEndpoint": "http_endpoint",
    "NotReady": "http_endpoint",
    "Recorder": "recorder.recorder",
    "ServerMetrics": "monitoring",
    "ServerThread": "flight_server",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
