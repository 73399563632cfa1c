"""The configurations of the administrators' guide, as the tests' Hub runs them: only names and addresses are put in."""

import json
import re
from pathlib import Path

import certifi
import yaml

DOCS = Path(__file__).parents[3] / "docs"
GUIDE = DOCS / "jupyterhub.md"


def guide_block(language):
    blocks = re.findall(rf"^```{language}\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return next(block for block in blocks if "configure(" in block)


def zero_to_jupyterhub():
    """Return the guide's values for the Helm chart."""
    return yaml.safe_load((DOCS / "deploy" / "kubernetes" / "jupyterhub.yaml").read_text(encoding="utf-8"))


def filled_in(text, own):
    """Return a text of the guide with a Hub's own values in place of the guide's; each has to stand in it."""
    for theirs, ours in own.items():
        assert theirs in text, theirs
        text = text.replace(theirs, ours)
    return text


def configuration_of(hub, port, *, as_chart, exchange_resource=None):
    """Return a configuration of the guide for a Hub and its service's port: Python, and sections set before it runs."""
    exchange = f', exchange_resource="{exchange_resource}"' if exchange_resource else ""
    service_url, issuer = f"http://127.0.0.1:{port}", hub.provider.issuer
    arguments = {
        "https://id.example.com": issuer,
        "https://hub.example.com/": hub.url,
        '"micromegas-notebooks"': f'"{hub.provider.client_id}", margin_seconds={hub.margin_seconds}{exchange}',
    }
    if not as_chart:
        flight_uri = hub.environment["MICROMEGAS_ANALYTICS_URI"]
        # The tests' provider speaks plain http, so any authority will do.
        places = {"http://127.0.0.1:8000/": hub.url, "grpc+tls://lake.example.com:50051": flight_uri,
                  "/etc/jupyterhub/provider-ca.pem": certifi.where()}  # fmt: skip
        text = filled_in(guide_block("python"), {**places, **arguments})
        return filled_in(text, {"margin_seconds=": f'service_url="{service_url}", margin_seconds='}), {}
    chart = zero_to_jupyterhub()["hub"]
    assert set(chart["extraEnv"]) == {"JUPYTERHUB_CRYPT_KEY", "OAUTH_CLIENT_SECRET"}
    places = {
        "http://hub:8190/services/micromegas/": f"{hub.url}services/micromegas/",
        "http://hub:8190": service_url,
    }
    text = filled_in(chart["extraConfig"]["90-micromegas"], {**places, **arguments})
    addresses = {"https://hub.example.com/": hub.url}
    return text, json.loads(filled_in(json.dumps(chart["config"]), addresses))
