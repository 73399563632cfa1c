"""What a Hub's configuration must not hold, or must, before kernels get tokens: each check names reason and remedy.

The configuration is traitlets', as `jupyterhub_config.py` and Zero to JupyterHub fill it. The service checks again at
run time what a configuration cannot show (`rights`).
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final

from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.hub.rights import find_dangerous_scope

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from traitlets.config import Config

AUTHENTICATORS: Final = "jupyterhub.authenticators"
SPAWNERS: Final = "jupyterhub.spawners"
CRYPT_KEY: Final = "JUPYTERHUB_CRYPT_KEY"
# Their servers run as one system user, the Hub's own.
SHARING_SPAWNERS: Final = frozenset({"SimpleLocalProcessSpawner"})
_OWN_ROLES: Final = frozenset({"user", "server", "token"})
"""Roles that every person, server or token of a person has."""

_TOKEN_SCOPES: Final = ("server_token_scopes", "oauth_client_allowed_scopes")
_ALL_RIGHTS: Final = frozenset({"inherit", "all"})
"""All that the person may do; for an administrator that is to read everybody's sign-in."""

_RIGHTS_OF_VISITORS: Final = frozenset({"self", "tokens", "access:servers"})
"""With them whoever visits a server that somebody shares hands over the use of their own, and with it a token."""


def read_list(config: Config, section: str, name: str) -> list[Any]:
    """Return a copy of a list, whether it was set or only added to."""
    value = _value(config, section, name) or []
    if not isinstance(value, list | tuple):
        raise ConfigurationError(f"c.{section}.{name} is no list.", key=f"{section}.{name}")
    return list(value)


def read_value(config: Config, section: str, name: str) -> Any:
    """Return what a section sets; None when it sets nothing."""
    return _value(config, section, name)


def read_mapping(config: Config, section: str, name: str) -> dict[str, Any]:
    """Return a copy of a mapping; empty when it is not set."""
    value = _value(config, section, name) or {}
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"c.{section}.{name} is no mapping.", key=f"{section}.{name}")
    return dict(value)


def sections_with(config: Config, ending: str, name: str, *, classes: Collection[str]) -> Iterator[str]:
    """Return the sections that set the value: a subclass's wins over its base's.

    Args:
        config: The configuration.
        ending: How the names of such classes end.
        name: The value's name.
        classes: Those that the Hub uses, whatever their names.
    """
    return (
        section
        for section in list(config)
        if (section.endswith(ending) or section in classes) and _is_set(config, section, name)
    )


def class_names(spec: object, *, group: str) -> list[str]:
    """Return the names of a class and of its bases, the class first.

    Args:
        spec: The class, its dotted name, or the name under which it is registered; None when there is none.
        group: The group of entry points in which classes are registered.
    """
    if spec is None:
        return []
    found = load_class(spec, group=group)
    if found is not None:
        return [base.__name__ for base in found.__mro__ if base is not object]
    return [str(spec).rpartition(".")[2]]


def load_class(spec: object, *, group: str) -> type | None:
    """Return the class that a setting names, as `class_names` has it; None when it is not installed here."""
    if isinstance(spec, type):
        return spec
    text = str(spec)
    registered = next((point for point in entry_points(group=group) if point.name == text.lower()), None)
    module, _, name = (registered.value.replace(":", ".") if registered else text).rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name, None) if module else None
    except ImportError:
        return None
    return found if isinstance(found, type) else None


def _is_set(config: Config, section: str, name: str) -> bool:
    return section in config and name in config[section]


def _value(config: Config, section: str, name: str) -> Any:
    if not _is_set(config, section, name):
        return None
    value = config[section][name]
    # What was only added to (`c.JupyterHub.services.append`) is kept as a list of changes until the class is made.
    changes = getattr(value, "get_value", None)
    return value if changes is None else changes({} if value.to_dict().get("update") else [])


def check_authenticator(config: Config) -> None:
    """Check that people sign in by OAuthenticator and that what it learns is kept."""
    spec = read_value(config, "JupyterHub", "authenticator_class")
    found = None if spec is None else load_class(spec, group=AUTHENTICATORS)
    names = class_names(spec, group=AUTHENTICATORS)
    if "OAuthenticator" not in names or not hasattr(found, "refresh_user_hook"):
        raise ConfigurationError(
            "People do not sign in to this Hub with OAuthenticator 17.3 or later, so it keeps no token of theirs.",
            key="JupyterHub.authenticator_class",
            remedy=(
                "Set an authenticator of oauthenticator, such as generic-oauth, before configure is called; without "
                "one, kernels sign in by device code and need no service."
            ),
        )
    for section in sections_with(config, "Authenticator", "enable_auth_state", classes=names):
        if read_value(config, section, "enable_auth_state") is False:
            raise ConfigurationError(
                f"{section}.enable_auth_state is False, so the Hub keeps no token that kernels could get.",
                key=f"{section}.enable_auth_state",
                remedy="Remove the line; configure enables auth state.",
            )
    for section in sections_with(config, "Authenticator", "refresh_user_hook", classes=names):
        raise ConfigurationError(
            f"{section}.refresh_user_hook is set already, and two hooks would use up each other's refresh tokens.",
            key=f"{section}.refresh_user_hook",
            remedy="Remove it; configure sets the hook that renews people's sign-ins.",
        )


