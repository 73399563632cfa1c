"""The provider and the settings that the parts under a command are tested with."""

from tests.unit.wiring.conftest import environ, idp, settings

__all__ = ["environ", "idp", "settings"]
