"""From JSON text to checked values; every refusal names the key."""

from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.strict_json import JsonError, decode_strict_json


def decode_setting(text: str, key: str) -> object:
    """Decode a setting's JSON text.

    Raises:
        ConfigurationError: It is not JSON; the sentence says where, never what stands there.
    """
    try:
        return decode_strict_json(text)
    except JsonError as error:
        raise ConfigurationError(f"{key} is not valid JSON ({error}).", key=key) from None


def as_object(value: object, key: str, *, known: frozenset[str] | None = None) -> dict[str, object]:
    """Return `value` as an object whose names are all `known`.

    Raises:
        ConfigurationError: It is something else, or it holds a name that is not known.
    """
    if not isinstance(value, dict):
        raise ConfigurationError(f"{key} is not a JSON object.", key=key)
    unknown = sorted(set(value) - known) if known is not None else []
    if unknown and known is not None:
        raise ConfigurationError(
            f"{key} has the unknown name {unknown[0]!r}.",
            key=key,
            remedy=f"Known names: {', '.join(sorted(known))}.",
        )
    return value


def as_list(value: object, key: str) -> list[object]:
    """Return `value` as a list.

    Raises:
        ConfigurationError: It is something else.
    """
    if not isinstance(value, list):
        raise ConfigurationError(f"{key} is not a JSON list.", key=key)
    return value


def as_text(value: object, key: str) -> str:
    """Return `value` as text that is not empty and has no control characters.

    Raises:
        ConfigurationError: It is something else.
    """
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ConfigurationError(f"{key} is not a text of printable characters.", key=key)
    return value


def as_count(value: object, key: str, *, maximum: int) -> int:
    """Return `value` as a whole number from 1 to `maximum`.

    Raises:
        ConfigurationError: It is something else.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= maximum:
        raise ConfigurationError(f"{key} is not a whole number from 1 to {maximum}.", key=key)
    return value
