"""What a token's claims must say, as an issuer's entry puts it: subjects, values, and where the groups are.

Holding a token against these rules is left to the validator.
"""

from collections.abc import Mapping
from types import MappingProxyType

from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.settings.decoding import MAX_ENTRIES, as_named, as_text, as_texts, shown
from micromegas_jupyter.settings.issuers import ClaimValue

_MAX_PATH_STEPS = 8
_MAX_PATHS = 16


def as_subjects(value: object, key: str) -> tuple[str, ...]:
    """Read the accepted subjects; a star at the end makes an entry a prefix.

    Raises:
        ConfigurationError: It is no list of texts, or a star stands where it would be taken for a pattern.
    """
    subjects = as_texts(value, key)
    for subject in subjects:
        if subject == "*" or "*" in subject[:-1]:
            raise ConfigurationError(
                f"{key} holds {shown(subject)}: a star stands only at the end, after what the subject begins with.",
                key=key,
                remedy="Write the whole subject, or its beginning and a star.",
            )
    return subjects


def as_claim_paths(value: object, key: str) -> tuple[tuple[str, ...], ...]:
    """Read one name, one path of names, or several paths; a dot in a name is a dot.

    Raises:
        ConfigurationError: It is none of them.
    """
    if not isinstance(value, list):
        return ((as_text(value, key),),)
    if not any(isinstance(step, list) for step in value):
        return (_as_path(value, key),)
    if len(value) > _MAX_PATHS:
        raise ConfigurationError(f"{key} has more than {_MAX_PATHS} paths.", key=key)
    return tuple(_as_path(path, f"{key}[{index}]") for index, path in enumerate(value))


def _as_path(value: object, key: str) -> tuple[str, ...]:
    steps = as_texts(value, key)
    if len(steps) > _MAX_PATH_STEPS:
        raise ConfigurationError(f"{key} is not a path of at most {_MAX_PATH_STEPS} names.", key=key)
    return steps


def as_required_claims(value: object, key: str) -> Mapping[str, tuple[ClaimValue, ...]]:
    """Read claims by name, each with one accepted value or a list of them.

    Raises:
        ConfigurationError: It is something else, or a list of accepted values is empty.
    """
    return MappingProxyType(
        {name: _as_claim_values(wanted, f"{key}.{name}") for name, wanted in as_named(value, key).items()}
    )


def _as_claim_values(value: object, key: str) -> tuple[ClaimValue, ...]:
    if not isinstance(value, list):
        return (_as_claim_value(value, key),)
    if not value:
        raise ConfigurationError(f"{key} is empty.", key=key, remedy="Add a value, or leave the claim out.")
    if len(value) > MAX_ENTRIES:
        raise ConfigurationError(f"{key} has more than {MAX_ENTRIES} entries.", key=key)
    return tuple(_as_claim_value(entry, f"{key}[{index}]") for index, entry in enumerate(value))


def _as_claim_value(value: object, key: str) -> ClaimValue:
    if isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return as_text(value, key)
    raise ConfigurationError(f"{key} is no text, whole number, true or false.", key=key)
