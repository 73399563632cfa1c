"""Reading and writing traitlets' configuration, as `jupyterhub_config.py` and Zero to JupyterHub fill it.

What is written there is `configuring`'s, what may stand there is `configuration_checks`'s.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from micromegas_jupyter.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from traitlets.config import Config


def read_list(config: Config, section: str, name: str) -> list[Any]:
    """Return a copy of a list, whether it was set or only added to.

    Raises:
        ConfigurationError: It is no list.
    """
    value = _value(config, section, name) or []
    if not isinstance(value, list | tuple):
        raise ConfigurationError(f"c.{section}.{name} is no list.", key=f"{section}.{name}")
    return list(value)


def read_value(config: Config, section: str, name: str) -> Any:
    """Return what a section sets; None when it sets nothing."""
    return _value(config, section, name)


def read_mapping(config: Config, section: str, name: str) -> dict[str, Any]:
    """Return a copy of a mapping; empty when it is not set.

    Raises:
        ConfigurationError: It is no mapping.
    """
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
