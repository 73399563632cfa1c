"""Finds each client setting, the variable before the profile, and remembers where it was found.

Which variable and which member belong together is `client_config`'s job.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

from micromegas_jupyter.settings.client_profile import Part

Value = TypeVar("Value")
Reader = Callable[[object, str], Value]


class SettingReader:
    """Reads settings one by one.

    Args:
        environ: The process environment; a variable that is empty counts as not set.

    Attributes:
        origins: Where each setting that was found stands, by the field that it belongs to.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.origins: dict[str, str] = {}

    def read(
        self,
        field: str,
        reader: Reader[Value],
        *,
        variable: str | None = None,
        part: Part | None = None,
        member: str | None = None,
    ) -> Value | None:
        """Return what `reader` makes of a setting, None when it is not set.

        Args:
            field: What the setting belongs to.
            reader: Makes a value of what stands there.
            variable: The variable that names it, if one does.
            part: The object of `config.json` that may hold it, if one does.
            member: Its name there; the field's name when left out.

        Raises:
            ConfigurationError: `reader` refuses what stands there.
        """
        name = member or field
        # What stands there may be secret: among the variables here, a traceback would show it.
        if variable is not None and self._environ.get(variable):
            self._note(field, variable)
            return reader(self._environ[variable], variable)
        if part is not None and name in part.values:
            origin = f"{part.place}{name}"
            self._note(field, origin)
            return reader(part.values[name], origin)
        return None

    def _note(self, field: str, origin: str) -> None:
        # Several settings may make up one field; the first of them is the one that matters.
        self.origins.setdefault(field, origin)
