"""A provider's answer that may hold tokens, fit to stand among the variables that a verbose traceback shows."""


class SecretObject(dict[str, object]):
    """A JSON object whose `str` and `repr` are a placeholder, and which refuses to be pickled."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "SecretObject(***)"

    __str__ = __repr__

    def __reduce__(self) -> str:
        raise TypeError("a secret cannot be pickled")


def secret_object(value: object) -> SecretObject | None:
    """Return a decoded JSON object that shows nothing; None for anything else."""
    return SecretObject(value) if isinstance(value, dict) else None
