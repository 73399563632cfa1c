"""Which Hub tokens count as a person's own server, and what the service's own token may."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.hub.refusals import DANGEROUS_SCOPES, dangerous_role, not_a_user, not_their_server

if TYPE_CHECKING:
    from collections.abc import Iterable

    from micromegas_jupyter.hub.hub_api import TokenOwner

SERVICE_SCOPES: Final = ("admin:auth_state", "read:users:name")
"""All that the service's role holds: it reads a person's record, and in it the kept sign-in."""

_KEY: Final = "JupyterHub.load_roles"


def check_caller(owner: TokenOwner) -> str:
    """Return the Hub's name of the person whose own server bears the token.

    A token that may use one of the person's servers could run code in it and learn all that a kernel there learns, so
    it gets what a kernel gets. A token that may not was given to another program, such as a service or the shared
    server of somebody else that the person looked at, and gets nothing.

    Raises:
        Refused: It is a service's, another program's, or it could read refresh tokens by itself.
    """
    if owner.kind != "user":
        raise not_a_user()
    dangerous = find_dangerous_scope(owner.scopes)
    if dangerous is not None:
        raise dangerous_role(dangerous)
    own_servers = f"access:servers!server={owner.name}/"
    all_own = {"access:servers", f"access:servers!user={owner.name}"}
    if not any(scope in all_own or scope.startswith(own_servers) for scope in owner.scopes):
        raise not_their_server()
    return owner.name


def find_dangerous_scope(scopes: Iterable[str]) -> str | None:
    """Return a scope that lets its bearer read refresh tokens at the Hub; None when there is none.

    `admin:auth_state!user` is one, too: it shows a person's own refresh token to every kernel of that person.
    """
    return next((scope for scope in sorted(scopes) if scope.partition("!")[0] in DANGEROUS_SCOPES), None)


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