def check_crypt_key(config: Config) -> None:
    """Check that the Hub can encrypt what it keeps."""
    if not os.environ.get(CRYPT_KEY) and not read_list(config, "CryptKeeper", "keys"):
        raise ConfigurationError(
            f"{CRYPT_KEY} is not set, so the Hub cannot encrypt the sign-ins that it keeps.",
            key=CRYPT_KEY,
            remedy="Set it in the Hub's environment to what `openssl rand -hex 32` prints, and keep it out of files "
            "that users can read.",
        )


def check_spawner(config: Config, *, allow_shared_system_user: bool) -> None:
    """Check that people's servers run as users of their own."""
    spec = read_value(config, "JupyterHub", "spawner_class")
    names = class_names(spec, group=SPAWNERS)
    if spec == "simple":
        names = [*names, *SHARING_SPAWNERS]
    if allow_shared_system_user or not SHARING_SPAWNERS.intersection(names):
        return
    raise ConfigurationError(
        "This spawner runs everybody's servers as one system user, who can read the memory and the environment of "
        "each: every person could take every other's tokens.",
        key="JupyterHub.spawner_class",
        remedy="Use a spawner that separates people, such as LocalProcessSpawner, DockerSpawner or KubeSpawner. Only "
        "for a trial: configure(…, allow_shared_system_user=True).",
    )


def check_roles(config: Config) -> None:
    """Check that no role gives people or their servers the right to read kept sign-ins."""
    for role in read_list(config, "JupyterHub", "load_roles"):
        if not isinstance(role, dict) or not isinstance(role.get("scopes", []), list | tuple | set):
            raise ConfigurationError(
                "c.JupyterHub.load_roles holds something else than roles with a list of scopes.",
                key="JupyterHub.load_roles",
            )
        scopes = [str(scope) for scope in role.get("scopes", ())]
        what = f"The role {role.get('name')} gives people or their servers"
        if _is_for_people(role):
            _check_scopes(scopes, what=what, key="JupyterHub.load_roles", may_be_all=role.get("name") != "server")
    spawner = class_names(read_value(config, "JupyterHub", "spawner_class"), group=SPAWNERS)
    for name in _TOKEN_SCOPES:
        for section in sections_with(config, "Spawner", name, classes=spawner):
            scopes = _token_scopes(config, section, name)
            _check_scopes(scopes, what=f"{section}.{name} gives servers", key=f"{section}.{name}", may_be_all=False)
            if name == "oauth_client_allowed_scopes":
                _check_rights_of_visitors(scopes, key=f"{section}.{name}")


def _token_scopes(config: Config, section: str, name: str) -> list[str]:
    found = read_value(config, section, name)
    if callable(found):
        return []  # known only when a server starts
    return [str(scope) for scope in (found if isinstance(found, set) else read_list(config, section, name))]


def _check_scopes(scopes: Collection[str], *, what: str, key: str, may_be_all: bool) -> None:
    scope = find_dangerous_scope(scopes)
    whose = "a kernel"
    if scope is None and not may_be_all:
        scope = next((scope for scope in sorted(scopes) if scope in _ALL_RIGHTS), None)
        whose = "an administrator's kernel"
    if scope is not None:
        raise ConfigurationError(
            f"{what} the scope {scope}, with which code in {whose} can read refresh tokens.",
            key=key,
            remedy="Take the scope out: kernels get their tokens from the service and need no such right.",
        )


def _check_rights_of_visitors(scopes: Iterable[str], *, key: str) -> None:
    for scope in sorted(scopes):
        right, _, of = scope.partition("!")
        if right in _RIGHTS_OF_VISITORS and not of.startswith("server"):
            raise ConfigurationError(
                f"{key} gives servers the scope {scope} of everybody who visits them: whose server it is could use a "
                "visitor's own server, and get the visitor's token.",
                key=key,
                remedy="Take the scope out, or narrow it to the server that is visited (access:servers!server).",
            )


def _is_for_people(role: dict[str, Any]) -> bool:
    if role.get("name") in _OWN_ROLES:
        return True
    # The Hub's own role of administrators may do anything; it reaches no server's token.
    return role.get("name") != "admin" and bool(role.get("users") or role.get("groups"))
