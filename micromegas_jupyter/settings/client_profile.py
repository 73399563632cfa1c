"""The part of `config.json` that counts: the chosen profile, or the flat file, and its first issuer.

What its members mean is `client_config`'s job.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.settings.decoding import as_list, as_object, as_text, decode_setting

CONFIG_FILE = "config.json"
PROFILE_VARIABLE = "MICROMEGAS_PROFILE"
WRAPPER_VARIABLE = "MICROMEGAS_PYTHON_MODULE_WRAPPER"
PROFILE_ARGUMENT = "the profile argument"

_PROFILE_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One object of the file.

    Attributes:
        values: Its members; those that are null count as not there.
        place: What stands before a member's name in a refusal.
    """

    values: Mapping[str, object] = field(repr=False)
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What `config.json` says.

    Attributes:
        name: The chosen profile's name, None for the flat file.
        origin: What chose it.
        members: The profile itself.
        issuer: Its first issuer.
    """

    name: str | None
    origin: str
    members: Part
    issuer: Part


def is_profile_name(name: str) -> bool:
    """Whether a profile may have that name."""
    return bool(_PROFILE_NAME.fullmatch(name)) and name not in {".", ".."}


def parse_profile(environ: Mapping[str, str], *, config_text: str | None, asked_for: str | None) -> Profile:
    """Read the file's text and choose a profile: by argument, by variable, by `default_profile`.

    Args:
        environ: The process environment.
        config_text: The content of `config.json`, None when there is no such file.
        asked_for: The profile that an argument names.

    Raises:
        ConfigurationError: The file is malformed, or there is no such profile.
    """
    config = {} if config_text is None else as_object(decode_setting(config_text, CONFIG_FILE), CONFIG_FILE)
    wanted, origin = _wanted_profile(environ, asked_for)
    if "profiles" not in config:
        if wanted is not None:
            raise ConfigurationError(
                f"The profile {wanted!r} was asked for, but {CONFIG_FILE} has no profiles.",
                key="profiles",
                remedy=f"Add it to {CONFIG_FILE}, or name no profile.",
            )
        return _profile(config, place=f"{CONFIG_FILE}: ")
    profiles = as_object(config["profiles"], f"{CONFIG_FILE}: profiles")
    if wanted is None and config.get("default_profile") is not None:
        origin = f"{CONFIG_FILE}: default_profile"
        wanted = as_text(config["default_profile"], origin)
    known = ", ".join(sorted(filter(_PROFILE_NAME.fullmatch, profiles))) or "none"
    if wanted is None:
        raise ConfigurationError(
            f"{CONFIG_FILE} has profiles ({known}) and none was chosen.",
            key="default_profile",
            remedy=f"Give --profile, set {PROFILE_VARIABLE}, or set default_profile in {CONFIG_FILE}.",
        )
    if wanted not in profiles or not is_profile_name(wanted):
        raise ConfigurationError(f"{CONFIG_FILE} has no profile {wanted!r}; it has: {known}.", key="profiles")
    place = f"{CONFIG_FILE}: profiles.{wanted}"
    return _profile(as_object(profiles[wanted], place), place=f"{place}.", name=wanted, origin=origin)


def part_of(value: object, place: str, *, known: frozenset[str] | None = None) -> Part:
    """Return an object of the file as a part.

    Raises:
        ConfigurationError: It is something else, or has a member that is not known.
    """
    values = as_object(value, place, known=known)
    return Part(values={name: value for name, value in values.items() if value is not None}, place=f"{place}.")


def _wanted_profile(environ: Mapping[str, str], asked_for: str | None) -> tuple[str | None, str]:
    wanted, origin = (asked_for, PROFILE_ARGUMENT) if asked_for else (environ.get(PROFILE_VARIABLE), PROFILE_VARIABLE)
    if not wanted:
        return None, ""
    if not is_profile_name(wanted):
        raise ConfigurationError(f"The profile name {wanted!r} is not valid.", key="profile")
    return wanted, origin


def _profile(values: Mapping[str, object], *, place: str, name: str | None = None, origin: str = "") -> Profile:
    members = Part(values={name: value for name, value in values.items() if value is not None}, place=place)
    return Profile(name=name, origin=origin, members=members, issuer=_first_issuer(members))


def _first_issuer(members: Part) -> Part:
    place = f"{members.place}issuers"
    if "issuers" not in members.values:
        return Part(values={}, place=place)
    listed = as_list(members.values["issuers"], place)
    if not listed:
        raise ConfigurationError(f"{place} is empty.", key="issuers")
    return part_of(listed[0], f"{place}[0]")
