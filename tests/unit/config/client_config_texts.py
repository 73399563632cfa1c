"""A client's configuration as a file holds it, and how it is read with variables beside it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from micromegas_jupyter.config.client_config import parse_client_settings

if TYPE_CHECKING:
    from micromegas_jupyter.config.client import ClientSettings

FLAT = {
    "uri": "grpc+tls://lake.example.com:50051",
    "client_id": "notebooks",
    "issuers": [{"issuer": "https://id.example.com", "audience": "lake"}, {"issuer": "https://second.example"}],
}


def parse(config: object = None, profile: str | None = None, **environ: str) -> ClientSettings:
    text = None if config is None else json.dumps(config)
    return parse_client_settings(environ, config_text=text, profile=profile)
