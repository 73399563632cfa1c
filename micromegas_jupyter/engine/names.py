"""How a name is written in SQL."""

from __future__ import annotations


def quoted(name: str) -> str:
    """Return `name` as a quoted identifier, so that it is taken as it is."""
    return '"' + name.replace('"', '""') + '"'
