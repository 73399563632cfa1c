"""A real provider and a real server whose tokens end within seconds, to the second."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

from micromegas_jupyter.config.server import ServerSettings
from micromegas_jupyter.demo.provider import DemoProvider
from micromegas_jupyter.wiring import ServerStack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def short_token_stack(folder: Path, *, token_lifetime_seconds: int) -> Iterator[tuple[DemoProvider, dict[str, str]]]:
    """Run both; yields the provider and the variables with which a person reaches them."""
    with DemoProvider(token_lifetime_seconds=token_lifetime_seconds) as provider:
        issuers = [
            {"issuer": provider.issuer, "audience": audience, "leeway_secs": 0}
            for audience in (provider.client_id, provider.lake_audience)
        ]
        options = ServerSettings(no_http=True, lake=folder / "lake", port=0, no_telemetry=True)
        environ = {"MICROMEGAS_OIDC_CONFIG": json.dumps({"issuers": issuers})}
        with ServerStack(options, environ=environ) as server:
            yield (
                provider,
                {
                    "MICROMEGAS_ANALYTICS_URI": server.uri,
                    "MICROMEGAS_OIDC_ISSUER": provider.issuer,
                    "MICROMEGAS_OIDC_CLIENT_ID": provider.client_id,
                    "MICROMEGAS_CONFIG_DIR": str(folder / "config"),
                },
            )
