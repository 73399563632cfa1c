"""Secret values, fit to stand among the variables that a verbose traceback shows."""


class Secret:
    """Text that must not be seen: its `str` and `repr` are a placeholder, and it refuses to be pickled."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself; call this only where it leaves for its one destination."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> str:
        raise TypeError("a secret cannot be pickled")


class HiddenText(str):
    """Secret text for calls that want plain text: it is that text, but no verbose traceback shows it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "HiddenText(***)"


class HiddenBytes(bytes):
    """Secret bytes, as `HiddenText` is secret text."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "HiddenBytes(***)"

    __str__ = __repr__


class SecretObject(dict[str, object]):
    """A JSON object that may hold tokens: its `str` and `repr` are a placeholder, and it refuses to be pickled."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "SecretObject(***)"

    __str__ = __repr__

    def __reduce__(self) -> str:
        raise TypeError("a secret cannot be pickled")


def secret_object(value: object) -> SecretObject | None:
    """Return a decoded JSON object that shows nothing; None for anything else."""
    return SecretObject(value) if isinstance(value, dict) else None
