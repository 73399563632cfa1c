"""This package's variables, and similar ones that have no effect on a server."""

import re
from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Final

from micromegas_jupyter.config import access
from micromegas_jupyter.config.client import (
    PROFILE_VARIABLE,
    RESULT_ROWS_VARIABLE,
    SERVERS_VARIABLE,
    WRAPPER_VARIABLE,
    ClientSettings,
    PrivateKeySetting,
    WorkloadSetting,
)
from micromegas_jupyter.config.server import SETTINGS

_PREFIX: Final = "MICROMEGAS_"
#: Variables that higher-level packages read directly.
_OTHERS: Final = frozenset(
    _PREFIX + name
    for name in (
        "API_KEY_MAX_DAYS", "CLIENT_AGENT", "CLIENT_ENTRYPOINT", "CONFIG_DIR", "HUB_BEARER", "HUB_CA_BUNDLE",
        "HUB_CLIENT_ID", "HUB_CLIENT_SECRET", "HUB_EXCHANGE_AUDIENCE", "HUB_EXCHANGE_RESOURCE", "HUB_EXCHANGE_SCOPE",
        "HUB_ISSUER", "HUB_PUBLIC_URL", "HUB_REDIRECT_CLIENT_ID",
    )
)  # fmt: skip
#: Kubernetes sets these in every pod for a service named `micromegas` or `micromegas-…`.
_OF_KUBERNETES: Final = re.compile(
    r"_(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$"
)
_MAX_REPORTED: Final = 20
_MAX_NAME_CHARACTERS: Final = 100
_NO_EFFECT: Final = "Remove it: no setting has this name."


def known_variables() -> frozenset[str]:
    """Return all variables that the client, the server, or the Hub service reads."""
    declared = {setting.variable for setting in SETTINGS if setting.variable}
    for kind in (ClientSettings, PrivateKeySetting, WorkloadSetting):
        declared |= {entry.metadata["source"]["variable"] for entry in fields(kind) if entry.metadata} - {None}
    named = {PROFILE_VARIABLE, RESULT_ROWS_VARIABLE, WRAPPER_VARIABLE}
    return frozenset(declared | named | access.VARIABLES | _OTHERS)


def find_unknown_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that begin with `MICROMEGAS_` but have no effect on a server, each with a remedy.

    Returns at most 20, sorted by name. Skips the client's variables, except `MICROMEGAS_OIDC_ISSUERS`, which is easily
    mistaken for the server's setting, and those that Kubernetes sets for a service.
    """
    known = known_variables()
    unknown = sorted(name for name in environ if name.startswith(_PREFIX) and name not in known)
    reported = [name for name in unknown if not _OF_KUBERNETES.search(name)][:_MAX_REPORTED]
    return {name[:_MAX_NAME_CHARACTERS]: _find_remedy(name, known) for name in reported}


def _find_remedy(name: str, known: frozenset[str]) -> str:
    if name == SERVERS_VARIABLE:
        return f"Set {access.OIDC_CONFIG}, which lists the issuers whose tokens the server accepts."
    nearest = get_close_matches(name[:_MAX_NAME_CHARACTERS], known, n=1, cutoff=0.85)
    return f"Did you mean {nearest[0]}?" if nearest else _NO_EFFECT
