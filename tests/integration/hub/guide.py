"""The configurations of the administrators' guide, as the tests' Hub runs them: only names and addresses are put in."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import yaml

GUIDE = Path(__file__).parents[3] / "docs" / "jupyterhub.md"


def guide_block(language):
    blocks = re.findall(rf"^```{language}\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return next(block for block in blocks if "configure(" in block)


def zero_to_jupyterhub():
    """Return the guide's values for the Helm chart."""
    return yaml.safe_load(guide_block("yaml"))


def filled_in(text, own):
    """Return a text of the guide with a Hub's own values in place of the guide's; each has to stand in it."""
    for theirs, ours in own.items():
        assert theirs in text, theirs
        text = text.replace(theirs, ours)
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnValues:
    """What stands in a Hub's configuration in place of the guide's names and addresses."""

    url: str
    issuer: str
    redirect_client_id: str
    service_url: str
    flight_uri: str
    margin_seconds: int
    exchange_resource: str | None = None

    @property
    def arguments(self):
        exchange = f', exchange_resource="{self.exchange_resource}"' if self.exchange_resource else ""
        return {
            "https://id.example.com": self.issuer,
            "https://hub.example.com/": self.url,
            '"micromegas-notebooks"': f'"{self.redirect_client_id}", margin_seconds={self.margin_seconds}{exchange}',
        }


def configuration_of(own, *, as_chart):
    """Return a configuration of the guide: Python, and sections that are set before it runs."""
    if not as_chart:
        places = {"http://127.0.0.1:8000/": own.url, "grpc+tls://lake.example.com:50051": own.flight_uri}
        text = filled_in(guide_block("python"), {**places, **own.arguments})
        return filled_in(text, {"margin_seconds=": f'service_url="{own.service_url}", margin_seconds='}), {}
    hub = zero_to_jupyterhub()["hub"]
    assert set(hub["extraEnv"]) == {"JUPYTERHUB_CRYPT_KEY", "OAUTH_CLIENT_SECRET"}
    places = {
        "http://hub:8190/services/micromegas/": f"{own.url}services/micromegas/",
        "http://hub:8190": own.service_url,
    }
    text = filled_in(hub["extraConfig"]["90-micromegas"], {**places, **own.arguments})
    addresses = {"https://hub.example.com/": own.url, "https://id.example.com": own.issuer}
    return text, json.loads(filled_in(json.dumps(hub["config"]), addresses))
