"""Settings of a person in a folder of their own, for the tests of single checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from micromegas_jupyter import wiring
from micromegas_jupyter.auth.flows.select import Facts
from micromegas_jupyter.doctor.findings import Case

if TYPE_CHECKING:
    from pathlib import Path

ISSUER = "https://id.example.com"
TERMINAL = Facts(has_terminal=True, has_browser=True)


def bare_case(folder: Path, facts: Facts = TERMINAL, **variables: str) -> Case:
    """Return the case of nothing but these variables."""
    environ = {"MICROMEGAS_CONFIG_DIR": str(folder), **variables}
    return Case(settings=wiring.load_client_settings(environ=environ), environ=environ, facts=facts)


def person_case(folder: Path, facts: Facts = TERMINAL, **more: str) -> Case:
    """Return the case of a person who signs in at `ISSUER`."""
    variables = {"MICROMEGAS_OIDC_ISSUER": ISSUER, "MICROMEGAS_OIDC_CLIENT_ID": "notebook", **more}
    return bare_case(folder, facts, **variables)
