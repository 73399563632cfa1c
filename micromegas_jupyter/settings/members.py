"""One JSON object that is read member by member; every refusal names the member's place.

What a single value must look like is said in `decoding`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from micromegas_jupyter.errors import ConfigurationError

Value = TypeVar("Value")
Default = TypeVar("Default")


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """One object's members and the place where it stands.

    Attributes:
        values: The decoded members.
        place: Names the object in refusals.
    """

    values: Mapping[str, object]
    place: str

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def key(self, name: str) -> str:
        """Return the place of a member."""
        return f"{self.place}.{name}"

    def read(self, name: str, reader: Callable[[object, str], Value], default: Default) -> Value | Default:
        """Return what `reader` makes of a member, or `default` when there is no such member.

        Raises:
            ConfigurationError: `reader` refuses the value.
        """
        return reader(self.values[name], self.key(name)) if name in self.values else default

    def require(self, name: str, reader: Callable[[object, str], Value]) -> Value:
        """Return what `reader` makes of a member.

        Raises:
            ConfigurationError: There is no such member, or `reader` refuses the value.
        """
        if name not in self.values:
            raise ConfigurationError(f"{self.key(name)} is missing.", key=self.key(name), remedy=f"Add {name}.")
        return reader(self.values[name], self.key(name))
