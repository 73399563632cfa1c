"""Whether the service's own Hub token may what the service needs, and nothing that it does not need.

Asking the Hub is `hub_api`'s job; giving the rights is `configuring`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from micromegas_jupyter.errors import ConfigurationError

if TYPE_CHECKING:
    from micromegas_jupyter.hub.hub_api import TokenOwner

SERVICE_SCOPES: Final = ("admin:auth_state", "read:users:name")
"""All that the service's role holds: it reads a person's record, and in it the kept sign-in."""

_KEY: Final = "JupyterHub.load_roles"


def check_own_rights(owner: TokenOwner | None) -> None:
    """Check what the service may do.

    Raises:
        ConfigurationError: The Hub does not know its token, or it may too little or too much.
    """
    if owner is None or owner.kind != "service":
        raise ConfigurationError(
            "The Hub does not know this program's token as a service's.",
            key="JUPYTERHUB_API_TOKEN",
            remedy="Start this program as a service in jupyterhub_config.py (docs/jupyterhub.md).",
        )
    missing = [scope for scope in SERVICE_SCOPES if scope not in owner.scopes]
    if missing:
        raise ConfigurationError(
            f"The service's role lacks {' and '.join(missing)}.",
            key=_KEY,
            remedy="Call micromegas_jupyter.hub.configure last in jupyterhub_config.py, and change its role nowhere.",
        )
    more = sorted(scope for scope in owner.scopes if scope not in SERVICE_SCOPES)
    if more:
        raise ConfigurationError(
            f"The service may more at the Hub than it needs: {', '.join(more)}.",
            key=_KEY,
            remedy="Take the service out of every other role, and do not make it an admin.",
        )
